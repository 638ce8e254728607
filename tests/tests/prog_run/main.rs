//! The programs, one packet at a time, by BPF_PROG_TEST_RUN: a packet and the maps go in; a verdict,
//! the packet's bytes, counts, events and copies come out.
//!
//! A case has three phases: the packet is made, the maps are filled, and what came out is checked.
//! Every case starts from the same [`world::World`] and says only how it differs. test_run gives a
//! redirect's verdict and not its target: [`live`] attaches the programs and looks where packets go.
#![allow(clippy::expect_used, clippy::panic, reason = "a test's helper fails the test")]

mod against_model;
mod bench;
mod cases;
mod devices;
mod ecn;
mod encapsulation;
mod events;
mod every_reason;
mod from_endpoint;
mod from_gateway;
mod from_underlay;
mod gateway_bridge;
mod guard_underlay;
mod jumbo;
mod live;
mod model;
mod outward;
mod packets;
mod replication;
mod tap;
mod too_big;
mod unfinished;
mod verifier;
mod world;
