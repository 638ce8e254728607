//! The streams that carry desired state to every node, and the state of the nodes' kernels to the
//! leader.
//!
//! Down: a voter derives its view from its own state. An agent holds one stream to any voter, which sends the whole view
//! once and then deltas, restricted to the networks of the agent's endpoints. A slow agent costs the voter a cursor and
//! not a queue: each delta is made when the one before it has been taken, from the state of that moment. If nothing
//! changes, the voter says so once a second. An agent leaves a voter that is silent. A voter ends the streams of its
//! agents when it no longer takes part in a quorum: its state is old, and another voter may have a newer one. When the life of
//! a voter is over, whose state may have been wrong, the agents that it served ask another one for the whole view.
//!
//! Up: every agent sends its status (programmed revision, endpoints) over the same stream, and every voter passes on to
//! the leader the statuses that it has. The leader's table of them tells when a creation is finished and which nodes are
//! alive. Statuses never enter the log, and a new leader has all of them within a heartbeat.

mod agent;
mod sources;
mod stream;
mod voter;

#[cfg(test)]
mod tests;

pub(crate) use agent::is_new_enough;
pub use agent::{Ended, Unreadable, follow_a_voter};
pub use stream::serve_agent;
pub use voter::{publish_views, report_to_leader};

#[cfg(test)]
pub(crate) use self::{
    agent::{hello, take},
    stream::{Follower, Next},
    voter::{Own, OwnView},
};

use crate::{
    control::state::{Row, RowKey},
    proto::internal::{Row as WireRow, RowKey as WireKey, RowKind},
};
use std::time::Duration;

/// Time after which an unchanged status is repeated.
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
