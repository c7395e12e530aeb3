//! Which requests of a core are under way, so that a core that leaves finishes them first.

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

/// How many requests of one core are under way.
#[derive(Clone, Default)]
pub(super) struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    /// Requests whose answers have not all left the runtime. Their last bytes may still be on the way to the core.
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }

    pub(super) fn connection(&self) -> Arc<ConnectionUnderWay> {
        Arc::new(ConnectionUnderWay { core: self.clone(), unflushed: AtomicUsize::new(0) })
    }
}

/// The requests of one connection. One that hyper is done with still has bytes in hyper's buffer; it stays counted
/// until the pipe has taken those.
#[derive(Default)]
pub(super) struct ConnectionUnderWay {
    core: UnderWay,
    /// Requests that hyper is done with.
    unflushed: AtomicUsize,
}

impl ConnectionUnderWay {
    pub(super) fn begin(self: &Arc<Self>) -> RequestUnderWay {
        self.core.0.fetch_add(1, Ordering::AcqRel);
        RequestUnderWay(self.clone())
    }

    /// All that hyper had to write was taken.
    pub(super) fn flushed(&self) {
        self.core.0.fetch_sub(self.unflushed.swap(0, Ordering::AcqRel), Ordering::AcqRel);
    }
}

impl Drop for ConnectionUnderWay {
    fn drop(&mut self) {
        self.flushed();
    }
}

/// A request, until it was given up or hyper has the last of its answer.
pub(super) struct RequestUnderWay(Arc<ConnectionUnderWay>);

impl RequestUnderWay {
    /// The answer's body, with which hyper drops the request.
    pub(super) fn until_written(self, body: Body) -> Body {
        Body::new(Answer { body, _request: self })
    }
}

impl Drop for RequestUnderWay {
    fn drop(&mut self) {
        self.0.unflushed.fetch_add(1, Ordering::AcqRel);
    }
}

struct Answer {
    body: Body,
    _request: RequestUnderWay,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
