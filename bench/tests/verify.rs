//! `ringline-bench verify` against real servers: what holds is said to hold, what cannot be checked is refused with its
//! reason, and nothing but messages stays behind.

use bench::agent::{AgentError, Identity, Route, Trust, rest};
use bench::coordinator::{Cluster, Shape};
use bench::verify::accounts::Account;
use bench::verify::outcome::{Outcome, Verdict};
use bench::verify::run::{Check, Mode};
use bench::verify::stage::{Amount, Rooms};
use bench::workload::device::Device;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use wire_protocol::ids::ConversationId;
use wire_protocol::limits::DEVICES_MAX;

/// A running cluster with users, and a folder for files.
struct World {
    runtime: tokio::runtime::Runtime,
    cluster: Cluster,
    users: Vec<Identity>,
    folder: tempfile::TempDir,
}

impl World {
    fn new(name: &str, users: &[&str]) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let cluster = Cluster::start(Shape::Embedded, name, 1).unwrap_or_else(|error| panic!("{error}"));
        let registered = users
            .iter()
            .map(|user| runtime.block_on(rest::register(&cluster.targets[0], user)).expect("a free name"));
        let users = registered.collect();
        Self { users, runtime, cluster, folder: tempfile::tempdir().expect("a folder") }
    }

    fn accounts_file(&self, accounts: &[(&str, &str)]) -> PathBuf {
        let text: String = accounts
            .iter()
            .map(|(name, password)| format!("[[account]]\nname = \"{name}\"\npassword = \"{password}\"\n"))
            .collect();
        let path = self.folder.path().join("accounts.toml");
        std::fs::write(&path, text).expect("a folder of our own");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("ours");
        path
    }

    fn command(&self, accounts: &Path, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringline-bench"));
        command.args(["verify", "--target", &self.cluster.targets[0].authority, "--tls-name", "localhost"]);
        command.arg("--ca").arg(self.cluster.certificate()).arg("--accounts").arg(accounts).args(more);
        command
    }

    fn verify(&self, accounts: &[(&str, &str)], more: &[&str]) -> Output {
        let file = self.accounts_file(accounts);
        self.command(&file, more).output().expect("it starts")
    }

    /// The same within this process.
    fn check(&self, mode: Mode) -> Check {
        let account =
            |user: &Identity| Account { name: user.username.clone(), password: rest::PASSWORD.into() };
        Check {
            targets: vec![self.cluster.targets[0].authority.clone()],
            tls_name: Some("localhost".into()),
            trust: Trust::File(self.cluster.certificate()),
            accounts: self.users.iter().map(account).collect(),
            mode,
            seconds: 120,
        }
    }
}

