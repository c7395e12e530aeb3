use super::access::AccessSigner;
use super::keys::{SIGNING_KEY_FILE, SigningKey, VerifyingKey};
use super::resume::VersionedKey;
use super::*;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use proptest::prelude::*;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use wire_protocol::error::{Actor, meaning};
use wire_protocol::limits::TOKEN_BYTES_MAX;

const NOW_MS: u64 = 1_800_000_000_000;
const TTL_S: u64 = 900;
const USER: UserId = UserId([0xaa; 16]);
const DEVICE: DeviceId = DeviceId([0xbb; 16]);
const PURPOSE: &[u8] = ROTATION_PURPOSE;

/// A folder of its own for a test; gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("ringline-auth-{}-{test}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("the temporary folder is writable");
        Folder(folder)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("the temporary folder is writable");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn new_key() -> SigningKey {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("there is randomness");
    SigningKey::from_pkcs8(document.as_ref()).expect("it was just made")
}

fn resume_keys() -> ResumeKeys {
    ResumeKeys::new(VersionedKey::new(1, &[5; 32]), vec![])
}

fn issuer(key: SigningKey) -> Issuer {
    let inner =
        IssuerInner { signer: AccessSigner::new(key, TTL_S), rotation: resume_keys().derived_key(PURPOSE) };
    Issuer { inner: Arc::new(inner) }
}

fn verifier(keys: &[VerifyingKey]) -> Verifier {
    let access = AccessVerifier::new(keys, None);
    Verifier {
        inner: Arc::new(VerifierInner {
            access,
            resume: resume_keys(),
            admits_benchmarks: false,
            resume_ttl_ms: 60_000,
        }),
    }
}

/// A token with any header and claims, signed by `key` whatever the header says.
fn forged(key: &SigningKey, header: serde_json::Value, claims: serde_json::Value) -> String {
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key.encoding_key(), Algorithm::EdDSA);
    format!("{message}.{}", signature.expect("the key signs"))
}

fn claims() -> serde_json::Value {
    json!({ "sub": USER.to_string(), "dev": DEVICE.to_string(), "iat": NOW_MS / 1_000, "exp": NOW_MS / 1_000 + TTL_S })
}

fn claims_with(name: &str, value: serde_json::Value) -> serde_json::Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

#[test]
fn a_token_speaks_for_its_device_until_it_ends() {
    let key = new_key();
    let verifier = verifier(&[key.verifying_key()]);
    let token = issuer(key).issue_access(USER, DEVICE, NOW_MS).expect("the key signs");
    assert_eq!(token.expires_in_s, TTL_S);
    let expires_ms = NOW_MS + TTL_S * 1_000;
    let identity = Identity { user: USER, device: DEVICE, expires_ms };
    assert_eq!(verifier.verify_access(&token.text, NOW_MS), Ok(identity));
    assert_eq!(verifier.verify_access(&token.text, expires_ms - 1), Ok(identity));
    assert_eq!(verifier.check_access(&token.text, expires_ms), Err(TokenRefused::Expired));
    let error = verifier.verify_access(&token.text, expires_ms).expect_err("it ended");
    assert_eq!(error.code, ErrorCode::ErrorTokenExpired);
}

