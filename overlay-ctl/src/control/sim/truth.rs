//! What all voters must agree on, index by index, and what the clients were promised. Each is checked when it happens: a
//! voter that was wrong and was healed by a snapshot later would not be noticed at the end.

use crate::{
    control::{
        consensus::core::Logged,
        state::{Applied, Envelope, Outcome, Refusal, RequestId, State, View},
    },
    model::{Endpoint, NetworkId, NodeId, Version},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// One for a cluster; clones share it.
#[derive(Clone, Default)]
pub(super) struct Truth(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    /// Term and content of each committed entry.
    entries: BTreeMap<u64, Logged>,
    /// What came of each command.
    outcomes: BTreeMap<u64, Outcome>,
    /// The state after each command.
    states: BTreeMap<u64, State>,
    /// Voters, those before a joint configuration, and learners, from an index on.
    members: BTreeMap<u64, [Vec<u64>; 3]>,
    /// The learners to be of the joint configuration that began at an index.
    next_learners: BTreeMap<u64, Vec<u64>>,
    /// Who leads each term.
    leaders: BTreeMap<u64, u64>,
    /// What came first of each request, and at which index.
    requests: BTreeMap<RequestId, (u64, Outcome)>,
    /// The greatest index that was acknowledged.
    acknowledged: u64,
    /// What was logged of each request.
    proposed: BTreeMap<RequestId, Vec<Vec<u8>>>,
    /// When a name or an address was given up, by network; from version 2 on.
    given_up: BTreeMap<(NetworkId, String), u64>,
    /// Up to where everybody has forgotten what was given up in a network, as its leaders said.
    released: BTreeMap<NetworkId, u64>,
    /// The greatest revision that each node has programmed.
    kernels: BTreeMap<NodeId, u64>,
}

impl Truth {
    fn known(&self) -> MutexGuard<'_, Known> {
        // A run that disagreed has failed already.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cluster begins with this state, at this index.
    pub(super) fn begins(&self, index: u64, state: &State) {
        self.known().states.insert(index, state.clone());
    }

    /// The truth of the generation that begins after this one, with this state, at this index. What the state lacks is lost.
    pub(super) fn successor(&self, index: u64, state: &State) -> Self {
        let before = self.known();
        let known = Known {
            states: [(index, state.clone())].into(),
            acknowledged: index,
            proposed: before.proposed.clone(),
            kernels: before.kernels.clone(),
            ..Known::default()
        };
        drop(before);
        Self(Arc::new(Mutex::new(known)))
    }

    /// A voter applied the command at `index`, which holds the state `after` since.
    pub(super) fn applied(&self, index: u64, entry: &Envelope, outcome: &Outcome, after: &State) {
        let mut known = self.known();
        if !known.outcomes.contains_key(&index) {
            known.follow_owners(index, entry, outcome, after);
        }
        let request = entry.request;
        let Known { outcomes, states, requests, .. } = &mut *known;
        match (outcomes.get(&index), states.get(&index)) {
            (Some(first), Some(state)) => {
                assert_eq!(first, outcome, "one command came to two outcomes at {index}");
                assert!(state == after, "two states at {index}");
            }
            _ => {
                nothing_is_owned_twice(after);
                let (at, first) = requests.entry(request).or_insert((index, outcome.clone()));
                assert!(
                    is_repeated(first, outcome),
                    "the request at {at} came to {first:?}, and again at {index} to {outcome:?}"
                );
                outcomes.insert(index, outcome.clone());
                states.insert(index, after.clone());
            }
        }
    }

    /// A voter's state is a snapshot's at `index`.
    pub(super) fn restored(&self, index: u64, state: &State) {
        let known = self.known();
        let before = known.states.range(..=index).next_back();
        let is_it = before.is_some_and(|(_, known)| known == state);
        assert!(is_it, "the snapshot at {index} is not what was applied up to there");
    }

    /// A voter holds `entry` in its log and has applied it.
    pub(super) fn committed(&self, node: u64, entry: Logged) {
        let mut known = self.known();
        match known.entries.get(&entry.index) {
            Some(first) => assert!(
                *first == entry,
                "node {node} applied another entry at {} (of term {}) than others did (of term {})",
                entry.index,
                entry.term,
                first.term,
            ),
            None => drop(known.entries.insert(entry.index, entry)),
        }
    }

    /// The logs of two voters: up to the last entry that they share, they must be the same.
    pub(super) fn logs(a: (u64, &[Logged]), b: (u64, &[Logged])) {
        let of_b: BTreeMap<u64, &Logged> = b.1.iter().map(|entry| (entry.index, entry)).collect();
        let mut is_shared = false;
        for entry in a.1.iter().rev() {
            let Some(other) = of_b.get(&entry.index) else { continue };
            is_shared |= entry.term == other.term;
            assert!(
                !is_shared || entry == *other,
                "the logs of {} and {} share a later entry, and differ at {}",
                a.0,
                b.0,
                entry.index
            );
        }
    }

    /// A voter learned that from `index` on, or from some index before it, the members are these. Says what they were
    /// before, if that is news.
    pub(super) fn members(&self, index: u64, members: &[Vec<u64>; 3]) {
        let mut known = self.known();
        let newest = known.members.last_key_value().map_or(0, |(index, _)| *index);
        let before = known.members.range(..=index).next_back().map(|(_, members)| members);
        if before != Some(members) {
            assert!(index > newest, "members at {index}: {members:?}, to others {before:?}");
            known.members.insert(index, members.clone());
        }
    }

    /// A voter has applied everything up to `applied`, and takes these for its next learners.
    pub(super) fn next_learners(&self, node: u64, applied: u64, next: &[u64]) {
        let mut known = self.known();
        let Some((&since, _)) = known.members.range(..=applied).next_back() else { return };
        let first = known.next_learners.entry(since).or_insert_with(|| next.to_vec());
        assert_eq!(first, next, "node {node} has other next learners than others since {since}");
    }

    /// A node leads a term. Returns true if that is news.
    pub(super) fn leads(&self, term: u64, node: u64) -> bool {
        let mut known = self.known();
        match known.leaders.get(&term) {
            Some(leader) => {
                assert_eq!(*leader, node, "two leaders in term {term}");
                false
            }
            None => known.leaders.insert(term, node).is_none(),
        }
    }

    /// A client was told that its command took effect at `index`, and what came of it. Returns true if it did so for the
    /// first time.
    pub(super) fn acknowledged(&self, index: u64, request: RequestId, outcome: &Outcome) -> bool {
        let mut known = self.known();
        known.acknowledged = known.acknowledged.max(index);
        let held = known.entries.get(&index).map(|entry| &entry.content.1);
        let is_it = |held| known.proposed.get(&request).is_some_and(|all| all.contains(held));
        assert!(held.is_some_and(is_it), "acknowledged at {index}, and another command is there");
        assert_eq!(known.outcomes.get(&index), Some(outcome), "another answer at {index}");
        known.requests.values().any(|(first, _)| *first == index)
    }

    /// A leader logs this of a request.
    pub(super) fn proposed(&self, request: RequestId, entry: &[u8]) {
        self.known().proposed.entry(request).or_default().push(entry.to_vec());
    }

    /// A leader says that these nodes, which live, have forgotten what was removed up to `confirmed`.
    pub(super) fn is_confirmed(&self, live: impl Iterator<Item = NodeId>, confirmed: u64) {
        let known = self.known();
        for node in live {
            let programmed = known.kernels.get(&node).copied().unwrap_or(0);
            assert!(
                programmed >= confirmed,
                "node {node} is said to have programmed {confirmed}, and has programmed {programmed}"
            );
        }
    }

    /// What a node is to hold at a revision.
    fn view(&self, node: NodeId, revision: u64) -> View {
        let mut view = View::default();
        if let Some((_, state)) = self.known().states.range(..=revision).next_back() {
            view.apply(state.view_of(node));
        }
        view.revision = revision;
        view
    }

    /// A node holds this view.
    pub(super) fn holds(&self, node: NodeId, view: &View) {
        let right = self.view(node, view.revision);
        assert!(*view == right, "node {node} holds {view:?}, and should hold {right:?}");
    }

    /// A node's kernel goes from one view to another. It may lose what a removal took away, and nothing else.
    pub(super) fn is_programmed(&self, node: NodeId, old: &View, new: &View) {
        let has = |view: &View, it: &Endpoint| {
            view.endpoints.get(&it.network).is_some_and(|all| all.contains_key(&it.id))
        };
        let lost: Vec<&Endpoint> = old.all_endpoints().filter(|it| !has(new, it)).collect();
        if !lost.is_empty() {
            let newest = self.view(node, old.revision.max(new.revision));
            for endpoint in lost {
                let (id, was, is) = (endpoint.id, old.revision, new.revision);
                assert!(
                    !has(&newest, endpoint),
                    "the kernel of node {node} went from {was} to {is} and lost endpoint {id}, which is there"
                );
            }
        }
        let mut known = self.known();
        let acknowledged = known.kernels.entry(node).or_default();
        *acknowledged = new.revision.max(*acknowledged);
    }

    /// The greatest index that was acknowledged: whoever asks from now on is answered by it or a later one.
    pub(super) fn floor(&self) -> u64 {
        self.known().acknowledged
    }

    /// How many terms were led.
    pub(super) fn terms(&self) -> usize {
        self.known().leaders.len()
    }

    /// How many entries were committed.
    pub(super) fn entries(&self) -> usize {
        self.known().entries.len()
    }
}

impl Known {
    /// Who owns which name and address changes. What was given up is not given out again before it is released.
    fn follow_owners(&mut self, index: u64, entry: &Envelope, outcome: &Outcome, after: &State) {
        let default = State::default();
        let before = self.states.range(..index).next_back().map_or(&default, |(_, state)| state);
        let keys = |it: &Endpoint| {
            let address = it.addresses.v4.map(|address| address.to_string());
            let name = format!("name {}", it.name.folded());
            let network = it.network;
            [Some(name), address].into_iter().flatten().map(move |key| (network, key))
        };
        let gone = before.endpoints().filter(|it| after.endpoint(it.id).is_none());
        if before.version() >= Version::V2 {
            self.given_up.extend(gone.flat_map(keys).map(|key| (key, index)));
        }
        let network = match outcome {
            Ok(Applied::Endpoint(endpoint)) if endpoint.id == index => Some(endpoint.network),
            Ok(Applied::Removed(_)) => {
                let gone = before.endpoints().find(|it| after.endpoint(it.id).is_none());
                gone.map(|endpoint| endpoint.network)
            }
            _ => None,
        };
        if let (Some(network), Some(confirmed)) = (network, entry.noted.confirmed) {
            let released = self.released.entry(network).or_default();
            *released = confirmed.max(*released);
        }
        let new = after.endpoints().filter(|it| it.id == index);
        for (network, key) in new.flat_map(keys) {
            let released = self.released.get(&network).copied().unwrap_or(0);
            let since = self.given_up.get(&(network, key.clone())).copied().unwrap_or(0);
            assert!(
                since <= released,
                "{key} is given out at {index}. It was given up at {since}, and nodes have forgotten what was up to {released}"
            );
        }
    }
}

/// Returns true if the outcome of a repeated request says what the first one did. It shows the row as it is by then, or says
/// that the row is gone.
fn is_repeated(first: &Outcome, again: &Outcome) -> bool {
    match (first, again) {
        (Ok(Applied::Network(first)), Ok(Applied::Network(again))) => first.id == again.id,
        (Ok(Applied::Endpoint(first)), Ok(Applied::Endpoint(again))) => first.id == again.id,
        (Ok(Applied::Node(first)), Ok(Applied::Node(again))) => first.id == again.id,
        (Ok(_), Err(Refusal::Gone { .. } | Refusal::NodeRemoved(_))) => true,
        // It is not remembered: each leader asks for it by a request of its own.
        (Ok(Applied::Raised(_)), Err(Refusal::CannotRaise { .. })) => true,
        _ => first == again,
    }
}

fn nothing_is_owned_twice(state: &State) {
    fn once<T: Ord>(what: &str, all: impl Iterator<Item = T>) {
        let mut seen = BTreeSet::new();
        for one in all {
            assert!(seen.insert(one), "{what} is owned twice");
        }
    }
    once("a network's name", state.networks().map(|network| &network.name));
    once("a VNI", state.networks().map(|network| network.vni));
    once("a node's name", state.nodes().map(|node| &node.name));
    once("a node's address", state.nodes().map(|node| node.vtep));
    once("an endpoint's name", state.endpoints().map(|it| (it.network, &it.name)));
    once("an endpoint's MAC", state.endpoints().map(|it| (it.network, it.mac)));
    let addresses = state.endpoints().filter_map(|it| Some((it.network, it.addresses.v4?)));
    once("an endpoint's address", addresses);
    for endpoint in state.endpoints() {
        assert!(state.network(endpoint.network).is_some(), "an endpoint without its network");
        assert!(endpoint.node().is_none_or(|node| state.node(node).is_some()), "nor its node");
    }
}
