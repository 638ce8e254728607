//! Probes: a node asks the VTEPs of others whether their data path is alive, and reports what it learns.
//!
//! A probe is one small datagram to the VXLAN port, with the VNI that no network has and a number that nobody can guess. The
//! program on the other host's uplink sends it back, whether a process of the node lives there or not
//! (overlay-ebpf/src/probe.rs). In each round a node asks one at random of those that count as living, and those that the
//! cluster doubts or has lost: all of them in a small cluster, and in a large one as many as give each of them some probes a
//! round. A node that got an answer goes on asking, so that one which only few nodes reach is not given up.
//!
//! A node that hears nobody proves nothing about others: rather its own host drops the answers. It says so, and testifies
//! against nobody.

use crate::{
    control::state::View,
    dataplane::kernel::{LocalStatus, Probed},
    model::{Lease, Node, NodeId, Vtep},
};
use overlay_common::{MacBytes, PROBE_ETHERTYPE, PROBE_MAC, VNI_RESERVED, VNI_VALID};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::UdpSocket,
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};
use uuid::Uuid;

/// Rounds in a lease.
pub(crate) const ROUNDS: u32 = 10;
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// So many probes a round are meant for each node that is not known to live, from all nodes together.
const PROBERS: u64 = 16;
/// So many nodes that are not known to live are asked in one round.
const ASKED: usize = 16;
/// Results of so many rounds are reported.
const REPORTED: u32 = 3;

/// VXLAN (8 bytes), Ethernet (14), the number.
const PROBE: usize = 8 + 14 + NONCE;
const NONCE: usize = 16;
/// A MAC that no station has.
const NOBODY: MacBytes = [0; 6];

/// What a node needs in order to ask others.
pub(super) struct Probing {
    pub(super) id: NodeId,
    pub(super) lease: Duration,
    pub(super) vxlan_port: u16,
    pub(super) views: watch::Receiver<Option<Arc<View>>>,
    /// The host's address on the underlay.
    pub(super) own: watch::Receiver<Ipv4Addr>,
    /// Where the results go.
    pub(super) status: watch::Sender<LocalStatus>,
}

/// What probes have shown of each node that was asked.
pub(crate) type Results = BTreeMap<NodeId, Probed>;

/// Asks, round by round, without end.
pub(super) async fn probe_the_nodes(probing: Probing) {
    let every = probing.lease / ROUNDS;
    let (mut results, mut said, mut hearing) = (Results::new(), None, Hearing::default());
    loop {
        let begun = Instant::now();
        let view = probing.views.borrow().clone();
        if let Some(view) = view {
            results.retain(|node, _| view.nodes.contains_key(node));
            let targets = targets(&view, probing.id, &results, probing.lease, random);
            let why = match ask(&probing, &targets, begun + every.min(PATIENCE)).await {
                Ok(answered) => {
                    note(&mut results, &targets, &answered, begun);
                    hearing.note(&targets, &answered, probing.vxlan_port);
                    None
                }
                Err(error) => Some(error.to_string()),
            };
            if why != said {
                if let Some(error) = &why {
                    tracing::warn!(%error, "the VTEPs of other nodes can't be asked whether they are alive");
                }
                said = why;
            }
            let probes = reported(&results, probing.lease);
            let trouble = hearing.trouble(probing.vxlan_port);
            // The next status has them; none is sent for their sake.
            probing.status.send_if_modified(|status| {
                (status.probes, status.probing_trouble) = (probes, trouble);
                false
            });
        }
        sleep_until(begun + every).await;
    }
}

/// Whether this node gets any answers at all.
#[derive(Debug, Default)]
struct Hearing {
    /// Rounds in a row in which others were asked and none answered.
    silent: u32,
}

impl Hearing {
    fn note(&mut self, asked: &BTreeMap<NodeId, Vtep>, answered: &BTreeSet<NodeId>, port: u16) {
        let was_deaf = self.is_deaf();
        if !answered.is_empty() {
            self.silent = 0;
        } else if !asked.is_empty() {
            self.silent = self.silent.saturating_add(1);
        }
        match (was_deaf, self.is_deaf()) {
            (false, true) => tracing::warn!(port, rounds = self.silent, "{}", deaf(port)),
            (true, false) => tracing::info!(port, "VTEPs answer this node's probes again"),
            _ => {}
        }
    }

    /// Returns true if nobody has answered for a lease.
    fn is_deaf(&self) -> bool {
        self.silent >= ROUNDS
    }

    /// What an operator is to know of it, in words.
    fn trouble(&self, port: u16) -> Option<String> {
        self.is_deaf().then(|| deaf(port))
    }
}

fn deaf(port: u16) -> String {
    format!(
        "no VTEP answers this node's probes: a firewall may drop UDP from the VXLAN port {port} to this host; let it pass, at least as answers (`ct state established`), since this node cannot tell until then whether others live"
    )
}

/// What is reported of the last rounds. That a node did not answer counts only where some node did within a lease: otherwise
/// the answers are lost on the way to this node, or it is cut off.
pub(crate) fn reported(results: &Results, lease: Duration) -> Vec<Probed> {
    let within = |at: Option<Instant>| at.is_some_and(|at| at.elapsed() < lease);
    let hears = results.values().any(|probed| within(probed.answered));
    let every = lease / ROUNDS;
    let recent = results.values().filter(|probed| probed.asked.elapsed() < every * REPORTED);
    let proven = |probed: &Probed| if hears { probed.unanswered } else { 0 };
    recent.map(|probed| Probed { unanswered: proven(probed), ..*probed }).collect()
}

