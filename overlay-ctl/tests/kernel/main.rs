//! Tests of the modules that call the kernel, with the real kernel. Without root they are skipped with a
//! message.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helper fails the test"
)]

mod connections;
mod datapath;
mod dns;
mod dns_fixture;
mod dns_forward;
mod dns_namespaces;
mod dns_servers;
mod firewalls;
mod forwarding;
mod gateway;
mod gateway_ports;
mod gateway_table;
mod guard;
mod host;
#[path = "../support/lab.rs"]
mod lab;
mod layouts;
mod netlink;
mod pressure;
mod station;
