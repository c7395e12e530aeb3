//! Connections between devices and the fake server: ordered like TCP, cut at any moment, with events lost,
//! doubled and reordered before they enter them, and with refusals before and after a request was carried out.

use super::device::Device;
use crate::fake_server::{Caller, FakeServer, Pushed, READY_TIME_MS};
use crate::random::Random;
use bytes::{Bytes, BytesMut};
use ringline_client::engine::{Action, ConnectFailure, ProofWanted};
use std::collections::{BTreeMap, VecDeque};
use wire_protocol::error::RequestError;
use wire_protocol::session::{Proof, ReadyInfo, ServerInput, ServerSession};
use wire_protocol::v1::{self, ErrorCode, client_frame, server_frame, session_closing::Reason};

/// How often what goes wrong, in percent.
pub struct Faults {
    pub app_acts: bool,
    /// Whether the server tells a session that events for it were lost; else the next sync must find them.
    pub hints: bool,
    pub drop_connection_percent: u64,
    pub crash_percent: u64,
    refuse_percent: u64,
    refuse_after_percent: u64,
    lose_event_percent: u64,
    double_event_percent: u64,
    reorder_percent: u64,
    close_percent: u64,
    refuse_connect_percent: u64,
    die_in_turn_percent: u64,
}

impl Faults {
    pub fn from_seed(random: &mut Random) -> Self {
        let hints = random.percent(50);
        let mut some = |most: u64| if random.percent(50) { random.next() % (most + 1) } else { 0 };
        Self {
            app_acts: true,
            hints,
            drop_connection_percent: some(5),
            crash_percent: some(3),
            refuse_percent: some(30),
            refuse_after_percent: some(20),
            lose_event_percent: some(60),
            double_event_percent: some(40),
            reorder_percent: some(60),
            close_percent: some(3),
            refuse_connect_percent: some(40),
            die_in_turn_percent: some(5),
        }
    }

    pub fn none() -> Self {
        Self {
            app_acts: false,
            hints: true,
            drop_connection_percent: 0,
            crash_percent: 0,
            refuse_percent: 0,
            refuse_after_percent: 0,
            lose_event_percent: 0,
            double_event_percent: 0,
            reorder_percent: 0,
            close_percent: 0,
            refuse_connect_percent: 0,
            die_in_turn_percent: 0,
        }
    }
}

struct Wire {
    caller: Caller,
    session: ServerSession,
    to_server: VecDeque<Bytes>,
    to_client: VecDeque<Bytes>,
    events: VecDeque<server_frame::Body>,
    /// The server has closed; what is on its way still arrives.
    closed: bool,
    /// Events were lost on purpose: the server owes a hint, as the gateway does for a slow reader.
    owes_sync: bool,
}

#[derive(Default)]
pub struct Network {
    wires: BTreeMap<usize, Wire>,
}

impl Network {
    pub fn is_quiet(&self) -> bool {
        let quiet = |wire: &Wire| {
            wire.to_server.is_empty()
                && wire.to_client.is_empty()
                && wire.events.is_empty()
                && !wire.owes_sync
        };
        self.wires.values().all(quiet)
    }

    /// The connection breaks: some of what is on its way to the server still arrives, nothing comes back.
    pub fn drop_connection(&mut self, index: usize, random: &mut Random) {
        if let Some(wire) = self.wires.get_mut(&index) {
            let arrives = random.below(wire.to_server.len() + 1);
            wire.to_server.truncate(arrives);
            wire.to_client.clear();
            wire.closed = true;
        }
    }

    /// The server reads one frame of this device, or lets an event out.
    pub fn server_turn(
        &mut self,
        index: usize,
        now_ms: u64,
        server: &mut FakeServer,
        faults: &Faults,
        random: &mut Random,
    ) {
        let Some(wire) = self.wires.get_mut(&index) else { return };
        if random.percent(faults.close_percent) && wire.session.is_ready() {
            let reason = [Reason::Draining, Reason::TooSlow, Reason::Overloaded][random.below(3)];
            wire.close(reason, 500);
        }
        let mut pushed = Vec::new();
        if let Some(payload) = wire.to_server.pop_front() {
            wire.take(payload, now_ms, server, faults, random, &mut pushed);
        }
        if wire.owes_sync && random.percent(20) {
            wire.owes_sync = false;
            wire.events.push_back(server_frame::Body::SyncNeeded(v1::SyncNeeded {}));
        }
        if random.percent(70) {
            wire.let_event_out(faults, random);
        }
        for push in pushed {
            let concerned =
                |wire: &&mut Wire| wire.caller.user == push.user && wire.caller.device != push.origin;
            for wire in self.wires.values_mut().filter(concerned) {
                if wire.session.is_ready() {
                    wire.events.push_back(push.body.clone());
                }
            }
        }
    }

