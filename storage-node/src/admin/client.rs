//! The side of whoever asks.

use super::request::{AdminDone, AdminReply, AdminRequest};
use super::{ADMIN_REPLY_BYTES_MAX, ADMIN_SILENCE_TIMEOUT, socket_path};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Why there is no answer, or none that is good.
#[derive(Debug, thiserror::Error)]
pub enum AdminCallError {
    /// Nobody is there.
    #[error("{file}: {error}: does the node of this data folder run, and as this user?")]
    NotThere {
        /// The socket.
        file: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It broke off.
    #[error("{file}: the node gave no whole answer: {error}")]
    BrokeOff {
        /// The socket.
        file: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The node says why not.
    #[error("{0}")]
    Refused(String),
}

/// Asks the node of this data folder, and waits for what comes of it.
pub fn call(
    data_dir: &Path,
    request: &AdminRequest,
    mut progress: impl FnMut(String),
) -> Result<AdminDone, AdminCallError> {
    let file = socket_path(data_dir);
    let stream =
        UnixStream::connect(&file).map_err(|error| AdminCallError::NotThere { file: file.clone(), error })?;
    let broke_off = |error| AdminCallError::BrokeOff { file: file.clone(), error };
    let mut stream = begin(stream, request).map_err(broke_off)?;
    loop {
        match next_reply(&mut stream).map_err(broke_off)? {
            AdminReply::Progress { detail } => progress(detail),
            AdminReply::Ok(done) => return Ok(done),
            AdminReply::Error { detail } => return Err(AdminCallError::Refused(detail)),
        }
    }
}

fn begin(mut stream: UnixStream, request: &AdminRequest) -> io::Result<BufReader<UnixStream>> {
    stream.set_read_timeout(Some(ADMIN_SILENCE_TIMEOUT))?;
    let line = request.to_line()?;
    // One that has no room for another connection answers without looking at the request.
    match stream.write_all(&line) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
        _ => Ok(BufReader::new(stream)),
    }
}

fn next_reply(stream: &mut BufReader<UnixStream>) -> io::Result<AdminReply> {
    let mut line = Vec::new();
    let read = stream.by_ref().take(ADMIN_REPLY_BYTES_MAX as u64).read_until(b'\n', &mut line);
    match read {
        Ok(_) if line.ends_with(b"\n") => Ok(serde_json::from_slice(&line)?),
        Ok(0) => Err(io::Error::new(ErrorKind::UnexpectedEof, "it ended")),
        Ok(_) => Err(io::Error::new(ErrorKind::InvalidData, "half a line")),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            let detail = format!("not a word for {} s", ADMIN_SILENCE_TIMEOUT.as_secs());
            Err(io::Error::new(ErrorKind::TimedOut, detail))
        }
        Err(error) => Err(error),
    }
}
