//! docs/operations.md as it is written: its blocks of commands are typed into bash, on machines that are folders here, while
//! people write to each other. What the page says that is printed is printed, and nothing that was acknowledged is lost,
//! doubled or out of order.
//!
//! ```text
//! page.rs      blocks, their machines, what they print      <- docs/operations.md
//! machines.rs  a folder and a server each                   <- what a block says is done there
//! talks.rs     the messages, and what was told of them
//! ```

mod page;
mod machines;
mod talks;

use machines::{ADDRESSES, Machines};
use page::Page;
use std::collections::BTreeSet;
use storage_node::admin::FleetStatus;
use talks::Talk;
use tokio::runtime::Runtime;

const PAGE: &str = include_str!("../../../docs/operations.md");

const BEGINNING: &str = "Gateways and storage nodes as processes of their own";
const ONE_TO_THREE: &str = "From one node to three";
const REPLACING: &str = "Replacing a node";
const UPGRADING: &str = "Upgrading";
const BACKUP: &str = "Backup and restore";
const LOST: &str = "When everything is lost";

/// A fleet, and those who use it.
struct World {
    page: Page,
    machines: Machines,
    runtime: Runtime,
    talks: Vec<Talk>,
}

impl World {
    /// One storage node and one gateway.
    fn begin() -> Self {
        let (page, mut machines) = (Page::read(PAGE), Machines::new());
        machines.carry_out(&page.section(BEGINNING));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let talks = runtime.block_on(talks::begin(machines.gateway()));
        Self { page, machines, runtime, talks }
    }

    /// Does what a section says while everybody writes; then looks at everything that was ever written.
    fn carry_out(&mut self, section: &str) {
        let before: usize = self.talks.iter().map(Talk::count).sum();
        let (blocks, machines) = (self.page.section(section), &mut self.machines);
        talks::while_they_write(&self.runtime, &mut self.talks, || machines.carry_out(&blocks));
        let after: usize = self.talks.iter().map(Talk::count).sum();
        assert!(after >= before + 5 * self.talks.len(), "{section}: hardly anybody wrote");
        self.check();
    }

    fn check(&mut self) {
        let talks = self.talks.iter_mut();
        self.runtime.block_on(futures_util::future::join_all(talks.map(Talk::check)));
    }

    /// Everybody writes some messages, and looks.
    fn write_on(&mut self) {
        for talk in &mut self.talks {
            for _ in 0..5 {
                self.runtime.block_on(talk.write());
            }
        }
        self.check();
    }
}

fn nodes(fleet: &FleetStatus) -> Vec<u32> {
    fleet.nodes.iter().map(|node| node.id).collect()
}

/// Whether every shard has three replicas, each in a zone of its own.
fn spans_zones(fleet: &FleetStatus) -> bool {
    let zone = |id: &u32| fleet.nodes.iter().find(|node| node.id == *id).map(|node| node.zone.as_str());
    let zones = |shard: &Vec<u32>| shard.iter().filter_map(zone).collect::<BTreeSet<_>>().len();
    fleet.shards.iter().all(|shard| shard.len() == 3 && zones(shard) == 3)
}

#[test]
fn the_page_of_operations_does_what_it_says() {
    let mut world = World::begin();
    world.write_on();

    world.carry_out(ONE_TO_THREE);
    let fleet = world.machines.fleet_when("node-3", |fleet| fleet.moves.is_empty());
    assert!(nodes(&fleet) == [1, 2, 3] && spans_zones(&fleet), "{fleet:?}");

    world.machines.lose("node-2");
    world.write_on();
    world.machines.fleet_when("node-1", |fleet| fleet.nodes.iter().any(|node| node.is_away));
    world.carry_out(REPLACING);
    let fleet = world.machines.fleet_when("node-4", |fleet| fleet.moves.is_empty());
    assert!(nodes(&fleet) == [1, 3, 4] && fleet.retired == [2] && spans_zones(&fleet), "{fleet:?}");

    world.machines.bring_new_release();
    assert_eq!(world.machines.of_old_release(), ["gateway", "node-1", "node-3", "node-4"]);
    world.carry_out(UPGRADING);
    assert_eq!(world.machines.of_old_release(), [""; 0], "the page left some of them as they were");

    // What is written from here on to the loss would be lost: so nobody does.
    world.machines.carry_out(&world.page.section(BACKUP));
    world.machines.lose_all_data();
    world.machines.said.clear();
    world.machines.carry_out(&world.page.section(LOST));
    let said = world.machines.said.iter().flat_map(|(_, said)| said.lines());
    let restored: Vec<&str> = said.filter(|line| line.starts_with("restored as ")).collect();
    assert!(restored.len() == 3 && restored.iter().all(|line| *line == restored[0]), "{restored:?}");
    world.check();
    world.write_on();
    let fleet = world.machines.fleet_when("node-1", |fleet| fleet.nodes.iter().all(|node| !node.is_away));
    assert!(nodes(&fleet) == [1, 3, 4] && spans_zones(&fleet), "{fleet:?}");
}

#[test]
fn no_command_of_these_sections_is_left_untried() {
    let page = Page::read(PAGE);
    for (variable, address) in ADDRESSES {
        assert!(PAGE.contains(&format!(" {variable}={address}")), "{variable} is not what it was");
    }
    for section in [ONE_TO_THREE, REPLACING, UPGRADING, BACKUP, LOST] {
        assert!(page.section(section).iter().all(|block| !block.text.is_empty()), "{section}");
        assert_eq!(page.untried(section), [0; 0], "{section}: lines that no machine types");
    }
}
