//! What the front costs, without sessions and storage: memory of an idle TLS connection, CPU of an echoed message.
//!
//! `cargo run -p gateway --example front_cost` starts a front that echoes as a process of its own, so that the
//! clients' memory and CPU are not counted, and prints both figures. Arguments, all optional:
//! `front_cost [idle|echo|plain] [connections] [messages]`.

use gateway::clock::{Clock, moment};
use gateway::front::{Front, FrontConfig, FrontEvent, ListenerConfig, SendRefused};
use gateway::tls::server_config;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use wire_protocol::frame::encode_frame;
use wire_protocol::limits::{ALPN_NATIVE, FRAME_BYTES_MAX};

/// Payload of a message, in bytes.
const MESSAGE_BYTES: usize = 100;
/// Messages under way at a time.
const IN_FLIGHT: usize = 64;
/// Connections before the first measurement of memory: pools are filled, the allocator has found its size.
const IDLE_BASE: usize = 2_000;

type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |index: usize, default| arguments.get(index).map_or(Ok(default), |text| text.parse::<usize>());
    match arguments.first().map(String::as_str) {
        Some("serve") => serve(),
        Some("idle") => idle(number(1, 8_000)?),
        Some("echo") => echo(number(1, 1_000)?, number(2, 200_000)?, Speak::Tls),
        Some("plain") => echo(number(1, 1_000)?, number(2, 200_000)?, Speak::Plain),
        _ => {
            idle(8_000)?;
            echo(1_000, 200_000, Speak::Tls)?;
            echo(1_000, 200_000, Speak::Plain)
        }
    }
}

/// The server process: a front that sends every frame back. Says where it listens and with which certificate.
fn serve() -> Result<(), Failure> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let certificate = CertificateDer::from(made.cert.der().to_vec());
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut front = Front::new(FrontConfig {
        listeners: vec![ListenerConfig { address, tls: true }, ListenerConfig { address, tls: false }],
        tls: Some(server_config(vec![certificate.clone()], key)?),
        connections_max: 18_000,
        ring_connections_max: 18_000,
        websocket_origins: Vec::new(),
        addresses: Default::default(),
        accepts: None,
    })?;
    let hex: String = certificate.iter().map(|byte| format!("{byte:02x}")).collect();
    println!("{} {} {hex}", front.local_addresses()[0], front.local_addresses()[1]);
    let mut clock = Clock::new();
    let mut events = Vec::new();
    monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().build()?.block_on(async {
        loop {
            let now_ms = clock.now_ms();
            front.turn(now_ms, &mut events);
            for event in events.drain(..) {
                match event {
                    FrontEvent::Opened { token, .. } => front.set_frame_bytes_max(token, FRAME_BYTES_MAX),
                    FrontEvent::Frame { token, payload } => {
                        assert_ne!(front.send(token, &payload), Err(SendRefused::Full));
                    }
                    FrontEvent::Malformed { token, .. } => front.close(token),
                    _ => {}
                }
            }
            front.flush(now_ms);
            front.readable().await?;
        }
    })
}

/// The server as seen from the clients' process.
struct Server {
    process: Child,
    tls: SocketAddr,
    plain: SocketAddr,
    config: Arc<ClientConfig>,
}

impl Server {
    fn start() -> Result<Self, Failure> {
        let executable = std::env::current_exe()?;
        let mut process = Command::new(executable).arg("serve").stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let mut words = line.split_whitespace();
        let mut word = || words.next().ok_or("the server did not start");
        let (tls, plain, hex) = (word()?.parse()?, word()?.parse()?, word()?);
        let bytes: Result<Vec<u8>, _> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16)).collect();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(bytes?))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN_NATIVE.to_vec()];
        // Every handshake is a full one.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self { process, tls, plain, config: Arc::new(config) })
    }

    /// Memory of its own, in bytes.
    fn memory_bytes(&self) -> Result<u64, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find(|line| line.starts_with("RssAnon")).ok_or("no RssAnon")?;
        Ok(line.split_whitespace().nth(1).ok_or("no figure")?.parse::<u64>()? * 1024)
    }

    /// CPU time used, in microseconds: user, system.
    fn cpu_us(&self) -> Result<(u64, u64), Failure> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let fields = stat.rsplit(") ").next().ok_or("no figures")?;
        let mut ticks = fields.split_whitespace().skip(11).map(str::parse::<u64>);
        let mut tick_us = || Ok::<_, Failure>(ticks.next().ok_or("no figure")?? * 10_000);
        Ok((tick_us()?, tick_us()?))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[derive(Clone, Copy)]
