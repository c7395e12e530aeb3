//! People who write to each other while an operator works, and what they were told.

use bench::agent::{AgentError, Identity, Route, Target, Trust, rest};
use bench::clock;
use bench::workload::balance::{self, Tick};
use bench::workload::device::Device;
use futures_util::future::join_all;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use wire_protocol::ids::ConversationId;

/// Pairs of people: enough for conversations and homes in most of the eight shards.
const TALKS: usize = 12;
/// Pause between an answer and the next message: half of what a user may send by default.
const PACE: Duration = Duration::from_millis(100);
/// An answer that does not come for so long will not come.
const ANSWER: Duration = Duration::from_secs(5);
/// Pause between two tries to come back.
const COME_BACK: Duration = Duration::from_millis(100);
/// Longest pause before what was refused is sent again, in milliseconds.
const REPEAT_MS_MAX: u64 = 500;
/// Longest time until a message is acknowledged, in milliseconds: longer than any server is away on the page.
const PATIENCE_MS: u64 = 120_000;
/// Old messages of each talk that are sent again when it is looked at.
const REPEATS: usize = 5;

/// One who writes, one who is written to and is away but for looking.
pub struct Talk {
    writer: Device,
    reader: Device,
    conversation: ConversationId,
    /// What the first answers said, oldest first, with the ids of the messages.
    told: Vec<(u64, Tick)>,
}

/// They register, and open their conversations.
pub async fn begin(gateway: (SocketAddr, PathBuf)) -> Vec<Talk> {
    let (tls, certificate) = gateway;
    let target = Target {
        tls,
        authority: tls.to_string(),
        tls_name: "localhost".into(),
        trust: Trust::File(certificate),
        loopback: None,
    };
    let mut talks = Vec::new();
    for number in 0..TALKS {
        let writer = register(&target, &format!("writer-{number}")).await;
        let reader = register(&target, &format!("reader-{number}")).await;
        let with = reader.clone();
        let mut reader = Device::connect(&target, Route::Native, reader).await.expect("it is up");
        reader.leave();
        let mut writer = Device::connect(&target, Route::Native, writer).await.expect("it is up");
        let conversation = writer.create_direct(&with).await.expect("both exist");
        talks.push(Talk { writer, reader, conversation, told: Vec::new() });
    }
    talks
}

/// Again while that may help: a gateway that has just started looks for its storage nodes.
async fn register(target: &Target, name: &str) -> Identity {
    let began = clock::now();
    loop {
        match rest::register(target, name).await {
            Ok(registered) => return registered,
            Err(error) => {
                assert!(error.is_retryable() && clock::since_ms(began) < PATIENCE_MS, "{name}: {error}");
                tokio::time::sleep(COME_BACK).await;
            }
        }
    }
}

/// Everybody writes as long as the work goes on, in a thread of its own, whatever it does to the servers.
pub fn while_they_write(runtime: &Runtime, talks: &mut [Talk], work: impl FnOnce() + Send) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let working = scope.spawn(|| {
            // Also of work that fails: nobody writes for ever.
            let _end = End(&is_over);
            work();
        });
        runtime.block_on(join_all(talks.iter_mut().map(|talk| talk.write_until(&is_over))));
        if let Err(panic) = working.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Tells of its own end.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Talk {
    /// How many messages were acknowledged.
    pub fn count(&self) -> usize {
        self.told.len()
    }

    /// Ends with the acknowledgement of the last message.
    async fn write_until(&mut self, is_over: &AtomicBool) {
        while !is_over.load(Ordering::Acquire) {
            self.write().await;
            tokio::time::sleep(PACE).await;
        }
    }

    /// Writes a message, again under the same id until it is acknowledged.
    pub async fn write(&mut self) {
        let (id, text) = (self.writer.next_message_id(), format!("message {}", self.told.len() + 1));
        let seq = send(&mut self.writer, self.conversation, id, &text).await;
        self.told.push((id, Tick { seq, text }));
    }

    /// Both see every acknowledged message once, where the first answer said, and nothing else; and a repeat of an old one
    /// is answered as the first time.
    pub async fn check(&mut self) {
        for device in [&mut self.writer, &mut self.reader] {
            let log = history(device, self.conversation).await;
            let who = device.identity.username.clone();
            let ticks = self.told.iter().map(|(_, tick)| tick);
            balance::check(&log, ticks).unwrap_or_else(|imbalance| panic!("{who}: {imbalance}"));
        }
        self.reader.leave();
        for (id, tick) in self.told.iter().step_by(1 + self.told.len() / REPEATS) {
            let seq = send(&mut self.writer, self.conversation, *id, "a late repeat").await;
            assert_eq!(seq, tick.seq, "a repeat got another answer");
        }
    }
}

async fn send(device: &mut Device, conversation: ConversationId, id: u64, text: &str) -> u64 {
    let began = clock::now();
    loop {
        match tokio::time::timeout(ANSWER, device.send_as(conversation, id, text)).await {
            Ok(Ok(accepted)) => return accepted.seq,
            Ok(Err(error)) => recover(device, Some(error), began).await,
            Err(_) => recover(device, None, began).await,
        }
    }
}

async fn history(device: &mut Device, conversation: ConversationId) -> bench::workload::device::Log {
    let began = clock::now();
    loop {
        match device.history(conversation).await {
            Ok(log) => return log,
            Err(error) => recover(device, Some(error), began).await,
        }
    }
}

/// After an answer that is none: waits as it was told, or connects anew. `None`: nothing came. What no repeat helps against
/// fails the test.
async fn recover(device: &mut Device, failed: Option<AgentError>, began: Instant) {
    let who = device.identity.username.clone();
    assert!(clock::since_ms(began) < PATIENCE_MS, "{who}: {failed:?}");
    match failed {
        Some(AgentError::Refused(refused)) => {
            assert!(refused.retryable, "{who}: {refused:?}");
            let wait_ms = u64::from(refused.retry_after_ms).clamp(10, REPEAT_MS_MAX);
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            return;
        }
        // What was not sent was found to be in vain: the connection had ended.
        None | Some(AgentError::NotSent(_)) => {}
        Some(error) => assert!(error.is_retryable(), "{who}: {error}"),
    }
    device.leave();
    while let Err(error) = device.come_back().await {
        assert!(error.is_retryable() && clock::since_ms(began) < PATIENCE_MS, "{who}: {error}");
        tokio::time::sleep(COME_BACK).await;
    }
}
