//! Frames behind a varint length on a byte stream.

use super::{Connection, Queues, Stream};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use wire_protocol::frame::{FrameDecoder, encode_frame};
use wire_protocol::limits::FRAME_BYTES_MAX;

/// Bytes read at once: one TLS record.
const READ_BYTES: usize = 16 * 1024;
/// Payloads that go out in one write.
const WRITE_PAYLOADS_MAX: usize = 64;

/// Starts the two tasks.
pub(super) fn start(stream: Box<dyn Stream>) -> Connection {
    let (reader, writer) = tokio::io::split(stream);
    let Queues { transmit, to_send, deliver, received } = Queues::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(read(reader, deliver));
    tasks.spawn(write(writer, to_send));
    Connection { transmit, received, tasks }
}

/// Ends, and by its queue tells it, when the stream does or breaks its framing.
async fn read(mut reader: ReadHalf<Box<dyn Stream>>, deliver: mpsc::Sender<Bytes>) {
    let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
    let mut bytes = BytesMut::with_capacity(READ_BYTES);
    loop {
        bytes.clear();
        tokio::select! {
            read = reader.read_buf(&mut bytes) => match read {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => return tracing::info!(%error, "connection lost"),
            },
            () = deliver.closed() => return,
        }
        decoder.push(&bytes);
        loop {
            match decoder.next_frame() {
                Ok(Some(payload)) => {
                    if deliver.send(payload).await.is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(error) => return tracing::warn!(%error, "the server broke the framing"),
            }
        }
    }
}

async fn write(mut writer: WriteHalf<Box<dyn Stream>>, mut to_send: mpsc::Receiver<Bytes>) {
    let mut payloads = Vec::new();
    let mut bytes = BytesMut::new();
    while to_send.recv_many(&mut payloads, WRITE_PAYLOADS_MAX).await > 0 {
        bytes.clear();
        payloads.drain(..).for_each(|payload| encode_frame(&payload, &mut bytes));
        let sent = async {
            writer.write_all(&bytes).await?;
            writer.flush().await
        };
        if let Err(error) = sent.await {
            return tracing::info!(%error, "connection lost");
        }
    }
    // Whether the peer hears the good-bye makes no difference to either side.
    let _ = writer.shutdown().await;
}
