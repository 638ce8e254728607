//! The node's part of the way to the outside world: the choice of the gateway bridge's subnet, the
//! nftables table that masquerades and publishes ports, the connections that were translated by it, and the
//! reservation of published ports on the host.
//!
//! Invariants:
//! - Only the table `ip overlay` is written. All other tables belong to other programs, and are read only to say which of
//!   them drops what endpoints send or receive, or keeps other nodes out.
//! - Nothing here isolates endpoints from each other: the program `from_gateway` does, so that a flushed
//!   ruleset does not open the way between them. The rules only protect endpoints from the outside.
//! - A change is one transaction, and no transaction is made without a change, so that established flows
//!   are never disturbed.

mod changes;
mod condition;
mod connections;
mod conntrack;
mod contents;
mod error;
mod expression;
mod firewalls;
mod flow;
mod iptables;
mod nft;
mod observed;
mod ports;
mod pressure;
mod rules;
mod stale;
mod subnet;
mod suspicion;
mod table;
mod verdict;

pub use changes::changes;
pub use connections::{Connections, end_connections};
pub use error::GatewayError;
pub use firewalls::Passage;
pub use ports::{PortTaken, Reservations, busy_ports};
pub use pressure::ConnectionPressure;
pub use rules::Rules;
pub use subnet::{SubnetError, choose_subnet};
pub use table::{Changed, Table};
