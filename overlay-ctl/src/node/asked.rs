//! Who lives of a cluster, as its nodes themselves say: asked before a way back is gone that would leave them behind.

use crate::{control::peers::Directory, model::Generation, proto::v1::StatusResponse};
use futures::{StreamExt as _, stream};
use std::{collections::BTreeSet, net::SocketAddr, time::Duration};
use tokio::time::timeout;
use uuid::Uuid;

/// Longest wait for a node that may live.
const ANSWER: Duration = Duration::from_secs(3);
/// How many nodes are asked at once.
const AT_ONCE: usize = 64;

/// A node that answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answering {
    name: String,
    place: SocketAddr,
}

impl Answering {
    pub(super) fn new(place: SocketAddr, status: &StatusResponse) -> Self {
        Self { name: status.node.clone(), place }
    }
}

impl std::fmt::Display for Answering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "node {} at {}", self.name, self.place)
    }
}

/// Asks all of them who they are. Those of another cluster do not count.
pub(super) async fn ask(
    cluster: Uuid,
    generation: Generation,
    places: BTreeSet<SocketAddr>,
) -> Vec<(SocketAddr, StatusResponse)> {
    let directory = &Directory::new(cluster, []).of(generation);
    let answers = stream::iter(places).map(async |place| {
        let answer = timeout(ANSWER, directory.status_at(place)).await;
        answer.ok().and_then(Result::ok).map(|status| (place, status))
    });
    answers.buffer_unordered(AT_ONCE).filter_map(async |answer| answer).collect().await
}
