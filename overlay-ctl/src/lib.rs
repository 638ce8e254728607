//! The controller and the command line of the overlay.
#![cfg_attr(test, recursion_limit = "256")]

pub mod api;
pub mod cli;
pub mod consensus;
pub mod datapath;
pub mod dns;
pub mod durable;
pub mod gateway;
#[cfg(test)]
mod golden;
pub mod ipam;
pub mod model;
pub mod netlink;
pub mod node;
pub mod peers;
pub mod proto;
pub mod reconcile;
#[cfg(test)]
mod seeded;
pub mod state;
pub mod watch;

/// An error and its sources in one line, as logs and answers show it.
#[must_use]
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
