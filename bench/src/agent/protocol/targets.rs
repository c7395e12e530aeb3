//! The servers of a run by the addresses that gateways know each other by. A client goes to these and to no others,
//! whoever names them.

use std::collections::HashMap;

/// A server that clients may connect to, by its place among the run's targets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct TargetIndex(pub u16);

/// The run's targets by address.
#[derive(Clone, Debug, Default)]
pub struct TargetNames(HashMap<String, TargetIndex>);

impl TargetNames {
    /// Of all targets, in their order; an agent takes 4,096 at most.
    pub fn new<'a>(addresses: impl Iterator<Item = &'a str>) -> Self {
        let targets = (0..).map(TargetIndex);
        Self(addresses.map(str::to_owned).zip(targets).collect())
    }

    /// Those among these addresses, in the order of the addresses. They have to be spelt alike.
    pub fn known(&self, addresses: &[String]) -> Vec<TargetIndex> {
        addresses.iter().filter_map(|address| self.0.get(address).copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_passed_over_and_the_order_stays() {
        let names = TargetNames::new(["a:1", "b:1", "c:1"].into_iter());
        let known = |addresses: &[&str]| {
            names.known(&addresses.iter().map(|address| (*address).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(known(&["c:1", "x:1", "a:1"]), [TargetIndex(2), TargetIndex(0)]);
        assert_eq!(known(&["a:2", "A:1"]), []);
    }
}
