//! The state folder: one node's identity, membership and peers, each in a file that is replaced as a whole.

use super::{lock::lock_file, machine};
use crate::{
    control::peers::Peer,
    durable::{FileError, read_json, write_json},
    model::{Generation, NodeId, NodeName, RaftId, Revision, Subnet},
};
use nix::fcntl::Flock;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    net::Ipv4Addr,
    path::{Path, PathBuf},
};
use uuid::Uuid;

/// The lock, which a node holds for as long as it runs.
pub(super) const LOCK: &str = "lock";
const NODE: &str = "node.json";
const PEERS: &str = "peers.json";
const GATEWAY: &str = "gateway.json";
const ADDRESS: &str = "address.json";
const GENERATION: &str = "generation.json";
/// The files that the node itself keeps in the folder, beside the lock. The last one says whose folder it is.
pub(super) const FILES: [&str; 6] = [PEERS, GATEWAY, ADDRESS, GENERATION, machine::FILE, NODE];

/// Why a state folder can't be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// Another process holds it.
    #[error("the state folder {} is in use by another node: stop that one, or give this one its own with --state-dir", .0.display())]
    InUse(PathBuf),
    /// The node in it has another name.
    #[error("the state folder {} belongs to node {found}, not {asked}: start with --name {found}, or give --state-dir another folder", .path.display())]
    AnotherNode {
        /// The folder.
        path: PathBuf,
        /// The node in it.
        found: NodeName,
        /// The node that was asked for.
        asked: NodeName,
    },
    /// The node in it belongs to another cluster.
    #[error("the state folder {} belongs to cluster {found}, but the node at {join} is of cluster {asked}: give --state-dir another folder, or leave --join out to go on in the old cluster", .path.display())]
    AnotherCluster {
        /// The folder.
        path: PathBuf,
        /// The cluster of the node in it.
        found: Uuid,
        /// The cluster that was asked for.
        asked: Uuid,
        /// The address that was asked.
        join: std::net::SocketAddr,
    },
    /// The cluster has removed the node in it.
    #[error("node {name} was removed from its cluster: to join again as a new node, run `overlay node reset --state-dir {}` first, or give --state-dir another folder", .path.display())]
    Removed {
        /// The folder.
        path: PathBuf,
        /// The node in it.
        name: NodeName,
    },
    /// A file in it can't be used.
    #[error(transparent)]
    File(#[from] FileError),
}

/// What a node keeps of its membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its cluster.
    pub cluster: Uuid,
    /// Its id.
    pub id: NodeId,
    /// It is a voter, which holds the log; otherwise it is an agent.
    pub voter: bool,
    /// Revision of its registration.
    pub epoch: Revision,
    /// The Raft id of the present life of its log; of an agent, that of its last life, if it had one. `None` = it had none, or
    /// the cluster was at version 1 when it was given out, where it is the node's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raft_id: Option<RaftId>,
}

impl Member {
    /// As [`Node::life`](crate::model::Node::life).
    #[must_use]
    pub fn life(&self) -> Option<RaftId> {
        self.raft_id.or(RaftId::new(self.id)).filter(|_| self.voter)
    }
}

/// The content of `node.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The node's name.
    pub name: NodeName,
    /// Made once, so that a join repeated after a crash is the same join.
    pub instance: Uuid,
    /// Its membership; `None` before its join was answered.
    pub member: Option<Member>,
    /// The cluster has removed it: its id is never used again.
    #[serde(default)]
    pub removed: bool,
}

/// A node's state folder, held for as long as this lives.
pub struct Home {
    dir: PathBuf,
    record: Record,
    _lock: Flock<File>,
}

