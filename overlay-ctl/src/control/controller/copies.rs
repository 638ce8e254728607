//! Whether another process runs as a node that asks to register: one of the two has a copy of the state folder of the other.

use super::error::ControllerError;
use crate::{
    control::peers::{Directory, Incarnation, is_another},
    model::{Node, NodeId},
};
use std::{net::SocketAddr, time::Duration};
use tokio::time::timeout;

/// Longest wait for a process that is asked whether it runs as a node. It is shorter than that of a node for its first vote.
const ANSWERS: Duration = Duration::from_millis(600);

/// Fails if another process runs as the node of `row`, for which a process at `listen` asks to register.
///
/// The first one is where the row says, and goes on for as long as it answers there; one that does not answer has ended, or
/// hears, when it comes back, that it is the second one. Where both have one address, the later one goes on, and the first one
/// is known by that it comes back after it.
pub(super) async fn refuse_a_second(
    (own, directory): (NodeId, &Directory),
    row: &Node,
    listen: SocketAddr,
    incarnation: Option<Incarnation>,
) -> Result<(), ControllerError> {
    let superseded = incarnation.is_some_and(|run| directory.is_superseded(row.id, run));
    let is_second = if superseded {
        true
    } else if row.id == own {
        match incarnation {
            Some(incarnation) => incarnation != directory.incarnation(),
            None => directory.own().is_some_and(|own| own != listen),
        }
    } else if row.listen != listen {
        // Also where it was not heard lately: a leader that has just begun to lead has heard of few.
        answers_as(directory, row, incarnation).await
    } else {
        false
    };
    if !is_second {
        return Ok(());
    }
    tracing::warn!(node = %row.name, runs_at = %row.listen, asks_at = %listen, "a second process asks to be a node that runs: it is refused");
    directory.note_copy(row.id, listen);
    Err(ControllerError::RunsElsewhere { node: row.name.clone(), listen: row.listen })
}

/// Whether the process at the address of `row` is one of that node's, and not the one with this incarnation: the process that
/// asks may answer there itself, since something may forward what comes to its former address.
pub(super) async fn answers_as(
    directory: &Directory,
    row: &Node,
    incarnation: Option<Incarnation>,
) -> bool {
    let asked = timeout(ANSWERS, directory.status_at(row.listen)).await;
    matches!(asked, Ok(Ok(answer)) if is_another(&answer, row.id, incarnation))
}
