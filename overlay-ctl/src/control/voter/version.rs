//! The leader's duty towards the cluster's version: it is raised once every node speaks the next one, and has done so for a
//! while. Until then each node can be put back to the program that it ran before.

use super::{StatusTable, VoterParts};
use crate::{
    control::{
        consensus::{Consensus, Role},
        state::{Command, State},
        voter::Machine,
    },
    model::{NodeId, NodeName, SPEAKS, Speaks, Version},
};
use std::{collections::BTreeMap, fmt, time::Duration};
use tokio::time::{sleep, timeout};

/// How often the leader looks whether the version can be raised.
const PERIOD: Duration = Duration::from_secs(1);
/// Longest wait for a raise. After it the leader looks again.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the leader heard of a node's program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    /// It speaks these versions, and has said so for this long without a pause.
    Speaks(Speaks, Duration),
    /// Nothing yet, but the leader has not led for long.
    NothingYet,
    /// Nothing for a while: the node is down.
    Nothing,
}

/// A node that keeps the cluster at its version, shown as `h3 (speaks version 1)` or `h3 (down)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocker {
    /// The node.
    pub node: NodeName,
    /// What it speaks; `None` = it is down, and nobody knows which program it comes back with.
    pub speaks: Option<Speaks>,
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, speaks } = self;
        match speaks {
            Some(speaks) => write!(f, "{node} (speaks {speaks})"),
            None => write!(f, "{node} (down)"),
        }
    }
}

/// What is to be done about the version.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// The leader's program speaks no later one.
    Newest,
    /// Every node speaks the next one as far as it was heard, but not all for long enough.
    Wait,
    /// These nodes do not speak the next one, or are down.
    WaitFor(Vec<Blocker>),
    /// Every node has spoken it for long enough.
    Raise { to: Version, speaks: BTreeMap<NodeId, Speaks> },
}

/// Decides what is to be done in a cluster at version `has` with these nodes, by a leader whose program speaks up to
/// `newest`. `hold` is for how long each node must have spoken the next version.
fn next(
    has: Version,
    newest: Version,
    nodes: Vec<(NodeId, NodeName, Heard)>,
    hold: Duration,
) -> Next {
    if has >= newest {
        return Next::Newest;
    }
    let to = has.next();
    let mut blockers = Vec::new();
    let mut speaks = BTreeMap::new();
    // A state without rows is one that has not been read yet.
    let mut is_time = !nodes.is_empty();
    for (id, node, heard) in nodes {
        match heard {
            Heard::Speaks(said, since) if said.covers(to) => {
                is_time &= since >= hold;
                speaks.insert(id, said);
            }
            Heard::Speaks(said, _) => blockers.push(Blocker { node, speaks: Some(said) }),
            Heard::Nothing => blockers.push(Blocker { node, speaks: None }),
            Heard::NothingYet => is_time = false,
        }
    }
    if !blockers.is_empty() {
        Next::WaitFor(blockers)
    } else if is_time {
        Next::Raise { to, speaks }
    } else {
        Next::Wait
    }
}

fn next_by(state: &State, table: &StatusTable, hold: Duration) -> Next {
    let (has, newest) = (state.version(), SPEAKS.newest());
    // Almost always: so the table is not asked for each node.
    if has >= newest {
        return Next::Newest;
    }
    let heard = |id| match table.speaks(id) {
        Some((speaks, since)) => Heard::Speaks(speaks, since),
        None if table.is_down(id) => Heard::Nothing,
        None => Heard::NothingYet,
    };
    let nodes = state.nodes().map(|node| (node.id, node.name.clone(), heard(node.id)));
    next(has, newest, nodes.collect(), hold)
}

/// The raise that is due, if one is: each node has spoken the next version for as long as `hold`.
#[cfg(test)]
pub(in crate::control) fn due(
    state: &State,
    table: &StatusTable,
    hold: Duration,
) -> Option<Command> {
    match next_by(state, table, hold) {
        Next::Raise { to, speaks } => Some(Command::RaiseVersion { to, speaks }),
        Next::Newest | Next::Wait | Next::WaitFor(_) => None,
    }
}

impl VoterParts {
    /// The nodes that keep the cluster at its version, as this voter hears if it leads. Empty if the version is the newest
    /// that this program speaks, or will soon be raised.
    #[must_use]
    pub fn version_waits_for(&self) -> Vec<Blocker> {
        if self.consensus.status().borrow().role != Role::Leader {
            return Vec::new();
        }
        match self.state.read(|state| next_by(state, &self.table, Duration::ZERO)) {
            Next::WaitFor(blockers) => blockers,
            Next::Newest | Next::Wait | Next::Raise { .. } => Vec::new(),
        }
    }
}

/// While this node leads: raises the cluster's version when every node has spoken the next one for as long as `hold`.
/// Returns when consensus ends.
pub async fn raise_the_version(voter: VoterParts, hold: Duration) {
    let mut waits_for = Vec::new();
    loop {
        look(&voter, hold, &mut waits_for).await;
        tokio::select! {
            () = ended(&voter.consensus) => return,
            () = sleep(PERIOD) => {}
        }
    }
}

