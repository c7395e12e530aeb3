//! All that is planned for a run: from its seed, before it begins.

use super::doors::Doors;
use super::faults::{self, Planned};
use super::founding::Founding;
use super::operator::Operator;
use super::releases::Releases;
use super::{HOSTS, failing, pauses, quiet};
use crate::workload::random::Random;

/// Of 32 seeds in a row those of which none was kept for anything that others have, too (`bench/tests/world.rs`).
const FREE: [u64; 14] = [3, 5, 7, 15, 16, 17, 18, 19, 20, 21, 24, 25, 27, 31];

/// Whether what all devices do may be another thing than when seeds were kept: it makes another run of a seed.
pub(super) fn is_free(seed: u64) -> bool {
    FREE.contains(&(seed % 32))
}

/// What is to come.
pub(super) struct Plan {
    /// What goes wrong.
    pub faults: Vec<Planned>,
    /// When the last of all this has begun and ended, in milliseconds from the start.
    pub over_ms: u64,
    /// Nodes that come and go.
    pub operator: Operator,
    /// Who is let in.
    pub doors: Doors,
    /// Who speaks what.
    pub releases: Releases,
    /// How the fleet begins.
    pub founding: Founding,
}

impl Plan {
    /// `random`: of the run itself. Whatever is newer than the first faults has chance of its own.
    pub fn of(seed: u64, random: &mut Random) -> Self {
        let mut faults = faults::plan(seed, HOSTS, random);
        let (mut operator, mut doors) = (Operator::plan(seed), Doors::plan(seed));
        let (mut releases, mut founding) = (Releases::plan(seed), Founding::plan(seed));
        let wishes_ms = operator.over_ms();
        faults.append(&mut operator.faults);
        faults.append(&mut doors.faults);
        faults.append(&mut releases.faults);
        faults.append(&mut founding.faults);
        faults.extend(quiet::plan(seed));
        faults.extend(pauses::plan(seed));
        faults.extend(failing::plan(seed));
        let ends_ms = faults.iter().map(|planned| planned.at_ms + planned.lasts_ms);
        let over_ms = ends_ms.max().unwrap_or(0).max(wishes_ms);
        Self { faults, over_ms, operator, doors, releases, founding }
    }
}
