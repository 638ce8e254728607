//! Backups become folders from which a node starts, and nothing else becomes one.

use super::*;
use crate::{
    control::{
        consensus::{LogStore, Voting},
        state::golden::{snapshot_of_a_generation, snapshot_of_version_2},
    },
    error_chain,
};
use tempfile::TempDir;

const CLUSTER: Uuid = Uuid::from_u128(7);

/// A folder with a backup in it, of a cluster whose only node is h1 and that is at generation 1.
fn backed_up() -> (TempDir, ClusterRestoreArgs, State) {
    let dir = tempfile::tempdir().unwrap();
    let state = State::from_snapshot(&snapshot_of_version_2()).unwrap();
    let file = dir.path().join("backup");
    backup::write(CLUSTER, &state, File::create(&file).unwrap()).unwrap();
    let name = state.nodes().next().unwrap().name.to_string();
    let state_dir = dir.path().join("state");
    (dir, ClusterRestoreArgs { file, state_dir, name: Some(name), cluster: None }, state)
}

#[tokio::test]
async fn the_first_node_of_a_generation_has_the_state_and_its_name_and_id() {
    let (_dir, args, state) = backed_up();
    let begun = restore(args.clone()).await.unwrap();
    assert_eq!(begun.known_revision, state.revision());
    let generation = Generation::try_from(begun.generation).unwrap();
    assert!(generation > Generation::FIRST.next(0), "it is the time");
    let node = state.nodes().next().unwrap();
    let home = Home::open(&args.state_dir, &node.name).unwrap();
    assert_eq!(home.generation().unwrap(), generation);
    let Record { instance, member, .. } = home.record().clone();
    assert_eq!(*instance.as_bytes(), node.instance, "its registration is known as its own");
    let member = member.unwrap();
    assert_eq!((member.cluster, member.id, member.voter), (CLUSTER, node.id, true));
    let life = member.life().unwrap().get();
    assert!(life > 1 << 20, "no Raft id of before is used again: {life}");
    let log = LogStore::open(&args.state_dir, Some(CLUSTER)).unwrap().expect("a log");
    assert_eq!(log.generation(), generation.number());
    assert_eq!(log.rest().unwrap().committed, Voting::of([life].into()));
    assert!(log.rest().unwrap().term > 1 << 32, "no mark of an earlier log is ahead of it");
    let restored = State::from_snapshot(&log.snapshot_data().unwrap()).unwrap();
    assert_eq!(restored, state.clone().restored(node.id, generation));
    assert_eq!(restored.revision(), begun.revision);
}

#[tokio::test]
async fn a_restored_cluster_can_be_backed_up_and_restored_again() {
    let (dir, args, _) = backed_up();
    let state = State::from_snapshot(&snapshot_of_a_generation()).unwrap();
    let file = dir.path().join("second");
    backup::write(CLUSTER, &state, File::create(&file).unwrap()).unwrap();
    let begun = restore(ClusterRestoreArgs { file, ..args }).await.unwrap();
    assert!(begun.generation > 3, "it is the time");
    assert!(begun.revision > state.revision());
}

#[tokio::test]
async fn what_can_not_be_restored_is_refused_in_a_sentence_and_leaves_nothing() {
    let (dir, args, _) = backed_up();
    let refused = async |args: &ClusterRestoreArgs, words: &str| {
        let said = error_chain(&restore(args.clone()).await.unwrap_err());
        assert!(said.contains(words), "{said}");
        assert!(
            !args.state_dir.join("node.json").exists() && !args.state_dir.join("lock").exists()
        );
    };
    let with = |change: &dyn Fn(&mut ClusterRestoreArgs)| {
        let mut args = args.clone();
        change(&mut args);
        args
    };
    let another = with(&|args| args.cluster = Some(Uuid::from_u128(8)));
    refused(&another, "not of 00000000-0000-0000-0000-000000000008").await;
    let unknown = with(&|args| args.name = Some("h9".to_owned()));
    refused(&unknown, "it knows no node h9, but ").await;
    refused(&with(&|args| args.name = Some("no name".to_owned())), "name").await;
    let missing = with(&|args| args.file = dir.path().join("missing"));
    refused(&missing, "it can't be read (No such file").await;
    let bytes = fs::read(&args.file).unwrap();
    let cut = with(&|args| args.file = dir.path().join("cut"));
    fs::write(&cut.file, &bytes[..bytes.len() - 1]).unwrap();
    refused(&cut, "it is damaged, or was cut off").await;
    let text = with(&|args| args.file = dir.path().join("text"));
    fs::write(&text.file, "a shopping list, which is none").unwrap();
    refused(&text, "it is no backup of a cluster").await;
    let used = with(&|args| args.state_dir = dir.path().to_owned());
    refused(&used, "is not empty").await;
    // The right one for this cluster.
    restore(with(&|args| args.cluster = Some(CLUSTER))).await.unwrap();
    let said = restore(args.clone()).await.unwrap_err().to_string();
    let node = args.name.as_ref().unwrap();
    assert!(said.contains(&format!("is that of node {node} of cluster {CLUSTER}")), "{said}");
    assert!(said.contains("overlay node reset"), "{said}");
}

#[tokio::test]
async fn an_empty_folder_is_taken_also_where_a_file_system_is_mounted() {
    let (_dir, args, _) = backed_up();
    fs::create_dir_all(args.state_dir.join(LOST_AND_FOUND)).unwrap();
    restore(args.clone()).await.unwrap();
}

#[test]
fn nothing_is_restored_over_a_cluster_that_lives() {
    let checked = |leader: &str, generation| {
        let status = StatusResponse {
            node: "h2".to_owned(),
            leader: leader.to_owned(),
            generation,
            ..StatusResponse::default()
        };
        let answers = vec![(([10, 0, 0, 2], 7400).into(), status)];
        check_dead(Generation::FIRST, answers).map_err(|error| error.to_string())
    };
    assert_eq!(checked("", 1), Ok(Generation::FIRST), "a node without a leader is no cluster");
    let later = Generation::FIRST.next(0);
    assert_eq!(checked("", 2), Ok(later), "an agent of a generation that was lost, too");
    let said = checked("h3", 1).unwrap_err();
    assert!(said.contains("node h2 at 10.0.0.2:7400 answers and knows a leader, h3"), "{said}");
    let said = checked("h3", 2).unwrap_err();
    assert!(
        said.contains("is of generation 2 of the cluster, newer than the backup's, 1"),
        "{said}"
    );
}