/// A number that nobody can guess, below the bound.
fn random(bound: u64) -> u64 {
    // The lower half has 62 random bits.
    let bits = Uuid::new_v4().as_u64_pair().1 << 2 >> 2;
    bits.checked_rem(bound).unwrap_or_default()
}

/// The nodes that are asked in this round. `random` answers a number below its bound.
pub(crate) fn targets(
    view: &View,
    own: NodeId,
    results: &Results,
    lease: Duration,
    mut random: impl FnMut(u64) -> u64,
) -> BTreeMap<NodeId, Vtep> {
    let others: Vec<&Node> =
        view.nodes.values().map(AsRef::as_ref).filter(|node| node.id != own).collect();
    let count = others.len() as u64;
    let hears = |node: &Node| {
        let answered = results.get(&node.id).and_then(|probed| probed.answered);
        answered.is_some_and(|at| at.elapsed() < lease)
    };
    let mut targets = BTreeMap::new();
    let doubted: Vec<&Node> =
        others.iter().copied().filter(|node| node.lease != Lease::Held).collect();
    // Where there are more than are asked in one round, others come first in the next one.
    let first = usize::try_from(random(doubted.len() as u64)).unwrap_or_default();
    let (later, sooner) = doubted.split_at(first.min(doubted.len()));
    for node in sooner.iter().chain(later) {
        if targets.len() < ASKED && (hears(node) || random(count) < PROBERS) {
            targets.insert(node.id, node.vtep);
        }
    }
    // One that counts as living, if any does: its answers show that this node hears at all.
    let living = others.iter().filter(|node| node.lease == Lease::Held);
    let living: Vec<&Node> = living.copied().collect();
    let among = if living.is_empty() { others } else { living };
    let any = usize::try_from(random(among.len() as u64)).ok().and_then(|at| among.get(at));
    targets.extend(any.map(|node| (node.id, node.vtep)));
    targets
}

/// Asks the targets, and answers which of them have answered by `deadline`.
async fn ask(
    probing: &Probing,
    targets: &BTreeMap<NodeId, Vtep>,
    deadline: Instant,
) -> io::Result<BTreeSet<NodeId>> {
    let mut answered = BTreeSet::new();
    if targets.is_empty() {
        return Ok(answered);
    }
    // One for each round: its port, and so the way where there are several, is another each time.
    let own = *probing.own.borrow();
    let socket = UdpSocket::bind((own, 0)).await?;
    let mut sent: BTreeMap<IpAddr, (NodeId, [u8; PROBE])> = BTreeMap::new();
    for (node, vtep) in targets {
        let nonce = Uuid::new_v4().into_bytes();
        let probe = packet(NOBODY, PROBE_MAC, nonce);
        // What can't be sent gets no answer either.
        if let Err(error) = socket.send_to(&probe, (vtep.ip(), probing.vxlan_port)).await {
            tracing::debug!(node, %vtep, %error, "a probe was not sent");
        }
        sent.insert(vtep.ip(), (*node, packet(PROBE_MAC, NOBODY, nonce)));
    }
    let mut buffer = [0; PROBE + 1];
    while answered.len() < targets.len() {
        let Ok(received) = timeout_at(deadline, socket.recv_from(&mut buffer)).await else { break };
        let Ok((len, from)) = received else { break };
        let known = sent.get(&from.ip()).filter(|_| is_from(from, probing.vxlan_port));
        if let Some((node, answer)) = known
            && buffer.get(..len) == Some(&answer[..])
        {
            answered.insert(*node);
        }
    }
    Ok(answered)
}

fn is_from(from: SocketAddr, port: u16) -> bool {
    from.port() == port
}

/// The datagram with this number, from and to these inner MACs: a probe is to nobody, and its answer from nobody.
fn packet(to: MacBytes, from: MacBytes, nonce: [u8; NONCE]) -> [u8; PROBE] {
    let mut probe = [0; PROBE];
    let (vxlan, inner) = probe.split_at_mut(8);
    let (flags, vni) = vxlan.split_at_mut(4);
    flags.copy_from_slice(&VNI_VALID.to_be_bytes());
    vni.copy_from_slice(&(VNI_RESERVED << 8).to_be_bytes());
    let (ethernet, number) = inner.split_at_mut(14);
    let (macs, ethertype) = ethernet.split_at_mut(12);
    macs.copy_from_slice(&[to, from].concat());
    ethertype.copy_from_slice(&PROBE_ETHERTYPE.to_be_bytes());
    number.copy_from_slice(&nonce);
    probe
}

/// Notes which of those that were asked have answered.
pub(crate) fn note(
    results: &mut Results,
    targets: &BTreeMap<NodeId, Vtep>,
    answered: &BTreeSet<NodeId>,
    asked: Instant,
) {
    for node in targets.keys().copied() {
        let fresh = Probed { node, asked, answered: None, unanswered: 0 };
        let probed = results.entry(node).or_insert(fresh);
        probed.asked = asked;
        if answered.contains(&node) {
            (probed.answered, probed.unanswered) = (Some(asked), 0);
        } else {
            probed.unanswered = probed.unanswered.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests;
