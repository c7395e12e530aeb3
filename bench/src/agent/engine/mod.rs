//! The event loop of one agent: one thread, one poll, and for an idle connection neither task nor buffer.
//!
//! ```text
//! turn:  due timers -> actions of the workload -> sockets with more to read -> wait -> ready sockets
//!                        ^________________________ after each of them ___________________|
//! ```
//!
//! [`Engine`] carries out what a [`Workload`] decides, on connections that speak whatever protocol [`Clients`] makes
//! for them. It refuses to know what is measured and what a message is; it only tells the workload when something
//! came, and when a request was handed to the kernel. Whoever calls [`Engine::turn`] may do other things in between
//! (`agent/service.rs` serves the coordinator); another thread ends a wait by [`Engine::waker`].

mod connection;
mod devices;
pub mod sockets;
#[cfg(test)]
mod tests;
mod timers;
pub mod tls;
mod waiting;

use super::protocol::{ClientProtocol, DeviceMemory, NotSent, ProtocolEvent, Request, TargetIndex, Token};
use crate::clock;
use crate::measure::histogram::Latencies;
use crate::workload::load::{Action, DeviceEvent, Workload};
use crate::workload::population::DeviceIndex;
use connection::{Beginning, Connection, Loss, Progress, Reading, Scratch};
use devices::Devices;
use mio::Interest;
use sockets::Sockets;
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use timers::{NO_ENTRY, Timers};
use tls::{Handshake, TlsTarget, UseTicket};
use waiting::{Waiting, device_token};

/// A connection that is not open after this long is given up, in microseconds: TLS included.
const OPEN_US_MAX: u64 = 10_000_000;
/// Actions carried out before sockets have their turn. A connect takes about 20 us, a request less.
const ACTIONS_MAX: usize = 256;
/// Timers looked at before anything else has its turn.
const TIMERS_MAX: usize = 1_024;
/// Faults that are kept for a person to read.
const FAULTS_KEPT_MAX: usize = 20;

/// A server to connect to.
#[derive(Clone)]
pub struct Target {
    /// Where.
    pub address: SocketAddr,
    /// `None`: in plain text.
    pub tls: Option<TlsTarget>,
}

/// Who the devices are to the servers.
pub trait Clients: Send {
    /// A protocol for the device's next connection, with what its last one left.
    fn protocol(&mut self, device: DeviceIndex, memory: DeviceMemory) -> Box<dyn ClientProtocol>;
}

/// What an engine has done since it began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Time not spent waiting, in microseconds: with what the caller did between turns.
    pub busy_us: u64,
    /// Time spent waiting.
    pub waited_us: u64,
    /// Waits.
    pub turns: u64,
    /// Actions carried out.
    pub actions: u64,
    /// Sockets that were looked at because poll said so.
    pub socket_events: u64,
    /// Bytes received, TLS included.
    pub bytes_in: u64,
    /// Bytes sent, TLS included.
    pub bytes_out: u64,
}

/// What ended a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turned {
    /// Something happened, or the time was over.
    Done,
    /// Somebody used the waker.
    Woken,
}

/// The event loop of one agent.
pub struct Engine {
    targets: Vec<Target>,
    clients: Box<dyn Clients>,
    sockets: Sockets,
    devices: Devices,
    timers: Timers,
    /// Connections with more to read than was fair.
    unread: VecDeque<DeviceIndex>,
    /// The workload may want more than it was just asked for.
    left_over: bool,
    waiting: Waiting,
    io: Scratch,
    /// Requests whose bytes wait in `io`, and when each was taken from the workload.
    handing: Vec<(Token, u64)>,
    handed: Latencies,
    faults: Vec<String>,
    usage: Usage,
    /// When the last wait ended.
    resumed_us: u64,
}

impl Engine {
    /// An engine without connections. `sources` are addresses of this machine that connections come from in turn;
    /// none: as the system chooses.
    pub fn new(targets: Vec<Target>, sources: Vec<IpAddr>, clients: Box<dyn Clients>) -> io::Result<Self> {
        Ok(Self {
            targets,
            clients,
            sockets: Sockets::new(sources),
            devices: Devices::default(),
            timers: Timers::default(),
            unread: VecDeque::new(),
            left_over: false,
            waiting: Waiting::new()?,
            io: Scratch::new(),
            handing: Vec::new(),
            handed: Latencies::default(),
            faults: Vec::new(),
            usage: Usage::default(),
            resumed_us: clock::now_us(),
        })
    }

    /// Ends a wait, from any thread.
    pub fn waker(&self) -> Arc<mio::Waker> {
        self.waiting.waker()
    }

