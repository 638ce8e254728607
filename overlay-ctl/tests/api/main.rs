//! Tests of a real node through its API: by gRPC over the unix socket and over TCP. Without root they are
//! skipped with a message.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helper fails the test"
)]

mod backup;
mod endpoints;
mod events;
mod fixture;
#[path = "../support/lab.rs"]
#[allow(dead_code, reason = "shared with the tests of the kernel, which use more of it")]
mod lab;
mod lists;
mod members;
mod metrics;
mod no_room;
mod ports;
mod refusals;
mod retries;
mod services;
mod stale;
