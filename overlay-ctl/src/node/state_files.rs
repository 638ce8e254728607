//! The files that a node keeps in its state folder, and how a reset removes them.

use super::{home, run_file};
use crate::{
    control::consensus::LogStore,
    dataplane::host,
    durable::{DiskFolder, Folder as _},
};
use std::{fs, io, path::Path};

/// The files of a state folder in the order in which they go: without its log a voter does not start any more, and the
/// files that say whose folder it is are the last.
pub(super) fn files() -> Vec<&'static str> {
    let mut files = Vec::from(LogStore::FILES);
    files.extend(host::FILES);
    let [peers, gateway, address, generation, machine, node] = home::FILES;
    files.extend([peers, gateway, address, generation, machine]);
    files.extend([home::LOCK, node, run_file::FILE]);
    files
}

/// What is appended to the name of a file while it is written anew.
const UNFINISHED: &str = ".new";

/// Those of the names that a node gave, in the order in which they go, and the others.
fn sorted(names: Vec<String>) -> (Vec<String>, Vec<String>) {
    let files = files();
    let place = |name: &String| {
        let is_of = |file: &&str| {
            name.strip_prefix(file).is_some_and(|rest| rest.is_empty() || rest == UNFINISHED)
        };
        files.iter().position(is_of)
    };
    let (mut ours, others): (Vec<_>, Vec<_>) =
        names.into_iter().partition(|name| place(name).is_some());
    ours.sort_by_key(place);
    (ours, others)
}

/// Removes a node's files from its state folder, and the folder if nothing else is in it. Returns what stays.
pub(super) fn clear(state_dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(state_dir)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    let (ours, left) = sorted(names);
    let folder = DiskFolder::new(state_dir);
    ours.iter().try_for_each(|name| folder.remove(name))?;
    folder.sync()?;
    // It stays where a file system is mounted there.
    drop(fs::remove_dir(state_dir));
    Ok(left)
}

#[cfg(test)]
pub(super) mod tests {
    use super::{
        super::{
            Home, Member, machine,
            run_file::{Places, RunFile},
        },
        *,
    };
    use crate::control::{consensus::Identity, peers::Peer};
    use uuid::Uuid;

    /// A state folder with all that a voter keeps there, at the end of its run.
    pub(in super::super) fn voter(dir: &Path) {
        let cluster = Uuid::from_u128(7);
        let name: crate::model::NodeName = "h2".parse().unwrap();
        let mut home = Home::open(dir, &name).unwrap();
        home.set_member(Member { cluster, id: 2, voter: true, epoch: 9, raft_id: None }).unwrap();
        let peer =
            |id| Peer { id, listen: ([10, 0, 0, 1], 7400).into(), voter: true, raft_id: None };
        home.set_peers(&[peer(1), peer(2)]).unwrap();
        home.set_gateway("172.18.0.0/16".parse().unwrap()).unwrap();
        home.set_address([10, 0, 0, 2].into()).unwrap();
        home.set_generation(crate::model::Generation::FIRST.next(0)).unwrap();
        let identity = Identity { cluster, name: "h2".to_owned(), raft_id: 2 };
        let log = LogStore::bootstrap(dir, identity, b"state").unwrap();
        machine::bind(dir);
        let _unfit = log.declare_unfit("it forgot".to_owned());
        let places = Places::new(Path::new("/b"), Path::new("/s"), 4789).unwrap();
        let run = RunFile { name, places: vec![places], made_netns_folder: false, namespace: None };
        crate::durable::write_json(&dir.join(run_file::FILE), &run).unwrap();
        for file in host::FILES {
            fs::write(dir.join(file), b"{}").unwrap();
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn all_that_a_node_keeps_goes_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        voter(&state);
        fs::write(state.join("node.json.new"), b"{").unwrap();
        assert_eq!(clear(&state).unwrap(), Vec::<String>::new());
        assert!(!state.exists());

        voter(&state);
        for file in ["backup.1", "locked", "node.json.orig", "consensus.redb-copy"] {
            fs::write(state.join(file), b"somebody's").unwrap();
        }
        fs::create_dir(state.join("lost+found")).unwrap();
        let mut left = clear(&state).unwrap();
        left.sort();
        assert_eq!(
            left,
            ["backup.1", "consensus.redb-copy", "locked", "lost+found", "node.json.orig"]
        );
        let mut found = names(&state);
        found.sort();
        assert_eq!(found, left);
    }

    #[test]
    fn the_log_goes_first_and_what_says_whose_folder_it_is_last() {
        let dir = tempfile::tempdir().unwrap();
        voter(dir.path());
        let (ours, others) = sorted(names(dir.path()));
        assert_eq!(others, Vec::<String>::new());
        assert_eq!(ours.len(), files().len(), "each file is there: {ours:?}");
        assert_eq!(ours[0], "consensus.redb");
        assert_eq!(ours[ours.len() - 2..], ["node.json", "run.json"]);
    }
}
