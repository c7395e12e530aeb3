//! A relay: an agent to who is above, a coordinator to who is below. With relays below relays a run reaches as many
//! agents as it has machines for. It adds its agents up and knows nothing of loads.
//!
//! ```text
//!   above    Prepare  Begin (by the relay's clock)      ^ Hello  Progress  PhaseDone  Settled: sums
//!     v         v       v                               |
//!   relay    first    shifted by each child's offset    | merged; a child lost or failed: Failed, naming it
//!     v         v       v                               |
//!   below    Prepare  Begin (by the child's clock)      ^
//! ```
//!
//! It reaches its agents anew for each coordinator, and measures their clocks before it tells that they are ready for
//! the next phase, so that the coordinator's own measurement finds fresh ones.

use super::agents::{Agents, AgentsError, Merging, News, Place, read_agents_file};
use super::control::clocks::ProcessClock;
use super::control::flags::{FlagError, Flags};
use super::control::gate::{Entered, Gate, Seat};
use super::control::link::{Link, LinkEvent};
use super::control::messages::{CONTROL_VERSION, FromAgent, Prepare, ToAgent};
use super::control::transport::TransportError;
use super::control::trust::{CoordinatorTrust, TrustError, TrustFiles, agent_config};
use crossbeam_channel::{Receiver, bounded, select};
use std::io;
use std::path::Path;
use std::time::Duration;

/// Events from above that wait.
const EVENTS_MAX: usize = 64;
/// How often silence and deadlines are looked at.
const TICK: Duration = Duration::from_millis(100);
/// What the command understands.
pub const RELAY_HELP: &str = "relay    --listen ADDR --authority FILE --cert FILE --key FILE --agents FILE
           --down-cert FILE --down-key FILE [--down-authority FILE]
           an agent to a coordinator that proves itself, a coordinator to the agents (or relays) of the list";

