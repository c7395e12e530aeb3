//! One coordinator's time with an agent.
//!
//! ```text
//! Empty, Ready -Prepare-> Ready -Begin-> Running -PhaseDone-> Ready -Settle-> Settling -Settled-> Ready -Finish-> end
//! ```
//!
//! From any state: the coordinator is lost, or something failed; the load is dropped before anything else happens.

use super::limits::{SETTLE_S_MAX, check};
use super::{Agent, Load, LoadSetup, MakeLoad, Report};
use crate::coordinator::control::gate::Seat;
use crate::coordinator::control::link::{Link, LinkEvent};
use crate::coordinator::control::messages::{CONTROL_VERSION, FromAgent, ToAgent};
use crate::coordinator::control::tls::Streams;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use std::io;
use std::thread::Builder;
use std::time::Duration;

/// Events of the link that wait for the control thread.
const EVENTS_MAX: usize = 64;
/// Orders that wait for the load: a coordinator gives one at a time.
const ORDERS_MAX: usize = 16;
/// Longest turn of a load, in microseconds: how soon an order, or the coordinator's end, is noticed.
const TURN_WAIT_US_MAX: u64 = 10_000;
/// How often the coordinator's silence is looked at.
const SILENCE_CHECK: Duration = Duration::from_secs(1);
/// How far ahead a phase may be set, in seconds.
const BEGIN_AHEAD_S_MAX: u64 = 60;

/// How a coordinator's time ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SessionEnd {
    /// It said so.
    Finished,
    /// It went away.
    Lost(String),
    /// Refused, or could not go on; the coordinator was told.
    Failed(String),
}

impl std::fmt::Display for SessionEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Finished => f.write_str("finished"),
            Self::Lost(detail) => write!(f, "coordinator lost: {detail}"),
            Self::Failed(detail) => write!(f, "failed: {detail}"),
        }
    }
}

/// From the control thread to the load's.
enum Order {
    Do(ToAgent),
    Lost(String),
}

pub(super) fn serve<L: Load>(
    agent: &Agent,
    peer: &str,
    streams: Streams,
    seat: Option<Seat>,
    make_load: MakeLoad<'_, L>,
) -> io::Result<SessionEnd> {
    let (sender, events) = bounded(EVENTS_MAX);
    let link = Link::start(peer, streams, agent.clock, move |event| sender.send(event).is_ok())?;
    let hello = FromAgent::Hello {
        version: CONTROL_VERSION,
        hosts: vec![agent.host.clone()],
        agents: 1,
        connections_max: agent.options.connections_max,
    };
    link.send(hello).map_err(io::Error::other)?;
    let (ordering, orders) = bounded(ORDERS_MAX);
    let control = {
        let (link, clock) = (link.clone(), agent.clock);
        let run = move || {
            let answer = |number| FromAgent::Echo { number, now_us: clock.now_us(), bound_us: 0 };
            let reason = relay_orders(&events, &link, &ordering, answer);
            // The load's thread may have ended before.
            let _ = ordering.try_send(Order::Lost(reason));
            drop(ordering);
        };
        Builder::new().name("control".into()).spawn(run)?
    };
    let mut session = Session { agent, link: &link, load: None, phases_s: Vec::new(), stage: Stage::Empty };
    let end = session.run(&orders, make_load);
    drop(session);
    drop(seat);
    if let SessionEnd::Failed(detail) = &end {
        // Should it not take it, it sees the connection's end.
        let _ = link.send(FromAgent::Failed { detail: detail.clone() });
    }
    link.close();
    drop(orders);
    // Ends with the link: at once, or after the silence that is allowed.
    let _ = control.join();
    Ok(end)
}