impl Home {
    /// Opens or makes the folder for the node `name`.
    ///
    /// # Errors
    /// See [`HomeError`].
    pub fn open(dir: &Path, name: &NodeName) -> Result<Self, HomeError> {
        let failed = |source| FileError::Io { path: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(failed)?;
        let lock = Self::lock(dir)?;
        let path = dir.join(NODE);
        let mut record: Record = match read_json(&path)? {
            Some(record) => record,
            None => {
                let record = Record {
                    name: name.clone(),
                    instance: Uuid::new_v4(),
                    member: None,
                    removed: false,
                };
                write_json(&path, &record)?;
                record
            }
        };
        if record.member.is_none() && record.name != *name {
            // No cluster knows the node under the old name yet.
            record.name = name.clone();
            write_json(&path, &record)?;
        }
        if record.name != *name {
            return Err(HomeError::AnotherNode {
                path: dir.to_owned(),
                found: record.name,
                asked: name.clone(),
            });
        }
        if record.removed {
            return Err(HomeError::Removed { path: dir.to_owned(), name: record.name });
        }
        Ok(Self { dir: dir.to_owned(), record, _lock: lock })
    }

    /// Makes the folder of a node that a cluster knows already.
    ///
    /// # Errors
    /// See [`HomeError`].
    pub(super) fn make(dir: &Path, record: Record) -> Result<Self, HomeError> {
        let failed = |source| FileError::Io { path: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(failed)?;
        let lock = Self::lock(dir)?;
        write_json(&dir.join(NODE), &record)?;
        Ok(Self { dir: dir.to_owned(), record, _lock: lock })
    }

    /// Locks the folder, which must exist, and changes nothing else in it.
    ///
    /// # Errors
    /// [`HomeError::InUse`], or the lock's file can't be made.
    pub(super) fn lock(dir: &Path) -> Result<Flock<File>, HomeError> {
        let path = dir.join(LOCK);
        match lock_file(&path) {
            Ok(Some(lock)) => Ok(lock),
            Ok(None) => Err(HomeError::InUse(dir.to_owned())),
            Err(source) => Err(FileError::Io { path, source }.into()),
        }
    }

    /// What the folder says of its node; `None` if no node has used it.
    ///
    /// # Errors
    /// The file can't be read.
    pub(super) fn record_in(dir: &Path) -> Result<Option<Record>, FileError> {
        read_json(&dir.join(NODE))
    }

    /// The peers that the folder has.
    ///
    /// # Errors
    /// The file can't be read.
    pub(super) fn peers_in(dir: &Path) -> Result<Vec<Peer>, FileError> {
        Ok(read_json(&dir.join(PEERS))?.unwrap_or_default())
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the node keeps of itself.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Keeps the node's membership.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn set_member(&mut self, member: Member) -> Result<(), HomeError> {
        self.record.member = Some(member);
        Ok(write_json(&self.dir.join(NODE), &self.record)?)
    }

    /// Keeps the revision of the member's registration.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn set_epoch(&mut self, epoch: Revision) -> Result<(), HomeError> {
        match self.record.member.clone() {
            Some(member) if member.epoch != epoch => self.set_member(Member { epoch, ..member }),
            _ => Ok(()),
        }
    }

    /// Keeps that the cluster has removed the node.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn set_removed(&mut self) -> Result<(), HomeError> {
        self.record.removed = true;
        Ok(write_json(&self.dir.join(NODE), &self.record)?)
    }