/// Why a relay does not serve.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The command line.
    #[error(transparent)]
    Flags(#[from] FlagError),
    /// Certificates.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The list of agents.
    #[error(transparent)]
    Agents(#[from] AgentsError),
    /// The socket.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Why a coordinator's time with a relay ended before it said so.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    /// Below: the coordinator is told.
    #[error(transparent)]
    Below(#[from] AgentsError),
    /// Above: nobody is left to be told.
    #[error("coordinator lost: {0}")]
    Above(#[from] TransportError),
    /// Above: what it asked for does not fit in.
    #[error("{0}")]
    Asked(String),
}

/// A relay, ready to serve.
pub struct Relay {
    /// Below it.
    pub places: Vec<Place>,
    /// To reach them; not needed for children.
    pub trust: Option<CoordinatorTrust>,
    /// Its clock.
    pub clock: ProcessClock,
    /// How figures of agents become one.
    pub merging: Merging,
}

/// `ringline-bench relay …`: arguments behind the command's name. Serves until the process ends.
pub fn command(arguments: &[String], merging: Merging) -> Result<(), RelayError> {
    const VALUED: [&str; 8] = [
        "--listen",
        "--authority",
        "--cert",
        "--key",
        "--agents",
        "--down-authority",
        "--down-cert",
        "--down-key",
    ];
    let mut flags = Flags::parse(arguments, &VALUED, &[])?;
    flags.no_operand()?;
    let listen = flags.needed("--listen")?;
    let up = TrustFiles {
        authority: flags.needed("--authority")?.into(),
        cert: flags.needed("--cert")?.into(),
        key: flags.needed("--key")?.into(),
    };
    let down = TrustFiles {
        authority: flags.one("--down-authority")?.map_or(up.authority.clone(), Into::into),
        cert: flags.needed("--down-cert")?.into(),
        key: flags.needed("--down-key")?.into(),
    };
    let places = read_agents_file(Path::new(&flags.needed("--agents")?))?;
    let trust = Some(CoordinatorTrust::read(&down)?);
    let gate = Gate::open(&listen, agent_config(&up)?)?;
    println!("ready: {}", gate.address());
    Relay { places, trust, clock: ProcessClock::start(), merging }.serve_all(&gate)?;
    Ok(())
}

impl Relay {
    /// Serves one coordinator after another.
    pub fn serve_all(&self, gate: &Gate) -> io::Result<()> {
        while let Ok(entered) = gate.entered().recv() {
            let peer = entered.peer.clone();
            eprintln!("serves the coordinator at {peer}");
            match self.serve_one(entered)? {
                Ok(()) => eprintln!("{peer}: finished"),
                Err(error) => eprintln!("{peer}: {error}"),
            }
        }
        Ok(())
    }

    fn serve_one(&self, entered: Entered) -> io::Result<Result<(), SessionError>> {
        let Entered { streams, peer, seat } = entered;
        let (sender, above) = bounded(EVENTS_MAX);
        let link = Link::start(&peer, streams, self.clock, move |event| sender.send(event).is_ok())?;
        let end = self.session(&link, &above, seat);
        match &end {
            Err(SessionError::Above(_)) => link.abort(),
            Err(error) => {
                // Should it not take it, it sees the connection's end.
                let _ = link.send(FromAgent::Failed { detail: error.to_string() });
            }
            Ok(()) => {}
        }
        link.close();
        Ok(end)
    }

    /// The agents are let go, and the seat is free, before the coordinator is told of the end.
    fn session(
        &self,
        link: &Link<FromAgent>,
        above: &Receiver<LinkEvent<ToAgent>>,
        seat: Seat,
    ) -> Result<(), SessionError> {
        let mut agents = Agents::gather(&self.places, self.trust.as_ref(), self.clock, self.merging)?;
        agents.measure_clocks()?;
        link.send(FromAgent::Hello {
            version: CONTROL_VERSION,
            hosts: agents.hosts(),
            agents: agents.agents(),
            connections_max: agents.connections_max(),
        })?;
        let mut session = Session { relay: self, link, agents, prepare: None, after_clocks: None };
        loop {
            select! {
                recv(above) -> event => {
                    // Disconnected only after its end was told.
                    let event = event.unwrap_or(LinkEvent::Ended(None));
                    if session.above(event)? == Turn::Finish {
                        break;
                    }
                }
                recv(session.agents.events()) -> event => {
                    if let Ok(event) = event {
                        session.agents.handle(event)?;
                    }
                }
                default(TICK) => {}
            }
            session.agents.tick()?;
            link.check_heard()?;
            while let Some(news) = session.agents.poll_news() {
                session.below(news)?;
            }
        }
        let finished = session.agents.finish();
        drop(seat);
        Ok(finished?)
    }
}

#[derive(PartialEq, Eq)]
enum Turn {
    GoOn,
    Finish,
}

struct Session<'a> {
    relay: &'a Relay,
    link: &'a Link<FromAgent>,
    agents: Agents,
    prepare: Option<Box<Prepare>>,
    /// What is told above once the clocks below have been measured.
    after_clocks: Option<FromAgent>,
}

impl Session<'_> {
    fn above(&mut self, event: LinkEvent<ToAgent>) -> Result<Turn, SessionError> {
        let message = match event {
            LinkEvent::Message { message, .. } => message,
            LinkEvent::Ended(error) => {
                let peer = self.link.peer().to_owned();
                return Err(error.unwrap_or(TransportError::Cut { peer }).into());
            }
        };
        match message {
            ToAgent::Probe { number } => {
                let (now_us, bound_us) = (self.relay.clock.now_us(), self.agents.clock_bound_us());
                self.link.send(FromAgent::Echo { number, now_us, bound_us })?;
            }
            ToAgent::EndPhase => self.agents.end_phase()?,
            ToAgent::Finish => return Ok(Turn::Finish),
            order if !self.agents.at_rest() || self.after_clocks.is_some() => {
                return Err(SessionError::Asked(format!("{} while something else goes on", order.name())));
            }
            ToAgent::Prepare(prepare) => {
                self.agents.start_prepare(&prepare)?;
                self.prepare = Some(prepare);
            }
            ToAgent::Begin { phase, at_us } => {
                let phases = self.prepare.as_ref().map(|prepare| &prepare.plan.phases);
                let of_plan = phases.and_then(|phases| phases.get(phase as usize));
                let of_plan =
                    of_plan.ok_or_else(|| SessionError::Asked(format!("the plan has no phase {phase}")))?;
                self.agents.start_phase(phase, at_us, of_plan.seconds)?;
            }
            ToAgent::Settle => self.agents.start_settle()?,
        }
        Ok(Turn::GoOn)
    }

    fn below(&mut self, news: News) -> Result<(), SessionError> {
        match news {
            News::Second(second) => self.link.send(FromAgent::Progress(Box::new(second)))?,
            News::Prepared => {
                self.after_clocks = Some(FromAgent::Prepared);
                self.agents.start_clocks()?;
            }
            News::PhaseDone(share) => {
                self.after_clocks = Some(FromAgent::PhaseDone(Box::new(share)));
                self.agents.start_clocks()?;
            }
            News::ClocksMeasured => {
                if let Some(message) = self.after_clocks.take() {
                    self.link.send(message)?;
                }
            }
            News::Settled(balance) => self.link.send(FromAgent::Settled { balance })?,
            // Told before the loop and after it.
            News::Gathered | News::Finished => {}
        }
        Ok(())
    }
}
