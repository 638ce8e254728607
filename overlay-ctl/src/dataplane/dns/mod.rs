//! The resolver for endpoints' names, which answers at 127.0.0.11 inside each endpoint's namespace.
//!
//! Invariants:
//! - A namespace sees the names of its own networks and of no other network.
//! - An answer about an endpoint comes from one whole [`Names`](crate::dataplane::kernel::Names),
//!   never from a mixture of two.
//! - Every question is answered within the time-out of the host's own resolvers: by this resolver at
//!   once, by the unchanged answer of one of the host's, or with SERVFAIL.
//! - One namespace cannot use up the resources that the others need: pending questions and connections.
//! - A namespace without a way out sends no question out.
//! - A question that comes back, because a resolver of the host asks this node, is not sent again.
//! - A namespace's resolv.conf names 127.0.0.11 only while this resolver answers there.
//!
//! The wire format is hickory-proto's. Its server is not used, because it does not pass on another
//! server's answer byte for byte, does not limit the connections that it accepts (each is a file
//! descriptor of the node, and a failed accept is retried in a busy loop), and needs a task and two
//! lines of log for each question.

mod ask;
mod client_conf;
mod counts;
mod error;
mod files;
mod forward;
mod lookup;
mod loops;
mod memory;
mod message;
mod pending;
mod presence;
mod resolvers;
mod responder;
mod server;
mod servers;
mod tcp;
mod upstream;

pub use counts::{Counts, Fate};
pub use error::DnsError;
pub use resolvers::{Resolvers, Settings};
