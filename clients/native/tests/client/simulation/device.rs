//! One device: an engine, its store on disk, and an app that remembers what it was promised.

use crate::fake_server::Caller;
use crate::folder::Folder;
use crate::random::Random;
use ringline_client::engine::operations::{Operation, OperationId};
use ringline_client::engine::{Engine, EngineConfig, NewMessage, Write};
use ringline_client::store::Store;
use ringline_client::{ClientMessageId, ConnectionState, ConversationId, Event, Seq};
use std::collections::BTreeMap;

pub struct Device {
    pub caller: Caller,
    pub engine: Engine,
    pub store: Store,
    lazy: Vec<Write>,
    folder: Folder,
    next_body: u64,
    next_operation: u64,
    /// Handed over, not yet on disk: nothing is promised.
    handed_over: Vec<(ConversationId, ClientMessageId, String)>,
    /// What the API has accepted, in order.
    pub promised: Vec<(ConversationId, ClientMessageId, String)>,
    pub shown: BTreeMap<ConversationId, Vec<u64>>,
    pub accepted: BTreeMap<(ConversationId, u64), Seq>,
    pub refused: usize,
    pub crashes: usize,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: {:#?}", self.caller, self.engine)
    }
}

impl Device {
    pub fn new(caller: Caller, seed: u64, now_ms: u64) -> Self {
        let folder = Folder::new("simulation");
        let store = Store::open(folder.path()).expect("a new store");
        let engine = start(caller, &store, seed, now_ms);
        Self {
            caller,
            engine,
            store,
            lazy: Vec::new(),
            folder,
            next_body: 0,
            next_operation: 0,
            handed_over: Vec::new(),
            promised: Vec::new(),
            shown: BTreeMap::new(),
            accepted: BTreeMap::new(),
            refused: 0,
            crashes: 0,
        }
    }

    /// The process dies between two instructions: what was not committed is gone.
    pub fn crash(&mut self, now_ms: u64, seed: u64) {
        self.crashes += 1;
        self.lazy.clear();
        self.handed_over.clear();
        // The file lock goes with the process.
        let elsewhere = Folder::new("simulation");
        self.store = Store::open(elsewhere.path()).expect("a new store");
        self.store = Store::open(self.folder.path()).expect("the store opens after a crash");
        self.engine = start(self.caller, &self.store, seed, now_ms);
    }

    pub fn send(&mut self, now_ms: u64, room: ConversationId, id: u64) {
        // Now and then one that the server will not take.
        let body = match id % 64 {
            1 => "refuse me".to_owned(),
            _ => format!("{}-{}", self.caller.device, self.next_body),
        };
        self.next_body += 1;
        let id = ClientMessageId(id);
        let message = NewMessage { conversation: room, id, kind: 0, body: body.clone().into() };
        if self.engine.handle_send(now_ms, message).is_ok() {
            self.handed_over.push((room, id, body));
        }
    }

    pub fn read(&mut self, now_ms: u64, room: ConversationId, random: &mut Random) {
        let Some((_, high)) = self.engine.window(room) else { return };
        self.engine.handle_read(now_ms, room, Seq(random.below(high.0 as usize + 1) as u64));
    }

    pub fn create(&mut self, now_ms: u64, other: usize) {
        let names = ["ada", "bob", "eve"];
        let id = OperationId(self.next_operation);
        self.next_operation += 1;
        let operation = match other {
            2 => Operation::CreateGroup {
                title: "more".into(),
                usernames: names.map(str::to_owned).into_iter().collect(),
                creation_id: 1 + id.0 % 3,
            },
            other => Operation::CreateDirect { username: names[other].into() },
        };
        self.engine.handle_operation(now_ms, id, operation, now_ms + 30_000);
    }

    /// The driver's order: writes, then what they allow. A crash may fall in between (`may_die`): false.
    pub fn settle_writes(&mut self, random: &mut Random, may_die: bool) -> bool {
        let writes = self.engine.poll_writes();
        let urgent = writes.iter().any(|write| !write.is_lazy());
        self.lazy.extend(writes);
        if may_die && random.percent(30) {
            return false;
        }
        if urgent {
            self.store.commit(&std::mem::take(&mut self.lazy)).expect("the disk is well");
        }
        self.promised.append(&mut self.handed_over);
        if may_die && random.percent(30) {
            return false;
        }
        while let Some(event) = self.engine.poll_event() {
            self.hear(event);
        }
        while self.engine.poll_outcome().is_some() {}
        true
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Message(message) => {
                let stored = self.store.history(message.conversation, Some(Seq(message.seq.0 + 1)), 1);
                let stored = stored.expect("the store can be read").pop();
                assert_eq!(
                    stored.map(|stored| stored.body),
                    Some(message.body.clone()),
                    "told before it was stored"
                );
                let shown = self.shown.entry(message.conversation).or_default();
                shown.push(message.seq.0);
            }
            Event::Accepted { conversation, client_message_id, seq, .. } => {
                let before = self.accepted.insert((conversation, client_message_id.0), seq);
                assert!(before.is_none_or(|before| before == seq), "two answers for one message");
            }
            Event::Refused { .. } => self.refused += 1,
            _ => {}
        }
    }

    pub fn is_quiet(&self, now_ms: u64) -> bool {
        // Nothing to do before the next heartbeat or refresh.
        let idle = self.engine.poll_timeout(now_ms).is_none_or(|at_ms| at_ms > now_ms + 4_000);
        let online = self.engine.connection() == Some(ConnectionState::Online);
        online && idle && self.engine.outbox_message_count() == 0
    }
}

fn start(caller: Caller, store: &Store, seed: u64, now_ms: u64) -> Engine {
    let config = EngineConfig {
        user: caller.user,
        device: caller.device,
        heartbeat_s: 0,
        client_name: "simulation".into(),
        jitter_seed: seed,
    };
    Engine::new(config, store.snapshot().expect("the store can be read"), now_ms)
}
