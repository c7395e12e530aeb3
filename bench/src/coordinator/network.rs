//! The network of a fault run: a router in a namespace of its own, and around it a leaf for each server and one for the
//! clients (this process and its agents). Everything passes the router, so that what is cut there is cut without anybody
//! being told: packets vanish, as they do in a network that fails.
//!
//! ```text
//! storage-1 ── 10.77.1.0/30 ──┐          ┌── 10.77.101.0/30 ── gateway-1
//! storage-2 ── 10.77.2.0/30 ──┤  router  ├── 10.77.102.0/30 ── gateway-2
//! storage-3 ── 10.77.3.0/30 ──┘          └── 10.77.200.0/30 ── clients
//! ```

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;

/// Where `ip netns` keeps names. In here it is a file system of this run alone.
const NAMES: &str = "/run/netns";
/// The router's namespace.
const ROUTER: &str = "router";
/// The clients' leaf.
pub const CLIENTS: &str = "clients";
/// Third byte of the address of the first gateway and of the clients; storage nodes have their number.
const GATEWAY_FIRST: u8 = 100;
const CLIENTS_NUMBER: u8 = 200;
/// Ports within a leaf: each server has its leaf for itself.
const PORT: u16 = 7_000;
const METRICS_PORT: u16 = 9_000;
/// Order of the routing rules that drop packets: before the kernel's own, which begin at 32,766.
const DROP_PRIORITY: &str = "100";

/// Why there is no such network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// Something to install.
    #[error("{tool} is missing; it is in Debian's package {package}")]
    NoTool {
        /// The program.
        tool: &'static str,
        /// Who has it.
        package: &'static str,
    },
    /// The kernel, or whoever started us, does not want it.
    #[error("namespaces are not permitted here (they need root, or CAP_SYS_ADMIN and CAP_NET_ADMIN): {0}")]
    NotPermitted(String),
    /// A tool failed.
    #[error("{command}: {said}")]
    Tool {
        /// As it was called.
        command: String,
        /// What it said.
        said: String,
    },
    /// The system refused.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Which packets of a server vanish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Those that it sends.
    From,
    /// Those that are sent to it.
    To,
}

/// Leaves around a router.
#[derive(Clone, Debug)]
pub struct Network {
    leaves: Vec<String>,
}

impl Network {
    /// Makes router and leaves. To be called within an enclosure, once.
    pub fn make(servers: &[String]) -> Result<Self, NetworkError> {
        std::fs::create_dir_all(NAMES)?;
        run("mount", &["-t", "tmpfs", "names", NAMES])?;
        ip(&["link", "set", "lo", "up"])?;
        ip(&["netns", "add", ROUTER])?;
        // No filter by the way back: a one-way cut would otherwise cut both ways.
        let settings = "echo 1 > /proc/sys/net/ipv4/ip_forward; \
                        for file in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $file; done";
        run("nsenter", &[&in_leaf(ROUTER), "sh", "-c", settings])?;
        for server in servers {
            ip(&["netns", "add", server])?;
            ip(&[
                "-n", ROUTER, "link", "add", server, "type", "veth", "peer", "name", "eth0", "netns", server,
            ])?;
            join(server, &["-n", server])?;
        }
        ip(&["link", "add", "eth0", "type", "veth", "peer", "name", CLIENTS, "netns", ROUTER])?;
        join(CLIENTS, &[])?;
        Ok(Self { leaves: servers.to_vec() })
    }

    /// Where a server listens.
    pub fn address(server: &str) -> SocketAddr {
        SocketAddr::from((leaf_address(server), PORT))
    }

