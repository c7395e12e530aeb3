//! Who exists in a run: users, their devices, and the rooms they share. Everything follows from the plan's numbers
//! and an index, so that no agent has to be told what another one has.
//!
//! Users live in *cells*: rooms join users of one cell only, and a cell belongs to one agent, which can therefore
//! account for every message by itself. Where the users of a cell are connected is another matter: targets are
//! given out by user, so that one room's users meet through different gateways.
//!
//! ```text
//! cell c: users c*S .. c*S+S      direct rooms: user i with i+1, i+2, … i+k/2 (around the cell)
//!                                 groups: the first G users of the cell, several times over
//! ```

use serde::{Deserialize, Serialize};

/// A user of the run, 0 to `users` - 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct UserIndex(pub u32);

/// A device of the run: user times devices of each user, plus the device's own number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct DeviceIndex(pub u32);

/// A room of the run: those of cell 0 first, in each cell the direct ones first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct RoomIndex(pub u32);
