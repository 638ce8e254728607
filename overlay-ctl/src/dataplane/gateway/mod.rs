//! The node's half of the way to the outside world: which subnet the gateway bridge has, the nftables
//! table that masquerades and publishes ports, and the host's ports that are kept for it.
//!
//! Invariants:
//! - Only the table `ip overlay` is read or written. Whatever else nftables holds is another's.
//! - Nothing here isolates endpoints from each other: that is `from_gateway`'s work, so that a flushed
//!   ruleset opens nothing. What the rules keep out is the outside.
//! - A change is one transaction, and one that is not needed is not made: established flows never
//!   notice.

mod changes;
mod conntrack;
mod error;
mod expression;
mod nft;
mod observed;
mod ports;
mod rules;
mod subnet;
mod table;

pub use changes::changes;
pub use error::GatewayError;
pub use ports::{HostPort, PortTaken, Reservations, busy_ports};
pub use rules::{Rules, Target};
pub use subnet::{SubnetError, choose_subnet};
pub use table::{Changed, Table};
