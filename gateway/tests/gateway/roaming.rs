//! Devices that go on at the other gateway: told so by one that leaves, and untold when theirs is killed. Whatever was said
//! before, meanwhile and after is there once and in order, and so is what they said themselves and got no answer to.

use crate::chat::{accepted_at_last, created, group, text};
use crate::client::{Client, Way};
use crate::fleet::{Fleet, SLOT_MS, handed_out, wait_until};
use crate::server::{Account, PATIENCE_S, Server};
use crate::sync::catch_up;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use wire_protocol::session::Proof;
use wire_protocol::v1::session_closing::Reason;
use wire_protocol::v1::{self, client_frame, server_frame};

/// Messages that somebody sends in one go: more than one, so that they have an order.
const AT_ONCE: u64 = 3;
/// The number of the last message that is sent while a gateway leaves. All of a user's are fewer than the 100 that one may
/// send at once.
const MEANWHILE_MAX: u64 = 40;
/// Accounts among which there are two that belong to one gateway of two: all but once in 2^34.
const ACCOUNTS_MAX: usize = 40;

/// Somebody's device, whichever gateway its session is at.
struct Device {
    name: String,
    way: Way,
    client: Client,
    conversation: Bytes,
    /// What it knows of the conversation, by seq.
    entries: BTreeMap<u64, Bytes>,
    /// Where its last sync ended.
    version: u64,
    /// Its own messages. Those above `acknowledged` may be stored, or not.
    said: u64,
    acknowledged: u64,
    /// Seq of the last one of those.
    own_seq: u64,
}

fn words(name: &str, number: u64) -> Bytes {
    format!("{name} {number}").into()
}

impl Device {
    fn new(server: &Server, way: Way, name: &str, account: &Account, conversation: &Bytes) -> Self {
        let mut device = Self {
            name: name.to_owned(),
            way,
            client: Client::connect(server, way, account),
            conversation: conversation.clone(),
            entries: BTreeMap::new(),
            version: 0,
            said: 0,
            acknowledged: 0,
            own_seq: 0,
        };
        device.catch_up();
        device
    }

    /// It names the one before it, which may still be in flight.
    fn message(&self, number: u64) -> client_frame::Body {
        let mut message = text(&self.conversation, number, words(&self.name, number));
        if let client_frame::Body::Send(send) = &mut message {
            send.predecessor = number - 1;
        }
        message
    }

    /// Says so much more, and waits for no answer. Whether there is one is never looked at: as if it had been lost.
    fn begin_to_say(&mut self, count: u64) {
        for _ in 0..count {
            self.said += 1;
            let message = self.message(self.said);
            self.client.request(message);
        }
    }

    /// Says so much more; the seq of the last.
    fn say(&mut self, count: u64) -> u64 {
        assert_eq!(self.acknowledged, self.said, "{}: answers may still come", self.name);
        self.said += count;
        self.settle();
        self.own_seq
    }

    /// Sends whatever has no answer until it has one, under the number that it had.
    fn settle(&mut self) {
        while self.acknowledged < self.said {
            self.acknowledged += 1;
            let message = self.message(self.acknowledged);
            self.own_seq = accepted_at_last(&mut self.client, &message).seq;
            self.store(self.own_seq, words(&self.name, self.acknowledged));
        }
    }

    fn store(&mut self, seq: u64, body: Bytes) {
        if let Some(before) = self.entries.insert(seq, body) {
            assert_eq!(before, self.entries[&seq], "{}: two entries are number {seq}", self.name);
        }
    }

    /// The last entry before which none is missing.
    fn head(&self) -> u64 {
        (1u64..).take_while(|seq| self.entries.contains_key(seq)).count() as u64
    }

    fn catch_up(&mut self) {
        let head = self.head();
        let (entries, version) = catch_up(&mut self.client, &self.conversation, self.version, head);
        self.version = version;
        entries.into_iter().for_each(|entry| self.store(entry.seq, entry.body));
    }

    /// Takes an entry that was pushed, for the second time perhaps: home shards are told at least once. Drops whatever else it
    /// may be.
    fn take(&mut self, event: server_frame::Body) {
        let server_frame::Body::Message(message) = event else { return };
        let entry = message.entry.expect("always there");
        assert_eq!(message.conversation_id, self.conversation, "{}", self.name);
        self.store(entry.seq, entry.body);
    }

    /// Takes what was pushed so far, waiting for a moment if nothing was.
    fn listen(&mut self) {
        if self.client.is_over {
            return;
        }
        for _ in 0..self.client.events_so_far() {
            let event = self.client.event();
            self.take(event);
        }
    }

    /// Waits until it is so by what is pushed. It asks only when it is told to.
    fn hear_until(&mut self, is_so: impl Fn(&Self) -> bool) {
        while !is_so(self) {
            match self.client.event() {
                server_frame::Body::SyncNeeded(_) => self.catch_up(),
                event => self.take(event),
            }
        }
    }

    /// Goes on at this gateway, which needs nothing but the token of the session before.
    fn resume(&mut self, server: &Server) {
        let identity = |ready: &v1::Ready| (ready.user_id.clone(), ready.device_id.clone());
        let before = identity(&self.client.ready);
        let proof = Proof::ResumeToken(self.client.ready.resume_token.clone());
        self.client = Client::hello(server, self.way, proof);
        assert_eq!(self.client.closing, None, "{}", self.name);
        assert_eq!(identity(&self.client.ready), before, "{}", self.name);
        self.catch_up();
    }

