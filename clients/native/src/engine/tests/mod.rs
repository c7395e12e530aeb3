//! The whole engine, one promise at a time. What holds under all faults at once is the simulation's
//! (`tests/client/simulation`).

mod rig;
mod sending;
mod receiving;
mod restored;
