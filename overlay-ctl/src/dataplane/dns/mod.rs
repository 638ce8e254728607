//! Names of endpoints, answered at 127.0.0.11 inside each endpoint's namespace.
//!
//! Invariants:
//! - A namespace sees the names of its own networks and nothing of any other.
//! - An answer about one of ours comes from one whole [`Names`], never from two of them mixed.
//! - Every question is answered within the time-out of the host's own resolvers: by us at once, by
//!   one of them with its own words, or with SERVFAIL.
//! - What one namespace asks for cannot use up what the others need: questions under way, connections.
//! - A namespace's resolv.conf names us only while we answer there.
//!
//! The wire format is hickory-proto's. Its server is not used, for what it does not do: hand on
//! another server's answer byte for byte, bound the connections that it accepts (each is a file
//! descriptor of the node, and a failed accept is retried in a busy loop), or answer without a task
//! and two lines of log for each question.

mod error;
mod files;
mod forward;
mod lookup;
mod message;
mod resolvers;
mod server;
mod upstream;

pub use error::DnsError;
pub use resolvers::Resolvers;
