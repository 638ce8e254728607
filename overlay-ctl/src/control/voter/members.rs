//! The leader's duty towards membership: the consensus group gets the members that the nodes' rows name.

use crate::{
    control::{
        consensus::{Consensus, Role},
        voter::{Machine, VoterParts},
    },
    model::NodeId,
};
use std::{collections::BTreeSet, time::Duration};

/// How often the members are compared with the rows, besides at every change of either.
const PERIOD: Duration = Duration::from_secs(1);
/// Longest wait for one change of the members. After it the members are compared with the rows again.
const PATIENCE: Duration = Duration::from_secs(5);

/// A change of the members that the rows ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// A node that is to hold the log is not a member yet.
    Add(NodeId),
    /// A member has no such row any more: the node was removed.
    Remove(NodeId),
}

/// While this node leads: makes the members of the consensus group those that the nodes' rows say, one
/// change at a time. A node that joins becomes a learner; who of the members votes is decided by the
/// consensus layer, so that a member that never comes costs no quorum.
pub async fn follow_the_rows(id: NodeId, voter: VoterParts) {
    let VoterParts { consensus, state, table, leaving, quorum: _ } = voter;
    let mut led = false;
    let mut status = consensus.status();
    let mut revision = state.revision();
    loop {
        let now = status.borrow_and_update().clone();
        if now.role == Role::Leader && !led {
            table.listen_anew();
        }
        led = now.role == Role::Leader;
        if led {
            let wanted: BTreeSet<NodeId> =
                state.read(|state| state.nodes().filter(|n| n.voter).map(|n| n.id).collect());
            let members = [now.voters, now.outgoing, now.learners].concat().into_iter().collect();
            let change = next_change(id, &wanted, &members, |node| leaving.contains(node));
            if let Some(change) = change {
                carry_out(change, &consensus).await;
            }
        }
        tokio::select! {
            changed = status.changed() => if changed.is_err() { return },
            changed = revision.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

/// The next change of the members, as the leader `id` makes it. A node that is being removed is left alone, since its
/// removal ends the membership first and the row afterwards.
fn next_change(
    id: NodeId,
    wanted: &BTreeSet<NodeId>,
    members: &BTreeSet<NodeId>,
    leaves: impl Fn(NodeId) -> bool,
) -> Option<Change> {
    // A state without rows is one that has not been read yet.
    if wanted.is_empty() {
        return None;
    }
    let new = wanted.difference(members).find(|node| !leaves(**node));
    let gone = members.difference(wanted).find(|node| **node != id && !leaves(**node));
    new.copied().map(Change::Add).or(gone.copied().map(Change::Remove))
}

async fn carry_out(change: Change, consensus: &Consensus<Machine>) {
    let asked = async {
        match change {
            Change::Add(node) => consensus.add_learner(node).await,
            Change::Remove(node) => consensus.remove(node).await,
        }
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(revision)) => tracing::info!(?change, revision, "the members follow the nodes"),
        // Tried again: the rows still say so.
        Ok(Err(error)) => tracing::debug!(?change, %error, "the members do not follow yet"),
        Err(_) => tracing::debug!(?change, "the members do not follow in time"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(wanted: &[NodeId], members: &[NodeId], leaving: &[NodeId]) -> Option<Change> {
        let set = |ids: &[NodeId]| ids.iter().copied().collect();
        next_change(1, &set(wanted), &set(members), |node| leaving.contains(&node))
    }

    #[test]
    fn who_has_a_row_becomes_a_member() {
        assert_eq!(change(&[1], &[1], &[]), None);
        assert_eq!(change(&[1, 2, 3], &[1], &[]), Some(Change::Add(2)));
        assert_eq!(change(&[1, 2, 3], &[1, 2], &[]), Some(Change::Add(3)));
    }

    #[test]
    fn who_has_no_row_is_no_member_any_more() {
        assert_eq!(change(&[1, 2], &[1, 2, 3], &[]), Some(Change::Remove(3)));
        // Who comes may be needed before who goes can go.
        assert_eq!(change(&[1, 4], &[1, 2], &[]), Some(Change::Add(4)));
        // Its own removal is the next leader's to carry out.
        assert_eq!(change(&[2], &[1, 2], &[]), None);
        // Nothing was read yet.
        assert_eq!(change(&[], &[1, 2], &[]), None);
    }

    #[test]
    fn who_is_being_removed_is_not_made_a_member_again() {
        assert_eq!(change(&[1, 2], &[1], &[2]), None);
        assert_eq!(change(&[1, 2, 3], &[1], &[2]), Some(Change::Add(3)));
        assert_eq!(change(&[1], &[1, 2], &[2]), None);
        // The removal was called off between the two steps.
        assert_eq!(change(&[1, 2], &[1], &[]), Some(Change::Add(2)));
    }
}
