//! Storage that a test answers by hand.

use super::{StorageEvent, refusal};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use wire_protocol::error::RequestError;
use wire_protocol::internal::ShardRequest;

/// One link, shared by a core and its test.
pub type SharedLink = Rc<RefCell<FakeLink>>;

/// What a core has asked, and what it will hear in its next turn.
#[derive(Default)]
pub struct FakeLink {
    /// Oldest first.
    pub requests: VecDeque<ShardRequest>,
    pub events: Vec<StorageEvent>,
    /// Answer to whatever is submitted, instead of taking it.
    pub refusal: Option<RequestError>,
    pub is_down: bool,
}

impl FakeLink {
    pub(super) fn submit(&mut self, request: ShardRequest) -> Result<(), RequestError> {
        if self.is_down {
            return Err(refusal::away("storage is away"));
        }
        if let Some(error) = &self.refusal {
            return Err(error.clone());
        }
        self.requests.push_back(request);
        Ok(())
    }
}
