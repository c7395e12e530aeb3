//! The node's side: a thread that accepts, and one for each connection.

use super::answer::answer;
use super::request::{AdminReply, AdminRequest};
use super::{
    ADMIN_CONNECTIONS_MAX, ADMIN_REPLY_TIMEOUT, ADMIN_REQUEST_BYTES_MAX, ADMIN_REQUEST_TIMEOUT, socket_path,
};
use crate::clock;
use crate::worker::NodeShared;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

/// Who may ask: the user that the node runs as.
const SOCKET_MODE: u32 = 0o600;
/// Bytes of a socket's path, the end included, on Linux.
const SOCKET_PATH_BYTES_MAX: usize = 108;

/// A socket in a node's folder.
pub(crate) struct AdminServer {
    listener: UnixListener,
    file: PathBuf,
}

/// Ends [`AdminServer::run`].
pub(crate) struct AdminStop(UnixListener);

impl AdminStop {
    pub fn stop(self) {
        // Wakes whoever waits for a connection. It fails if the socket is gone already.
        let _ = SockRef::from(&self.0).shutdown(Shutdown::Both);
    }
}

impl AdminServer {
    /// Makes the socket. One that is there was left by a dead process: the caller holds the folder's lock.
    pub fn bind(data_dir: &Path) -> io::Result<Self> {
        let file = socket_path(data_dir);
        // It gets its name once it is nobody else's, and closed to others.
        let unfinished = file.with_extension("new");
        let bytes = unfinished.as_os_str().len();
        if bytes >= SOCKET_PATH_BYTES_MAX {
            let detail = format!(
                "{bytes} bytes are too long for the path of a Unix socket, which has {} at most: give data_dir a \
                 shorter path (a symbolic link will do)",
                SOCKET_PATH_BYTES_MAX - 1
            );
            return Err(io::Error::new(ErrorKind::InvalidFilename, detail));
        }
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(&unfinished)?)?;
        fs::set_permissions(&unfinished, Permissions::from_mode(SOCKET_MODE))?;
        socket.listen(ADMIN_CONNECTIONS_MAX as i32)?;
        fs::rename(&unfinished, &file)?;
        Ok(Self { listener: socket.into(), file })
    }

    pub fn stop_handle(&self) -> io::Result<AdminStop> {
        self.listener.try_clone().map(AdminStop)
    }

    /// Serves until it is told to stop; then nobody is connected any more, and what was at work is given up.
    pub fn run(self, shared: &Arc<NodeShared>) -> Result<(), String> {
        let mut connections: Vec<(JoinHandle<()>, UnixStream)> = Vec::new();
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // Told to stop.
                Err(error) if error.kind() == ErrorKind::InvalidInput => break,
                Err(error) => {
                    tracing::error!("{}: {error}: no more commands are taken", self.file.display());
                    break;
                }
            };
            connections.retain(|(thread, _)| !thread.is_finished());
            match connections.len() < ADMIN_CONNECTIONS_MAX {
                true => connections.extend(start(shared, stream)),
                false => refuse(stream),
            }
        }
        for (_, stream) in &connections {
            // It fails if the other side has gone.
            let _ = stream.shutdown(Shutdown::Both);
        }
        connections.into_iter().for_each(|(thread, _)| drop(thread.join()));
        // Whoever finds no socket knows that no node runs.
        if let Err(error) = fs::remove_file(&self.file) {
            tracing::debug!("{}: {error}", self.file.display());
        }
        Ok(())
    }
}

fn start(shared: &Arc<NodeShared>, stream: UnixStream) -> Option<(JoinHandle<()>, UnixStream)> {
    let shared = Arc::clone(shared);
    let start = || -> io::Result<(JoinHandle<()>, UnixStream)> {
        let kept = stream.try_clone()?;
        let run = move || serve(&shared, stream);
        Ok((thread::Builder::new().name("admin-command".to_owned()).spawn(run)?, kept))
    };
    start().inspect_err(|error| tracing::warn!("a command was not taken: {error}")).ok()
}

fn refuse(mut stream: UnixStream) {
    let detail = format!("{ADMIN_CONNECTIONS_MAX} commands are at work already: try again later");
    // Nobody is obliged to listen.
    let _ = say(&mut stream, &AdminReply::Error { detail });
}

/// One connection: a request, its answer.
fn serve(shared: &NodeShared, mut stream: UnixStream) {
    let reply = match read_request(&mut stream) {
        Ok(request) => carry_out(shared, request, &mut stream),
        Err(detail) => AdminReply::Error { detail },
    };
    if let Err(error) = say(&mut stream, &reply) {
        tracing::debug!("nobody waits for the answer to a command: {error}");
    }
}

fn carry_out(shared: &NodeShared, request: AdminRequest, stream: &mut UnixStream) -> AdminReply {
    let asked = format!("{request:?}");
    let mut progress = |detail: String| match shared.is_stopping() {
        true => Err("the node ends".to_owned()),
        false => {
            say(stream, &AdminReply::Progress { detail }).map_err(|error| format!("nobody listens: {error}"))
        }
    };
    let done = catch_unwind(AssertUnwindSafe(|| answer(shared, request, &mut progress)));
    match done {
        Ok(Ok(done)) => AdminReply::Ok(done),
        Ok(Err(detail)) => {
            tracing::warn!("{asked}: {detail}");
            AdminReply::Error { detail }
        }
        Err(_) => AdminReply::Error { detail: "a fault of the program; its log tells more".to_owned() },
    }
}

/// Reads a line. An error is for whoever asked.
fn read_request(stream: &mut UnixStream) -> Result<AdminRequest, String> {
    let failed = |error: io::Error| format!("no request came: {error}");
    stream.set_write_timeout(Some(ADMIN_REPLY_TIMEOUT)).map_err(failed)?;
    let started = clock::now();
    let (mut line, mut bytes) = (Vec::new(), [0; 4_096]);
    while !line.ends_with(b"\n") {
        let left = ADMIN_REQUEST_TIMEOUT.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Err(format!("no request came within {} s", ADMIN_REQUEST_TIMEOUT.as_secs()));
        }
        stream.set_read_timeout(Some(left)).map_err(failed)?;
        match stream.read(&mut bytes) {
            Ok(0) => return Err("no whole line came".to_owned()),
            Ok(count) => line.extend_from_slice(bytes.get(..count).unwrap_or_default()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(failed(error)),
        }
        if line.len() > ADMIN_REQUEST_BYTES_MAX {
            return Err(format!("a request has {ADMIN_REQUEST_BYTES_MAX} bytes at most"));
        }
    }
    AdminRequest::from_line(&line)
}

fn say(stream: &mut UnixStream, reply: &AdminReply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    stream.set_write_timeout(Some(ADMIN_REPLY_TIMEOUT))?;
    stream.write_all(&line)
}
