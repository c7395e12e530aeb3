//! Who there is: hosts are numbers, and storage nodes have ids beside.

use std::net::SocketAddr;
use std::ops::Range;

/// Hosts by what they are: first storage nodes, then gateways, then devices, then the storage node that joins.
#[derive(Clone, Copy, Debug)]
pub struct Hosts {
    /// Storage nodes of the first fleet.
    pub nodes: usize,
    /// Gateways.
    pub gateways: usize,
    /// Devices.
    pub devices: usize,
}

impl Hosts {
    /// Those that are there from the beginning.
    pub const fn first(self) -> usize {
        self.nodes + self.gateways + self.devices
    }

    /// All that there may be.
    pub const fn count(self) -> usize {
        self.first() + 1
    }

    /// The storage node that joins, in runs where one does.
    pub const fn joiner(self) -> usize {
        self.first()
    }

    /// Those of the gateways.
    pub fn gateway_hosts(self) -> Range<usize> {
        self.nodes..self.nodes + self.gateways
    }

    /// Place among the storage nodes, the one that joins last; `None`: it is none.
    pub fn node_place(self, host: usize) -> Option<usize> {
        match host {
            _ if host < self.nodes => Some(host),
            _ if host == self.joiner() => Some(self.nodes),
            _ => None,
        }
    }

    /// Where a storage node runs. Ids are places, counted from 1.
    pub fn host_of_node(self, id: u32) -> usize {
        let place = id as usize - 1;
        if place < self.nodes { place } else { self.joiner() }
    }

    /// Where the configurations say that a storage node is.
    pub fn address_of_node(self, id: u32) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, self.host_of_node(id) as u8], 7_000))
    }

    /// By which address clients know a gateway.
    pub fn address_of_gateway(self, host: usize) -> String {
        format!("10.0.1.{host}:8443")
    }

    /// Where the gateway of this address runs; `None`: there is none.
    pub fn gateway_at(self, address: &str) -> Option<usize> {
        self.gateway_hosts().find(|host| self.address_of_gateway(*host) == address)
    }

    /// Which storage node runs there.
    pub fn node_of_host(self, host: usize) -> u32 {
        self.node_place(host).expect("a host of a storage node") as u32 + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_are_found_by_their_addresses_and_nobody_else_is() {
        let hosts = Hosts { nodes: 3, gateways: 2, devices: 5 };
        let found: Vec<usize> =
            (0..hosts.count()).filter_map(|host| hosts.gateway_at(&hosts.address_of_gateway(host))).collect();
        assert_eq!(found, [3, 4]);
        assert_eq!(hosts.gateway_at("10.0.1.3:443"), None);
    }

    #[test]
    fn storage_nodes_have_ids_and_places_and_others_have_none() {
        let hosts = Hosts { nodes: 3, gateways: 2, devices: 5 };
        let places: Vec<Option<usize>> = (0..hosts.count()).map(|host| hosts.node_place(host)).collect();
        let none = [None; 7];
        assert_eq!(places, [&[Some(0), Some(1), Some(2)][..], &none[..], &[Some(3)][..]].concat());
        for id in 1..=4 {
            assert_eq!(hosts.node_of_host(hosts.host_of_node(id)), id);
        }
    }
}
