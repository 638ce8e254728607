//! The verbs against a fake node, and a fake host.

use super::{
    super::{
        Done,
        fake_node::{FakeNode, Members, Mode},
        tests::{FakeHost, Ran, overlay, overlay_on},
    },
    *,
};
use crate::{
    control::state::{State, golden::snapshot_of_version_2},
    proto::v1::{BackupPiece, Condition, Fault, MembersResponse},
};
use std::os::unix::fs::PermissionsExt as _;
use tonic::Status;
use uuid::Uuid;

const CLUSTER: Uuid = Uuid::from_u128(7);

fn backup() -> Vec<u8> {
    let state = State::from_snapshot(&snapshot_of_version_2()).unwrap();
    let mut bytes = Vec::new();
    crate::control::backup::write(CLUSTER, &state, &mut bytes).unwrap();
    bytes
}

fn pieces(bytes: &[u8]) -> Vec<Result<BackupPiece, Status>> {
    bytes.chunks(100).map(|piece| Ok(BackupPiece { data: piece.to_vec() })).collect()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn a_backup_is_written_whole_for_its_owner_alone() {
    let (node, dir) = (FakeNode::new(), tempfile::tempdir().unwrap());
    let _serving = node.serve(Mode::Answer);
    node.set_backup(pieces(&backup()));
    let file = dir.path().join("b");
    let line = format!("-o json cluster backup {}", file.display());
    let Ran { done, stdout, stderr } = overlay(&node.socket, &line).await;
    assert_eq!((done, &*stderr), (Done::All, ""));
    assert_eq!(fs::read(&file).unwrap(), backup());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let written: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(written["file"], file.display().to_string());
    assert_eq!(written["bytes"], backup().len());
    assert_eq!(
        (&written["cluster"], &written["generation"]),
        (&CLUSTER.to_string().into(), &1.into())
    );
    assert_eq!((&written["revision"], &written["version"]), (&11.into(), &2.into()));

    // There is one now.
    let line = format!("cluster backup {}", file.display());
    let Ran { done, stderr, .. } = overlay(&node.socket, &line).await;
    assert_eq!(done, Done::Failed);
    assert_eq!(
        stderr,
        format!("error: {} exists; give another name, or --force to replace it\n", file.display())
    );
    fs::write(&file, b"an older one").unwrap();
    let Ran { done, stdout, .. } = overlay(&node.socket, &format!("{line} --force")).await;
    assert_eq!(done, Done::All);
    assert!(
        stdout.starts_with(&format!(
            "{}: {} bytes, cluster {CLUSTER}, generation 1, revision 11",
            file.display(),
            backup().len()
        )),
        "{stdout}"
    );
    assert_eq!(fs::read(&file).unwrap(), backup());
    assert_eq!(names(dir.path()), ["b"]);
}

#[tokio::test]
async fn a_backup_that_is_not_whole_leaves_nothing_and_replaces_nothing() {
    let (node, dir) = (FakeNode::new(), tempfile::tempdir().unwrap());
    let _serving = node.serve(Mode::Answer);
    let file = dir.path().join("b");
    let whole = backup();
    let mut broken = pieces(&whole[..200]);
    broken.push(Err(Status::unavailable("the cluster has no leader with a quorum")));
    for (sent, words) in [
        (pieces(&whole[..whole.len() - 1]), "it is damaged, or was cut off"),
        (broken, "no leader with a quorum"),
        (Vec::new(), "it is no backup"),
    ] {
        node.set_backup(sent);
        let line = format!("cluster backup {}", file.display());
        let Ran { done, stderr, .. } = overlay(&node.socket, &line).await;
        assert_eq!(done, Done::Failed);
        assert!(stderr.starts_with("error: ") && stderr.contains(words), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert_eq!(names(dir.path()), Vec::<String>::new());
        fs::write(&file, b"the one before").unwrap();
        let Ran { done, .. } = overlay(&node.socket, &format!("{line} --force")).await;
        assert_eq!(done, Done::Failed);
        assert_eq!(fs::read(&file).unwrap(), b"the one before");
        assert_eq!(names(dir.path()), ["b"]);
        fs::remove_file(&file).unwrap();
    }
    node.set_backup(pieces(&whole));
    let line = format!("cluster backup {}", dir.path().join("none/b").display());
    let Ran { done, stderr, .. } = overlay(&node.socket, &line).await;
    assert_eq!(done, Done::Failed);
    assert!(stderr.contains("can't write"), "{stderr}");
}

#[tokio::test]
async fn a_restore_and_a_recovery_are_the_host_s_and_say_what_comes_next() {
    let begun = Begun {
        name: "h1".to_owned(),
        cluster: CLUSTER.to_string(),
        generation: 2,
        revision: 1 << 40,
        known_revision: 57,
        state_dir: "/var/lib/overlay".into(),
        others: vec!["h2".to_owned(), "h3".to_owned()],
    };
    let mut host = FakeHost::default();
    host.begun = Some(begun);
    let socket = Path::new("/nonexistent/overlay.sock");
    let line = format!("cluster restore /b --state-dir /s --name h1 --cluster {CLUSTER}");
    let Ran { done, stdout, .. } = overlay_on(&host, socket, &line).await;
    assert_eq!(done, Done::All, "no node is needed");
    let args = host.restored.lock().unwrap().take().unwrap();
    assert_eq!((&*args.file, &*args.state_dir), (Path::new("/b"), Path::new("/s")));
    assert_eq!((args.name.as_deref(), args.cluster), (Some("h1"), Some(CLUSTER)));
    let words = "start it: overlay node run --name h1 --state-dir /var/lib/overlay …\nthen start the others (h2, h3) with --join";
    assert!(stdout.contains("generation 2") && stdout.contains(words), "{stdout}");
    let Ran { done, stdout, .. } = overlay_on(&host, socket, "-o json cluster recover").await;
    assert_eq!(done, Done::All);
    let args = host.recovered.lock().unwrap().take().unwrap();
    assert_eq!((&*args.state_dir, args.accept_loss), (Path::new("/var/lib/overlay"), false));
    let line = "cluster recover --accept-loss";
    assert_eq!(overlay_on(&host, socket, line).await.done, Done::All);
    assert!(host.recovered.lock().unwrap().take().unwrap().accept_loss);
    let printed: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&printed["generation"], &printed["known_revision"]), (&2.into(), &57.into()));
    let refused = overlay_on(&FakeHost::default(), socket, "cluster recover").await;
    assert_eq!((refused.done, &*refused.stderr), (Done::Failed, "error: a majority lives\n"));
}

