//! Devices by their index, in pages: an agent has some of the run's devices, mostly next to each other.

use super::connection::Connection;
use crate::agent::protocol::DeviceMemory;
use crate::workload::population::DeviceIndex;

/// Devices of a page: 40 KiB at a time.
const PAGE_DEVICES: usize = 1_024;

/// What is known of a device, connected or not.
#[derive(Default)]
pub(super) struct Device {
    /// What its last connection left; empty while it is connected.
    pub(super) memory: DeviceMemory,
    pub(super) connection: Option<Box<Connection>>,
}

type Page = Box<[Device]>;

/// All devices of an agent.
#[derive(Default)]
pub(super) struct Devices {
    pages: Vec<Option<Page>>,
    connections: usize,
}

impl Devices {
    /// The device, made if it was never heard of.
    pub(super) fn entry(&mut self, device: DeviceIndex) -> &mut Device {
        let (page, place) = place(device);
        if self.pages.len() <= page {
            self.pages.resize_with(page + 1, || None);
        }
        let page =
            self.pages[page].get_or_insert_with(|| (0..PAGE_DEVICES).map(|_| Device::default()).collect());
        &mut page[place]
    }

    /// Its connection, if there is one.
    pub(super) fn connection(&mut self, device: DeviceIndex) -> Option<&mut Connection> {
        let (page, place) = place(device);
        self.pages.get_mut(page)?.as_mut()?.get_mut(place)?.connection.as_deref_mut()
    }

    /// Gives it a connection; it has none.
    pub(super) fn connect(&mut self, device: DeviceIndex, connection: Connection) {
        let old = self.entry(device).connection.replace(Box::new(connection));
        assert!(old.is_none(), "a device has one connection at a time");
        self.connections += 1;
    }

    /// Takes its connection away; what is to be remembered stays.
    pub(super) fn disconnect(&mut self, device: DeviceIndex) -> bool {
        let entry = self.entry(device);
        let Some(connection) = entry.connection.take() else { return false };
        entry.memory = connection.into_memory();
        self.connections -= 1;
        true
    }

    /// Sockets that are open, or on their way.
    pub(super) fn connections(&self) -> usize {
        self.connections
    }
}

fn place(device: DeviceIndex) -> (usize, usize) {
    let index = device.0 as usize;
    (index / PAGE_DEVICES, index % PAGE_DEVICES)
}
