//! The controller and the command line of the overlay.
#![cfg_attr(test, recursion_limit = "256")]

pub mod config;
pub mod control;
pub mod dataplane;
pub mod durable;
pub mod faces;
#[cfg(test)]
mod golden;
pub mod model;
pub mod node;
pub mod proto;
#[cfg(test)]
mod seeded;

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