    /// Returns true if the node in the folder is a member of a cluster: it comes back, and does not join for the first time.
    /// It is known before the folder is opened, because a node that comes back is started in another order.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn is_member(dir: &Path) -> Result<bool, HomeError> {
        let record: Option<Record> = read_json(&dir.join(NODE))?;
        Ok(record.is_some_and(|record| record.member.is_some()))
    }

    /// The address that the node's host had last on the underlay. It is known before the folder is opened, because a node
    /// that comes back listens there when its underlay is missing.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn address(dir: &Path) -> Result<Option<Ipv4Addr>, HomeError> {
        Ok(read_json(&dir.join(ADDRESS))?)
    }

    /// Keeps the host's address on the underlay.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn set_address(&self, address: Ipv4Addr) -> Result<(), HomeError> {
        // A damaged file is written anew: it holds nothing but this.
        if matches!(Self::address(&self.dir), Ok(Some(last)) if last == address) {
            return Ok(());
        }
        Ok(write_json(&self.dir.join(ADDRESS), &address)?)
    }

    /// The subnet that the node's gateway bridge had last. It is known before the folder is opened, because it is chosen
    /// before the node changes anything.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn gateway(dir: &Path) -> Result<Option<Subnet>, HomeError> {
        Ok(read_json(&dir.join(GATEWAY))?)
    }

    /// Keeps the subnet of the gateway bridge, so that a reboot does not change it.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn set_gateway(&self, subnet: Subnet) -> Result<(), HomeError> {
        // A damaged file is written anew: it holds nothing but this.
        if matches!(Self::gateway(&self.dir), Ok(Some(last)) if last == subnet) {
            return Ok(());
        }
        Ok(write_json(&self.dir.join(GATEWAY), &subnet)?)
    }

    /// The newest generation of the cluster that the node was of; that of a node that was in no restored or recovered cluster
    /// is the first.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn generation(&self) -> Result<Generation, HomeError> {
        Ok(read_json(&self.dir.join(GENERATION))?.unwrap_or_default())
    }

    /// Keeps the generation of the cluster that the node is of.
    ///
    /// # Errors
    /// The file can't be read or written.
    pub fn set_generation(&self, generation: Generation) -> Result<(), HomeError> {
        if self.generation()? == generation {
            return Ok(());
        }
        Ok(write_json(&self.dir.join(GENERATION), &generation)?)
    }

    /// The peers as last known.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn peers(&self) -> Result<Vec<Peer>, HomeError> {
        Ok(Self::peers_in(&self.dir)?)
    }

    /// Keeps the peers, so that a restarted agent finds a voter.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn set_peers(&self, peers: &[Peer]) -> Result<(), HomeError> {
        Ok(write_json(&self.dir.join(PEERS), &peers)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    #[test]
    fn a_folder_is_one_node_s() {
        let dir = tempfile::tempdir().unwrap();
        let mut home = Home::open(dir.path(), &name("h1")).unwrap();
        assert!(matches!(Home::open(dir.path(), &name("h1")), Err(HomeError::InUse(_))));
        let member =
            Member { cluster: Uuid::new_v4(), id: 7, voter: true, epoch: 9, raft_id: None };
        home.set_member(member.clone()).unwrap();
        let instance = home.record().instance;
        drop(home);
        let another = Home::open(dir.path(), &name("h2")).map(drop);
        assert!(matches!(another, Err(HomeError::AnotherNode { .. })));
        let home = Home::open(dir.path(), &name("h1")).unwrap();
        assert_eq!(home.record().member, Some(member));
        assert_eq!(home.record().instance, instance);
    }

    #[test]
    fn what_a_start_must_know_of_a_folder_is_read_before_it_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!Home::is_member(dir.path()).unwrap(), "there is nothing");
        assert_eq!(Home::address(dir.path()).unwrap(), None);
        let mut home = Home::open(dir.path(), &name("h1")).unwrap();
        assert!(!Home::is_member(dir.path()).unwrap(), "no cluster has taken it in");
        home.set_member(Member {
            cluster: Uuid::new_v4(),
            id: 7,
            voter: true,
            epoch: 9,
            raft_id: None,
        })
        .unwrap();
        assert!(Home::is_member(dir.path()).unwrap());
        fs::write(dir.path().join(ADDRESS), b"\"10.0.").unwrap();
        for last in [1, 2].map(|last| Ipv4Addr::new(10, 0, 0, last)) {
            home.set_address(last).unwrap();
            assert_eq!(Home::address(dir.path()).unwrap(), Some(last));
        }
    }

    #[test]
    fn a_name_that_nobody_took_can_be_changed_and_a_removed_node_is_gone_for_good() {
        let dir = tempfile::tempdir().unwrap();
        let first = Home::open(dir.path(), &name("h1")).unwrap().record().instance;
        let mut home = Home::open(dir.path(), &name("h2")).unwrap();
        assert_eq!(home.record().instance, first, "it is the same node still");
        home.set_removed().unwrap();
        drop(home);
        let again = Home::open(dir.path(), &name("h2")).map(drop);
        assert!(matches!(again, Err(HomeError::Removed { .. })));
    }

    #[test]
    fn a_damaged_file_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        drop(Home::open(dir.path(), &name("h1")).unwrap());
        let path = dir.path().join(NODE);
        fs::write(&path, b"{\"name\": \"h").unwrap();
        let refused = Home::open(dir.path(), &name("h1")).map(drop);
        assert!(matches!(refused, Err(HomeError::File(FileError::Damaged { .. }))), "{refused:?}");
        assert_eq!(fs::read(&path).unwrap(), b"{\"name\": \"h");
    }
}