#[test]
fn each_bad_access_token_is_refused_with_its_reason() {
    use TokenRefused::*;
    let key = new_key();
    let verifier = verifier(&[key.verifying_key()]);
    let kid = key.kid().to_owned();
    let header = || json!({ "alg": "EdDSA", "typ": "JWT", "kid": kid });
    let good = forged(&key, header(), claims());
    assert!(verifier.check_access(&good, NOW_MS).is_ok(), "what the cases below change is good");
    let (message, signature) = good.rsplit_once('.').expect("three parts");
    let (head, body) = message.split_once('.').expect("two parts");

    let stranger = new_key();
    let unsigned = forged(&key, json!({ "alg": "none", "kid": kid }), claims());
    let unsigned = unsigned.rsplit_once('.').expect("three parts").0;
    // The public key taken for a shared secret: whoever can read it could sign.
    let mut confused = Header::new(Algorithm::HS256);
    confused.kid = Some(kid.clone());
    let public = key.verifying_key().decoding_key().try_get_as_bytes().expect("it is bytes").to_vec();
    let confused = jsonwebtoken::encode(&confused, &claims(), &EncodingKey::from_secret(&public));
    let other_body =
        URL_SAFE_NO_PAD.encode(claims_with("sub", json!(UserId([1; 16]).to_string())).to_string());
    let cases = [
        (String::new(), Malformed),
        ("a.b.c".into(), Malformed),
        (head.into(), Malformed),
        (message.into(), Malformed),
        (format!("{good}.more"), Malformed),
        (good[..good.len() - 2].into(), SignatureWrong),
        (format!("{head}.{other_body}.{signature}"), SignatureWrong),
        (format!("{head}.{body}."), SignatureWrong),
        (format!("{unsigned}."), AlgorithmRefused),
        (unsigned.into(), AlgorithmRefused),
        (confused.expect("any bytes are a secret"), AlgorithmRefused),
        (forged(&key, json!({ "alg": "ES256", "kid": kid }), claims()), AlgorithmRefused),
        (forged(&key, json!({ "alg": "eddsa", "kid": kid }), claims()), AlgorithmRefused),
        (forged(&key, json!({ "alg": "EdDSA" }), claims()), KeyUnknown),
        (forged(&stranger, json!({ "alg": "EdDSA", "kid": stranger.kid() }), claims()), KeyUnknown),
        (forged(&stranger, header(), claims()), SignatureWrong),
        (forged(&key, header(), claims_with("sub", json!("ada"))), ClaimInvalid("sub")),
        (forged(&key, header(), claims_with("dev", json!(""))), ClaimInvalid("dev")),
        (forged(&key, header(), claims_with("exp", json!("tomorrow"))), Malformed),
        (forged(&key, header(), claims_with("exp", json!(null))), Malformed),
        (forged(&key, header(), claims_with("exp", json!(NOW_MS / 1_000))), Expired),
        (forged(&key, header(), claims_with("exp", json!(0))), Expired),
        (format!("{good}{}", "A".repeat(TOKEN_BYTES_MAX)), TooLong),
    ];
    for length in 0..good.len() {
        let cut_off = verifier.check_access(&good[..length], NOW_MS);
        assert!(matches!(cut_off, Err(Malformed | SignatureWrong)), "{length} bytes: {cut_off:?}");
    }
    for (token, refused) in cases {
        assert_eq!(verifier.check_access(&token, NOW_MS), Err(refused), "{token}");
        let error = verifier.verify_access(&token, NOW_MS).expect_err("it is refused");
        assert_eq!(meaning(error.code).actor, Actor::PeerProof);
        assert!(token.len() < 20 || !error.to_string().contains(&token), "errors do not repeat tokens");
    }
}

#[test]
fn a_rotated_key_is_accepted_until_it_is_taken_out() {
    let (old, new) = (new_key(), new_key());
    let (old_public, new_public) = (old.verifying_key(), new.verifying_key());
    let old_token = issuer(old).issue_access(USER, DEVICE, NOW_MS).expect("the key signs").text;
    let new_token = issuer(new).issue_access(USER, DEVICE, NOW_MS).expect("the key signs").text;
    let both = verifier(&[new_public.clone(), old_public]);
    assert!(both.check_access(&old_token, NOW_MS).is_ok());
    assert!(both.check_access(&new_token, NOW_MS).is_ok());
    let later = verifier(&[new_public]);
    assert_eq!(later.check_access(&old_token, NOW_MS), Err(TokenRefused::KeyUnknown));
}

#[test]
fn a_resume_token_speaks_for_its_device_until_it_ends() {
    let verifier = verifier(&[]);
    let identity = Identity { user: USER, device: DEVICE, expires_ms: NOW_MS + 5 };
    let token = verifier.issue_resume(identity, NOW_MS);
    assert_eq!(token.len(), RESUME_TOKEN_BYTES);
    let renewed = Identity { expires_ms: NOW_MS + 60_000, ..identity };
    assert_eq!(verifier.verify_resume(&token, NOW_MS + 59_999), Ok(renewed));
    assert_eq!(verifier.check_resume(&token, NOW_MS + 60_000), Err(TokenRefused::Expired));
    let error = verifier.verify_resume(&token, NOW_MS + 60_000).expect_err("it ended");
    assert_eq!(error.code, ErrorCode::ErrorTokenExpired);
}

