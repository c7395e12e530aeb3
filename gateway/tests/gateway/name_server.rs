//! A name server of this test's own, over UDP and TCP. What it answers for each name is changed while it runs.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use tokio::sync::watch;

/// Where the system's resolver asks; there is no setting for another port.
const ADDRESS: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 53);
/// A longer answer is cut, so that whoever asks comes again over TCP.
const DATAGRAM_BYTES_MAX: usize = 512;
const STREAM_BYTES_MAX: usize = u16::MAX as usize;
/// Of a query or an answer, before its question.
const HEAD_BYTES: usize = 12;
/// Behind the question's name: type and class.
const KIND_BYTES: usize = 4;
/// Of one address in an answer.
const RECORD_BYTES: usize = 16;
const NOTHING: &[Ipv4Addr] = &[];

/// What is answered for a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// These addresses; without any the name is there, and has none.
    Addresses(Vec<Ipv4Addr>),
    NoSuchName,
    /// The server cannot say now.
    Failure,
    /// A question as it should be, and bytes without a meaning behind it.
    Garbage,
    Silence,
}

type Zone = BTreeMap<&'static str, Answer>;

/// The server, for as long as the process lives. Names that it was not told of do not exist.
pub struct NameServer {
    zone: watch::Sender<Zone>,
}

impl NameServer {
    pub fn start() -> Self {
        let (zone, of_datagrams) = watch::channel(Zone::new());
        let of_streams = of_datagrams.clone();
        let datagrams = UdpSocket::bind(ADDRESS).expect("this network is the test's own");
        let streams = TcpListener::bind(ADDRESS).expect("this network is the test's own");
        thread::spawn(move || answer_datagrams(&datagrams, &of_datagrams).expect("it is asked"));
        thread::spawn(move || {
            for stream in streams.incoming() {
                let (stream, zone) = (stream.expect("it is asked"), of_streams.clone());
                // Whoever has its answer closes.
                thread::spawn(move || answer_stream(stream, &zone));
            }
        });
        Self { zone }
    }

    /// From now on answers this for a name.
    pub fn tell(&self, name: &'static str, answer: Answer) {
        self.zone.send_modify(|zone| {
            zone.insert(name, answer);
        });
    }
}

fn answer_datagrams(socket: &UdpSocket, zone: &watch::Receiver<Zone>) -> io::Result<()> {
    let mut query = [0; DATAGRAM_BYTES_MAX];
    loop {
        let (length, from) = socket.recv_from(&mut query)?;
        let answer = answer(&query[..length], &zone.borrow(), DATAGRAM_BYTES_MAX);
        if let Some(answer) = answer {
            socket.send_to(&answer, from)?;
        }
    }
}

/// Before each query and each answer stands its length.
fn answer_stream(mut stream: TcpStream, zone: &watch::Receiver<Zone>) -> io::Result<()> {
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query)?;
        let answer = answer(&query, &zone.borrow(), STREAM_BYTES_MAX);
        if let Some(answer) = answer {
            stream.write_all(&(answer.len() as u16).to_be_bytes())?;
            stream.write_all(&answer)?;
        }
    }
}

/// What is answered to a query, in so many bytes; `None`: nothing.
fn answer(query: &[u8], zone: &Zone, bytes_max: usize) -> Option<Vec<u8>> {
    let (name, end) = question(query);
    let is_of_ipv4 = query[end - KIND_BYTES..end - 2] == [0, 1];
    let (code, addresses) = match zone.get(name.as_str()) {
        Some(Answer::Silence) => return None,
        Some(Answer::Garbage) => {
            let head = [0x81, 0x80, 0, 1, 0xff, 0xff, 0, 0, 0, 0];
            return Some([&query[..2], &head, &query[HEAD_BYTES..end], &[0xff; 100]].concat());
        }
        Some(Answer::Failure) => (2, NOTHING),
        Some(Answer::NoSuchName) | None => (3, NOTHING),
        Some(Answer::Addresses(addresses)) if is_of_ipv4 => (0, addresses.as_slice()),
        Some(Answer::Addresses(_)) => (0, NOTHING),
    };
    let is_cut = end + addresses.len() * RECORD_BYTES > bytes_max;
    let (cut, addresses) = if is_cut { (2, NOTHING) } else { (0, addresses) };
    // An answer, recursion was wanted and is offered, one question, so many answers, and nothing else.
    let count = (addresses.len() as u16).to_be_bytes();
    let head = [0x81 | cut, 0x80 | code, 0, 1, count[0], count[1], 0, 0, 0, 0];
    let mut answer = [&query[..2], &head, &query[HEAD_BYTES..end]].concat();
    for address in addresses {
        // The question's name, an address of the Internet, not to be kept, of four bytes.
        answer.extend([0xc0, HEAD_BYTES as u8, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}

/// The name that a query asks for, and where its question ends.
fn question(query: &[u8]) -> (String, usize) {
    let (mut labels, mut place) = (Vec::new(), HEAD_BYTES);
    while query[place] > 0 {
        let end = place + 1 + usize::from(query[place]);
        labels.push(String::from_utf8_lossy(&query[place + 1..end]));
        place = end;
    }
    (labels.join("."), place + 1 + KIND_BYTES)
}
