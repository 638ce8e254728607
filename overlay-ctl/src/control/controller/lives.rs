//! The leader's part in giving a node another life: its membership ends before its row says another Raft id.

use super::{
    barrier::{DryRun, Fresh},
    error::{Attempt, ControllerError, Effect},
};
use crate::{
    control::{
        state::{Applied, Command, Decision, Mutation, RequestId},
        voter::VoterParts,
    },
    model::{Node, RaftId},
};

/// Ends the present life of `node`, whose log is lost, and gives it another one. `request` is the node's own id for the wish:
/// repeated, it is carried out once. An agent has no log, and is answered as it is.
///
/// In this order: the members can decide without the old life, its row names the new one, and the node hears which that is.
/// As long as the old one is a member, an answer under its id might be counted.
pub(super) async fn begin_life(
    voter: &VoterParts,
    fresh: &Fresh,
    request: RequestId,
    node: &Node,
) -> Result<Node, Attempt> {
    let mut command = Command::BeginLife { name: node.name.clone(), only: node.id, ended: None };
    let request = Mutation::new(request, &command);
    let ended = match fresh.dry_run(voter, request, &command)? {
        DryRun::New(decision) => {
            decision.bind(&mut command);
            if let Decision::BeginLife { ended, .. } = decision { Some(ended) } else { None }
        }
        DryRun::Done(_) => None,
    };
    // Until its row is changed the old life would be made a member again, by that row: see `follow_the_rows`.
    let _hold = ended.map(|life| voter.leaving.hold(life));
    if let Some(life) = ended {
        if RaftId::new(voter.consensus.status().borrow().id) == Some(life) {
            let why =
                format!("another process runs as node {} and leads: end one of the two", node.name);
            return Err(Attempt::Failed(ControllerError::Members { why, effect: Effect::None }));
        }
        let removed = voter.consensus.remove(life.get()).await;
        removed.map_err(|error| Attempt::of_write(voter, error))?;
    }
    match fresh.execute(voter, request, command).await? {
        Applied::Node(node) => {
            if let (Some(ended), Some(life)) = (ended, node.life()) {
                tracing::info!(node = %node.name, %ended, %life, "the node lost its log, and comes back as another member");
            }
            Ok(node)
        }
        other => unreachable!("a node's life is answered by its row, not {other:?}"),
    }
}