    /// It has everything that these people said, once and in order, and the conversation's first entry.
    fn assert_has_all(&self, people: &[(String, u64)]) {
        let count = 1 + people.iter().map(|(_, said)| said).sum::<u64>();
        let seqs: Vec<u64> = self.entries.keys().copied().collect();
        assert_eq!(seqs, (1..=count).collect::<Vec<u64>>(), "{}", self.name);
        for (name, said) in people {
            let begin = format!("{name} ");
            let bodies = self.entries.values().filter(|body| body.starts_with(begin.as_bytes()));
            let wanted: Vec<Bytes> = (1..=*said).map(|number| words(name, number)).collect();
            assert_eq!(bodies.cloned().collect::<Vec<Bytes>>(), wanted, "{} of {name}", self.name);
        }
    }
}

/// Two people who log in at the first gateway and are handed a list that begins with it; the same list at each gateway.
fn two_of_the_first(fleet: &Fleet) -> [(String, Account); 2] {
    let mut found = (0..ACCOUNTS_MAX).filter_map(|number| {
        let name = format!("user-{number}");
        fleet.first.register(&name);
        let account = fleet.first.log_in(&name);
        let list = handed_out(&fleet.first, &account);
        assert_eq!(handed_out(&fleet.second, &account), list, "{name}");
        (list.first() == Some(&fleet.first.tls.to_string())).then_some((name, account))
    });
    [(); 2].map(|()| found.next().expect("half of them belong to it"))
}

/// One says something, and the others have it by a push.
fn talk(talker: &mut Device, others: &mut [Device]) {
    let newest = talker.say(AT_ONCE);
    for device in others {
        device.hear_until(|device| device.entries.contains_key(&newest));
        assert!(device.head() >= newest, "{}: {} of {newest}", device.name, device.head());
    }
}

/// The session before has ended, and others went on talking up to `newest`.
fn go_on(device: &mut Device, server: &Server, newest: u64) {
    device.resume(server);
    assert!(device.head() >= newest, "{}: {} of {newest}", device.name, device.head());
    device.settle();
}

/// The first gateway is asked to end. It tells each device where to go, and when.
fn leave_the_first(fleet: &mut Fleet, talker: &mut Device, roaming: &mut [Device; 2]) {
    roaming.iter_mut().for_each(|device| device.begin_to_say(AT_ONCE));
    fleet.first.process.ask_to_end();
    let deadline = Instant::now() + Duration::from_secs(PATIENCE_S);
    while roaming.iter().any(|device| !device.client.is_over) {
        assert!(Instant::now() < deadline, "it sends nobody away");
        if talker.said < MEANWHILE_MAX {
            talker.say(1);
        }
        roaming.iter_mut().for_each(Device::listen);
    }
    let newest = talker.say(AT_ONCE);
    let wait_ms_max = SLOT_MS * roaming.len() as u64;
    for device in roaming {
        let closing = device.client.closing.clone().expect("a reason");
        assert_eq!(closing.reason(), Reason::Draining);
        assert_eq!(closing.gateways, [fleet.second.tls.to_string()]);
        assert!(u64::from(closing.retry_after_ms) <= wait_ms_max, "{closing:?}");
        wait_until(Instant::now() + Duration::from_millis(closing.retry_after_ms.into()));
        go_on(device, &fleet.second, newest);
    }
    assert!(fleet.first.process.wait().success());
}

/// The second gateway is killed, and tells nobody. Devices go to the first one of the list that they were handed.
fn lose_the_second(fleet: &mut Fleet, talker: &mut Device, roaming: &mut [Device; 2]) {
    // These are stored, as the talker hears, and their answers count for lost; of the next ones nobody knows.
    for device in &mut *roaming {
        device.begin_to_say(1);
        let said = words(&device.name, device.said);
        talker.hear_until(|talker| talker.entries.values().any(|body| *body == said));
    }
    roaming.iter_mut().for_each(|device| device.begin_to_say(AT_ONCE));
    fleet.second.process.kill();
    for device in &mut *roaming {
        assert_eq!(device.client.wait_for_end(), None, "{}: nobody is there to say so", device.name);
    }
    let newest = talker.say(AT_ONCE);
    for device in roaming {
        go_on(device, &fleet.first, newest);
    }
}

#[test]
fn devices_go_on_at_the_other_gateway_told_or_not_and_miss_nothing() {
    let mut fleet = Fleet::start(1);
    let bob = fleet.first.register("bob");
    fleet.wait_until_known(&bob);
    let [(ada, adas), (eve, eves)] = two_of_the_first(&fleet);
    let mut creator = Client::connect(&fleet.second, Way::NativePlain, &bob);
    let conversation = created(creator.ask(group(&[&adas, &eves], 1))).conversation_id;
    creator.drop_connection();
    // He is always at the gateway that stays.
    let mut talker = Device::new(&fleet.second, Way::NativePlain, "bob", &bob, &conversation);
    let mut roaming = [
        Device::new(&fleet.first, Way::NativeTls, &ada, &adas, &conversation),
        Device::new(&fleet.first, Way::WebSocket, &eve, &eves, &conversation),
    ];
    talk(&mut talker, &mut roaming);
    leave_the_first(&mut fleet, &mut talker, &mut roaming);
    talk(&mut talker, &mut roaming);

    let mut fleet = fleet.with_first_again();
    fleet.wait_until_known(&bob);
    talker.resume(&fleet.first);
    talk(&mut talker, &mut roaming);
    lose_the_second(&mut fleet, &mut talker, &mut roaming);
    talk(&mut talker, &mut roaming);

    let everybody = roaming.iter().chain([&talker]);
    let people: Vec<(String, u64)> = everybody.map(|device| (device.name.clone(), device.said)).collect();
    for device in roaming.iter_mut().chain([&mut talker]) {
        device.catch_up();
        device.assert_has_all(&people);
    }
}