#[test]
fn each_bad_resume_token_is_refused_with_its_reason() {
    let verifier = verifier(&[]);
    let identity = Identity { user: USER, device: DEVICE, expires_ms: 0 };
    let token = verifier.issue_resume(identity, NOW_MS);
    for bit in 0..8 * RESUME_TOKEN_BYTES {
        let mut flipped = token.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let refused = if bit < 8 { TokenRefused::KeyUnknown } else { TokenRefused::SignatureWrong };
        assert_eq!(verifier.check_resume(&flipped, NOW_MS), Err(refused), "bit {bit}");
    }
    for length in 0..RESUME_TOKEN_BYTES {
        assert_eq!(verifier.check_resume(&token[..length], NOW_MS), Err(TokenRefused::Malformed));
    }
    assert_eq!(verifier.check_resume(&[&token[..], &[0]].concat(), NOW_MS), Err(TokenRefused::Malformed));

    let foreign = ResumeKeys::new(VersionedKey::new(1, &[6; 32]), vec![]);
    let expires_ms = NOW_MS + 1_000;
    let foreign = foreign.issue(Identity { expires_ms, ..identity });
    assert_eq!(verifier.check_resume(&foreign, NOW_MS), Err(TokenRefused::SignatureWrong));
}

#[test]
fn resume_keys_rotate_by_version() {
    let identity = Identity { user: USER, device: DEVICE, expires_ms: NOW_MS + 1 };
    let old = ResumeKeys::new(VersionedKey::new(1, &[1; 32]), vec![]);
    let both = ResumeKeys::new(VersionedKey::new(2, &[2; 32]), vec![VersionedKey::new(1, &[1; 32])]);
    let new = ResumeKeys::new(VersionedKey::new(2, &[2; 32]), vec![]);
    assert_eq!(both.check(&old.issue(identity), NOW_MS), Ok(identity));
    assert_eq!(new.check(&both.issue(identity), NOW_MS), Ok(identity));
    assert_eq!(new.check(&old.issue(identity), NOW_MS), Err(TokenRefused::KeyUnknown));
}

#[test]
fn refresh_tokens_rotate_and_a_repeat_gives_the_same() {
    let issuer = issuer(new_key());
    let first = RefreshToken::new(USER, DEVICE, [7; REFRESH_SECRET_BYTES]);
    let second = issuer.next_refresh(&first);
    assert_eq!((second.user, second.device), (USER, DEVICE));
    assert_ne!(second, first);
    assert_ne!(second.hash(), first.hash());
    assert_eq!(issuer.next_refresh(&first), second);
    assert_ne!(issuer.next_refresh(&second), second);
    // Without the fleet's key the next one cannot be computed.
    let stranger = ResumeKeys::new(VersionedKey::new(1, &[6; 32]), vec![]).derived_key(PURPOSE);
    assert_ne!(first.next(&stranger), second);

    assert_eq!(RefreshToken::parse(&first.to_text()), Ok(first.clone()));
    let text = first.to_text();
    for bad in [
        "",
        "AAAA",
        &text[..text.len() - 1],
        &format!("{text}A"),
        &format!("{text}AAAA"),
        &text.replace('u', "+"),
    ] {
        assert_eq!(RefreshToken::parse(bad), Err(TokenRefused::Malformed), "{bad}");
    }
}

#[test]
fn nothing_prints_a_secret() {
    let issuer = issuer(new_key());
    let access = issuer.issue_access(USER, DEVICE, NOW_MS).expect("the key signs");
    let refresh = RefreshToken::new(USER, DEVICE, [0x6b; REFRESH_SECRET_BYTES]);
    let printed = format!("{access:?} {refresh:?} {refresh:#?}");
    assert!(
        !printed.contains(&access.text) && !printed.contains(access.text.rsplit_once('.').expect("a JWT").1)
    );
    assert!(!printed.contains(&refresh.to_text()));
    assert!(!printed.contains("107") && !printed.contains("6b6b"), "{printed}");
}