    /// The device reads what has arrived, and does what its engine wants.
    pub fn device_turn(
        &mut self,
        index: usize,
        now_ms: u64,
        device: &mut Device,
        faults: &Faults,
        random: &mut Random,
    ) {
        if let Some(wire) = self.wires.get_mut(&index) {
            for _ in 0..=random.below(4) {
                let Some(payload) = wire.to_client.pop_front() else { break };
                device.engine.handle_payload(now_ms, payload);
            }
            if wire.closed && wire.to_client.is_empty() && wire.to_server.is_empty() {
                self.wires.remove(&index);
                device.engine.handle_disconnected(now_ms);
            }
        }
        device.engine.handle_timeout(now_ms);
        if !device.settle_writes(random, random.clone().percent(faults.die_in_turn_percent)) {
            device.crash(now_ms, random.next());
            return self.drop_connection(index, random);
        }
        while let Some(action) = device.engine.poll_action() {
            match action {
                Action::Connect(wanted) => self.connect(index, now_ms, device, wanted, faults, random),
                Action::Disconnect => drop(self.wires.remove(&index)),
                Action::LoggedOut => panic!("nothing refuses the proof for good"),
            }
        }
        while let Some(payload) = device.engine.poll_payload() {
            if let Some(wire) = self.wires.get_mut(&index).filter(|wire| !wire.closed) {
                wire.to_server.push_back(payload);
            }
        }
        assert!(device.settle_writes(random, false));
    }

    fn connect(
        &mut self,
        index: usize,
        now_ms: u64,
        device: &mut Device,
        wanted: ProofWanted,
        faults: &Faults,
        random: &mut Random,
    ) {
        self.wires.remove(&index);
        if random.percent(faults.refuse_connect_percent) {
            let busy = ConnectFailure::Busy { retry_after_ms: 300 };
            let failure = if random.percent(50) { ConnectFailure::Network } else { busy };
            return device.engine.handle_connect_failed(now_ms, failure);
        }
        let proof = match wanted {
            ProofWanted::Resume(token) => Proof::ResumeToken(token),
            ProofWanted::Access | ProofWanted::FreshAccess => Proof::AccessToken("token".into()),
        };
        device.engine.handle_connected(now_ms, proof);
        let (to_server, to_client, events) = Default::default();
        let session = ServerSession::new(now_ms);
        let caller = device.caller;
        let wire = Wire { caller, session, to_server, to_client, events, closed: false, owes_sync: false };
        self.wires.insert(index, wire);
    }
}

impl Wire {
    fn take(
        &mut self,
        payload: Bytes,
        now_ms: u64,
        server: &mut FakeServer,
        faults: &Faults,
        random: &mut Random,
        pushed: &mut Vec<Pushed>,
    ) {
        let mut out = BytesMut::new();
        match self.session.handle_frame(now_ms, payload, &mut out) {
            Ok(ServerInput::Authenticate { proof }) => {
                // A resume token is sometimes too old.
                if matches!(proof, Proof::ResumeToken(_)) && random.percent(faults.refuse_connect_percent) {
                    let error = RequestError::new(ErrorCode::ErrorUnauthenticated, "resume token");
                    self.session.refuse(&error, &mut out);
                    self.closed = true;
                } else {
                    let info = ReadyInfo {
                        user: self.caller.user,
                        device: self.caller.device,
                        server_time_ms: READY_TIME_MS,
                        resume_token: Bytes::from_static(b"resume"),
                        feed_version: server.feed_version(self.caller.user),
                    };
                    self.session.ready(now_ms, info, &mut out);
                }
            }
            Ok(ServerInput::Request { request_id, body }) => {
                self.request(request_id, body, server, faults, random, (pushed, &mut out));
            }
            Ok(ServerInput::Handled) => {}
            Err(fatal) => panic!("the client broke the protocol: {fatal:?}"),
        }
        if !out.is_empty() {
            self.send(out.freeze());
        }
    }

    fn request(
        &mut self,
        request_id: u32,
        body: client_frame::Body,
        server: &mut FakeServer,
        faults: &Faults,
        random: &mut Random,
        (pushed, out): (&mut Vec<Pushed>, &mut BytesMut),
    ) {
        let away = RequestError::new(ErrorCode::ErrorUnavailable, "storage").after_ms(20);
        if random.percent(faults.refuse_percent) {
            assert!(self.session.answer_error(request_id, &away, out));
            return;
        }
        let done = server.handle(self.caller, body);
        pushed.extend(done.events);
        if random.percent(faults.refuse_after_percent) {
            let timed_out = RequestError::new(ErrorCode::ErrorTimedOut, "storage");
            assert!(self.session.answer_error(request_id, &timed_out, out));
        } else if request_id != 0 {
            assert!(self.session.answer(request_id, done.answer, out));
        }
    }

    fn let_event_out(&mut self, faults: &Faults, random: &mut Random) {
        if self.events.len() > 1 && random.percent(faults.reorder_percent) {
            let other = random.below(self.events.len());
            self.events.swap(0, other);
        }
        let Some(event) = self.events.pop_front() else { return };
        if random.percent(faults.lose_event_percent) {
            self.owes_sync = faults.hints;
            return;
        }
        if random.percent(faults.double_event_percent) {
            self.events.push_back(event.clone());
        }
        let mut out = BytesMut::new();
        self.session.event(event, &mut out);
        if !out.is_empty() {
            self.send(out.freeze());
        }
    }

    fn send(&mut self, payload: Bytes) {
        if !self.closed || self.to_client.is_empty() {
            self.to_client.push_back(payload);
        }
    }

    fn close(&mut self, reason: Reason, retry_after_ms: u32) {
        let mut out = BytesMut::new();
        self.session.closing(reason, "simulated", retry_after_ms, &mut out);
        self.to_client.push_back(out.freeze());
        self.closed = true;
    }
}
