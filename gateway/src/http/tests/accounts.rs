//! Register, log in, refresh.

use super::fake_storage::Fault;
use super::{Answer, Harness, START_MS, cheap_hasher};
use crate::admission::attempts::AttemptLimits;
use crate::admission::rate::Rate;
use crate::http::fields::{LogIn, Registration};
use crate::http::passwords::PasswordPool;
use crate::worker::mailbox::ShardKey;
use serde_json::{Value, json};
use tokio::time::Instant;
use wire_protocol::error::RequestError;
use wire_protocol::ids::{DeviceId, UserId};
use wire_protocol::internal::shard_error::Kind as ShardErrorKind;
use wire_protocol::internal::shard_response::Result as ShardResult;
use wire_protocol::internal::{Outcome, Refused, ShardError, outcome};
use wire_protocol::limits::NAME_CLAIM_MS;
use wire_protocol::v1::ErrorCode;

const PASSWORD: &str = "correct horse battery";

fn registration() -> Value {
    json!({ "username": " Ada ", "display_name": "Ada Lovelace", "password": PASSWORD, "device_name": "laptop" })
}

fn log_in(username: &str, password: &str) -> Value {
    json!({ "username": username, "password": password, "device_name": "phone" })
}

fn assert_refused(answer: &Answer, status: u16, code: ErrorCode, detail: &str) {
    assert_eq!(answer.status, status, "{}", String::from_utf8_lossy(&answer.body));
    assert_eq!(answer.text("code"), code.as_str_name());
    assert!(answer.text("detail").starts_with(detail), "{} is not {detail}", answer.text("detail"));
    assert_eq!(answer.header("content-type"), "application/json");
}

#[tokio::test(start_paused = true)]
async fn a_registered_user_is_logged_in() {
    let mut harness = Harness::new();
    let answer = harness.post("/v1/register", &registration()).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!((answer.text("username"), answer.text("display_name")), ("ada".into(), "Ada Lovelace".into()));
    assert_eq!(harness.storage.call_names(), ["claim", "create", "confirm"]);

    let user = UserId::from_hex(&answer.text("user_id")).expect("ids are hexadecimal");
    let device = DeviceId::from_hex(&answer.text("device_id")).expect("ids are hexadecimal");
    let identity =
        harness.verifier.verify_access(&answer.text("access_token"), START_MS).expect("it is ours");
    assert_eq!((identity.user, identity.device), (user, device));
    assert_eq!(answer.json()["expires_in_s"], 900);
    assert_eq!(identity.expires_ms, START_MS + 900_000);

    let record = &harness.storage.users[&user];
    assert!(record.password_hash.starts_with("$argon2id$v=19$m=8,t=1,p=1$"), "{}", record.password_hash);
    assert_eq!((record.devices.len(), record.devices[0].name.as_str()), (1, "laptop"));
    assert_eq!((record.devices[0].refresh_hash.len(), record.devices[0].created_ms), (32, START_MS));
}

