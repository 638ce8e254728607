//! The leader's duty towards membership: the consensus group gets the members that the nodes' rows name.

use crate::{
    control::{
        consensus::{Consensus, Role},
        voter::{Machine, VoterParts},
    },
    model::{Node, RaftId},
};
use std::{collections::BTreeSet, time::Duration};

/// How often the members are compared with the rows, besides at every change of either.
const PERIOD: Duration = Duration::from_secs(1);
/// Longest wait for one change of the members. After it the members are compared with the rows again.
const PATIENCE: Duration = Duration::from_secs(5);

/// A change of the members that the rows ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A life of a node that is to hold the log is not a member yet.
    Add(RaftId),
    /// No row names the member any more: the node was removed, or has another life.
    Remove(RaftId),
}

/// While this node leads: makes the members of the consensus group those that the nodes' rows say, one
/// change at a time. A node that joins becomes a learner; who of the members votes is decided by the
/// consensus layer, so that a member that never comes costs no quorum.
pub async fn follow_the_rows(voter: VoterParts) {
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
            let wanted: BTreeSet<RaftId> =
                state.read(|state| state.nodes().filter_map(Node::life).collect());
            let members = [now.voters, now.outgoing, now.learners].concat();
            let members = members.into_iter().filter_map(RaftId::new).collect();
            let own = RaftId::new(now.id);
            let change = next_change(own, &wanted, &members, |life| leaving.contains(life));
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

/// The next change of the members, as the leader `own` makes it. A life that is being ended is left alone, since its
/// end takes the membership first and changes the row afterwards.
pub(crate) fn next_change(
    own: Option<RaftId>,
    wanted: &BTreeSet<RaftId>,
    members: &BTreeSet<RaftId>,
    leaves: impl Fn(RaftId) -> bool,
) -> Option<Change> {
    // A state without rows is one that has not been read yet.
    if wanted.is_empty() {
        return None;
    }
    let new = wanted.difference(members).find(|life| !leaves(**life));
    let gone = members.difference(wanted).find(|life| Some(**life) != own && !leaves(**life));
    new.copied().map(Change::Add).or(gone.copied().map(Change::Remove))
}

async fn carry_out(change: Change, consensus: &Consensus<Machine>) {
    let asked = async {
        match change {
            Change::Add(life) => consensus.add_learner(life.get()).await,
            Change::Remove(life) => consensus.remove(life.get()).await,
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

    fn change(wanted: &[u64], members: &[u64], leaving: &[u64]) -> Option<Change> {
        let set = |ids: &[u64]| ids.iter().copied().filter_map(RaftId::new).collect();
        let leaves = |life: RaftId| leaving.contains(&life.get());
        next_change(RaftId::new(1), &set(wanted), &set(members), leaves)
    }

    fn add(life: u64) -> Option<Change> {
        RaftId::new(life).map(Change::Add)
    }

    fn remove(life: u64) -> Option<Change> {
        RaftId::new(life).map(Change::Remove)
    }

    #[test]
    fn who_has_a_row_becomes_a_member() {
        assert_eq!(change(&[1], &[1], &[]), None);
        assert_eq!(change(&[1, 2, 3], &[1], &[]), add(2));
        assert_eq!(change(&[1, 2, 3], &[1, 2], &[]), add(3));
    }

    #[test]
    fn who_has_no_row_is_no_member_any_more() {
        assert_eq!(change(&[1, 2], &[1, 2, 3], &[]), remove(3));
        // Who comes may be needed before who goes can go.
        assert_eq!(change(&[1, 4], &[1, 2], &[]), add(4));
        // Its own removal is the next leader's to carry out.
        assert_eq!(change(&[2], &[1, 2], &[]), None);
        // Nothing was read yet.
        assert_eq!(change(&[], &[1, 2], &[]), None);
    }

    #[test]
    fn who_is_being_removed_is_not_made_a_member_again() {
        assert_eq!(change(&[1, 2], &[1], &[2]), None);
        assert_eq!(change(&[1, 2, 3], &[1], &[2]), add(3));
        assert_eq!(change(&[1], &[1, 2], &[2]), None);
        // The removal was called off between the two steps.
        assert_eq!(change(&[1, 2], &[1], &[]), add(2));
    }
}
