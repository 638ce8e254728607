//! What an agent and its voter tell each other of versions.

use super::*;
use crate::{
    model::{SPEAKS, Version},
    proto::internal::{WatchHello, watch_up::Up},
};
use tonic::Code;

pub(super) fn raise() -> Command {
    let speaks = (1..=AGENT).map(|id| (id, SPEAKS)).collect();
    Command::RaiseVersion { to: Version::V2, speaks }
}

#[tokio::test(start_paused = true)]
async fn an_agent_says_what_it_speaks_and_is_told_the_version_of_the_cluster() {
    let mut world = World::new(1);
    assert_eq!(world.view_at(6).await.version, Version::V1);
    world.apply(raise());
    let view = world.view_at(7).await;
    assert_eq!((view.version, &*view), (Version::V2, &world.voters[0].view()));
    assert!(view.nodes.values().all(|node| node.speaks == Some(SPEAKS)), "{:?}", view.nodes);
    let table = &world.voters[0].service.table;
    let mut changed = table.watch();
    let heard = async {
        while table.speaks(AGENT).is_none() {
            changed.changed().await.unwrap();
        }
    };
    timeout(BOUND, heard).await.expect("a status");
    assert_eq!(table.speaks(AGENT).map(|(speaks, _)| speaks), Some(SPEAKS));
}

/// One that was put back to an earlier program might read rows as something else.
#[tokio::test(start_paused = true)]
async fn an_agent_that_does_not_speak_the_version_of_the_cluster_is_sent_nothing() {
    let mut world = World::new(1);
    let directory = world.directory.clone();
    let opens = async |oldest_version, newest_version| {
        let hello = WatchHello {
            node_id: AGENT,
            epoch: AGENT,
            oldest_version,
            newest_version,
            ..Default::default()
        };
        let up = stream::iter([WatchUp { up: Some(Up::Hello(hello)) }]);
        let up = stream::StreamExt::chain(up, stream::pending());
        let voter = directory.peer(1).unwrap();
        let opened = directory.client(&voter).watch(up).await;
        opened.map(drop).map_err(|status| (status.code(), status.message().to_owned()))
    };
    assert_eq!(opens(0, 0).await, Ok(()), "the cluster is at version 1");
    world.apply(raise());
    for (oldest, newest, code) in [
        (0, 0, Some(Code::FailedPrecondition)),
        (1, 1, Some(Code::FailedPrecondition)),
        (3, 4, Some(Code::FailedPrecondition)),
        (2, 1, Some(Code::InvalidArgument)),
        (2, 2, None),
        (1, 9, None),
    ] {
        let refused = opens(oldest, newest).await.err();
        assert_eq!(refused.map(|(code, _)| code), code, "{oldest} to {newest}");
    }
    let (_, said) = opens(0, 0).await.unwrap_err();
    assert!(said.contains("is at version 2, and the node's program speaks version 1;"), "{said}");
    world.remove_endpoint("web");
    world.apply(Command::RemoveNode {
        name: format!("h{AGENT}").parse().unwrap(),
        only: None,
        with_endpoints: false,
    });
    let (code, _) = opens(0, 0).await.unwrap_err();
    assert_eq!(code, Code::NotFound, "it hears that it was removed, whatever it speaks");
}
