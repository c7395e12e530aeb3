//! The same payloads as binary messages of a WebSocket.

use super::{ConnectError, Connection, Queues, Stream};
use crate::clock::random;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use wire_protocol::limits::FRAME_BYTES_MAX;
use wire_protocol::websocket::{
    AcceptKey, CloseCode, Decoder, Item, Outgoing, check_upgraded, encode, upgrade_request,
};

/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;
/// Largest head of the server's answer to the upgrade, in bytes.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Headers in it.
const HEADERS_MAX: usize = 32;
/// Answers to the server's control frames that wait for the socket. A server that sends more pings than it reads
/// pongs is not read any further.
const CONTROLS_MAX: usize = 4;

/// What the reader wants written.
enum Control {
    Pong(Bytes),
    Close(CloseCode),
}

/// Upgrades the stream and starts the two tasks.
pub(super) async fn start(mut stream: Box<dyn Stream>, authority: &str) -> Result<Connection, ConnectError> {
    let (request, expected) = upgrade_request(authority, random());
    stream.write_all(&request).await?;
    stream.flush().await?;
    let rest = read_answer(&mut stream, &expected).await?;
    let mut decoder = Decoder::for_client(FRAME_BYTES_MAX);
    decoder.push(&rest);
    let (reader, writer) = tokio::io::split(stream);
    let Queues { transmit, to_send, deliver, received } = Queues::new();
    let (control, controls) = mpsc::channel(CONTROLS_MAX);
    let mut tasks = JoinSet::new();
    tasks.spawn(read(reader, decoder, deliver, control));
    tasks.spawn(write(writer, to_send, controls));
    Ok(Connection { transmit, received, tasks })
}

/// Reads the answer's head; what came behind it belongs to the WebSocket already.
async fn read_answer(stream: &mut Box<dyn Stream>, expected: &AcceptKey) -> Result<BytesMut, ConnectError> {
    let mut bytes = BytesMut::with_capacity(HEAD_BYTES_MAX);
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(ConnectError::Protocol);
        }
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut answer = httparse::Response::new(&mut headers);
        let head_bytes = match answer.parse(&bytes) {
            Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
            Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => continue,
            Ok(httparse::Status::Partial) | Err(_) => return Err(ConnectError::Protocol),
        };
        let status = answer.code.unwrap_or_default();
        let headers = answer.headers.iter().map(|header| (header.name, header.value));
        check_upgraded(status, headers, expected).map_err(|_| ConnectError::Protocol)?;
        return Ok(bytes.split_off(head_bytes));
    }
}

async fn read(
    mut reader: ReadHalf<Box<dyn Stream>>,
    mut decoder: Decoder,
    deliver: mpsc::Sender<Bytes>,
    control: mpsc::Sender<Control>,
) {
    let mut bytes = BytesMut::with_capacity(READ_BYTES);
    loop {
        loop {
            let heard = match decoder.next_item() {
                Ok(Some(Item::Binary(payload))) => deliver.send(payload).await.is_ok(),
                Ok(Some(Item::Ping(payload))) => control.send(Control::Pong(payload)).await.is_ok(),
                Ok(Some(Item::Pong(_))) => true,
                Ok(Some(Item::Text(_))) => {
                    return drop(control.send(Control::Close(CloseCode::UNSUPPORTED)).await);
                }
                Ok(Some(Item::Close { .. })) => {
                    return drop(control.send(Control::Close(CloseCode::NORMAL)).await);
                }
                Ok(None) => break,
                Err(violation) => {
                    tracing::warn!(%violation, "the server broke the WebSocket");
                    return drop(control.send(Control::Close(violation.close_code())).await);
                }
            };
            if !heard {
                return;
            }
        }
        bytes.clear();
        tokio::select! {
            read = reader.read_buf(&mut bytes) => match read {
                Ok(0) => return,
                Ok(_) => decoder.push(&bytes),
                Err(error) => return tracing::info!(%error, "connection lost"),
            },
            () = deliver.closed() => return,
        }
    }
}

async fn write(
    mut writer: WriteHalf<Box<dyn Stream>>,
    mut to_send: mpsc::Receiver<Bytes>,
    mut controls: mpsc::Receiver<Control>,
) {
    let mut bytes = BytesMut::new();
    loop {
        bytes.clear();
        let last = tokio::select! {
            payload = to_send.recv() => match payload {
                Some(payload) => {
                    encode(Outgoing::Binary(&payload), Some(random()), &mut bytes);
                    false
                }
                None => {
                    encode(Outgoing::Close(Some(CloseCode::GOING_AWAY), ""), Some(random()), &mut bytes);
                    true
                }
            },
            Some(control) = controls.recv() => match control {
                Control::Pong(payload) => {
                    encode(Outgoing::Pong(&payload), Some(random()), &mut bytes);
                    false
                }
                Control::Close(code) => {
                    encode(Outgoing::Close(Some(code), ""), Some(random()), &mut bytes);
                    true
                }
            },
        };
        let sent = async {
            writer.write_all(&bytes).await?;
            writer.flush().await
        };
        if let Err(error) = sent.await {
            return tracing::info!(%error, "connection lost");
        }
        if last {
            // Whether the peer hears the good-bye makes no difference to either side.
            let _ = writer.shutdown().await;
            return;
        }
    }
}
