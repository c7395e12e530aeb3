//! What a core publishes of itself about once a second.

use super::Core;
use crate::observe::Metric;

impl Core {
    pub(super) fn publish(&mut self) {
        let front = self.clients.metrics();
        let values = [
            (Metric::Connections, front.connections),
            (Metric::Accepted, front.accepted),
            (Metric::AcceptFailures, front.accept_failures),
            (Metric::ConnectionsTooMany, front.refused_too_many),
            (Metric::ConnectionsTooFast, front.refused_too_fast),
            (Metric::AcceptsPaused, front.accepts_paused),
            (Metric::AcceptsSlowed, front.accepts_slowed),
            (Metric::RatesWithoutPlace, self.rates.without_place()),
            (Metric::HandshakesFull, front.handshakes_full),
            (Metric::HandshakesResumed, front.handshakes_resumed),
            (Metric::HandshakesFailed, front.handshakes_failed),
            (Metric::HelloTimeouts, front.hello_timeouts),
            (Metric::FramesReceived, front.frames_received),
            (Metric::FramesSent, front.frames_sent),
            (Metric::BytesReceived, front.bytes_received),
            (Metric::BytesSent, front.bytes_sent),
            (Metric::OutboxBytes, front.queued_bytes),
            (Metric::OutboxesFull, front.outboxes_full),
            (Metric::ReadsPaused, front.reads_paused),
            (Metric::ReceiveBuffersExhausted, front.receive_buffers_exhausted),
            (Metric::SessionsNative, self.sessions.native_count() as u64),
            (Metric::SessionsWebSocket, self.sessions.web_socket_count() as u64),
            (Metric::HttpConnections, self.http.connection_count() as u64),
            (Metric::PendingRequests, self.pending.len() as u64),
            (Metric::RequestsFollowed, self.storage.followed()),
            (Metric::RequestsWaiting, self.storage.waiting() as u64),
            (Metric::MailboxMessages, self.inbox.len() as u64),
        ];
        for (metric, value) in values {
            self.observer.set(metric, value);
        }
        self.observer.publish_latencies();
    }
}
