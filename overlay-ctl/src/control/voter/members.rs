use crate::{
    control::{
        consensus::{Consensus, Role},
        voter::{Machine, SharedState, StatusTable},
    },
    model::NodeId,
};
use std::{collections::BTreeSet, time::Duration};

/// The members are held against the rows this often, and at every change of either.
const PERIOD: Duration = Duration::from_secs(1);

/// While this node leads: makes the members of the consensus group those that the nodes' rows say,
/// one change at a time. A node that joins becomes a learner; the consensus layer promotes it when it
/// has caught up, so that a member that never comes costs no quorum.
pub async fn follow_the_rows(
    id: NodeId,
    consensus: Consensus<Machine>,
    state: SharedState,
    table: StatusTable,
) {
    let mut led = false;
    let mut status = consensus.status();
    let mut revision = state.revision();
    loop {
        revision.borrow_and_update();
        let now = status.borrow_and_update().clone();
        if now.role == Role::Leader && !led {
            table.listen_anew();
        }
        led = now.role == Role::Leader;
        if led {
            let wanted: BTreeSet<NodeId> =
                state.read(|state| state.nodes().filter(|n| n.voter).map(|n| n.id).collect());
            let members: BTreeSet<NodeId> = now.voters.into_iter().chain(now.learners).collect();
            if let Some(new) = wanted.difference(&members).next() {
                log(*new, "added", consensus.add_learner(*new).await);
            } else if let Some(gone) = members.difference(&wanted).find(|gone| **gone != id)
                && !wanted.is_empty()
            {
                log(*gone, "removed", consensus.remove(*gone).await);
            }
        }
        tokio::select! {
            changed = status.changed() => if changed.is_err() { return },
            changed = revision.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

fn log(member: NodeId, what: &str, outcome: Result<u64, crate::control::consensus::ProposeError>) {
    match outcome {
        Ok(index) => tracing::info!(member, revision = index, "member {what}"),
        // Tried again: the rows still say so.
        Err(error) => tracing::debug!(member, %error, "member not {what} yet"),
    }
}
