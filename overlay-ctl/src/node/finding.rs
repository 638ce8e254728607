//! Finds the other nodes where the addresses that this node knows lead to none of them.

use crate::control::{controller::Controller, peers::Directory};
use std::{collections::BTreeSet, net::SocketAddr, time::Duration};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// How often it is looked whether a leader is known.
const LOOK: Duration = Duration::from_secs(1);
/// Longest wait for the node at the address that `--join` names.
const ANSWER: Duration = Duration::from_secs(2);
/// How often it is said that nobody is found.
const SAY: Duration = Duration::from_secs(60);
/// Addresses that are named in the log.
const NAMED_MAX: usize = 16;

/// As long as this node has no leader, asks the node at the address that `--join` named who it is: that address may be newer
/// than all others that this node knows. Says once a minute that nobody is found. Runs for as long as the node.
pub(super) async fn find_peers(controller: Controller, join: Option<SocketAddr>) {
    let directory = controller.directory().clone();
    let mut search = Search::default();
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let is_served = controller.is_served();
        if !is_served && let Some(join) = join {
            ask(&directory, join).await;
        }
        if search.is_to_be_said(Instant::now(), is_served || !directory.reaches_nobody()) {
            say(&directory, controller.id());
        }
    }
}

/// Asks the node at `join` who it is.
async fn ask(directory: &Directory, join: SocketAddr) {
    match timeout(ANSWER, directory.node_at(join)).await {
        Ok(Ok(id)) => {
            if !directory.places(id).contains(&join) {
                directory.heard_from(id, join);
                // A registration there tells where the voters are.
                directory.ask_to_register();
            }
        }
        Ok(Err(error)) => tracing::debug!(%join, %error, "the node to join is not reached"),
        Err(_) => tracing::debug!(%join, "the node to join does not answer"),
    }
}

fn say(directory: &Directory, own: u64) {
    let others = directory.voters().into_iter().filter(|peer| peer.id != own);
    let tried: BTreeSet<SocketAddr> = others.map(|peer| peer.listen).take(NAMED_MAX).collect();
    tracing::warn!(
        ?tried,
        "no other voter answers where this node knows one: start those that are down; if their addresses have changed, start this node again with `--join IP:7400`, the new address of one that runs, or start the others so with this node's"
    );
}

/// Since when nobody is found, and when that was said last.
#[derive(Debug, Default)]
struct Search {
    since: Option<Instant>,
}

impl Search {
    /// Whether it is to be said now that nobody is found.
    fn is_to_be_said(&mut self, now: Instant, is_found: bool) -> bool {
        if is_found {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        let is_due = now.duration_since(since) >= SAY;
        if is_due {
            self.since = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        control::peers::Peer,
        node::fake_voter::{at, serve},
        proto::v1::{JoinResponse, StatusResponse},
    };
    use uuid::Uuid;

    #[tokio::test(start_paused = true)]
    async fn the_node_to_join_says_who_it_is_if_it_is_of_the_cluster() {
        let ours = Uuid::new_v4();
        let directory =
            Directory::new(ours, [Peer { id: 1, listen: at(1), voter: true, raft_id: None }]);
        let status = StatusResponse { node_id: 1, ..StatusResponse::default() };
        let answer = JoinResponse::default;
        let stranger = serve(Uuid::new_v4(), (&directory, at(11)), status.clone(), answer());
        ask(&directory, at(11)).await;
        assert_eq!(directory.places(1), [at(1)]);

        let node = serve(ours, (&directory, at(11)), status, answer());
        ask(&directory, at(11)).await;
        assert_eq!(directory.places(1), [at(11), at(1)]);
        let asked = timeout(ANSWER, directory.asked_to_register()).await;
        asked.expect("it registers there at once");
        drop((stranger, node));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_said_once_a_minute_that_nobody_is_found() {
        let begun = Instant::now();
        let mut search = Search::default();
        let mut said = |seconds: u64, is_found| {
            search.is_to_be_said(begun + Duration::from_secs(seconds), is_found)
        };
        let mut times = Vec::new();
        for second in 0..=200 {
            if said(second, false) {
                times.push(second);
            }
        }
        assert_eq!(times, [60, 120, 180]);
        assert!(!said(300, true));
        assert!(!said(301, false), "the search begins anew");
        assert!(!said(360, false));
        assert!(said(361, false));
    }
}
