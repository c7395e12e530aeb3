//! Three gateways that know of each other by a name alone, and a name server whose answers change.
//!
//! A gateway resolves names as the system does, and that asks port 53 of what `/etc/resolv.conf` names. So this test
//! starts itself once more where it may be that server and have that file: in namespaces of its own for mounts, network
//! and processes.

use crate::client::{Client, Way};
use crate::fleet::{handed_out, share_keys};
use crate::name_server::{Answer, NameServer};
use crate::nodes::Cluster;
use crate::right::{Right, refused};
use crate::server::{Account, Folder, Server};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Output};
use wire_protocol::v1::session_closing::Reason;

/// Set in the process inside.
const INSIDE_VARIABLE: &str = "RINGLINE_TEST_OWN_NETWORK";
/// Printed when everything is there that a machine may refuse.
const SET_UP: &str = "this network is the test's own";
const SCRIPT: &str = r#"
    ip link set lo up
    mount --bind "$1/resolv.conf" /etc/resolv.conf
    [ ! -e /etc/nsswitch.conf ] || mount --bind "$1/nsswitch.conf" /etc/nsswitch.conf
    echo "$2"
    exec "$0" --exact fleet_by_name::inside_a_network_of_its_own --nocapture
"#;

/// The addresses of a name have one port.
const PORT: u16 = 8443;
/// Each gateway asks for another name, so that each can be told something else.
const NAMES: [&str; 3] = ["first.gateways.test", "second.gateways.test", "third.gateways.test"];
const FIRST: usize = 0;
const SECOND: usize = 1;
const THIRD: usize = 2;
/// Addresses beside those of gateways in an answer that is far too large. Nobody listens at them.
const STRANGERS: usize = 998;

struct Gateway {
    server: Server,
    log: PathBuf,
}

/// The nodes, three gateways that share their keys, and who tells them of each other.
struct Fleet {
    gateways: [Gateway; 3],
    account: Account,
    names: NameServer,
    _cluster: Cluster,
}

fn host(gateway: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, gateway as u8 + 1)
}

fn address(gateway: usize) -> SocketAddr {
    (host(gateway), PORT).into()
}

fn hosts(gateways: &[usize]) -> Vec<Ipv4Addr> {
    gateways.iter().map(|gateway| host(*gateway)).collect()
}

fn config(gateway: usize, cluster: &Cluster) -> String {
    format!(
        "cores = 1\ngateway_id = {}\n[fleet]\ndns = '{}:{PORT}'\nadvertise = '{}'\n\
         server_name = 'localhost'\ndrain_s = 1\n{}",
        gateway + 1,
        NAMES[gateway],
        address(gateway),
        cluster.gateway_config(),
    )
}

impl Fleet {
    /// All three serve; the name has the first two.
    fn start() -> Self {
        let names = NameServer::start();
        let cluster = Cluster::start();
        for name in NAMES {
            names.tell(name, Answer::Addresses(hosts(&[FIRST, SECOND])));
        }
        let start = |gateway: usize, folder: Folder| {
            let (server, log) = Server::logging_at(folder, &config(gateway, &cluster), address(gateway));
            Gateway { server, log }
        };
        let first = start(FIRST, Folder::new());
        let [second, third] = [SECOND, THIRD].map(|gateway| {
            let folder = Folder::new();
            share_keys(&first.server.data(), &folder.path().join("data"));
            start(gateway, folder)
        });
        let account = first.server.register("ada");
        Self { gateways: [first, second, third], account, names, _cluster: cluster }
    }

    /// From now on every gateway is told the same.
    fn tell_all(&self, gateways: &[usize]) {
        for name in NAMES {
            self.names.tell(name, Answer::Addresses(hosts(gateways)));
        }
    }

    /// Waits until a gateway hands out these, of which it is one.
    fn wait_for_list(&self, gateway: usize, listed: &[usize]) {
        let wanted: Vec<String> = listed.iter().map(|listed| address(*listed).to_string()).collect();
        let server = &self.gateways[gateway].server;
        server.wait_until_equal(&format!("{} hands them out", address(gateway)), &wanted, || {
            let mut list = handed_out(server, &self.account);
            list.sort_unstable();
            list
        });
    }

    /// How many lines of a gateway's log have all of this.
    fn said(&self, gateway: usize, parts: &[&str]) -> usize {
        let log = fs::read(&self.gateways[gateway].log).expect("a log");
        let log = String::from_utf8_lossy(&log);
        log.lines().filter(|line| parts.iter().all(|part| line.contains(*part))).count()
    }

