//! Tests of the programs with one packet at a time, by BPF_PROG_TEST_RUN. The input is a packet and the maps;
//! the output is a verdict, the packet's bytes, counts, events and copies.
//!
//! A case has three phases: the packet is made, the maps are filled, and the output is checked. Every case
//! starts from the same [`world::World`] and only gives its differences. test_run returns a redirect's
//! verdict and not its target, so [`live`] attaches the programs and checks where packets go.
#![allow(clippy::expect_used, clippy::panic, reason = "a test's helper fails the test")]

mod against_model;
mod bench;
mod bridging;
mod cases;
mod devices;
mod ecn;
mod encapsulation;
mod events;
mod every_reason;
mod flood;
mod from_endpoint;
mod from_gateway;
mod from_underlay;
mod gateway_bridge;
mod guard_underlay;
mod icmp_errors;
mod jumbo;
mod live;
mod merging;
mod model;
mod neighbours;
mod outward;
mod packets;
mod replication;
mod tap;
mod too_big;
mod tunnels;
mod unfinished;
mod verifier;
mod world;
