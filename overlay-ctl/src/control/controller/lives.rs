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
    let term = voter.consensus.status().borrow().term;
    match fresh.execute(voter, request, command).await? {
        Applied::Node(node) => {
            if let (Some(ended), Some(life)) = (ended, node.life()) {
                voter.leaving.give(life, term);
                tracing::info!(node = %node.name, %ended, %life, "the node lost its log, and comes back as another member");
            }
            Ok(node)
        }
        other => unreachable!("a node's life is answered by its row, not {other:?}"),
    }
}

/// Whether the life may have voted, or acknowledged an entry, as far as this leader can tell: then an empty log must not begin
/// under it, since what was acknowledged may be in no other one. A folder that was put back from an older copy does not know.
///
/// Who votes or has entries of the log is known. For any other life this node has to have given it in the present term: a
/// learner may have voted once, and what it has is not known to a later leader. A cluster of the first version has no other
/// lives to give, so that there only what is known counts.
pub(super) fn may_be_used(voter: &VoterParts, fresh: &Fresh, life: RaftId) -> bool {
    let status = voter.consensus.status().borrow().clone();
    let id = life.get();
    let votes = status.voters.contains(&id) || status.outgoing.contains(&id);
    let has_entries = status.peers.iter().any(|peer| peer.id == id && peer.matched > 0);
    let is_new = voter.leaving.has_given(life, status.term)
        || fresh.read(voter, |state| state.version().is_first());
    votes || has_entries || !is_new
}