#[tokio::test(start_paused = true)]
async fn a_taken_name_stays_its_owners() {
    let mut harness = Harness::new();
    let first = harness.post("/v1/register", &registration()).await;
    let second = harness.post("/v1/register", &registration()).await;
    assert_refused(&second, 409, ErrorCode::ErrorAlreadyExists, "username: taken");
    assert_eq!(harness.storage.users.len(), 1);
    let log_in = harness.post("/v1/login", &log_in("ada", PASSWORD)).await;
    assert_eq!(log_in.text("user_id"), first.text("user_id"));
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_broke_off_frees_the_name() {
    let mut harness = Harness::new();
    let away = || ShardError { kind: ShardErrorKind::Unavailable.into(), ..ShardError::default() };
    // The claim is carried out; no attempt to create the user is.
    harness.post("/v1/login", &log_in("nobody", PASSWORD)).await;
    harness.storage.calls.clear();
    let token = harness.open(&request("/v1/register", &registration()));
    harness.turn_until(|harness| harness.storage.call_names() == ["claim"]).await;
    harness.storage.faults.extend((0..3).map(|_| Fault::Result(ShardResult::Error(away()))));
    let broken = harness.answer(token).await;
    assert_refused(&broken, 503, ErrorCode::ErrorUnavailable, "");
    assert_eq!(harness.storage.call_names(), ["claim", "create", "create", "create"]);

    let early = harness.post("/v1/register", &registration()).await;
    assert_refused(&early, 409, ErrorCode::ErrorAlreadyExists, "username: taken");
    harness.pass_ms(NAME_CLAIM_MS + 1);
    assert_eq!(harness.post("/v1/register", &registration()).await.status, 201);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_ran_out_midway_is_no_account() {
    let mut harness = Harness::new();
    let token = harness.open(&request("/v1/register", &registration()));
    harness.turn_until(|harness| harness.storage.call_names() == ["claim", "create"]).await;
    harness.pass_ms(NAME_CLAIM_MS + 1);
    let late = harness.answer(token).await;
    assert_refused(&late, 504, ErrorCode::ErrorTimedOut, "username: the claim ran out");
    let log_in = harness.post("/v1/login", &log_in("ada", PASSWORD)).await;
    assert_refused(&log_in, 401, ErrorCode::ErrorUnauthenticated, "");
    assert_eq!(harness.post("/v1/register", &registration()).await.status, 201);
}

fn request(path: &str, body: &Value) -> String {
    let body = body.to_string();
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test(start_paused = true)]
async fn bad_input_names_its_field_and_reaches_no_storage() {
    let mut harness = Harness::new();
    let long = |length: usize| json!("x".repeat(length));
    let cases = [
        ("username", json!(null)),
        ("username", json!("ab")),
        ("username", json!("with space")),
        ("username", json!("adá")),
        ("username", long(51)),
        ("display_name", json!("")),
        ("display_name", json!("  ")),
        ("display_name", json!("two\nlines")),
        ("display_name", json!("a\u{7}b")),
        ("display_name", long(101)),
        ("display_name", json!(["Ada"])),
        ("password", json!("seven77")),
        ("password", long(129)),
        ("password", json!(12345678)),
        ("device_name", json!("")),
        ("device_name", long(65)),
        ("device_name", json!("tab\there")),
    ];
    for (field, value) in cases {
        let mut body = registration();
        body[field] = value;
        let answer = harness.post("/v1/register", &body).await;
        assert_refused(&answer, 400, ErrorCode::ErrorInvalidArgument, &format!("{field}: "));
        body.as_object_mut().expect("it is an object").remove(field);
        let answer = harness.post("/v1/register", &body).await;
        assert_refused(&answer, 400, ErrorCode::ErrorInvalidArgument, &format!("{field}: missing"));
    }
    for (path, field) in [("/v1/login", "username"), ("/v1/login", "password"), ("/v1/login", "device_name")]
    {
        let mut body = log_in("ada", PASSWORD);
        body.as_object_mut().expect("it is an object").remove(field);
        let answer = harness.post(path, &body).await;
        assert_refused(&answer, 400, ErrorCode::ErrorInvalidArgument, &format!("{field}: missing"));
    }
    for body in ["", "{", "[]", "\"text\"", "{\"username\": \"ada\"} more", "\u{0}"] {
        let answer =
            harness.request("POST", "/v1/register", "Content-Type: application/json\r\n", body).await;
        assert_refused(&answer, 400, ErrorCode::ErrorInvalidArgument, "body: a JSON object");
        assert!(!String::from_utf8_lossy(&answer.body).contains("ada"), "what was sent is not repeated");
    }
    assert_eq!(harness.storage.calls, []);
    // At the edge everything is taken.
    let mut body = registration();
    body["password"] = json!("é".repeat(128));
    body["display_name"] = json!("é".repeat(100));
    assert_eq!(harness.post("/v1/register", &body).await.status, 201);
    body["username"] = json!("abc");
    body["password"] = json!("eight888");
    body["display_name"] = json!("é");
    assert_eq!(harness.post("/v1/register", &body).await.status, 201);
}

#[tokio::test(start_paused = true)]
async fn log_in_adds_a_device() {
    let mut harness = Harness::new();
    let registered = harness.post("/v1/register", &registration()).await;
    let logged_in = harness.post("/v1/login", &log_in("ADA", PASSWORD)).await;
    assert_eq!(logged_in.status, 200);
    for field in ["user_id", "username", "display_name"] {
        assert_eq!(logged_in.text(field), registered.text(field));
    }
    assert_ne!(logged_in.text("device_id"), registered.text("device_id"));
    let user = UserId::from_hex(&logged_in.text("user_id")).expect("ids are hexadecimal");
    let names: Vec<_> = harness.storage.users[&user].devices.iter().map(|device| &device.name[..]).collect();
    assert_eq!(names, ["laptop", "phone"]);
    let identity =
        harness.verifier.verify_access(&logged_in.text("access_token"), START_MS).expect("it is ours");
    assert_eq!(identity.device.to_string(), logged_in.text("device_id"));
}

#[tokio::test(start_paused = true)]
async fn a_wrong_password_and_an_unknown_name_look_alike() {
    let mut harness = Harness::new();
    harness.post("/v1/register", &registration()).await;
    let mut answers = Vec::new();
    for (name, password) in
        [("ada", "wrong password"), ("bob", PASSWORD), ("ada", ""), ("not a name", PASSWORD)]
    {
        harness.storage.calls.clear();
        let answer = harness.post("/v1/login", &log_in(name, password)).await;
        assert_refused(&answer, 401, ErrorCode::ErrorUnauthenticated, "username or password is wrong");
        if name != "not a name" {
            assert_eq!(harness.storage.call_names(), ["read_name", "read_user"], "the same reads for {name}");
        }
        answers.push(answer.body);
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(harness.storage.users.values().map(|user| user.devices.len()).sum::<usize>(), 1);
}

#[tokio::test(start_paused = true)]
async fn refresh_rotates_and_may_be_repeated_until_the_new_one_is_used() {
    let mut harness = Harness::new();
    let registered = harness.post("/v1/register", &registration()).await;
    let first = json!({ "refresh_token": registered.text("refresh_token") });
    let answer = harness.post("/v1/refresh", &first).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("cache-control"), "no-store");
    let second = json!({ "refresh_token": answer.text("refresh_token") });
    assert_ne!(second, first);
    let identity =
        harness.verifier.verify_access(&answer.text("access_token"), START_MS).expect("it is ours");
    assert_eq!(identity.device.to_string(), registered.text("device_id"));

    // The answer may have been lost: the repeat gets it again.
    let repeated = harness.post("/v1/refresh", &first).await;
    assert_eq!((repeated.status, repeated.text("refresh_token")), (200, answer.text("refresh_token")));
    let third = harness.post("/v1/refresh", &second).await;
    assert_eq!(third.status, 200);
    assert_ne!(third.text("refresh_token"), answer.text("refresh_token"));
    let used = harness.post("/v1/refresh", &first).await;
    assert_refused(&used, 401, ErrorCode::ErrorUnauthenticated, "refresh_token: ");

    harness.storage.users.clear();
    let removed = harness.post("/v1/refresh", &second).await;
    assert_refused(&removed, 401, ErrorCode::ErrorUnauthenticated, "refresh_token: ");
    // A shard may say it in either way; a stranger hears the same.
    let unknown = Refused { code: ErrorCode::ErrorNotFound as u32, detail: "no such user".into() };
    let unknown = Outcome { kind: Some(outcome::Kind::Refused(unknown)) };
    harness.storage.faults.push_back(Fault::Result(ShardResult::Outcome(unknown)));
    let stranger = harness.post("/v1/refresh", &second).await;
    assert_refused(&stranger, 401, ErrorCode::ErrorUnauthenticated, "refresh_token: ");
    assert_eq!(stranger.body, removed.body);
    let calls = harness.storage.calls.len();
    let garbage = harness.post("/v1/refresh", &json!({ "refresh_token": "garbage" })).await;
    assert_refused(&garbage, 401, ErrorCode::ErrorUnauthenticated, "token: malformed");
    let missing = harness.post("/v1/refresh", &json!({})).await;
    assert_refused(&missing, 400, ErrorCode::ErrorInvalidArgument, "refresh_token: missing");
    assert_eq!(harness.storage.calls.len(), calls);
}

#[tokio::test(start_paused = true)]
async fn what_storage_lacks_is_tried_again_and_then_told() {
    let mut harness = Harness::new();
    let overloaded = || RequestError::new(ErrorCode::ErrorOverloaded, "busy").after_ms(700);
    harness.storage.faults.extend([Fault::Error(overloaded()), Fault::Dropped]);
    assert_eq!(harness.post("/v1/register", &registration()).await.status, 201);
    assert_eq!(harness.storage.call_names(), ["claim", "claim", "claim", "create", "confirm"]);

    harness.storage.faults.extend((0..3).map(|_| Fault::Error(overloaded())));
    let answer = harness.post("/v1/login", &log_in("ada", PASSWORD)).await;
    assert_refused(&answer, 503, ErrorCode::ErrorOverloaded, "busy");
    assert_eq!(answer.json()["retry_after_ms"], 700);
    assert_eq!(answer.header("retry-after"), "1");

    harness.storage.calls.clear();
    let refused = Refused { code: ErrorCode::ErrorThrottled as u32, detail: "devices: too many".into() };
    let refused = outcome::Kind::Refused(refused);
    let wrong_kind = ShardResult::Attached(Default::default());
    let internal = ShardError { kind: ShardErrorKind::Internal.into(), ..ShardError::default() };
    let cases = [
        (ShardResult::Outcome(Outcome { kind: Some(refused) }), 429, ErrorCode::ErrorThrottled),
        (ShardResult::Outcome(Outcome { kind: None }), 500, ErrorCode::ErrorInternal),
        (wrong_kind, 500, ErrorCode::ErrorInternal),
        (ShardResult::Error(internal), 500, ErrorCode::ErrorInternal),
    ];
    for (result, status, code) in cases {
        harness.storage.calls.clear();
        harness.storage.faults.push_back(Fault::Result(result));
        let answer = harness.post("/v1/register", &registration()).await;
        assert_refused(&answer, status, code, "");
        assert_eq!(harness.storage.call_names(), ["claim"], "waiting would not help");
    }
    assert!(matches!(&harness.storage.calls[0].1, ShardKey::Name(name) if name == "ada"));
}

#[tokio::test(start_paused = true)]
async fn storage_is_given_time_between_two_tries_but_not_as_much_as_it_likes() {
    let mut harness = Harness::new();
    let busy = |kind: ShardErrorKind, retry_after_ms| {
        Fault::Result(ShardResult::Error(ShardError {
            kind: kind.into(),
            retry_after_ms,
            ..Default::default()
        }))
    };
    for (named_ms, waited_ms) in [(0, 100 + 200), (700, 2 * 700), (60_000, 2 * 1_000)] {
        harness.storage.faults.extend((0..3).map(|_| busy(ShardErrorKind::Overloaded, named_ms)));
        let start = Instant::now();
        let answer = harness.post("/v1/login", &log_in("ada", PASSWORD)).await;
        assert_refused(&answer, 503, ErrorCode::ErrorOverloaded, "");
        assert_eq!(answer.json()["retry_after_ms"], named_ms);
        let elapsed_ms = start.elapsed().as_millis() as u64;
        assert!((waited_ms..waited_ms + 100).contains(&elapsed_ms), "{elapsed_ms} ms for {named_ms}");
    }
    for kind in [ShardErrorKind::NotHere, ShardErrorKind::Unavailable] {
        harness.storage.faults.push_back(busy(kind, 0));
        let answer = harness.post("/v1/login", &log_in("ada", PASSWORD)).await;
        assert_refused(&answer, 401, ErrorCode::ErrorUnauthenticated, "");
    }
}

#[test]
fn a_place_is_taken_until_its_hash_is_computed_even_if_nobody_waits() {
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build();
    runtime.expect("a runtime").block_on(async {
        let password = || {
            let object = registration().as_object().expect("it is an object").clone();
            Registration::read(object).expect("it is good").password
        };
        for verifies in [false, true] {
            // The one thread that hashes is busy.
            let (release, held) = std::sync::mpsc::channel::<()>();
            let busy = tokio::task::spawn_blocking(move || held.recv());
            let pool = PasswordPool::with_places(cheap_hasher(), 1);
            let place = pool.admit().expect("the only place");
            let job = tokio::spawn(async move {
                if verifies {
                    place.verify(password(), None).await.map(drop)
                } else {
                    place.hash(password()).await.map(drop)
                }
            });
            tokio::task::yield_now().await;
            job.abort();
            assert!(job.await.is_err(), "nobody waits any more");
            assert!(pool.admit().is_err(), "its hash is still to be computed");
            drop(release);
            assert!(busy.await.expect("it does not panic").is_err());
            tokio::task::spawn_blocking(|| ()).await.expect("the hash stood before it");
            assert!(pool.admit().is_ok());
        }
    });
}

#[tokio::test(start_paused = true)]
async fn without_a_place_for_a_hash_nothing_is_begun() {
    let mut harness = Harness::with_password_places(0);
    for (path, body) in [("/v1/register", registration()), ("/v1/login", log_in("ada", PASSWORD))] {
        let answer = harness.post(path, &body).await;
        assert_refused(&answer, 503, ErrorCode::ErrorOverloaded, "too many log ins");
        assert_eq!((&answer.json()["retry_after_ms"], answer.header("retry-after")), (&json!(1_000), "1"));
    }
    assert_eq!(harness.storage.calls, []);
    let mut harness = Harness::with_password_places(1);
    for _ in 0..3 {
        harness.post("/v1/login", &log_in("ada", PASSWORD)).await;
        assert_eq!(
            harness.storage.call_names(),
            ["read_name", "read_user"],
            "a place is free again after its hash"
        );
        harness.storage.calls.clear();
    }
}

#[test]
fn passwords_are_not_printed() {
    let object = |value: Value| value.as_object().expect("it is an object").clone();
    let registration = Registration::read(object(registration())).expect("it is good");
    let log_in = LogIn::read(object(log_in("ada", PASSWORD))).expect("it is good");
    let printed = format!("{registration:?} {log_in:#?}");
    assert!(printed.contains("ada") && !printed.contains("horse"), "{printed}");
}

fn few_attempts() -> AttemptLimits {
    AttemptLimits {
        registrations_per_address: Some(Rate::per_minute(6, 1)),
        log_ins_per_address: Some(Rate::per_minute(60, 6)),
        failed_log_ins_per_account: Some(Rate::per_minute(4, 3)),
        refreshes_per_address: Some(Rate::per_second(1, 2)),
    }
}

fn assert_throttled(answer: &Answer, detail: &str, retry_after_ms: u64) {
    assert_refused(answer, 429, ErrorCode::ErrorThrottled, detail);
    assert_eq!(answer.json()["retry_after_ms"], retry_after_ms);
    assert_eq!(answer.header("retry-after"), retry_after_ms.div_ceil(1_000).to_string());
}

#[tokio::test(start_paused = true)]
async fn guessing_at_an_account_is_slowed_wherever_it_comes_from() {
    let mut harness = Harness::with_attempts(few_attempts());
    assert_eq!(harness.post("/v1/register", &registration()).await.status, 201);
    for _ in 0..5 {
        assert_eq!(harness.post("/v1/login", &log_in("ada", PASSWORD)).await.status, 200, "a success");
    }
    for last in 1..=3 {
        harness.address = [192, 0, 2, last];
        let answer = harness.post("/v1/login", &log_in(" ADA", "wrong horse battery")).await;
        assert_refused(&answer, 401, ErrorCode::ErrorUnauthenticated, "username or password");
    }
    harness.address = [192, 0, 2, 4];
    let before = harness.storage.calls.len();
    let answer = harness.post("/v1/login", &log_in("ada", PASSWORD)).await;
    assert_throttled(&answer, "username: failed log ins: 4 per minute", 15_000);
    assert_eq!(harness.storage.calls.len(), before, "nothing was begun");
    // A name that nobody has is slowed alike: it tells nothing.
    for _ in 0..3 {
        harness.post("/v1/login", &log_in("nobody", PASSWORD)).await;
    }
    let answer = harness.post("/v1/login", &log_in("nobody", PASSWORD)).await;
    assert_throttled(&answer, "username: failed log ins: 4 per minute", 15_000);
    harness.pass_ms(15_000);
    assert_eq!(harness.post("/v1/login", &log_in("ada", PASSWORD)).await.status, 200, "its owner");
}

#[tokio::test(start_paused = true)]
async fn an_address_registers_logs_in_and_refreshes_at_a_rate() {
    let mut harness = Harness::with_attempts(few_attempts());
    let first = harness.post("/v1/register", &registration()).await;
    let second =
        json!({ "username": "bob", "display_name": "Bob", "password": PASSWORD, "device_name": "x" });
    assert_throttled(
        &harness.post("/v1/register", &second).await,
        "address: registrations: 6 per minute",
        10_000,
    );
    assert_eq!(harness.storage.users.len(), 1);
    for number in 0..6 {
        harness.post("/v1/login", &log_in(&format!("guess{number}"), PASSWORD)).await;
    }
    let answer = harness.post("/v1/login", &log_in("ada", PASSWORD)).await;
    assert_throttled(&answer, "address: log ins: 60 per minute", 1_000);
    let refresh = json!({ "refresh_token": first.text("refresh_token") });
    for _ in 0..2 {
        assert_eq!(harness.post("/v1/refresh", &refresh).await.status, 200);
    }
    assert_throttled(&harness.post("/v1/refresh", &refresh).await, "address: refreshes: 1 per second", 1_000);
    harness.address = [192, 0, 2, 1];
    assert_eq!(harness.post("/v1/refresh", &refresh).await.status, 200);
    assert_eq!(harness.post("/v1/login", &log_in("ada", PASSWORD)).await.status, 200);
    assert_eq!(harness.post("/v1/register", &second).await.status, 201);
    let text = harness.attempts.render();
    for line in [
        "{what=\"register\",by=\"address\"} 1",
        "{what=\"log_in\",by=\"address\"} 1",
        "{what=\"log_in\",by=\"account\"} 0",
        "{what=\"refresh\",by=\"address\"} 1",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_in_that_could_not_be_tried_is_no_guess() {
    let mut harness = Harness::with_attempts(few_attempts());
    assert_eq!(harness.post("/v1/register", &registration()).await.status, 201);
    harness.storage.silent = true;
    for _ in 0..4 {
        assert_eq!(harness.post("/v1/login", &log_in("ada", PASSWORD)).await.status, 504);
    }
    harness.storage.silent = false;
    harness.pass_ms(10_000);
    assert_eq!(harness.post("/v1/login", &log_in("ada", PASSWORD)).await.status, 200);
}

fn for_browser(mut body: Value) -> Value {
    body["refresh_cookie"] = json!(true);
    body
}

/// The cookie that an answer sets: its name and value, and what is said about it.
fn cookie_of(answer: &Answer) -> (String, String) {
    let (cookie, about) = answer.header("set-cookie").split_once("; ").expect("a cookie");
    (cookie.to_owned(), about.to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_browser_keeps_its_refresh_token_where_no_script_reads_it() {
    let mut harness = Harness::new();
    const ABOUT: &str = "Path=/v1/refresh; Max-Age=34560000; HttpOnly; SameSite=Strict";
    let registered = harness.post("/v1/register", &for_browser(registration())).await;
    let logged_in = harness.post("/v1/login", &for_browser(log_in("ada", PASSWORD))).await;
    let user = registered.text("user_id");
    for answer in [&registered, &logged_in] {
        assert!(answer.status < 300 && answer.json().get("refresh_token").is_none());
        let (cookie, about) = cookie_of(answer);
        assert!(cookie.starts_with(&format!("ringline-refresh-{user}=")), "{cookie}");
        assert_eq!(about, format!("{ABOUT}; Secure"));
    }
    let body = json!({ "user_id": user }).to_string();
    let headers = |cookie: &str| format!("Content-Type: application/json\r\nCookie: other=1; {cookie}\r\n");
    let (cookie, _) = cookie_of(&registered);
    let refreshed = harness.request("POST", "/v1/refresh", &headers(&cookie), &body).await;
    assert_eq!(refreshed.status, 200);
    assert!(refreshed.json().get("refresh_token").is_none() && !refreshed.text("access_token").is_empty());
    let (next, about) = cookie_of(&refreshed);
    assert!(next != cookie && about.starts_with(ABOUT), "{next} {about}");
    // Without the cookie, with another account's, or a broken one: logged out.
    let other = cookie.replace(&user, &"ab".repeat(16));
    for cookie in ["", &other, &cookie[..cookie.len() - 4]] {
        let answer = harness.request("POST", "/v1/refresh", &headers(cookie), &body).await;
        assert_eq!((answer.status, answer.header("set-cookie")), (401, ""), "{cookie}");
    }
    harness.secure = false;
    let forgotten = harness.request("DELETE", "/v1/refresh", &headers(&next), &body).await;
    assert_eq!(forgotten.status, 200);
    let (empty, about) = cookie_of(&forgotten);
    assert_eq!(empty, format!("ringline-refresh-{user}="));
    assert_eq!(about, "Path=/v1/refresh; Max-Age=0; HttpOnly; SameSite=Strict", "loopback has no TLS");
    let wrong = harness.post("/v1/refresh", &json!({ "user_id": "ada" })).await;
    assert_refused(&wrong, 400, ErrorCode::ErrorInvalidArgument, "user_id: ");
    let mut wrong = registration();
    wrong["refresh_cookie"] = json!("yes");
    let wrong = harness.post("/v1/register", &wrong).await;
    assert_refused(&wrong, 400, ErrorCode::ErrorInvalidArgument, "refresh_cookie: ");
}

#[tokio::test(start_paused = true)]
async fn another_sites_page_does_nothing_to_accounts() {
    let mut harness = Harness::new();
    let body = registration().to_string();
    let headers = |origin: &str| format!("Content-Type: application/json\r\nOrigin: {origin}\r\n");
    for origin in
        ["https://evil.example", "null", "https://test.evil.example", "http://test", "https://test:444"]
    {
        for (method, path) in [
            ("POST", "/v1/register"),
            ("POST", "/v1/login"),
            ("POST", "/v1/refresh"),
            ("DELETE", "/v1/refresh"),
        ] {
            let answer = harness.request(method, path, &headers(origin), &body).await;
            assert_refused(&answer, 403, ErrorCode::ErrorInvalidArgument, "Origin: ");
        }
    }
    assert_eq!(harness.storage.call_names(), [] as [&str; 0]);
    let answer = harness.request("POST", "/v1/register", &headers("https://test"), &body).await;
    assert_eq!(answer.status, 201);
}
