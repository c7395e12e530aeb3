//! What a reader of a result can do about an error's code: words beside the counts of tables and pages.

use super::results::PhaseResult;
use std::collections::BTreeSet;

/// Codes of the harness (lower case) and of the protocol, and what to do about each.
const REMEDIES: [(&str, &str); 24] = [
    ("agent_full", "the agent has too much under way: use more agents, or a lower rate"),
    ("end", "the server ended the connection: see its log"),
    ("lost", "the connection broke while it was waited for: see the connections lost, by reason"),
    ("no_file", "the agent's limit of open files: more agent processes (--agents), or ulimit -n"),
    ("no_port", "no port left on the agent's side: more source addresses (--source)"),
    ("no_target", "the agent knows no such server: as many --target as the plan has gateways"),
    ("nobody_online", "no device was connected to do it: connect some in an earlier phase"),
    ("refused", "nothing listens there: is the server up, and --target right?"),
    ("reset", "the server, or something on the way, broke the connection: see its log"),
    ("timeout", "no answer in time: the server is overloaded, or packets are lost"),
    ("tls", "no TLS: do --ca and --tls-name fit the server's certificate?"),
    ("unreachable", "no way there: routes and firewalls"),
    ("unsupported", "the subject cannot do this: leave the stream out"),
    ("ERROR_FRAME_TOO_LARGE", "a message is too large: body_bytes of the plan"),
    ("ERROR_BODY_TOO_LARGE", "a message is too large: body_bytes of the plan"),
    ("ERROR_TOO_MANY_MEMBERS", "a group is too large for the server: group_members of the plan"),
    ("ERROR_UNAUTHENTICATED", "the server does not know the benchmark key: auth.benchmark_key"),
    ("ERROR_TOKEN_EXPIRED", "clocks of agents and servers are too far apart"),
    ("ERROR_THROTTLED", "too much of one device at a time: more devices, or a lower rate"),
    ("ERROR_OVERLOADED", "a queue of the server is full: it is at its limit"),
    ("ERROR_TOO_MANY_IN_FLIGHT", "a device waits for too many answers: more devices, or a lower rate"),
    ("ERROR_UNAVAILABLE", "storage was away: see its log, and the phase's faults"),
    ("ERROR_TIMED_OUT", "storage did not answer in time: it is overloaded, or was away"),
    ("ERROR_INTERNAL", "a bug of the server: see its log"),
];

/// What to do about a code; `None`: the code says all there is.
pub fn remedy(code: &str) -> Option<&'static str> {
    REMEDIES.iter().find(|(known, _)| *known == code).map(|(_, remedy)| *remedy)
}

/// Every code of a phase that something can be done about.
pub fn of_phase(phase: &PhaseResult) -> Vec<(&str, &'static str)> {
    let codes = phase.streams.iter().flat_map(|stream| stream.errors.keys()).chain(phase.losses.keys());
    let codes: BTreeSet<&str> = codes.map(String::as_str).collect();
    codes.into_iter().filter_map(|code| Some((code, remedy(code)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::results::StreamResult;
    use wire_protocol::v1::ErrorCode;

    #[test]
    fn each_code_of_a_phase_is_told_once() {
        let counts = |codes: &[&str]| codes.iter().map(|code| ((*code).to_owned(), 3)).collect();
        let phase = PhaseResult {
            streams: vec![
                StreamResult { errors: counts(&["lost", "ERROR_OVERLOADED"]), ..StreamResult::default() },
                StreamResult { errors: counts(&["ERROR_OVERLOADED", "whatever"]), ..StreamResult::default() },
            ],
            losses: counts(&["no_port"]),
            ..PhaseResult::default()
        };
        let codes: Vec<&str> = of_phase(&phase).iter().map(|(code, _)| *code).collect();
        assert_eq!(codes, ["ERROR_OVERLOADED", "lost", "no_port"]);
    }

    #[test]
    fn codes_of_the_protocol_are_its_own_and_those_of_sockets_are_all_there() {
        for (code, _) in REMEDIES.iter().filter(|(code, _)| code.starts_with("ERROR_")) {
            assert!(ErrorCode::from_str_name(code).is_some(), "{code}");
        }
        use crate::agent::engine::sockets::reason;
        use std::io::{Error, ErrorKind};
        let kinds = [
            ErrorKind::ConnectionRefused,
            ErrorKind::ConnectionReset,
            ErrorKind::TimedOut,
            ErrorKind::AddrNotAvailable,
            ErrorKind::HostUnreachable,
            ErrorKind::UnexpectedEof,
        ];
        for error in kinds.map(Error::from).into_iter().chain([Error::from_raw_os_error(24)]) {
            assert!(remedy(reason(&error)).is_some(), "{error}");
        }
    }
}
