//! Requests about nodes: register, list, inspect and remove.

use super::{
    Removed,
    barrier::{DryRun, Fresh},
    copies::{answers_as, refuse_a_second},
    error::{Attempt, ControllerError, Effect},
    info::NodeInfo,
    lists::{Rows, TURN},
    lives::{begin_life, may_be_used},
    program::while_leading,
    verb::{Leader, Verb},
};
use crate::{
    control::{
        peers::{Directory, Incarnation},
        state::{Applied, Command, Decision, Mutation, Refusal, RequestId, State},
        voter::{NODE_DOWN_AFTER, VoterParts},
    },
    model::{
        Invalid, Lease, Node, NodeId, NodeName, RaftId, Revision, Speaks, Subnet, Version, Vtep,
    },
};
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, time::Duration};
use uuid::Uuid;

/// Enters a node, or its new addresses. A repetition is recognised by the node's instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Register {
    /// Made once by the node.
    pub instance: [u8; 16],
    /// Must be free, or this instance's.
    pub name: NodeName,
    /// Must be free, or this instance's.
    pub vtep: Vtep,
    /// Where its peers reach it.
    pub listen: SocketAddr,
    /// The id that it had: a node that was removed is not taken in again under another id.
    pub returning: Option<NodeId>,
    /// The subnet of its gateway bridge.
    pub gateway: Option<Subnet>,
    /// Where its metrics are served, if other hosts reach that address.
    pub metrics: Option<SocketAddr>,
    /// Where its API is on its own host, if it is behind 1:1 NAT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_listen: Option<SocketAddr>,
    /// What its program speaks; `None` = it does not say, or the node that was asked does not pass it on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speaks: Option<Speaks>,
    /// The log of its present life is lost, and it wants another life: the id of this wish, by which a repetition is
    /// recognised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_lost: Option<RequestId>,
    /// Which run of its program it is; `None` = it does not say, or the node that was asked does not pass it on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<Incarnation>,
}

/// A registered node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Joined {
    /// Its row.
    pub node: Node,
    /// The other nodes that vote, or are to vote.
    pub peers: Vec<NodeInfo>,
    /// The last index of the log that the leader knows the node to have; 0 = it knows of none.
    #[serde(default)]
    pub acknowledged: Revision,
    /// Its life may have voted, or acknowledged an entry: an empty log must not begin under it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub life_used: bool,
    /// Where a second process asked lately to be the node, and was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_at: Option<SocketAddr>,
}

impl Verb for Register {
    const NAME: &str = "Register";
    type Answer = Joined;
    const CHANGES: bool = true;
    const WAITS: Duration = Duration::ZERO;

    fn check(&self) -> Result<(), Invalid> {
        Self::check(self)
    }

