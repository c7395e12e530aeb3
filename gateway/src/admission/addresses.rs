//! How many connections an address may have, and how quickly it may open them. Looked at before TLS begins: who is
//! over its limit costs one accept.

use super::buckets::BucketTable;
use super::rate::Rate;
use std::collections::HashMap;
use std::net::IpAddr;

/// Addresses whose rate of connecting one core remembers: 17 bytes each, below 1.2 MiB when all are in use.
pub const CONNECTING_ADDRESSES_MAX: usize = 56 * 1_024;

/// Where a client comes from: an IPv4 address, or the /64 that an IPv6 provider gives to one customer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct AddressKey(u64);

impl From<IpAddr> for AddressKey {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            // No routed IPv6 prefix begins with 32 zero bits, so the two never meet.
            IpAddr::V4(address) => Self(u64::from(address.to_bits())),
            IpAddr::V6(address) => Self((address.to_bits() >> 64) as u64),
        }
    }
}

/// Bounds of one address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AddressLimits {
    /// Connections open at a time on this core; `None`: as many as there are places.
    pub connections_max: Option<u32>,
    /// New connections on this core; `None`: as they come.
    pub connects: Option<Rate>,
}

/// Why a connection was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddressRefused {
    /// It has as many as it may.
    TooMany,
    /// It opens them too quickly.
    TooFast,
}

/// The connections of one core by address. At most as many addresses as connections.
#[derive(Debug)]
pub struct AddressGate {
    connections_max: Option<u32>,
    connects: Option<BucketTable<AddressKey>>,
    open: HashMap<AddressKey, u32>,
}

impl AddressGate {
    /// Nobody has connected.
    pub fn new(limits: AddressLimits) -> Self {
        let connects = limits.connects.map(|rate| BucketTable::new(rate, CONNECTING_ADDRESSES_MAX));
        Self { connections_max: limits.connections_max, connects, open: HashMap::new() }
    }

    /// A connection comes. Who was let in has to [`Self::leave`].
    pub fn enter(&mut self, address: AddressKey, now_ms: u64) -> Result<(), AddressRefused> {
        if let Some(connections_max) = self.connections_max
            && self.open.get(&address).is_some_and(|open| *open >= connections_max)
        {
            return Err(AddressRefused::TooMany);
        }
        if let Some(connects) = &mut self.connects {
            connects.take(address, 1, now_ms).map_err(|_| AddressRefused::TooFast)?;
        }
        if self.connections_max.is_some() {
            *self.open.entry(address).or_default() += 1;
        }
        Ok(())
    }

    /// A connection that was let in is gone.
    pub fn leave(&mut self, address: AddressKey) {
        if self.connections_max.is_none() {
            return;
        }
        let open = self.open.get_mut(&address).expect("who leaves was let in");
        *open -= 1;
        if *open == 0 {
            self.open.remove(&address);
        }
    }

    /// Addresses that have connections.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Nobody is connected.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: &str) -> AddressKey {
        AddressKey::from(address.parse::<IpAddr>().expect("an address"))
    }

    #[test]
    fn one_customer_is_one_key() {
        assert_eq!(key("2001:db8:1:2::3"), key("2001:db8:1:2:ffff::1"));
        assert_ne!(key("2001:db8:1:2::3"), key("2001:db8:1:3::3"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        assert_ne!(key("::1"), key("127.0.0.1"));
    }

    #[test]
    fn places_of_an_address_are_counted_and_given_back() {
        let mut gate = AddressGate::new(AddressLimits { connections_max: Some(2), connects: None });
        let (one, other) = (key("192.0.2.1"), key("192.0.2.2"));
        assert_eq!(gate.enter(one, 0), Ok(()));
        assert_eq!(gate.enter(one, 0), Ok(()));
        assert_eq!(gate.enter(one, 0), Err(AddressRefused::TooMany));
        assert_eq!(gate.enter(other, 0), Ok(()));
        gate.leave(one);
        assert_eq!(gate.enter(one, 0), Ok(()));
        gate.leave(one);
        gate.leave(one);
        assert_eq!(gate.len(), 1, "who has left is forgotten");
        gate.leave(other);
        assert!(gate.is_empty());
    }

    #[test]
    fn connecting_has_a_rate_and_a_refusal_takes_no_place() {
        let connects = Some(Rate::per_second(10, 5));
        let mut gate = AddressGate::new(AddressLimits { connections_max: Some(100), connects });
        let flood = key("192.0.2.1");
        let taken = (0..50).filter(|_| gate.enter(flood, 1_000).is_ok()).count();
        assert_eq!(taken, 5);
        assert_eq!(gate.enter(flood, 1_099), Err(AddressRefused::TooFast));
        assert_eq!(gate.enter(flood, 1_100), Ok(()));
        assert_eq!(gate.enter(key("192.0.2.2"), 1_100), Ok(()));
        (0..6).for_each(|_| gate.leave(flood));
        assert_eq!(gate.len(), 1);
    }

    #[test]
    fn without_limits_nothing_is_kept() {
        let mut gate = AddressGate::new(AddressLimits::default());
        for _ in 0..10_000 {
            assert_eq!(gate.enter(key("192.0.2.1"), 0), Ok(()));
        }
        assert!(gate.is_empty());
        gate.leave(key("192.0.2.1"));
    }
}