fn said(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn outcome(file: &Path) -> Outcome {
    let text = std::fs::read(file).expect("it was written");
    serde_json::from_slice(&text).expect("as documented")
}

const PAIR: [(&str, &str); 2] = [("ada", rest::PASSWORD), ("bob", rest::PASSWORD)];

#[test]
fn a_cluster_that_keeps_its_word_balances_again_and_again() {
    let world = World::new("verify-twice", &["ada", "bob"]);
    let out = world.folder.path().join("out.json");
    let path = out.display().to_string();
    let mut last_seq = 0;
    for round in 0..2 {
        let output = world.verify(&PAIR, &["--group", "--messages", "80", "--rate", "40", "--out", &path]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert!(!said(&output).contains(rest::PASSWORD), "{}", said(&output));
        let outcome = outcome(&out);
        assert_eq!(outcome.verdict, Verdict::Balanced);
        assert_eq!(outcome.rooms.len(), 2, "the direct room and the group: {outcome:?}");
        let acknowledged: u64 = outcome.rooms.iter().map(|room| room.acknowledged).sum();
        let repeats: u64 = outcome.rooms.iter().map(|room| room.repeats).sum();
        assert_eq!((acknowledged, outcome.left_behind.messages), (80, 80));
        assert!(repeats >= 12, "each fifth of 80, some of them those sent in mid-air: {outcome:?}");
        assert!(outcome.rooms.iter().all(|room| room.checked >= 4 * room.acknowledged), "{outcome:?}");
        let drops: Vec<u32> = outcome.devices.iter().map(|device| device.drops).collect();
        assert_eq!(drops, [1, 0, 0, 1], "a native one and a WebSocket: {:?}", outcome.devices);
        assert_eq!(outcome.devices[1].route, "web_socket");
        assert!(outcome.left_behind.devices.is_empty(), "{outcome:?}");
        // What an earlier check left is not looked at again.
        assert!(outcome.rooms[0].from_seq > last_seq, "round {round}: {outcome:?}");
        last_seq = outcome.rooms[0].to_seq;
    }
    let output = world.verify(&PAIR, &["--history-only", "--out", &path]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let outcome = outcome(&out);
    assert_eq!((outcome.conversations.len(), outcome.left_behind.messages), (2, 0), "{outcome:?}");
    let entries: u64 = outcome.conversations.iter().map(|history| history.entries).sum();
    assert_eq!(entries, 160 + 2, "all messages, and two creations: {outcome:?}");
    assert!(outcome.conversations.iter().all(|history| history.accounts == ["ada", "bob"]), "{outcome:?}");
}

/// Sends into a conversation until dropped.
async fn chatter(mut device: Device, id: ConversationId) -> AgentError {
    loop {
        if let Err(error) = device.send(id, "somebody else's").await {
            return error;
        }
    }
}

/// Checks until enough of others' messages stood in between: on a slow machine few do at a time. Gives the last outcome.
async fn amid_others(check: &Check) -> Outcome {
    let mut others = 0;
    for _ in 0..20 {
        let outcome = check.make(&|_| {}).await;
        assert_eq!(outcome.verdict, Verdict::Balanced, "{}", outcome.table());
        others += outcome.rooms[0].others;
        if others > 20 {
            return outcome;
        }
    }
    panic!("only {others} messages of others were seen")
}

#[test]
fn other_peoples_messages_in_between_are_held_to_the_same() {
    let world = World::new("verify-chatter", &["ada", "bob", "carol"]);
    let amount = Amount { messages: 60, rate: 30.0 };
    let check = world.check(Mode::Messages(amount, Rooms::DirectsAndGroup));
    let outcome = world.runtime.block_on(async {
        let target = &world.cluster.targets[0];
        let ada = &world.users[0];
        let mut device = Device::connect_patiently(target, Route::Native, ada).await.expect("it is up");
        let id = device.create_direct(&world.users[1]).await.expect("both exist");
        // More than one page, before the check begins.
        for number in 0..70 {
            device.send(id, &format!("early {number}")).await.expect("it is up");
        }
        tokio::select! {
            outcome = amid_others(&check) => outcome,
            error = chatter(device, id) => panic!("{error}"),
        }
    });
    assert_eq!(outcome.rooms.len(), 3, "three accounts, two pairs and the group: {outcome:?}");
    assert!(outcome.rooms[0].from_seq > 70, "{outcome:?}");
    assert_eq!(outcome.rooms.iter().map(|room| room.acknowledged).sum::<u64>(), 60);
}

#[test]
fn a_gateway_that_is_killed_and_restarted_meanwhile_loses_nothing() {
    let mut world = World::new("verify-killed", &["ada", "bob"]);
    let check = world.check(Mode::Messages(Amount { messages: 80, rate: 20.0 }, Rooms::Directs));
    let (runtime, mut server) = (world.runtime, world.cluster.gateways.remove(0));
    let (outcome, server) = runtime.block_on(async {
        let (begun, begins) = tokio::sync::oneshot::channel();
        let begun = std::cell::Cell::new(Some(begun));
        let say = |line: &str| {
            if let (true, Some(begun)) = (line.contains("send"), begun.take()) {
                let _ = begun.send(());
            }
        };
        let killed = async {
            begins.await.expect("it begins to send");
            tokio::task::spawn_blocking(move || {
                server.kill();
                server.restart().map(|_| server)
            })
            .await
            .expect("starting does not panic")
            .unwrap_or_else(|error| panic!("{error}"))
        };
        tokio::join!(check.make(&say), killed)
    });
    world.cluster.gateways.push(server);
    assert_eq!(outcome.verdict, Verdict::Balanced, "{}", outcome.table());
    assert!(outcome.devices.iter().all(|device| device.losses > 0), "{:?}", outcome.devices);
    assert!(outcome.left_behind.devices.is_empty(), "{outcome:?}");
}

#[test]
fn devices_are_logged_out_also_after_a_refusal() {
    let world = World::new("verify-devices", &["ada", "bob"]);
    let target = &world.cluster.targets[0];
    let own = Device::connect_patiently(target, Route::Native, &world.users[0]);
    let mut own = world.runtime.block_on(own).expect("it is up");
    // One more device of hers for each check would push her own out.
    for round in 0..=DEVICES_MAX {
        let (accounts, code) = match round % 2 {
            0 => (PAIR, 0),
            _ => ([PAIR[0], ("bob", "wrong password")], 2),
        };
        let output = world.verify(&accounts, &["--history-only"]);
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(said(&output).contains("left behind: nothing"), "{}", said(&output));
        // Each time: who is silent for long is taken for gone.
        world.runtime.block_on(own.sync()).expect("her own session lives");
    }
    own.leave();
    world.runtime.block_on(own.come_back()).expect("her own device is known");
}

#[test]
fn what_cannot_be_checked_says_why_and_whether_to_try_again() {
    let world = World::new("verify-refusals", &["ada", "bob"]);
    let refused = |output: &Output, says: &[&str]| {
        let said = said(output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(says.iter().all(|part| said.contains(part)), "{says:?} is not in {said}");
        assert!(!said.contains("secret"), "{said}");
    };
    let wrong = world.verify(&[PAIR[0], ("bob", "secret-but-wrong")], &[]);
    refused(&wrong, &["log in of bob", "401", "does not help", "left behind: nothing"]);
    refused(&world.verify(&PAIR[..1], &[]), &["1 accounts; 2 to 20"]);
    refused(&world.verify(&PAIR, &["--messages", "0"]), &["--messages"]);
    refused(&world.verify(&PAIR, &["--turbo"]), &["--turbo is not known"]);
    refused(&world.verify(&PAIR, &["--history-only", "--group"]), &["--history-only sends nothing"]);
    refused(&world.verify(&PAIR, &["--tls-name", "chat.example"]), &["--tls-name is given twice"]);

    let file = world.accounts_file(&PAIR);
    let bench = || Command::new(env!("CARGO_BIN_EXE_ringline-bench"));
    let target = &world.cluster.targets[0].authority;
    let strangers = bench().args(["verify", "--target", target, "--accounts"]).arg(&file).output();
    refused(&strangers.expect("it starts"), &["log in of ada", "ertificate"]);
    // Nobody listens there, and nobody else gets it.
    let (_held, closed) = gateway::listen::reserve((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
    let closed = closed.to_string();
    let mut away = bench();
    away.args(["verify", "--target", &closed, "--tls-name", "localhost", "--accounts"]).arg(&file);
    let away = away.arg("--ca").arg(world.cluster.certificate()).output().expect("it starts");
    refused(&away, &["log in of ada", &closed, "refused", "may help", "left behind: nothing"]);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("ours");
    refused(&world.command(&file, &[]).output().expect("it starts"), &["chmod 600"]);
}

#[test]
fn a_signal_ends_it_cleanly_and_tells_what_stays() {
    let world = World::new("verify-signal", &["ada", "bob"]);
    let (file, out) = (world.accounts_file(&PAIR), world.folder.path().join("out.json"));
    let mut command = world.command(&file, &["--messages", "400", "--rate", "5", "--seconds", "600"]);
    let mut child = command
        .arg("--out")
        .arg(&out)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
    lines.find(|line| line.contains("devices send")).expect("it begins to send");
    let interrupt = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(interrupt.expect("a usual tool").success());
    lines.for_each(drop);
    assert_eq!(child.wait().expect("ours").code(), Some(2));
    let outcome = outcome(&out);
    assert!(outcome.error.contains("signal") && outcome.retry_helps, "{outcome:?}");
    assert!(outcome.left_behind.messages < 400, "{outcome:?}");
    assert!(outcome.left_behind.devices.is_empty(), "{outcome:?}");
    assert_eq!(outcome.left_behind.conversations.len(), 1, "{outcome:?}");
}