#[test]
fn keys_are_made_once_and_only_for_their_owner() {
    let folder = Folder::new("made");
    let data = folder.0.join("deeper/data");
    let config = AuthConfig::default();
    let (issuer, verifier) = open(&config, &data).expect("both keys are made");
    let token = issuer.issue_access(USER, DEVICE, NOW_MS).expect("the key signs").text;
    let resume = verifier.issue_resume(Identity { user: USER, device: DEVICE, expires_ms: 0 }, NOW_MS);

    let mut names = Vec::new();
    for entry in std::fs::read_dir(&data).expect("it was made") {
        let entry = entry.expect("it is there");
        assert_eq!(entry.metadata().expect("it is there").permissions().mode() & 0o777, 0o600);
        names.push(entry.file_name().into_string().expect("it is ours"));
    }
    names.sort();
    assert_eq!(names, [keys::RESUME_KEY_FILE, keys::SIGNING_KEY_FILE], "nothing temporary stays");

    let (again, verifier) = open(&config, &data).expect("both keys are there");
    assert!(verifier.check_access(&token, NOW_MS).is_ok());
    assert!(verifier.check_resume(&resume, NOW_MS).is_ok());
    let used = RefreshToken::new(USER, DEVICE, [1; REFRESH_SECRET_BYTES]);
    assert_eq!(again.next_refresh(&used), issuer.next_refresh(&used));
}

#[test]
fn two_that_start_at_once_end_up_with_one_key() {
    let folder = Folder::new("race");
    let data = folder.0.clone();
    let opened = || open(&AuthConfig::default(), &data).expect("one of the two makes the keys");
    let verifiers: Vec<(String, Verifier)> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8).map(|_| scope.spawn(opened)).collect();
        let opened = starts.into_iter().map(|start| start.join().expect("it does not panic"));
        opened
            .map(|(issuer, verifier)| {
                (issuer.issue_access(USER, DEVICE, NOW_MS).expect("signs").text, verifier)
            })
            .collect()
    });
    for (token, _) in &verifiers {
        assert!(verifiers.iter().all(|(_, verifier)| verifier.check_access(token, NOW_MS).is_ok()));
    }
}

fn pem(half: &str, base64: &str) -> String {
    format!("-----BEGIN {half} KEY-----\n{base64}\n-----END {half} KEY-----\n")
}

#[test]
fn configured_keys_are_read_and_bad_ones_refused_by_name() {
    // RFC 8410, section 10.3 and 10.1: a private key and its public half, as `openssl genpkey` writes them.
    let private = pem("PRIVATE", "MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC");
    let public = pem("PUBLIC", "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=");
    let folder = Folder::new("configured");
    let private = folder.write("private.pem", &private);
    let public = folder.write("public.pem", &public);
    let resume =
        folder.write("resume", &format!("# second\n 2:{}\n\n1:{}\n", "0A".repeat(32), "ff".repeat(32)));
    let config =
        AuthConfig { signing_key: Some(private.clone()), resume_key: Some(resume), ..AuthConfig::default() };
    let (issuer, verifier) = open(&config, &folder.0).expect("the keys are good");
    assert!(
        !folder.0.join(keys::SIGNING_KEY_FILE).exists() && !folder.0.join(keys::RESUME_KEY_FILE).exists()
    );
    let token = issuer.issue_access(USER, DEVICE, NOW_MS).expect("the key signs").text;
    assert!(verifier.check_access(&token, NOW_MS).is_ok());
    assert_eq!(verifier.issue_resume(Identity { user: USER, device: DEVICE, expires_ms: 0 }, 0)[0], 2);

    for retired in [public.clone(), private.clone()] {
        let config = AuthConfig { verifying_keys: vec![retired], ..AuthConfig::default() };
        let (_, other) = open(&config, &folder.0.join("other")).expect("the keys are good");
        assert!(other.check_access(&token, NOW_MS).is_ok(), "a retired key's tokens are good until they end");
    }

    let bad =
        |config: AuthConfig| open(&config, &folder.0.join("other")).err().expect("it is refused").to_string();
    let garbage = folder.write("garbage", "garbage");
    let missing = folder.0.join("missing");
    let rsa_public = folder.write("rsa", &pem("PUBLIC", "MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAMv7"));
    for path in [garbage.clone(), public, missing.clone()] {
        let error = bad(AuthConfig { signing_key: Some(path.clone()), ..AuthConfig::default() });
        assert!(error.starts_with(path.to_str().expect("it is ours")), "{error}");
    }
    for path in [garbage.clone(), rsa_public, missing] {
        let error = bad(AuthConfig { verifying_keys: vec![path.clone()], ..AuthConfig::default() });
        assert!(error.starts_with(path.to_str().expect("it is ours")), "{error}");
    }
    let (good, short) = (format!("1:{}", "00".repeat(32)), format!("1:{}", "00".repeat(31)));
    for lines in ["", "1", "256:00", &short, &format!("{good}\n{good}"), &format!("-{good}")] {
        let path = folder.write("resume-bad", lines);
        let error = bad(AuthConfig { resume_key: Some(path.clone()), ..AuthConfig::default() });
        assert!(error.starts_with(path.to_str().expect("it is ours")), "{error}");
    }
}