    async fn carry_out(self, Leader { voter, check, .. }: Leader) -> Result<Joined, Attempt> {
        let Self {
            instance,
            name,
            vtep,
            listen,
            returning,
            gateway,
            metrics,
            local_listen,
            speaks,
            log_lost,
            incarnation,
        } = self;
        let term = voter.consensus.status().borrow().term;
        let fresh = Fresh::wait(&voter).await?;
        let said = speaks.unwrap_or(Speaks::UNSAID);
        let version = fresh.read(&voter, |state| match returning {
            // First: it goes, whatever it speaks.
            Some(id) if state.was_removed(id) => Err(Refusal::NodeRemoved(name.clone())),
            _ => state.check_speaks(said).map(|()| state.version()),
        })?;
        let before = fresh
            .read(&voter, |state| state.nodes().find(|node| node.instance == instance).cloned());
        if let Some(before) = &before {
            let asked = (check.own, &check.directory);
            refuse_a_second(asked, before, listen, incarnation).await?;
        }
        // Voters that are still of version 1 would drop it, and so hold another row.
        let speaks = (version >= Version::V2).then_some(said);
        let command = Command::RegisterNode {
            instance,
            name,
            vtep,
            listen,
            returning,
            gateway,
            metrics,
            local_listen,
            speaks,
        };
        let decided =
            fresh.read(&voter, |state| state.decide(state.revision() + 1, command.clone()));
        let node = match decided {
            // A repeated registration changes nothing, so that nothing is logged for it.
            Ok(Decision::Nothing(Applied::Node(node))) => node,
            _ => {
                if let Some(id) = returning {
                    check.directory.heard_from(id, listen);
                }
                // A node that is down, or has said so, may have lost its address to this one.
                let has_it = |other: &Node| {
                    voter.table.programmed(other.id).is_some()
                        && !check.directory.has_left(other.id, other.listen)
                };
                let of = fresh.read(&voter, |state| listener(state, instance, listen, has_it));
                if let Some(other) = of {
                    let why = format!(
                        "is where node {other} listens, which runs: give each node a --listen of its own"
                    );
                    let invalid = Invalid::new("listen", listen.to_string(), why);
                    return Err(Refusal::from(invalid).into());
                }
                if matches!(decided, Err(Refusal::VtepExists { .. })) {
                    exchange_vteps(&voter, &fresh, &check.directory, &command).await?;
                }
                let request = Mutation::new(Uuid::new_v4().into_bytes(), &command);
                let applied = fresh.execute(&voter, request, command).await;
                match applied.map_err(|failed| unless_raised(failed, said, version))? {
                    Applied::Node(node) => {
                        tracing::info!(node = %node.name, id = node.id, vtep = %node.vtep, voter = node.voter, "node registered");
                        if let (None, Some(life)) = (&before, node.life()) {
                            voter.leaving.give(life, term);
                        }
                        node
                    }
                    other => unreachable!("a registration answers a node, not {other:?}"),
                }
            }
        };
        voter.table.signs().registered(node.id);
        let node = match log_lost {
            Some(wish) => begin_life(&voter, &fresh, wish, &node).await?,
            None => node,
        };
        if let Some(incarnation) = incarnation {
            check.directory.note_registered(node.id, incarnation);
        }
        let copy_at = check.directory.copy_of(node.id);
        let members = voter.consensus.status().borrow().clone();
        let life = node.life().map(RaftId::get);
        let known = members.peers.iter().find(|peer| Some(peer.id) == life);
        let acknowledged = known.map_or(0, |peer| peer.matched);
        let peers = fresh.read(&voter, |state| {
            let voters = state.nodes().filter(|peer| peer.voter && peer.id != node.id);
            voters.map(|peer| NodeInfo::new(state, &voter.table, &members, peer)).collect()
        });
        let life_used = node.life().is_some_and(|life| may_be_used(&voter, &fresh, life));
        Ok(Joined { node, peers, acknowledged, copy_at, life_used })
    }
}

/// Gives a node the VTEP that it registers, in exchange, if that of another node is known to have moved, or to be dead. No row
/// changes where the registration would be refused all the same.
async fn exchange_vteps(
    voter: &VoterParts,
    fresh: &Fresh,
    directory: &Directory,
    registration: &Command,
) -> Result<(), Attempt> {
    let Command::RegisterNode { instance, vtep, .. } = *registration else { return Ok(()) };
    let found = fresh.read(voter, |state| {
        let (other, exchange) = state.exchange(instance, vtep)?;
        let has_moved =
            other.lease == Lease::Lost || directory.has_moved(other.id, other.listen.ip());
        let other = (state.version() >= Version::V2 && has_moved).then(|| other.clone())?;
        let mut after = state.clone();
        let revision = state.revision() + 1;
        let request = Mutation::new([0; 16], &exchange);
        after.apply(revision, state.entry(request, exchange.clone())).ok()?;
        after.decide(revision + 1, registration.clone()).ok()?;
        Some((other, exchange))
    });
    let Some((other, exchange)) = found else { return Ok(()) };
    // It may be back where its row says.
    if answers_as(directory, &other, None).await {
        return Ok(());
    }
    let request = Mutation::new(Uuid::new_v4().into_bytes(), &exchange);
    fresh.execute(voter, request, exchange).await?;
    tracing::info!(%vtep, other = %other.name, "a node has the address of another one, which has left it");
    Ok(())
}

/// The other node whose row says that it listens at `listen`, if it still has that address.
fn listener(
    state: &State,
    instance: [u8; 16],
    listen: SocketAddr,
    has_it: impl Fn(&Node) -> bool,
) -> Option<NodeName> {
    let others = state.nodes().filter(|node| node.instance != instance);
    let mut there = others.filter(|node| node.listen == listen);
    there.find(|node| has_it(node)).map(|node| node.name.clone())
}

/// Why a registration failed that was made when the cluster was at `version`, which the node speaks. Where the version rose
/// before it was applied, another attempt says so much more of the node, or refuses it.
pub(super) fn unless_raised(failed: Attempt, said: Speaks, version: Version) -> Attempt {
    match failed {
        Attempt::Failed(ControllerError::Refused(Refusal::VersionNotSpoken {
            cluster, ..
        })) if cluster > version && said.covers(cluster) => {
            Attempt::Again { why: "the cluster's version rose", effect: Effect::None }
        }
        failed => failed,
    }
}

/// Lists all nodes, by id.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListNodes;

