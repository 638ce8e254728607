//! Agents of the simulated cluster: each follows any voter's state by deltas, and changes voters when it
//! likes.

use super::harness::Cluster;
use crate::control::state::{Delta, View};

/// Nodes of the state, which agents are.
pub(crate) const AGENTS: [u64; 4] = [1, 2, 3, 4];

/// An agent's view, and whom it follows.
#[derive(Debug)]
pub(crate) struct Agent {
    id: u64,
    view: View,
    voter: Option<u64>,
    /// It got more than a whole view, or than nothing.
    pub(crate) deltas: usize,
}

impl Agent {
    pub(crate) fn all() -> Vec<Self> {
        AGENTS
            .iter()
            .map(|id| Self { id: *id, view: View::default(), voter: None, deltas: 0 })
            .collect()
    }

    /// Takes what its voter has for it, after changing voters in some cases. What it holds then must be
    /// what that voter's state says of it.
    pub(crate) fn follow(&mut self, cluster: &mut Cluster) {
        let running = cluster.running();
        if self.voter.is_none_or(|voter| !running.contains(&voter)) || cluster.rng.percent(25) {
            self.voter = cluster.rng.pick(&running);
        }
        let Some(voter) = self.voter else { return };
        self.take(cluster, voter);
    }

    /// Takes what `voter` has for it.
    pub(crate) fn take(&mut self, cluster: &Cluster, voter: u64) {
        let ledger = cluster.ledger(voter);
        if ledger.published < self.view.revision {
            // The voter is behind: it has nothing to say yet.
            return;
        }
        let held = self.view.networks.keys().copied().collect();
        let (delta, whole) = ledger.state.read(|state| {
            (state.delta_for(self.id, self.view.revision, &held), state.view_of(self.id))
        });
        let changed = delta.upserts.len() + delta.removes.len();
        if !delta.complete && changed > 0 {
            self.deltas += 1;
        }
        self.view.apply(delta);
        self.view.revision = ledger.published;
        let mut expected = view(whole);
        expected.revision = ledger.published;
        assert_eq!(self.view, expected, "agent {} of voter {voter}", self.id);
    }
}

fn view(whole: Delta) -> View {
    let mut view = View::default();
    view.apply(whole);
    view
}
