//! Asks the nodes that have a seat what they say of themselves: each directly, all at once, and none for long.

use crate::{
    control::peers::{CallError, Directory},
    faces::ServedNode,
    model::NodeId,
    proto::v1::{MemberStatus, Seat},
};
use futures::future::{join_all, select_ok};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};
use tokio::time::timeout;

/// Longest wait for one node. A leader takes half of it, if nodes lag.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longest wait for nodes of which only another node's answer tells.
const FURTHER: Duration = Duration::from_secs(2);
/// So many nodes are asked at most: those that have a seat, and those that had one until lately.
const ASKED_MAX: usize = 32;
/// So many places of one node are tried at most.
const PLACES_MAX: usize = 4;

/// What came of asking one node.
#[derive(Debug)]
pub(super) enum Answer {
    Told(Box<MemberStatus>),
    /// It answered, and its program is an earlier one that does not know the question.
    Earlier,
    /// Why it did not answer.
    Silent(String),
    NotAsked,
}

/// The nodes that have a seat, and what each said.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) cluster: String,
    /// The node that was asked, and asks.
    pub(super) own: Box<MemberStatus>,
    /// By node id. The own one is among them.
    pub(super) answers: BTreeMap<NodeId, Answer>,
}

impl Survey {
    /// Asks the nodes that have a seat, as far as `node` knows them, and then those of which their answers tell. With `stale`
    /// nobody is asked.
    pub(super) async fn take(node: &ServedNode, stale: bool) -> Self {
        let directory = node.controller.directory();
        let id = node.controller.id();
        let known = places(directory, &node.seats(), ASKED_MAX, |node| node == id);
        let asked = async {
            if stale {
                known.into_keys().map(|node| (node, Answer::NotAsked)).collect()
            } else {
                ask(directory, known, PATIENCE).await
            }
        };
        let (own, mut answers) = tokio::join!(node.member(), asked);
        answers.insert(id, Answer::Told(Box::new(own.clone())));
        let cluster = node.controller.cluster().to_string();
        let mut survey = Self { cluster, own: Box::new(own), answers };
        if !stale {
            let (seats, left) =
                (survey.told_seats(), (ASKED_MAX + 1).saturating_sub(survey.answers.len()));
            let further =
                places(directory, &seats, left, |node| survey.answers.contains_key(&node));
            survey.answers.extend(ask(directory, further, FURTHER).await);
        }
        survey
    }

    /// What was told, by node id.
    pub(super) fn told(&self) -> impl Iterator<Item = &MemberStatus> {
        self.answers.values().filter_map(|answer| match answer {
            Answer::Told(status) => Some(&**status),
            Answer::Earlier | Answer::Silent(_) | Answer::NotAsked => None,
        })
    }

    fn told_seats(&self) -> Vec<Seat> {
        self.told().flat_map(|status| status.seats.clone()).collect()
    }
}

/// Where each of these nodes may be reached, and each that the directory knows as a voter: `max` of them, of which those with a
/// seat come first, and none that was `asked`.
pub(super) fn places(
    directory: &Directory,
    seats: &[Seat],
    max: usize,
    asked: impl Fn(NodeId) -> bool,
) -> BTreeMap<NodeId, Vec<SocketAddr>> {
    let seated = seats.iter().map(|seat| (seat.node_id, seat.listen.parse::<SocketAddr>().ok()));
    let voters = directory.voters().into_iter().map(|peer| (peer.id, None));
    let mut places: BTreeMap<NodeId, Vec<SocketAddr>> = BTreeMap::new();
    for (node, listen) in seated.chain(voters).filter(|(node, _)| !asked(*node)) {
        if places.len() < max || places.contains_key(&node) {
            places.entry(node).or_default().extend(listen);
        }
    }
    for (node, places) in &mut places {
        let mut said = BTreeSet::new();
        places.extend(directory.places(*node));
        places.retain(|place| said.insert(*place));
        places.truncate(PLACES_MAX);
    }
    places
}

async fn ask(
    directory: &Directory,
    nodes: BTreeMap<NodeId, Vec<SocketAddr>>,
    patience: Duration,
) -> BTreeMap<NodeId, Answer> {
    let asked = nodes.into_iter().map(async |(node, places)| {
        let silent = |why: String| Answer::Silent(why);
        if places.is_empty() {
            return (node, silent("nobody knows where it listens".to_owned()));
        }
        let calls = places.iter().map(|place| Box::pin(ask_at(directory, node, *place)));
        let answer = match timeout(patience, select_ok(calls)).await {
            Ok(Ok((answer, _))) => answer,
            Ok(Err(why)) => silent(why),
            Err(_) => silent(format!("no answer within {} s", patience.as_secs())),
        };
        (node, answer)
    });
    join_all(asked).await.into_iter().collect()
}

/// Asks whoever listens there. Fails if it is not this node.
async fn ask_at(directory: &Directory, node: NodeId, place: SocketAddr) -> Result<Answer, String> {
    match directory.member_at(place).await {
        Ok(status) if status.node_id == node => Ok(Answer::Told(Box::new(status))),
        Ok(status) => Err(format!("another node, {}, listens at {place}", status.node)),
        Err(CallError::Unknown(_)) => Ok(Answer::Earlier),
        Err(error) => Err(format!("{place}: {error}")),
    }
}