proptest! {
    #[test]
    fn arbitrary_tokens_never_panic(
        text in any::<String>(),
        parts in prop::collection::vec("[A-Za-z0-9_-]{0,40}", 0..5),
        bytes in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let verifier = verifier(&[new_key().verifying_key()]);
        prop_assert!(verifier.check_access(&text, NOW_MS).is_err());
        prop_assert!(verifier.check_access(&parts.join("."), NOW_MS).is_err());
        prop_assert!(verifier.check_resume(&bytes, NOW_MS).is_err());
        let _ = RefreshToken::parse(&text);
    }
}

#[test]
fn a_benchmark_key_speaks_for_benchmark_users_and_for_nobody_else() {
    let (people, benchmark) = (new_key(), new_key());
    let access = AccessVerifier::new(&[people.verifying_key()], Some(&benchmark.verifying_key()));
    let minted = UserId(*b"rl-bench\0\0\0\0\0\0\0\x07");
    let token = |key: &SigningKey, user: UserId| {
        let header = json!({ "alg": "EdDSA", "typ": "JWT", "kid": key.kid() });
        forged(key, header, claims_with("sub", json!(user.to_string())))
    };
    let check =
        |key: &SigningKey, user| access.check(&token(key, user), NOW_MS).map(|identity| identity.user);
    assert_eq!(check(&benchmark, minted), Ok(minted));
    assert_eq!(check(&people, USER), Ok(USER));
    assert_eq!(check(&benchmark, USER), Err(TokenRefused::ClaimInvalid("sub")), "a person's account");
    assert_eq!(check(&people, minted), Err(TokenRefused::ClaimInvalid("sub")));
    let without = AccessVerifier::new(&[people.verifying_key()], None);
    assert_eq!(without.check(&token(&benchmark, minted), NOW_MS), Err(TokenRefused::KeyUnknown));
}

#[test]
fn without_its_key_no_resume_token_speaks_for_a_benchmark_user() {
    let folder = Folder::new("benchmark-resume");
    let benchmark = folder.0.join("benchmark");
    drop(open(&AuthConfig::default(), &benchmark).expect("keys are made"));
    let benchmark_key = Some(benchmark.join(SIGNING_KEY_FILE));
    let trusting = AuthConfig { benchmark_key, ..AuthConfig::default() };
    let (_, with) = open(&trusting, &folder.0).expect("keys are made");
    let (_, without) = open(&AuthConfig::default(), &folder.0).expect("the same keys");
    let user = UserId(*b"rl-bench\0\0\0\0\0\0\0\x07");
    for (user, admitted) in [(user, false), (USER, true)] {
        let token = with.issue_resume(Identity { user, device: DEVICE, expires_ms: 0 }, NOW_MS);
        assert_eq!(with.check_resume(&token, NOW_MS).map(|identity| identity.user), Ok(user));
        assert_eq!(without.check_resume(&token, NOW_MS).is_ok(), admitted);
    }
}
