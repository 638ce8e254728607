//! The verb `overlay node leave`: a node is removed from its cluster by itself, and is gone from its host.

use super::{
    OnHost, causes,
    client::{Client, DEADLINE, cluster, endpoints, nodes, request_id},
    error::Error,
    output::Output,
    view::View,
};
use crate::proto::v1::{
    ListEndpointsRequest, ListNodesRequest, RemoveNodeRequest, StatusRequest, StatusResponse,
};
use serde::Serialize;
use std::path::Path;

/// How many of the endpoints that are in the way are named.
const NAMED_MAX: usize = 10;

/// A node that has left.
#[derive(Debug, Serialize)]
struct Left {
    name: String,
    /// The first revision without it; None = the node ended before it could answer.
    revision: Option<u64>,
}

impl View for Left {
    fn text(&self) -> String {
        format!("{} has left its cluster, and what it made on its host is gone", self.name)
    }
}

/// Has the asked node leave, and waits until it is gone.
pub(super) async fn run(
    client: &Client,
    host: &impl OnHost,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let status = client
        .call(DEADLINE, StatusRequest {}, async |channel, request| {
            cluster(channel).status(request).await
        })
        .await?;
    check(client, &status).await?;
    let StatusResponse { node: name, node_id: id, state_dir, .. } = status;
    let request =
        RemoveNodeRequest { name: name.clone(), id, request_id: request_id(), force: false };
    let removed = client
        .call(DEADLINE, request, async |channel, request| nodes(channel).remove(request).await)
        .await;
    let revision = match &removed {
        Ok(removed) => Some(removed.revision),
        // The node may have heard of its removal, and ended, before it had the answer to pass on.
        Err(Error::Lost { .. } | Error::NoNode { .. } | Error::Deadline(_)) => None,
        Err(_) => return removed.map(drop),
    };
    if state_dir.is_empty() {
        // A version that does not say where it notes that it is done.
        output.warn("whether all that it made is gone is not known: see that it ends");
        return removed.map(drop);
    }
    match (host.left(Path::new(&state_dir)).await, removed) {
        (Ok(()), _) => output.print(&Left { name, revision }),
        (Err(_), Err(error)) => Err(error),
        (Err(error), Ok(_)) => Err(Error::OnHost(causes(&error))),
    }
}

/// Fails if the node can't leave, in the words of somebody who wants just that. The cluster decides it once more.
async fn check(client: &Client, status: &StatusResponse) -> Result<(), Error> {
    let list = client
        .call(DEADLINE, ListNodesRequest { stale: false }, async |channel, request| {
            nodes(channel).list(request).await
        })
        .await?;
    let node = status.node.clone();
    if list.nodes.iter().all(|other| other.id == status.node_id) {
        return Err(Error::WholeCluster { node });
    }
    let request = ListEndpointsRequest { network: String::new(), node: node.clone(), stale: false };
    let list = client
        .call(DEADLINE, request, async |channel, request| endpoints(channel).list(request).await)
        .await?;
    let names: Vec<&str> = list.endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect();
    match named(&names) {
        None => Ok(()),
        Some(endpoints) => Err(Error::HasEndpoints { node, endpoints }),
    }
}

/// The first names, and how many more there are; `None` if there are none.
fn named(names: &[&str]) -> Option<String> {
    let (first, rest) = names.split_at(names.len().min(NAMED_MAX));
    match (first.is_empty(), rest.len()) {
        (true, _) => None,
        (false, 0) => Some(first.join(", ")),
        (false, more) => Some(format!("{} and {more} more", first.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_of_endpoints_is_cut() {
        assert_eq!(named(&[]), None);
        assert_eq!(named(&["a", "b"]).unwrap(), "a, b");
        let many: Vec<String> = (0..13).map(|number| format!("e{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(named(&many[..10]).unwrap(), many[..10].join(", "));
        assert_eq!(named(&many).unwrap(), format!("{} and 3 more", many[..10].join(", ")));
    }
}