    /// Does what is to be done, then waits for more, `wait_us_max` at most, and does that.
    pub fn turn(&mut self, workload: &mut dyn Workload, wait_us_max: u64) -> io::Result<Turned> {
        self.look_at_timers(workload);
        self.act(workload);
        self.read_on(workload);
        let until_us = if self.left_over || !self.unread.is_empty() {
            0
        } else {
            let due_us = workload.next_due_us().unwrap_or(u64::MAX);
            let timer_us = self.timers.next_us().unwrap_or(u64::MAX);
            due_us.min(timer_us).min(clock::now_us().saturating_add(wait_us_max))
        };
        let begun_us = clock::now_us();
        self.usage.busy_us += begun_us.saturating_sub(self.resumed_us);
        let waited = self.waiting.wait(until_us)?;
        self.resumed_us = clock::now_us();
        self.usage.waited_us += self.resumed_us - begun_us;
        self.usage.turns += 1;
        // What fell due while waiting comes first: its time counts, and a socket's bytes are safe in the kernel.
        self.act(workload);
        for event in &waited.events {
            if let Some(device) = device_token(event.token()).map(DeviceIndex) {
                self.usage.socket_events += 1;
                self.look_at(workload, device, event);
                self.act(workload);
            }
        }
        let turned = if waited.woken { Turned::Woken } else { Turned::Done };
        self.waiting.done(waited);
        Ok(turned)
    }

    /// Sockets that are open or on their way.
    pub fn connections(&self) -> usize {
        self.devices.connections()
    }

    /// Connections to one target that ports allow at a time.
    pub fn connections_max(&self) -> u64 {
        self.sockets.connections_max()
    }

    /// What it has done so far.
    pub fn usage(&self) -> Usage {
        Usage { bytes_in: self.io.bytes_in, bytes_out: self.io.bytes_out, ..self.usage }
    }

    /// How long requests took from the workload to the kernel, in microseconds, since this was last asked: what the
    /// engine itself adds once it knows of a request.
    pub fn take_handed(&mut self) -> Latencies {
        let taken = self.handed.clone();
        self.handed.clear();
        taken
    }

    /// The first faults in full, since this was last asked; tables of errors only have their reasons.
    pub fn take_faults(&mut self) -> Vec<String> {
        std::mem::take(&mut self.faults)
    }

    /// Carries out what the workload wants now, as much as is fair.
    fn act(&mut self, workload: &mut dyn Workload) {
        // Requests of one device that come together leave together.
        let mut asking = None;
        let mut count = 0;
        while count < ACTIONS_MAX {
            let now_us = clock::now_us();
            let Some(action) = workload.poll(now_us) else { break };
            count += 1;
            let device = device_of(&action);
            if let Some(other) = asking.take_if(|other| *other != device) {
                self.hand_over(workload, other);
            }
            match action {
                Action::Request { token, request, .. } => {
                    self.request(workload, now_us, device, token, &request);
                    asking = Some(device);
                }
                other => {
                    if asking.take().is_some() {
                        self.hand_over(workload, device);
                    }
                    self.carry_out(workload, now_us, device, &other);
                }
            }
        }
        if let Some(device) = asking {
            self.hand_over(workload, device);
        }
        self.usage.actions += count as u64;
        self.left_over = count == ACTIONS_MAX;
    }

    fn carry_out(&mut self, workload: &mut dyn Workload, now_us: u64, device: DeviceIndex, action: &Action) {
        match action {
            Action::Connect { target, resume, .. } => {
                let use_ticket = if *resume { UseTicket::Yes } else { UseTicket::No };
                self.connect(workload, now_us, device, *target, use_ticket);
            }
            Action::Disconnect { .. } => {
                self.devices.disconnect(device);
            }
            Action::Pause { .. } => self.set_reading(device, Reading::Paused),
            Action::Resume { .. } => self.set_reading(device, Reading::On),
            Action::Request { .. } => unreachable!("requests are written together"),
        }
    }

    fn connect(
        &mut self,
        workload: &mut dyn Workload,
        now_us: u64,
        device: DeviceIndex,
        target: TargetIndex,
        use_ticket: UseTicket,
    ) {
        // A workload that connects a device twice has lost count; the newest one holds, as it would for a person.
        self.devices.disconnect(device);
        let Some(target) = self.targets.get(usize::from(target.0)) else {
            return self.tell_lost(workload, now_us, device, Loss::new("no_target"));
        };
        let begun = self.sockets.connect(target.address).and_then(|mut socket| {
            let token = mio::Token(device.0 as usize);
            self.waiting.registry().register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
            Ok(socket)
        });
        let socket = match begun {
            Ok(socket) => socket,
            Err(error) => return self.tell_lost(workload, now_us, device, Loss::of(&error)),
        };
        let memory = std::mem::take(&mut self.devices.entry(device).memory);
        let beginning = Beginning {
            socket,
            tls: target.tls.clone(),
            use_ticket,
            protocol: self.clients.protocol(device, memory),
            open_by_us: now_us + OPEN_US_MAX,
        };
        let mut connection = Connection::new(device, beginning);
        self.timers.schedule(device, connection.due_us(), &mut connection.entry_us);
        self.devices.connect(device, connection);
    }

