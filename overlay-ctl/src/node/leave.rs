//! How the command line learns that a node which left its cluster is gone from this host.

use super::{Home, HomeError, Record};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Longest wait until a node that was removed from its cluster has heard of it, wiped what it made, and ended.
const WIPE_MAX: Duration = Duration::from_secs(60);
/// How often is looked whether it has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Why it is not known that all of a node which left its cluster is gone.
#[derive(Debug, thiserror::Error)]
pub enum LeaveError {
    /// The node ended before it had removed everything.
    #[error("the node has ended before all that it made was gone: its log says why; run `overlay node reset --state-dir {}`", .0.display())]
    NotWiped(PathBuf),
    /// The node's files can't be seen from here.
    #[error("there is no folder {} here, in which the node would note that all is gone: see that it ends, on its own host", .0.display())]
    NotSeen(PathBuf),
    /// The node goes on.
    #[error("the node still runs after {} s, though it was asked to leave: its log says why", WIPE_MAX.as_secs())]
    StillRuns,
    /// The state folder can't be read.
    #[error(transparent)]
    Home(#[from] HomeError),
}

/// Waits until the node with this state folder, which was asked to leave its cluster, has wiped what it made and has ended.
///
/// # Errors
/// It did not.
pub async fn left(state_dir: &Path) -> Result<(), LeaveError> {
    let ended = async {
        while !has_left(state_dir)? {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    };
    tokio::time::timeout(WIPE_MAX, ended).await.unwrap_or(Err(LeaveError::StillRuns))
}

/// Returns false while the node runs. It notes its removal when all that it made is gone, and then ends.
fn has_left(state_dir: &Path) -> Result<bool, LeaveError> {
    if !state_dir.is_dir() {
        return Err(LeaveError::NotSeen(state_dir.to_owned()));
    }
    let _lock = match Home::lock(state_dir) {
        Err(HomeError::InUse(_)) => return Ok(false),
        lock => lock?,
    };
    match Home::record_in(state_dir).map_err(HomeError::from)? {
        Some(Record { removed: false, .. }) => Err(LeaveError::NotWiped(state_dir.to_owned())),
        Some(Record { removed: true, .. }) | None => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::state_files::tests::voter, *};

    #[test]
    fn a_node_has_left_when_it_has_ended_and_noted_its_removal() {
        let dir = tempfile::tempdir().unwrap();
        voter(dir.path());
        assert!(matches!(has_left(dir.path()), Err(LeaveError::NotWiped(_))), "it was killed");
        let mut home = Home::open(dir.path(), &"h2".parse().unwrap()).unwrap();
        assert!(!has_left(dir.path()).unwrap(), "it runs");
        home.set_removed().unwrap();
        assert!(!has_left(dir.path()).unwrap(), "it runs still");
        drop(home);
        assert!(has_left(dir.path()).unwrap());
        let gone = has_left(&dir.path().join("gone"));
        assert!(matches!(gone, Err(LeaveError::NotSeen(_))));
    }
}