#[tokio::test]
async fn the_status_is_printed_and_fails_unless_the_cluster_is_healthy() {
    let node = FakeNode::new();
    let _serving = node.serve(Mode::Answer);
    let set = |condition: Condition, verdict: &str, faults: Vec<Fault>| {
        let voters = MembersResponse {
            condition: condition.into(),
            verdict: verdict.to_owned(),
            faults,
            ..MembersResponse::default()
        };
        node.set_members(Members { voters, ..Members::default() });
    };
    set(Condition::Healthy, "healthy: all is well", Vec::new());
    let ran = overlay(&node.socket, "cluster status").await;
    assert_eq!((ran.done, ran.stderr.as_str()), (Done::All, ""));
    assert!(ran.stdout.starts_with("healthy: all is well\n"), "{}", ran.stdout);

    let fault = Fault { what: "h3 is gone".into(), remedy: "start it".into(), section: "S".into() };
    for (condition, name) in [
        (Condition::Degraded, "degraded"),
        (Condition::NoLeader, "no leader"),
        (Condition::NoQuorum, "no quorum"),
        (Condition::Unknown, "unknown"),
        (Condition::Unspecified, "unknown"),
    ] {
        set(condition, "one is gone", vec![fault.clone()]);
        let ran = overlay(&node.socket, "cluster status -o json").await;
        assert_eq!(ran.done, Done::Failed);
        assert_eq!(ran.stderr, "error: the cluster is not healthy; one is gone\n");
        let printed: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(printed["condition"], name);
        assert_eq!(printed["faults"][0]["remedy"], "start it");
    }
    let stale = overlay(&node.socket, "cluster status --stale").await;
    assert_eq!(stale.done, Done::Failed);
    let marked = "STALE: as of revision 812; later changes may be missing\none is gone\n";
    assert!(stale.stdout.starts_with(marked), "{}", stale.stdout);
}
