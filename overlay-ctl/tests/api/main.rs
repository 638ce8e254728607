//! A real node, called as its users call it: by gRPC, over its unix socket and over TCP. Needs root;
//! says so and skips without.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helper fails the test"
)]

mod endpoints;
mod events;
mod fixture;
#[path = "../support/lab.rs"]
#[allow(dead_code, reason = "shared with the tests of the kernel, which use more of it")]
mod lab;
mod lists;
mod metrics;
mod ports;
mod refusals;
mod retries;
mod services;