    /// Tells gateways what is no answer, and waits until each has said that it got none.
    fn fail<const N: usize>(&self, failures: [(usize, Answer); N]) {
        let said = |gateway| self.said(gateway, &["the name of the gateways cannot be resolved"]);
        let before = failures.map(|(gateway, answer)| {
            let before = said(gateway);
            self.names.tell(NAMES[gateway], answer);
            (gateway, before)
        });
        for (gateway, before) in before {
            let server = &self.gateways[gateway].server;
            server.wait_until("it says that it got no answer", || said(gateway) > before);
        }
    }
}

/// Runs the half inside. `Err`: this machine does not let it, and why.
fn run_inside(folder: &Folder) -> Result<Output, String> {
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
    // Who gets no answer is to notice within a second.
    write("resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n");
    write("nsswitch.conf", "hosts: files dns\n");
    let mut why = String::new();
    // Whoever is not root needs a user namespace, too.
    for user in [None, Some("--map-root-user")] {
        let ended = Command::new("unshare")
            .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(user)
            .args(["sh", "-ec", SCRIPT])
            .arg(std::env::current_exe().expect("this test"))
            .arg(folder.path())
            .arg(SET_UP)
            .env(INSIDE_VARIABLE, "yes")
            .output();
        match ended {
            Ok(output) if String::from_utf8_lossy(&output.stdout).contains(SET_UP) => return Ok(output),
            Ok(output) => why = String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => why = error.to_string(),
        }
    }
    Err(why)
}

#[test]
fn lists_follow_a_name_whose_answers_change() {
    let folder = Folder::new();
    match run_inside(&folder) {
        Ok(Output { status, stdout, stderr }) => {
            let said = [stdout, stderr].concat();
            let said = String::from_utf8_lossy(&said);
            assert!(status.success() && said.contains(" 1 passed;"), "{said}");
        }
        Err(why) => refused(Right::Namespaces, &format!("no name server of the test's own: {why}")),
    }
}

/// The half inside. Does nothing in an ordinary run.
#[test]
fn inside_a_network_of_its_own() {
    if std::env::var_os(INSIDE_VARIABLE).is_none() {
        return;
    }
    let mut fleet = Fleet::start();
    fleet.wait_for_list(FIRST, &[FIRST, SECOND]);
    fleet.wait_for_list(SECOND, &[FIRST, SECOND]);
    fleet.wait_for_list(THIRD, &[FIRST, SECOND, THIRD]);

    // One leaves the name, although it serves on and would answer, and another one joins it.
    fleet.tell_all(&[FIRST, THIRD]);
    let known = |fleet: &Fleet| {
        fleet.wait_for_list(FIRST, &[FIRST, THIRD]);
        fleet.wait_for_list(SECOND, &[FIRST, SECOND, THIRD]);
        fleet.wait_for_list(THIRD, &[FIRST, THIRD]);
    };
    known(&fleet);
    assert_eq!(fleet.said(FIRST, &["a gateway has left the name", &address(SECOND).to_string()]), 1);

    // No answer that is none loses anybody. What the first round lost would still be missing after the second one.
    fleet.fail([
        (FIRST, Answer::NoSuchName),
        (SECOND, Answer::Addresses(Vec::new())),
        (THIRD, Answer::Garbage),
    ]);
    known(&fleet);
    let strangers = (0..STRANGERS as u16).map(u16::to_be_bytes);
    let strangers = strangers.map(|[high, low]| Ipv4Addr::new(127, 2, high, low));
    let crowd = hosts(&[FIRST, THIRD]).into_iter().chain(strangers).collect();
    fleet.names.tell(NAMES[THIRD], Answer::Addresses(crowd));
    fleet.fail([(FIRST, Answer::Failure), (SECOND, Answer::Silence)]);
    // Strangers are asked, each once, and left out.
    let server = &fleet.gateways[THIRD].server;
    server.wait_until("all strangers are left out", || {
        fleet.said(THIRD, &["another gateway", "\"127.2.", "LeftOut"]) == STRANGERS
    });
    known(&fleet);

    // All is well again, without a restart: strangers are forgotten, and who left is back.
    fleet.tell_all(&[FIRST, SECOND, THIRD]);
    for gateway in [FIRST, SECOND, THIRD] {
        fleet.wait_for_list(gateway, &[FIRST, SECOND, THIRD]);
    }
    let mut client = Client::connect(&fleet.gateways[FIRST].server, Way::NativeTls, &fleet.account);
    fleet.gateways[FIRST].server.process.ask_to_end();
    let mut closing = client.wait_for_end().expect("a reason");
    assert_eq!(closing.reason(), Reason::Draining);
    closing.gateways.sort_unstable();
    assert_eq!(closing.gateways, [SECOND, THIRD].map(|gateway| address(gateway).to_string()));
    assert!(fleet.gateways[FIRST].server.process.wait().success());
}