impl Verb for ListNodes {
    const NAME: &str = "ListNodes";
    type Answer = Rows<NodeInfo>;
    const CHANGES: bool = false;
    const WAITS: Duration = TURN;

    async fn carry_out(self, leader: Leader) -> Result<Rows<NodeInfo>, Attempt> {
        let state = leader.state().await?;
        let Leader { voter, lists, .. } = leader;
        let members = voter.consensus.status().borrow().clone();
        let count = state.nodes().count();
        Ok(Rows::new(&lists, count, move |take| {
            let rows = state.nodes();
            rows.map(|row| NodeInfo::new(&state, &voter.table, &members, row)).try_for_each(take)
        }))
    }
}

/// Shows a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InspectNode {
    /// Which.
    pub name: NodeName,
}

impl Verb for InspectNode {
    const NAME: &str = "InspectNode";
    type Answer = NodeInfo;
    const CHANGES: bool = false;
    const WAITS: Duration = Duration::ZERO;

    async fn carry_out(self, leader: Leader) -> Result<NodeInfo, Attempt> {
        let state = leader.state().await?;
        let members = leader.voter.consensus.status().borrow().clone();
        let row = state.node_named(&self.name)?;
        Ok(NodeInfo::new(&state, &leader.voter.table, &members, row))
    }
}

/// Removes a node. The endpoints of a node that is down go with it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RemoveNode {
    /// The caller's id for the request: repeated, it is carried out once.
    pub request: RequestId,
    /// Which.
    pub name: NodeName,
    /// Only if it is the one of this id, and not a successor.
    pub only: Option<NodeId>,
    /// Its endpoints go with it, also if it is not down.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

impl RemoveNode {
    /// What the command would do; the command is made to take the node's endpoints if the node is down.
    async fn dry_run(
        &self,
        voter: &VoterParts,
        fresh: &Fresh,
        request: Mutation,
        command: &mut Command,
    ) -> Result<DryRun, Attempt> {
        let in_use = match fresh.dry_run(voter, request, command) {
            Err(in_use @ Refusal::NodeInUse { .. }) => in_use,
            other => return Ok(other?),
        };
        let id = fresh.read(voter, |state| state.node_named(&self.name).map(|node| node.id))?;
        let known = while_leading(voter, voter.table.known_as_down(id)).await?;
        if let (true, Command::RemoveNode { with_endpoints, .. }) = (known, &mut *command) {
            *with_endpoints = true;
            // The refusal that is left is that of a version which can't: then its endpoints have to go first.
            if let Ok(decided) = fresh.dry_run(voter, request, command) {
                return Ok(decided);
            }
        }
        Err(in_use.into())
    }
}

impl Verb for RemoveNode {
    const NAME: &str = "RemoveNode";
    type Answer = Removed;
    const CHANGES: bool = true;
    /// For a leader to know whether the node is down.
    const WAITS: Duration = NODE_DOWN_AFTER;

    /// In this order: the other voters can decide without the node, its row is gone, and the node finds out. The node
    /// wipes itself then, and nothing may need its vote any more.
    async fn carry_out(self, Leader { voter, check, .. }: Leader) -> Result<Removed, Attempt> {
        let Self { request, ref name, only, force } = self;
        let mut command = Command::RemoveNode { name: name.clone(), only, with_endpoints: force };
        let request = Mutation::new(request, &command);
        let fresh = Fresh::wait(&voter).await?;
        // A repeated request is only answered: the name may be another node's by now.
        let (node, endpoints) = match self.dry_run(&voter, &fresh, request, &mut command).await? {
            DryRun::New(decision) => {
                // The name may be another node's when the members have changed: that one stays.
                decision.bind(&mut command);
                match decision {
                    Decision::RemoveNode { node, endpoints } => (Some(node), endpoints.len()),
                    _ => (None, 0),
                }
            }
            DryRun::Done(_) => (None, 0),
        };
        // Until its row is gone the node would be made a member again, by that row: see `follow_the_rows`.
        let life = node.as_ref().and_then(Node::life);
        let _hold = life.map(|life| voter.leaving.hold(life));
        if let Some(life) = life {
            // A leader that is to remove itself hands over and says so: the new one carries this out.
            let removed = voter.consensus.remove(life.get()).await;
            removed.map_err(|error| Attempt::of_write(&voter, error))?;
        }
        match fresh.execute(&voter, request, command).await? {
            Applied::Removed(revision) => {
                if let Some(node) = node {
                    voter.table.forget(node.id);
                    check.directory.forget_processes(node.id);
                }
                tracing::info!(node = %name, endpoints, "node removed");
                Ok(Removed { revision })
            }
            other => unreachable!("a removal answers a removal, not {other:?}"),
        }
    }
}
