//! Backups, from a voter and from an agent.

use super::*;
use crate::control::backup::{self, Backup, BackupError};

/// All pieces of a backup.
async fn pieces(controller: &Controller) -> Result<Vec<Vec<u8>>, ControllerError> {
    use futures::TryStreamExt as _;
    within(async { controller.backup().await?.try_collect().await }).await
}

async fn read(controller: &Controller) -> Result<Backup, BackupError> {
    backup::read(&*pieces(controller).await.unwrap().concat())
}

#[tokio::test]
async fn a_voter_and_an_agent_write_all_that_was_acknowledged() {
    let cluster = Cluster::new();
    let agent = cluster.agent(Cluster::channel(&cluster.leader));
    let made = within(cluster.leader.create_network(network([1; 16], "net"))).await.unwrap();
    for asked in [&cluster.leader, &agent] {
        let Backup { head, state } = read(asked).await.unwrap();
        assert_eq!(head.cluster, cluster.leader.cluster());
        assert_eq!(state.network(made.network.id), Some(&made.network));
        assert_eq!(state, cluster.voter.state.copy());
    }
}

#[tokio::test]
async fn a_large_backup_comes_in_pieces() {
    let cluster = Cluster::new();
    cluster.fill().await;
    let pieces = pieces(&cluster.leader).await.unwrap();
    assert!(pieces.len() > 1, "{} pieces", pieces.len());
    assert!(pieces.iter().all(|piece| piece.len() < 2 * (32 << 10)), "a piece is too large");
    let Backup { state, .. } = backup::read(&*pieces.concat()).unwrap();
    assert_eq!(state, cluster.voter.state.copy());
}

#[tokio::test]
async fn a_node_makes_no_more_backups_at_once_than_it_has_places_for() {
    let cluster = Cluster::new();
    cluster.fill().await;
    // Nobody takes the pieces, of which there are more than wait.
    let held = [within(cluster.leader.backup()).await, within(cluster.leader.backup()).await];
    assert!(held.iter().all(Result::is_ok));
    let refused = within(cluster.leader.backup()).await.map(drop).unwrap_err();
    assert_eq!(refused, ControllerError::BackupsBusy { at_once: 2 });
    drop(held);
    let again = async {
        while cluster.leader.backup().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    within(again).await;
}

#[tokio::test]
async fn without_a_voter_there_is_no_backup() {
    let cluster = Cluster::new();
    let agent = cluster.agent(Cluster::channel(&cluster.leader));
    within(cluster.voter.consensus.clone().shutdown()).await;
    let refused = pieces(&agent).await.unwrap_err();
    assert!(matches!(refused, ControllerError::NoLeader { .. }), "{refused:?}");
    let alone = Controller::new(9, Directory::new(Uuid::new_v4(), []), None, agent.check().clone());
    let refused = pieces(&alone).await.unwrap_err();
    assert!(matches!(refused, ControllerError::NoLeader { .. }), "{refused:?}");
}
