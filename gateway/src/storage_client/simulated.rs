//! Connections to storage nodes in a simulation: it takes them up, carries their bytes, and ends them.

use super::link_io::Pipe;
use bytes::BytesMut;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

/// Connections that links have asked for.
#[derive(Clone, Default)]
pub struct SimWires {
    asked: Rc<RefCell<VecDeque<(u32, SimWire)>>>,
}

impl SimWires {
    pub(super) fn ask(&self, node: u32, pipe: Rc<Pipe>) {
        self.asked.borrow_mut().push_back((node, SimWire(pipe)));
    }

    pub(crate) fn take(&self) -> Option<(u32, SimWire)> {
        self.asked.borrow_mut().pop_front()
    }
}

/// A gateway's end of a connection to a storage node.
pub struct SimWire(Rc<Pipe>);

impl SimWire {
    /// The connection is made.
    pub fn connected(&self) {
        self.0.connected();
    }

    /// Bytes of the node arrived.
    pub fn receive(&self, bytes: &[u8]) {
        self.0.receive(bytes);
    }

    /// What the link has for the node.
    pub fn take_sent(&self) -> BytesMut {
        self.0.take_outbound()
    }

    /// The connection is gone, or did not come about.
    pub fn close(&self, why: &str) {
        self.0.close(why);
    }

    /// Whether the link has given it up, or it was closed.
    pub fn is_closed(&self) -> bool {
        self.0.closed().is_some()
    }
}