/// Answers probes and passes all else on, until the link's end. Says why it ended. A link that has not ended by
/// itself is ended.
fn relay_orders(
    events: &Receiver<LinkEvent<ToAgent>>,
    link: &Link<FromAgent>,
    ordering: &Sender<Order>,
    answer: impl Fn(u32) -> FromAgent,
) -> String {
    let ended = "the connection ended".to_owned();
    let broken = |reason: String| {
        link.abort();
        reason
    };
    loop {
        let done = match events.recv_timeout(SILENCE_CHECK) {
            Ok(LinkEvent::Message { message: ToAgent::Probe { number }, .. }) => link.send(answer(number)),
            Ok(LinkEvent::Message { message, .. }) => {
                match ordering.try_send(Order::Do(message)) {
                    Err(error) if error.is_full() => return broken("more orders than can wait".to_owned()),
                    // Ended already: the rest of the link is drained until it closes.
                    Ok(()) | Err(_) => Ok(()),
                }
            }
            Ok(LinkEvent::Ended(error)) => return error.map_or(ended, |error| error.to_string()),
            Err(RecvTimeoutError::Disconnected) => return ended,
            Err(RecvTimeoutError::Timeout) => Ok(()),
        };
        if let Err(error) = done.and_then(|()| link.check_heard()) {
            return broken(error.to_string());
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Empty,
    Ready,
    Running { phase: u32, until_us: u64 },
    Settling { until_us: u64 },
}

struct Session<'a, L> {
    agent: &'a Agent,
    link: &'a Link<FromAgent>,
    load: Option<L>,
    /// Longest time of each phase, in seconds.
    phases_s: Vec<f64>,
    stage: Stage,
}

impl<L: Load> Session<'_, L> {
    fn run(&mut self, orders: &Receiver<Order>, make_load: MakeLoad<'_, L>) -> SessionEnd {
        loop {
            let order = match &self.load {
                Some(_) => orders.try_recv(),
                None => orders.recv().map_err(|_| TryRecvError::Disconnected),
            };
            let done = match order {
                Ok(Order::Do(ToAgent::Finish)) => return SessionEnd::Finished,
                Ok(Order::Do(order)) => self.obey(order, make_load),
                Ok(Order::Lost(reason)) => return SessionEnd::Lost(reason),
                Err(TryRecvError::Disconnected) => return SessionEnd::Lost("control thread ended".into()),
                Err(TryRecvError::Empty) => self.turn(),
            };
            if let Err(detail) = done {
                return SessionEnd::Failed(detail);
            }
        }
    }

    fn obey(&mut self, order: ToAgent, make_load: MakeLoad<'_, L>) -> Result<(), String> {
        let now_us = self.agent.clock.now_us();
        match (order, self.stage, &mut self.load) {
            (ToAgent::Prepare(prepare), Stage::Empty | Stage::Ready, _) => {
                // A search prepares again and again: what it left open is closed first.
                self.load = None;
                let options = &self.agent.options;
                check(&prepare, options).map_err(|error| error.to_string())?;
                let (sources, connections_max) = (options.sources.clone(), options.connections_max);
                let setup = LoadSetup { sources, connections_max };
                let load = self.load.insert(make_load(&setup, self.agent.clock));
                load.prepare(&prepare)?;
                self.phases_s = prepare.plan.phases.iter().map(|phase| phase.seconds).collect();
                self.stage = Stage::Ready;
                self.tell(FromAgent::Prepared)
            }
            (ToAgent::Begin { phase, at_us }, Stage::Ready, Some(load)) => {
                let seconds = self.phases_s.get(phase as usize);
                let seconds = *seconds.ok_or_else(|| format!("the plan has no phase {phase}"))?;
                if at_us < now_us {
                    let late_us = now_us - at_us;
                    return Err(format!(
                        "phase {phase} was to begin {late_us} us before this agent was told"
                    ));
                }
                if at_us - now_us > BEGIN_AHEAD_S_MAX * 1_000_000 {
                    return Err(format!("phase {phase} is set more than {BEGIN_AHEAD_S_MAX} s ahead"));
                }
                let until_us = at_us + (seconds * 1e6) as u64 + self.agent.phase_grace_s * 1_000_000;
                self.stage = Stage::Running { phase, until_us };
                load.begin(phase, at_us);
                Ok(())
            }
            (ToAgent::EndPhase, Stage::Running { .. }, Some(load)) => {
                load.end_phase();
                Ok(())
            }
            // The phase ended by itself meanwhile.
            (ToAgent::EndPhase, Stage::Ready, _) => Ok(()),
            (ToAgent::Settle, Stage::Ready, Some(load)) => {
                self.stage = Stage::Settling { until_us: now_us + SETTLE_S_MAX * 1_000_000 };
                load.settle();
                Ok(())
            }
            (order, stage, _) => Err(format!("{} does not fit in while {stage:?}", order.name())),
        }
    }

    /// Lets the load work, passes on what it tells, and holds it to its time.
    fn turn(&mut self) -> Result<(), String> {
        let load = self.load.as_mut().expect("asked for orders without waiting only with a load");
        load.turn(TURN_WAIT_US_MAX);
        while let Some(report) = self.load.as_mut().and_then(Load::take_report) {
            let message = match (report, self.stage) {
                (Report::Failed(detail), _) => return Err(detail),
                (Report::Progress(progress), Stage::Running { .. }) => {
                    FromAgent::Progress(Box::new(progress))
                }
                (Report::PhaseDone(share), Stage::Running { phase, .. }) => {
                    assert_eq!(share.phase, phase, "the load reports the phase it was given");
                    self.stage = Stage::Ready;
                    FromAgent::PhaseDone(Box::new(share))
                }
                (Report::Settled(balance), Stage::Settling { .. }) => {
                    self.stage = Stage::Ready;
                    FromAgent::Settled { balance }
                }
                (report, stage) => panic!("the load reports {report:?} while {stage:?}"),
            };
            self.tell(message)?;
        }
        let now_us = self.agent.clock.now_us();
        match self.stage {
            Stage::Running { phase, until_us } if now_us > until_us => {
                let grace_s = self.agent.phase_grace_s;
                Err(format!("phase {phase} had not ended {grace_s} s after its time: stopped"))
            }
            Stage::Settling { until_us } if now_us > until_us => {
                Err(format!("settling took more than {SETTLE_S_MAX} s: stopped"))
            }
            _ => Ok(()),
        }
    }

    fn tell(&self, message: FromAgent) -> Result<(), String> {
        self.link.send(message).map_err(|error| error.to_string())
    }
}