enum Speak {
    Tls,
    Plain,
}

/// A client that sends frames and reads them back, all of one size.
enum Client {
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    Plain(TcpStream),
}

impl Client {
    fn connect(server: &Server, speak: Speak) -> Result<Self, Failure> {
        let stream = TcpStream::connect(match speak {
            Speak::Tls => server.tls,
            Speak::Plain => server.plain,
        })?;
        stream.set_nodelay(true)?;
        Ok(match speak {
            Speak::Plain => Client::Plain(stream),
            Speak::Tls => {
                let name = ServerName::try_from("localhost")?;
                let connection = ClientConnection::new(server.config.clone(), name)?;
                Client::Tls(Box::new(StreamOwned::new(connection, stream)))
            }
        })
    }

    fn write(&mut self, frame: &[u8]) -> Result<(), Failure> {
        match self {
            Client::Tls(stream) => stream.write_all(frame)?,
            Client::Plain(stream) => stream.write_all(frame)?,
        }
        Ok(())
    }

    fn read(&mut self, frame: &[u8]) -> Result<(), Failure> {
        let mut read = [0; MESSAGE_BYTES + 8];
        let read = &mut read[..frame.len()];
        match self {
            Client::Tls(stream) => stream.read_exact(read)?,
            Client::Plain(stream) => stream.read_exact(read)?,
        }
        if read == frame { Ok(()) } else { Err("another frame than the one sent".into()) }
    }
}

fn frame() -> Vec<u8> {
    let mut frame = bytes::BytesMut::new();
    encode_frame(&[0x5a; MESSAGE_BYTES], &mut frame);
    frame.to_vec()
}

/// The slope of the server's memory over connections that are idle after one message.
fn idle(connections: usize) -> Result<(), Failure> {
    let server = Server::start()?;
    let frame = frame();
    let mut clients = Vec::new();
    let mut base = (0, 0);
    let (start, cpu_before) = (moment(), server.cpu_us()?);
    while clients.len() < connections {
        let mut client = Client::connect(&server, Speak::Tls)?;
        client.write(&frame)?;
        client.read(&frame)?;
        clients.push(client);
        let count = clients.len();
        if count == IDLE_BASE.min(connections / 2) {
            base = (count, server.memory_bytes()?);
        }
    }
    let memory = server.memory_bytes()?;
    let slope = memory.saturating_sub(base.1) / (connections - base.0) as u64;
    let cpu = server.cpu_us()?;
    let cpu_us = (cpu.0 + cpu.1 - cpu_before.0 - cpu_before.1) / connections as u64;
    println!("idle TLS connections {} to {connections}: {slope} user bytes each", base.0);
    println!(
        "full handshakes with accept and one message: {cpu_us} us of server CPU each, {:.0}/s",
        connections as f64 / start.elapsed().as_secs_f64()
    );
    Ok(())
}

/// CPU time of the server for each echoed message.
fn echo(connections: usize, messages: usize, speak: Speak) -> Result<(), Failure> {
    let server = Server::start()?;
    let frame = frame();
    let clients: Result<Vec<Client>, _> = (0..connections).map(|_| Client::connect(&server, speak)).collect();
    let mut clients = clients?;
    for client in &mut clients {
        client.write(&frame)?;
        client.read(&frame)?;
    }
    let (start, before) = (moment(), server.cpu_us()?);
    for message in 0..messages + IN_FLIGHT {
        if message < messages {
            clients[message % connections].write(&frame)?;
        }
        if let Some(oldest) = message.checked_sub(IN_FLIGHT) {
            clients[oldest % connections].read(&frame)?;
        }
    }
    let (elapsed, after) = (start.elapsed().as_secs_f64(), server.cpu_us()?);
    let each = |before: u64, after: u64| (after - before) as f64 / messages as f64;
    let name = match speak {
        Speak::Tls => "TLS",
        Speak::Plain => "plain",
    };
    println!(
        "echo of {MESSAGE_BYTES} bytes, {connections} {name} connections, {IN_FLIGHT} in flight: {:.1} us of server CPU a \
         message ({:.1} user, {:.1} system), {:.0}/s",
        each(before.0 + before.1, after.0 + after.1),
        each(before.0, after.0),
        each(before.1, after.1),
        messages as f64 / elapsed
    );
    Ok(())
}
