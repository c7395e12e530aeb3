//! TCP, its memory, listeners, ports, connection tracking.

use super::value::{Bound, Change, Edit, Kind, Present, Room, Source, Spec, Value};
use super::{Setting, read};
use crate::host::Host;

const PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// The highest port there is.
const PORT_MAX: u64 = 65_535;

pub(super) fn spec(setting: Setting) -> Spec {
    match setting {
        Setting::ConntrackMax | Setting::ConntrackBuckets => conntrack(setting),
        Setting::ListenBacklog
        | Setting::SynBacklog
        | Setting::SynCookies
        | Setting::LocalPorts
        | Setting::ReceiveBacklog
        | Setting::ConnectionTable => doors(setting),
        Setting::TcpUnsentMax | Setting::SlowStartAfterIdle | Setting::TimeWaitReuse => behaviour(setting),
        _ => buffers(setting),
    }
}

/// A number of the network stack that every kernel has.
fn number(path: &'static str, field: usize) -> Source {
    Source::Sysctl { path, field, absent: None }
}

/// A number that belongs to the machine, not to a network namespace.
fn of_the_machine(path: &'static str, field: usize) -> Source {
    let absent =
        Some("belongs to the whole machine and is not shown inside a network namespace: check there");
    Source::Sysctl { path, field, absent }
}

fn doors(setting: Setting) -> Spec {
    let (name, what, source) = match setting {
        Setting::SynBacklog => (
            "net.ipv4.tcp_max_syn_backlog",
            "half-open connections a listener remembers while syncookies are off",
            number("/proc/sys/net/ipv4/tcp_max_syn_backlog", 0),
        ),
        Setting::SynCookies => (
            "net.ipv4.tcp_syncookies",
            "1: a listener whose queue is full answers with a cookie instead of dropping the connect",
            number("/proc/sys/net/ipv4/tcp_syncookies", 0),
        ),
        Setting::LocalPorts => (
            "net.ipv4.ip_local_port_range, ports",
            "ports that outgoing connections to one address may take",
            Source::Computed { kind: Kind::Number, room: &LocalPorts },
        ),
        Setting::ReceiveBacklog => (
            "net.core.netdev_max_backlog",
            "received packets that may wait for one core, by loopback, veth or RPS",
            of_the_machine("/proc/sys/net/core/netdev_max_backlog", 0),
        ),
        Setting::ConnectionTable => (
            "net.ipv4.tcp_ehash_entries",
            "buckets of the kernel's table of TCP connections; fixed at boot",
            Source::Sysctl {
                path: "/proc/sys/net/ipv4/tcp_ehash_entries",
                field: 0,
                absent: Some("this kernel does not show its table, which came with Linux 6.1"),
            },
        ),
        _ => (
            "net.core.somaxconn",
            "completed connections a listener may hold before they are accepted",
            number("/proc/sys/net/core/somaxconn", 0),
        ),
    };
    Spec { name, what, source }
}

fn buffers(setting: Setting) -> Spec {
    const MEMORY: &str = "/proc/sys/net/ipv4/tcp_mem";
    const RECEIVE: &str = "/proc/sys/net/ipv4/tcp_rmem";
    const SEND: &str = "/proc/sys/net/ipv4/tcp_wmem";
    let (name, what, source) = match setting {
        Setting::TcpMemoryLow => {
            ("net.ipv4.tcp_mem, low", "pages of all TCP queues below which nothing is watched", (MEMORY, 0))
        }
        Setting::TcpMemoryPressure => (
            "net.ipv4.tcp_mem, pressure",
            "pages of all TCP queues from which buffers are kept small",
            (MEMORY, 1),
        ),
        Setting::TcpMemoryHigh => {
            ("net.ipv4.tcp_mem, high", "pages of all TCP queues at which packets are dropped", (MEMORY, 2))
        }
        Setting::TcpReceiveMin => (
            "net.ipv4.tcp_rmem, min",
            "bytes a connection may queue unread even under pressure",
            (RECEIVE, 0),
        ),
        Setting::TcpReceiveDefault => (
            "net.ipv4.tcp_rmem, default",
            "bytes a new connection may queue unread; it grows while the reader keeps up",
            (RECEIVE, 1),
        ),
        Setting::TcpReceiveMax => {
            ("net.ipv4.tcp_rmem, max", "bytes to which a receive queue may grow by itself", (RECEIVE, 2))
        }
        Setting::TcpSendMin => {
            ("net.ipv4.tcp_wmem, min", "bytes a connection may queue unsent even under pressure", (SEND, 0))
        }
        Setting::TcpSendDefault => {
            ("net.ipv4.tcp_wmem, default", "bytes with which a send queue begins", (SEND, 1))
        }
        _ => ("net.ipv4.tcp_wmem, max", "bytes to which a send queue may grow by itself", (SEND, 2)),
    };
    let (path, field) = source;
    let source = if path == MEMORY { of_the_machine(path, field) } else { number(path, field) };
    Spec { name, what, source }
}

