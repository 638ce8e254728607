//! Scenarios: real nodes in a lab of namespaces, watched from outside. They run one after another
//! (`--test-threads=1`), as root.
#![allow(clippy::expect_used, clippy::panic, reason = "a test's helper fails the test")]

mod addresses;
mod agents;
mod attack;
mod bad_input;
mod bridging;
mod cuts;
mod degraded;
mod ethernet;
mod fencing;
mod firewalls;
mod foreign;
mod forwarding;
mod frames;
mod gateway;
mod health;
mod icc;
mod intruders;
mod leader;
mod members;
mod merging;
mod mtu;
mod names;
mod no_room;
mod offloads;
mod paused;
mod ports;
mod power;
mod processes;
mod published_traffic;
mod reboot;
mod refusals;
mod removal;
mod renumbered;
mod restart;
mod rolled_back;
mod scale;
mod seen;
mod support;
mod topology;
mod tunnels;
mod underlays;
mod uplinks;
mod vlans;
mod wire;
