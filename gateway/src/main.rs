//! `ringline-gateway`: reads its configuration, serves until it is told to stop, and says why if it cannot.

use crossbeam_channel::Receiver;
use gateway::config::GatewayConfig;
use gateway::config::flags::{self, HELP, Invocation};
use gateway::worker::start::{Addresses, Gateway};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let config = match flags::parse(std::env::args().skip(1)) {
        Ok(Invocation::Serve(config)) => *config,
        Ok(Invocation::Help) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => return fail(&error),
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let is_terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(is_terminal)
        .with_writer(std::io::stderr)
        .init();
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.as_ref()),
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("ringline-gateway: {error}");
    ExitCode::FAILURE
}

fn serve(config: GatewayConfig) -> Result<(), Box<dyn std::error::Error>> {
    config.to_string().lines().for_each(|line| tracing::info!("{line}"));
    let asks = end_asked_for()?;
    let gateway = Gateway::start(config)?;
    announce(gateway.addresses())?;
    wait_for_the_end(&gateway, &asks)?;
    tracing::info!("leaving");
    gateway.stop()?;
    tracing::info!("left");
    Ok(())
}

/// The one line on standard output, for people and for whoever started us.
fn announce(addresses: Addresses) -> std::io::Result<()> {
    let Addresses { tls, plain, metrics } = addresses;
    let page = plain.map_or(format!("https://{tls}/"), |plain| format!("http://{plain}/"));
    let metrics = metrics.map_or("none".into(), |metrics| format!("http://{metrics}/metrics"));
    let mut out = std::io::stdout().lock();
    writeln!(out, "ringline-gateway ready: chat page {page}  native {tls} (TLS)  metrics {metrics}")?;
    out.flush()
}

/// Tells of the signal that asks for the end, from now on: whoever reads the ready line may send it at once.
fn end_asked_for() -> std::io::Result<Receiver<()>> {
    let (asked, asks) = crossbeam_channel::bounded(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut terminate, mut interrupt) = {
        let _context = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    std::thread::Builder::new().name("ringline-signals".into()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        // The receiver lives as long as the process serves.
        let _ = asked.send(());
    })?;
    Ok(asks)
}

/// Until the end is asked for, or a core cannot go on.
fn wait_for_the_end(gateway: &Gateway, asks: &Receiver<()>) -> Result<(), Box<dyn std::error::Error>> {
    crossbeam_channel::select! {
        recv(asks) -> asked => Ok(asked?),
        recv(gateway.ends()) -> end => Ok(end??),
    }
}