    /// Where a server tells its metrics, within its leaf alone.
    pub fn metrics_address() -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, METRICS_PORT))
    }

    /// The command that runs another one in a server's leaf, and becomes it.
    pub fn wrap(server: &str, program: PathBuf, arguments: Vec<String>) -> (PathBuf, Vec<String>) {
        let mut wrapped = vec![in_leaf(server), program.display().to_string()];
        wrapped.extend(arguments);
        ("nsenter".into(), wrapped)
    }

    /// From now on such packets of a server vanish, whoever the other end is.
    pub fn cut(&self, server: &str, direction: Direction) -> Result<(), NetworkError> {
        rule("add", &selector(server, direction))
    }

    /// Packets between two leaves vanish, from the first to the second.
    pub fn cut_between(&self, from: &str, to: &str) -> Result<(), NetworkError> {
        rule(
            "add",
            &["from".into(), leaf_address(from).to_string(), "to".into(), leaf_address(to).to_string()],
        )
    }

    /// A server's link carries no more than so many kilobits a second, each way; `queue_ms` of it wait, more is lost.
    pub fn slow_down(&self, server: &str, kbit: u32, queue_ms: u32) -> Result<(), NetworkError> {
        let (rate, latency) = (format!("{kbit}kbit"), format!("{queue_ms}ms"));
        for (leaf, interface) in [(ROUTER, server), (server, "eth0")] {
            let add = ["-n", leaf, "qdisc", "add", "dev", interface, "root", "tbf"];
            let shape = ["rate", &rate, "burst", "4kb", "latency", &latency];
            run("tc", &[&add[..], &shape].concat())?;
        }
        Ok(())
    }

    /// Nothing is cut or slow any more.
    pub fn heal(&self) -> Result<(), NetworkError> {
        // `flush` takes none of the kernel's own rules: it is told the priority.
        run("ip", &["-n", ROUTER, "rule", "flush", "priority", DROP_PRIORITY])?;
        for server in &self.leaves {
            for (leaf, interface) in [(ROUTER, server.as_str()), (server, "eth0")] {
                // There is nothing to remove on links that were not slow.
                let _ = run("tc", &["-n", leaf, "qdisc", "del", "dev", interface, "root"]);
            }
        }
        Ok(())
    }
}

fn selector(server: &str, direction: Direction) -> Vec<String> {
    let word = match direction {
        Direction::From => "from",
        Direction::To => "to",
    };
    vec![word.to_owned(), leaf_address(server).to_string()]
}

fn rule(what: &str, selector: &[String]) -> Result<(), NetworkError> {
    let mut arguments = vec!["-n", ROUTER, "rule", what, "priority", DROP_PRIORITY];
    arguments.extend(selector.iter().map(String::as_str));
    arguments.push("blackhole");
    run("ip", &arguments)
}

/// Addresses of both ends of a leaf's link, and the way out of it.
fn join(leaf: &str, inside: &[&str]) -> Result<(), NetworkError> {
    let own = leaf_address(leaf);
    let [a, b, c, _] = own.octets();
    let router = Ipv4Addr::new(a, b, c, 1).to_string();
    let (own, routers) = (format!("{own}/30"), format!("{router}/30"));
    ip(&["-n", ROUTER, "addr", "add", &routers, "dev", leaf])?;
    ip(&["-n", ROUTER, "link", "set", leaf, "up"])?;
    for command in [
        &["addr", "add", &own, "dev", "eth0"][..],
        &["link", "set", "eth0", "up"],
        &["link", "set", "lo", "up"],
        &["route", "add", "default", "via", &router],
    ] {
        ip(&[inside, command].concat())?;
    }
    Ok(())
}

/// `storage-2`: 10.77.2.2, `gateway-1`: 10.77.101.2, clients: 10.77.200.2.
fn leaf_address(leaf: &str) -> Ipv4Addr {
    let number = |text: &str| text.parse::<u8>().ok().filter(|number| (1..GATEWAY_FIRST).contains(number));
    let third = match leaf.split_once('-') {
        Some(("storage", text)) => number(text),
        Some(("gateway", text)) => number(text).map(|number| GATEWAY_FIRST + number),
        _ => (leaf == CLIENTS).then_some(CLIENTS_NUMBER),
    };
    Ipv4Addr::new(10, 77, third.expect("leaves are named as servers are"), 2)
}

fn in_leaf(leaf: &str) -> String {
    format!("--net={NAMES}/{leaf}")
}

fn ip(arguments: &[&str]) -> Result<(), NetworkError> {
    run("ip", arguments)
}

/// A tool that does one thing at once; its own words if it cannot.
pub fn run(program: &str, arguments: &[&str]) -> Result<(), NetworkError> {
    let output = Command::new(program).args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    let command = format!("{program} {}", arguments.join(" "));
    Err(NetworkError::Tool { command, said: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_has_an_address_of_its_own() {
        let addresses = ["storage-1", "storage-3", "gateway-1", "gateway-2", CLIENTS].map(leaf_address);
        let expected = ["10.77.1.2", "10.77.3.2", "10.77.101.2", "10.77.102.2", "10.77.200.2"];
        assert_eq!(addresses.map(|address| address.to_string()), expected);
    }
}
