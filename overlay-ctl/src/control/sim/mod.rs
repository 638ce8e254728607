//! The deterministic simulator: a cluster of three or five voters in one thread and on virtual time, with the real core,
//! log (redb on a simulated disk), state machine and membership decisions. A run is its seed: whatever is drawn is drawn from
//! it, and two runs of a seed have the same trace.
//!
//! - [`run`]: one run, from its seed to a report;
//! - [`world`]: hosts, network, and the loop of steps; [`host`], [`net`], [`start`], and what a voter does besides consensus,
//!   [`node`], [`duty`], [`duties`];
//! - whoever acts beside the voters ([`world::Actor`]): [`client`], [`operator`] with its [`jobs`], [`agents`] with their
//!   [`stream`]s, [`faults`];
//! - what must hold: [`truth`], shown by [`ledger`] and [`check`]; what was tried: [`reach`]; what happened: [`trace`].
//!
//! `cargo xtask sim` runs many seeds, or replays one.
#![allow(
    clippy::large_enum_variant,
    clippy::type_complexity,
    reason = "there are few of these at a time, and each is named where it is used"
)]

mod agents;
mod check;
mod client;
mod clones;
mod commands;
mod disaster;
mod duties;
mod duty;
mod faults;
mod host;
mod jobs;
mod kernel;
mod ledger;
mod net;
mod node;
mod operator;
mod places;
mod reach;
mod renewal;
mod request;
mod run;
mod start;
mod stream;
mod tests;
mod trace;
mod truth;
mod world;