    fn request(
        &mut self,
        workload: &mut dyn Workload,
        now_us: u64,
        device: DeviceIndex,
        token: Token,
        request: &Request,
    ) {
        let written = match self.devices.connection(device) {
            Some(connection) => connection.request(now_us, token, request, &mut self.io),
            None => Err(NotSent::NotReady),
        };
        match written {
            Ok(()) => self.handing.push((token, now_us)),
            Err(NotSent::NotReady | NotSent::Full) => {
                workload.handle(now_us, device, DeviceEvent::Busy(token));
            }
            // It will never do better.
            Err(NotSent::Unsupported) => {
                let refused = ProtocolEvent::Refused {
                    token: Some(token),
                    code: "unsupported".into(),
                    retryable: false,
                    retry_after_ms: 0,
                };
                workload.handle(now_us, device, DeviceEvent::Protocol(refused));
            }
        }
    }

    /// Hands a device's requests to the kernel.
    fn hand_over(&mut self, workload: &mut dyn Workload, device: DeviceIndex) {
        let Some(connection) = self.devices.connection(device) else { return };
        let flushed = connection.flush(&mut self.io);
        self.timers.schedule(device, connection.due_us(), &mut connection.entry_us);
        let now_us = clock::now_us();
        for (token, taken_us) in self.handing.drain(..) {
            self.handed.record(now_us.saturating_sub(taken_us));
            workload.handed_over(now_us, device, token);
        }
        if let Err(loss) = flushed {
            self.lose(workload, now_us, device, loss);
        }
    }

    fn set_reading(&mut self, device: DeviceIndex, reading: Reading) {
        if let Some(connection) = self.devices.connection(device)
            && connection.set_reading(reading)
            && !connection.listed
        {
            connection.listed = true;
            self.unread.push_back(device);
        }
    }

    fn look_at(&mut self, workload: &mut dyn Workload, device: DeviceIndex, event: &mio::event::Event) {
        let now_us = clock::now_us();
        // An event of a connection that was dropped meanwhile is of no concern.
        let Some(connection) = self.devices.connection(device) else { return };
        let progress = connection.handle_ready(now_us, event, &mut self.io);
        self.after(workload, now_us, device, progress);
    }

    /// Gives those their turn that had more to read than was fair.
    fn read_on(&mut self, workload: &mut dyn Workload) {
        for _ in 0..self.unread.len() {
            let Some(device) = self.unread.pop_front() else { break };
            let now_us = clock::now_us();
            let Some(connection) = self.devices.connection(device) else { continue };
            connection.listed = false;
            let progress = connection.read(now_us, &mut self.io);
            self.after(workload, now_us, device, progress);
            self.act(workload);
        }
    }

    /// Tells the workload what a look at a connection brought.
    fn after(&mut self, workload: &mut dyn Workload, now_us: u64, device: DeviceIndex, progress: Progress) {
        if let Some(connection) = self.devices.connection(device) {
            self.timers.schedule(device, connection.due_us(), &mut connection.entry_us);
            if progress.more && progress.lost.is_none() && !connection.listed {
                connection.listed = true;
                self.unread.push_back(device);
            }
        }
        if let Some(handshake) = progress.connected {
            let resumed = handshake == Handshake::Resumed;
            workload.handle(now_us, device, DeviceEvent::Connected { resumed });
        }
        for event in self.io.events.drain(..) {
            workload.handle(now_us, device, DeviceEvent::Protocol(event));
        }
        if let Some(loss) = progress.lost {
            self.lose(workload, now_us, device, loss);
        }
    }

    fn look_at_timers(&mut self, workload: &mut dyn Workload) {
        let now_us = clock::now_us();
        for _ in 0..TIMERS_MAX {
            let Some((entry_us, device)) = self.timers.take_due(now_us) else { break };
            let Some(connection) = self.devices.connection(device) else { continue };
            if connection.entry_us != entry_us {
                continue;
            }
            connection.entry_us = NO_ENTRY;
            let due = connection.due_us().is_some_and(|due_us| due_us <= now_us);
            let handled = if due { connection.handle_timeout(now_us, &mut self.io) } else { Ok(()) };
            self.timers.schedule(device, connection.due_us(), &mut connection.entry_us);
            if let Err(loss) = handled {
                self.lose(workload, now_us, device, loss);
            }
        }
    }

    fn lose(&mut self, workload: &mut dyn Workload, now_us: u64, device: DeviceIndex, loss: Loss) {
        if self.devices.disconnect(device) {
            self.tell_lost(workload, now_us, device, loss);
        }
    }

    fn tell_lost(&mut self, workload: &mut dyn Workload, now_us: u64, device: DeviceIndex, loss: Loss) {
        if !loss.detail.is_empty() && self.faults.len() < FAULTS_KEPT_MAX {
            self.faults.push(format!("device {}: {}: {}", device.0, loss.reason, loss.detail));
        }
        workload.handle(now_us, device, DeviceEvent::Lost { reason: loss.reason.to_owned() });
    }
}

fn device_of(action: &Action) -> DeviceIndex {
    match action {
        Action::Connect { device, .. }
        | Action::Disconnect { device }
        | Action::Request { device, .. }
        | Action::Pause { device }
        | Action::Resume { device } => *device,
    }
}
