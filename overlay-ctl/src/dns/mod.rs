//! Names of endpoints, answered at 127.0.0.11 inside each endpoint's namespace.
//!
//! Invariants:
//! - A namespace sees the names of its own networks and nothing of any other.
//! - An answer about one of ours comes from one whole [`Names`], never from two of them mixed.
//! - Every question is answered within the time-out of the host's own resolvers: by us at once, by
//!   one of them with its own words, or with SERVFAIL.
//! - What one namespace asks for cannot use up what the others need: relayed questions, connections.

mod lookup;
mod names;

pub use names::{Names, Namespace, NetworkNames};
