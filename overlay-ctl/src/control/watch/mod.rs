//! How desired state reaches every node, and how the leader learns what their kernels hold.
//!
//! Down: a voter derives its view from its own state; an agent holds one stream to any voter, which
//! sends the whole view once and deltas from then on, cut to the networks the agent has endpoints of.
//! A slow agent costs the voter a cursor, not a queue: each delta is made when the last one has been
//! taken, from the state as it is then. Where nothing changes the voter says so once a second. An agent leaves
//! a voter that is silent, and a voter ends the streams of its agents when it no longer takes part in a
//! quorum: what it shows is old, and another voter may know better.
//!
//! Up: every node's status (programmed revision, endpoints) goes up the same stream, and every voter
//! passes what it knows on to the leader. So the leader answers `create --wait` and who is alive from
//! one table. Statuses are soft: they never enter the log, and a new leader has them all within a
//! heartbeat.

mod agent;
mod stream;
mod voter;

#[cfg(test)]
mod tests;

pub use agent::{Ended, follow_a_voter};
pub use stream::serve_agent;
pub use voter::{publish_views, report_to_leader};

use crate::{
    control::state::{Row, RowKey},
    proto::internal::{Row as WireRow, RowKey as WireKey, RowKind},
};
use std::time::Duration;

/// A status is repeated after so long without a change.
const HEARTBEAT: Duration = Duration::from_millis(500);

fn key_to_wire(key: RowKey) -> WireKey {
    let (kind, id) = match key {
        RowKey::Node(id) => (RowKind::Node, id),
        RowKey::Network(id) => (RowKind::Network, id),
        RowKey::Endpoint(_, id) => (RowKind::Endpoint, id),
    };
    let network = if let RowKey::Endpoint(network, _) = key { network } else { 0 };
    WireKey { kind: kind.into(), id, network }
}

fn key_from_wire(key: &WireKey) -> Option<RowKey> {
    match key.kind() {
        RowKind::Node => Some(RowKey::Node(key.id)),
        RowKind::Network => Some(RowKey::Network(key.id)),
        RowKind::Endpoint => Some(RowKey::Endpoint(key.network, key.id)),
        RowKind::Unspecified => None,
    }
}

fn row_to_wire(row: &Row) -> Result<WireRow, rmp_serde::encode::Error> {
    Ok(WireRow { key: Some(key_to_wire(row.key())), value: rmp_serde::to_vec_named(row)? })
}
