//! The two doors to the kernel, against the real one. Needs root; says so and skips without.
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

mod datapath;
#[path = "../support/lab.rs"]
mod lab;
mod netlink;
mod station;
