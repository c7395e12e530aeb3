//! Which gateway the next connection goes to: where the server sent us, down its list, and at last by the address that
//! the app was given.

use wire_protocol::limits::{CLOSING_GATEWAYS_MAX, GATEWAY_ADDRESS_BYTES_MAX};

/// The list of the gateway that sent us away, as far as it was not tried.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// The last one is the next.
    left: Vec<String>,
}

impl Places {
    /// `None`: the configured server.
    pub(super) fn next(&self) -> Option<&str> {
        self.left.last().map(String::as_str)
    }

    /// The server named where to go, best first; an empty list is the configured server.
    pub(super) fn handle_named(&mut self, gateways: &[String]) {
        let fitting = gateways.iter().filter(|address| is_address(address)).take(CLOSING_GATEWAYS_MAX);
        self.left = fitting.cloned().collect();
        self.left.reverse();
    }

    /// No connection came of it: the next one in the list.
    pub(super) fn handle_failed(&mut self) {
        self.left.pop();
    }
}

fn is_address(text: &str) -> bool {
    let port = text.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    text.len() <= GATEWAY_ADDRESS_BYTES_MAX && port.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_tried_in_its_order_and_then_the_configured_server() {
        let mut places = Places::default();
        assert_eq!(places.next(), None);
        places.handle_failed();
        places.handle_named(&["a:1".into(), "no port".into(), "b:2".into()]);
        assert_eq!(places.next(), Some("a:1"));
        assert_eq!(places.next(), Some("a:1"), "it stays until it fails");
        places.handle_failed();
        assert_eq!(places.next(), Some("b:2"));
        places.handle_failed();
        assert_eq!(places.next(), None);
    }

    #[test]
    fn a_server_cannot_name_more_than_it_may() {
        let mut places = Places::default();
        let many: Vec<String> = (0..100).map(|number| format!("g{number}:1")).collect();
        places.handle_named(&many);
        assert_eq!(places.left.len(), CLOSING_GATEWAYS_MAX);
        assert_eq!(places.next(), Some("g0:1"));
        places.handle_named(&["x".repeat(GATEWAY_ADDRESS_BYTES_MAX) + ":1"]);
        assert_eq!(places.next(), None);
    }
}