/// Raises the version, or says once for which nodes it waits.
async fn look(voter: &VoterParts, hold: Duration, waits_for: &mut Vec<Blocker>) {
    if voter.consensus.status().borrow().role != Role::Leader {
        waits_for.clear();
        return;
    }
    match voter.state.read(|state| next_by(state, &voter.table, hold)) {
        Next::Raise { to, speaks } => raise(voter, to, speaks).await,
        Next::WaitFor(blockers) if blockers != *waits_for => {
            let nodes: Vec<String> = blockers.iter().map(ToString::to_string).collect();
            let nodes = nodes.join(", ");
            tracing::info!(%nodes, "the cluster's version is not raised before these nodes speak the next one: start them with this node's program, or remove them");
            *waits_for = blockers;
        }
        Next::WaitFor(_) | Next::Wait | Next::Newest => {}
    }
}

async fn ended(consensus: &Consensus<Machine>) {
    // It is never so: the wait ends with consensus.
    drop(consensus.status().wait_for(|_| false).await);
}

async fn raise(voter: &VoterParts, to: Version, speaks: BTreeMap<NodeId, Speaks>) {
    let nodes = speaks.len();
    let command = Command::RaiseVersion { to, speaks };
    match timeout(PATIENCE, voter.propose(command)).await {
        Ok(Ok((revision, Ok(_)))) => {
            tracing::info!(version = %to, revision, nodes, "the cluster's version is raised: programs that do not speak it are refused from now on");
        }
        // Looked at again: another node may have joined meanwhile, or another leads.
        Ok(Ok((_, Err(refusal)))) => tracing::debug!(%refusal, "the version is not raised yet"),
        Ok(Err(error)) => tracing::debug!(%error, "the version is not raised yet"),
        Err(_) => tracing::debug!(version = %to, "the version is not raised in time"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        control::{
            consensus::{LogStore, golden::database_of_one},
            voter::{
                NODE_DOWN_AFTER,
                tests::{alone, register, start, write},
            },
        },
        proto::internal::NodeStatus,
    };
    use tokio::time::advance;

    const BOUND: Duration = Duration::from_secs(60);
    const HOLD: Duration = Duration::from_secs(300);
    const V1: Version = Version::V1;
    const V2: Version = Version::V2;

    fn speaks(oldest: u32, newest: u32) -> Speaks {
        Speaks::from_wire(oldest, newest).unwrap()
    }

    #[test]
    fn the_version_rises_when_every_node_has_spoken_the_next_for_a_while() {
        let both = |seconds| Heard::Speaks(speaks(1, 2), Duration::from_secs(seconds));
        let old = Heard::Speaks(speaks(1, 1), HOLD);
        let newer = Heard::Speaks(speaks(3, 4), HOLD);
        let blocks = |nodes: &[(&str, Option<Speaks>)]| {
            let blocker = |(node, speaks): &(&str, _)| Blocker {
                node: node.parse().unwrap(),
                speaks: *speaks,
            };
            Next::WaitFor(nodes.iter().map(blocker).collect())
        };
        let raise = |said: &[Speaks]| Next::Raise {
            to: V2,
            speaks: (1..).zip(said.iter().copied()).collect(),
        };
        for (has, heard, expected) in [
            (V2, &[both(300)][..], Next::Newest),
            (V2.next(), &[both(300)], Next::Newest),
            (V1, &[], Next::Wait),
            (V1, &[both(299)], Next::Wait),
            (V1, &[both(300)], raise(&[speaks(1, 2)])),
            (V1, &[both(300), both(299), both(9_000)], Next::Wait),
            (V1, &[both(300), both(301)], raise(&[speaks(1, 2); 2])),
            (V1, &[both(300), Heard::NothingYet], Next::Wait),
            (V1, &[both(300), both(300), old], blocks(&[("h3", Some(speaks(1, 1)))])),
            // One that can't go along blocks, however little the others have waited.
            (V1, &[both(0), old, Heard::NothingYet], blocks(&[("h2", Some(speaks(1, 1)))])),
            (V1, &[both(300), Heard::Nothing], blocks(&[("h2", None)])),
            (V1, &[newer, old], blocks(&[("h1", Some(speaks(3, 4))), ("h2", Some(speaks(1, 1)))])),
        ] {
            let names = (1..).map(|id: NodeId| (id, format!("h{id}").parse().unwrap()));
            let nodes = names.zip(heard).map(|((id, name), heard)| (id, name, *heard));
            assert_eq!(next(has, V2, nodes.collect(), HOLD), expected, "at {has}: {heard:?}");
        }
    }

    #[test]
    fn who_blocks_is_named_with_the_reason() {
        let blocker = |speaks| Blocker { node: "h3".parse().unwrap(), speaks }.to_string();
        assert_eq!(blocker(Some(speaks(1, 1))), "h3 (speaks version 1)");
        assert_eq!(blocker(None), "h3 (down)");
    }

    /// A status of a node whose program speaks these versions; 0 to 0: it says nothing of them.
    fn status(node_id: NodeId, oldest_version: u32, newest_version: u32) -> NodeStatus {
        NodeStatus { node_id, epoch: 1, oldest_version, newest_version, ..Default::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_node_speaks_counts_from_when_it_last_began_to_say_so() {
        const BEAT: Duration = Duration::from_millis(500);
        let table = StatusTable::default();
        let seconds = || table.speaks(1).map(|(said, since)| (said.to_string(), since.as_secs()));
        let expected = |said: &str, seconds| Some((said.to_owned(), seconds));
        assert_eq!(seconds(), None, "it was not heard");
        table.record(status(1, 0, 0));
        assert_eq!(seconds(), expected("version 1", 0));
        advance(BEAT * 2).await;
        table.record(status(1, 1, 2));
        assert_eq!(seconds(), expected("versions 1 to 2", 0), "it is upgraded");
        for _ in 0..4 {
            advance(BEAT).await;
            table.record(status(1, 1, 2));
        }
        table.record(NodeStatus { epoch: 2, ..status(1, 1, 2) });
        assert_eq!(seconds(), expected("versions 1 to 2", 2), "a registration has no part in it");
        advance(NODE_DOWN_AFTER).await;
        assert_eq!(seconds(), None, "it is silent");
        table.record(NodeStatus { epoch: 2, ..status(1, 1, 2) });
        assert_eq!(seconds(), expected("versions 1 to 2", 0), "it may have run another program");
        table.record(NodeStatus { epoch: 2, ..status(1, 2, 1) });
        assert_eq!(seconds(), expected("version 1", 0), "no range of versions");
    }

    async fn leading(voter: VoterParts) -> VoterParts {
        let mut status = voter.consensus.status();
        let leads = status.wait_for(|status| status.role == Role::Leader);
        timeout(BOUND, leads).await.expect("a leader").unwrap();
        voter
    }

    fn version(voter: &VoterParts) -> Version {
        voter.state.read(State::version)
    }

    /// One node whose program speaks nothing later keeps the cluster at its version, and is named.
    #[tokio::test]
    async fn one_node_of_an_earlier_program_keeps_the_version_and_is_named() {
        let (_dir, voter) = alone();
        let voter = leading(voter).await;
        register(&voter, 1).await;
        register(&voter, 2).await;
        let mut waits_for = Vec::new();
        for status in [status(1, 1, 2), status(2, 0, 0)] {
            voter.table.record(status);
        }
        look(&voter, Duration::ZERO, &mut waits_for).await;
        let named: Vec<String> = waits_for.iter().map(ToString::to_string).collect();
        assert_eq!((named, version(&voter)), (vec!["h2 (speaks version 1)".to_owned()], V1));
        assert_eq!(voter.version_waits_for(), waits_for);

        for status in [status(1, 1, 2), status(2, 1, 2)] {
            voter.table.record(status);
        }
        look(&voter, HOLD, &mut waits_for).await;
        assert_eq!(version(&voter), V1, "both may be put back still");
        look(&voter, Duration::ZERO, &mut waits_for).await;
        assert_eq!((version(&voter), voter.version_waits_for()), (V2, Vec::new()));
        let said: Vec<_> =
            voter.state.read(|state| state.nodes().map(|node| node.speaks).collect());
        assert_eq!(said, [Some(speaks(1, 2)); 2]);
    }

    /// The log and the snapshot of an earlier program, which knew no version of the cluster.
    #[tokio::test]
    async fn a_cluster_of_an_earlier_program_is_raised_and_lives_on() {
        let dir = tempfile::tempdir().unwrap();
        let voter = leading(start(database_of_one(dir.path()))).await;
        let rows = |voter: &VoterParts| {
            voter.state.read(|state| {
                (state.networks().cloned().collect::<Vec<_>>(), state.endpoints().count())
            })
        };
        let before = rows(&voter);
        assert_eq!((version(&voter), before.1), (V1, 2));
        voter.table.record(status(1, 1, 2));
        let duty = tokio::spawn(raise_the_version(voter.clone(), Duration::ZERO));
        let mut revision = voter.state.revision();
        let raised = async {
            while version(&voter) < V2 {
                revision.changed().await.unwrap();
            }
        };
        timeout(BOUND, raised).await.expect("it is raised");
        let raised_at = voter.state.read(State::revision);
        let network = Command::CreateNetwork {
            name: "later".parse().unwrap(),
            pool: None,
            vni: None,
            options: crate::model::NetworkOptions::default(),
        };
        write(&voter, network).await;
        let held = rows(&voter);
        assert_eq!((&held.0[..before.0.len()], held.1), (&before.0[..], before.1));
        let state = voter.state.copy();
        let snapshot = voter.consensus.status().borrow().snapshot;
        assert!(
            snapshot >= raised_at,
            "an earlier program would start from that of revision {snapshot}"
        );
        voter.consensus.shutdown().await;
        timeout(BOUND, duty).await.expect("it ends with consensus").unwrap();

        let again = leading(start(LogStore::open(dir.path(), None).unwrap().unwrap())).await;
        assert_eq!((version(&again), rows(&again)), (V2, held));
        assert_eq!(State::from_snapshot(&state.snapshot()).unwrap().version(), V2);
        again.consensus.shutdown().await;
    }
}
