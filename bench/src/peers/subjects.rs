//! What is compared: each server with one setting and one way to use it, and what its acknowledgement promises.

use super::mqtt::Mqtt;
use super::names::Names;
use super::nats::core::Core;
use super::nats::jetstream::{JetStream, Listening};
use super::servers::Setting;
use super::xmpp::Xmpp;
use crate::agent::protocol::{ClientProtocol, DeviceMemory};
use crate::workload::plan::ActionName;

/// A row of a comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subject {
    /// What it is called on the command line and in results.
    pub name: &'static str,
    /// Which server with which setting.
    pub setting: Setting,
    /// Which of [`protocol`]'s.
    pub protocol: &'static str,
    /// What an acknowledgement promises, to stand beside each number.
    pub durability: &'static str,
    /// What it cannot do: streams of these actions are left out.
    pub unsupported: &'static [ActionName],
    /// What else must be known to read its numbers.
    pub remark: &'static str,
}

const NO_HISTORY: &[ActionName] = &[ActionName::History, ActionName::Read];
const NOTHING_KEPT: &[ActionName] = &[ActionName::CatchUp, ActionName::History, ActionName::Read];

const SUBJECTS: [Subject; 7] = [
    Subject {
        name: "mosquitto",
        setting: Setting::Mosquitto,
        protocol: "mqtt",
        durability: "in the server's memory; written to disk every 60 s (autosave_interval) and at a clean stop, \
                     so that a kill loses all since",
        unsupported: NO_HISTORY,
        remark: "QoS 1, sessions kept by the server; at least once, so a reconnect may repeat messages",
    },
    Subject {
        name: "nats",
        setting: Setting::Nats,
        protocol: "nats_core",
        durability: "none: the server answered a ping behind the message, so it has taken it from the socket; \
                     nothing is kept, and whoever does not listen misses it",
        unsupported: NOTHING_KEPT,
        remark: "core NATS has no acknowledgement",
    },
    Subject {
        name: "jetstream",
        setting: Setting::JetStream,
        protocol: "jet_stream",
        durability: "in the page cache of one server, synced every 2 min (sync_interval, default): survives a kill \
                     of the process, not a loss of power",
        unsupported: NOTHING_KEPT,
        remark: "devices listen by plain subscriptions: a message may reach them before it is stored, and they \
                 miss what comes while they are away",
    },
    Subject {
        name: "jetstream_durable",
        setting: Setting::JetStream,
        protocol: "jet_stream_durable",
        durability: "in the page cache of one server, synced every 2 min (sync_interval, default): survives a kill \
                     of the process, not a loss of power",
        unsupported: NO_HISTORY,
        remark: "a durable pull consumer for each device; at least once",
    },
    Subject {
        name: "jetstream_always",
        setting: Setting::JetStreamAlways,
        protocol: "jet_stream",
        durability: "synced to the disk of one server, a sync for each message (sync_interval: always)",
        unsupported: NOTHING_KEPT,
        remark: "devices listen by plain subscriptions: a message may reach them before it is stored, and they \
                 miss what comes while they are away",
    },
    Subject {
        name: "jetstream_always_durable",
        setting: Setting::JetStreamAlways,
        protocol: "jet_stream_durable",
        durability: "synced to the disk of one server, a sync for each message (sync_interval: always)",
        unsupported: NO_HISTORY,
        remark: "a durable pull consumer for each device; at least once",
    },
    Subject {
        name: "ejabberd",
        setting: Setting::Ejabberd,
        protocol: "xmpp",
        durability: "committed and synced by PostgreSQL in the sender's archive, and in that of a recipient who is away; \
                     a present recipient's copy may follow after the acknowledgement; in groups in the group's \
                     archive. A write that fails or takes 5 s is not told",
        unsupported: NO_HISTORY,
        remark: "bodies in base64; each message is archived for its sender and for its recipient, in a group once",
    },
];

/// Everything that can be compared.
pub fn subjects() -> &'static [Subject] {
    &SUBJECTS
}

/// One of them by name.
pub fn subject(name: &str) -> Option<&'static Subject> {
    SUBJECTS.iter().find(|subject| subject.name == name)
}

/// A client's half of a protocol for a new connection of a device, with what its last connection left. `None`: there
/// is no protocol of that name.
pub fn protocol(name: &str, names: Names, memory: &DeviceMemory) -> Option<Box<dyn ClientProtocol>> {
    Some(match name {
        "mqtt" => Box::new(Mqtt::new(names, memory)),
        "nats_core" => Box::new(Core::new(names)),
        "jet_stream" => Box::new(JetStream::new(names, Listening::Live)),
        "jet_stream_durable" => Box::new(JetStream::new(names, Listening::Durable)),
        "xmpp" => Box::new(Xmpp::new(names, memory)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::names::tests::names;

    #[test]
    fn every_subject_has_a_name_of_its_own_and_a_protocol() {
        for (place, one) in subjects().iter().enumerate() {
            assert!(protocol(one.protocol, names(0), &DeviceMemory::default()).is_some(), "{}", one.name);
            assert_eq!(subject(one.name), Some(one));
            assert!(subjects().iter().skip(place + 1).all(|other| other.name != one.name));
        }
        assert!(subject("smoke_signals").is_none());
        assert!(protocol("smoke_signals", names(0), &DeviceMemory::default()).is_none());
    }
}