fn behaviour(setting: Setting) -> Spec {
    let (name, what, path) = match setting {
        Setting::TcpUnsentMax => (
            "net.ipv4.tcp_notsent_lowat",
            "bytes not yet sent from which the kernel takes no more from the program",
            "/proc/sys/net/ipv4/tcp_notsent_lowat",
        ),
        Setting::SlowStartAfterIdle => (
            "net.ipv4.tcp_slow_start_after_idle",
            "1: a connection forgets how much the path carries when it pauses",
            "/proc/sys/net/ipv4/tcp_slow_start_after_idle",
        ),
        _ => (
            "net.ipv4.tcp_tw_reuse",
            "1: a connect may take a port in TIME_WAIT after a second; 2: on loopback only",
            "/proc/sys/net/ipv4/tcp_tw_reuse",
        ),
    };
    Spec { name, what, source: number(path, 0) }
}

fn conntrack(setting: Setting) -> Spec {
    let absent = Some("connection tracking is not loaded, which is best");
    let (name, what, path) = match setting {
        Setting::ConntrackBuckets => (
            "net.netfilter.nf_conntrack_buckets",
            "buckets of the firewall's table of connections",
            "/proc/sys/net/netfilter/nf_conntrack_buckets",
        ),
        _ => (
            "net.netfilter.nf_conntrack_max",
            "connections the firewall remembers; beyond it packets of new ones are dropped",
            "/proc/sys/net/netfilter/nf_conntrack_max",
        ),
    };
    Spec { name, what, source: Source::Sysctl { path, field: 0, absent } }
}

/// A range: its two ends are changed so that there are enough ports, and never fewer than there were.
struct LocalPorts;

/// Both ends of a range as the kernel prints it.
fn ends(text: &str) -> Option<(u64, u64)> {
    let mut ends = text.split_whitespace().map(str::parse::<u64>);
    match (ends.next()?.ok()?, ends.next()?.ok()?) {
        (low, high) if low <= high && high <= PORT_MAX => Some((low, high)),
        _ => None,
    }
}

impl Room for LocalPorts {
    fn present(&self, _: Setting, host: &dyn Host) -> Present {
        match read(host, PORTS, None) {
            Err(present) => present,
            Ok(text) => match ends(&text) {
                Some((low, high)) => {
                    Present::Here(Value::Number(high + 1 - low), Some(format!("{low} to {high}")))
                }
                None => Present::garbled(PORTS, &text),
            },
        }
    }

    fn change(&self, _: Setting, bound: &Bound, host: &dyn Host) -> Change {
        let wanted = bound.number().unwrap_or_default();
        let low = host.read(PORTS).ok().and_then(|text| ends(&text)).map_or(PORT_MAX, |(low, _)| low);
        // The kernel hands out ports in two halves and wants the lower end even and the upper odd.
        let low = low.min((PORT_MAX + 1).saturating_sub(wanted) & !1).max(1);
        let edit =
            |field, value: u64| Edit { path: PORTS.to_owned(), field: Some(field), value: value.to_string() };
        Change::Edits(vec![edit(0, low), edit(1, PORT_MAX)])
    }
}
