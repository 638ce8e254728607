//! The log with which a generation of the cluster begins, and what a log of an earlier one had.

use super::{LogStore, OpenError, StoreError, open::NewLog};
use crate::{
    control::consensus::{codec, error, identity::Identity},
    durable::{DiskFolder, Folder},
};
use raft::{
    GetEntriesContext, Storage as _,
    eraftpb::{ConfChangeType, ConfChangeV2, ConfState, EntryType, HardState, SnapshotMetadata},
};
use std::{collections::BTreeSet, path::Path};

/// Bytes of entries that are read at once.
const READ_BYTES: u64 = 4 << 20;

/// The state with which a generation begins, of which one node has the only vote.
#[derive(Clone, Copy, Debug)]
pub struct Beginning<'a> {
    /// The generation.
    pub generation: u64,
    /// The first index of its log, which is the revision of the state.
    pub index: u64,
    /// The term of that index.
    pub term: u64,
    /// The snapshot of the state.
    pub state: &'a [u8],
}

/// What a log has after its snapshot.
#[derive(Debug, PartialEq, Eq)]
pub struct Rest {
    /// The commands in their order, each with its index. Those are among them of which this node does not know that they are
    /// committed: they may have been acknowledged all the same.
    pub commands: Vec<(u64, Vec<u8>)>,
    /// Who votes after all changes in the log.
    pub latest: Voting,
    /// Who votes after those changes of which this node knows that they are committed.
    pub committed: Voting,
    /// The last term.
    pub term: u64,
}

/// Who votes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Voting {
    /// The members with a vote.
    pub voters: BTreeSet<u64>,
    /// While a change of several members is under way (a joint configuration): those with a vote before it. A majority of both
    /// decides then. Empty otherwise.
    pub outgoing: BTreeSet<u64>,
}

impl Voting {
    /// Those with a vote, and no change under way.
    #[must_use]
    pub const fn of(voters: BTreeSet<u64>) -> Self {
        Self { voters, outgoing: BTreeSet::new() }
    }

    /// Whether the member has a vote.
    #[must_use]
    pub fn has(&self, member: u64) -> bool {
        self.voters.contains(&member) || self.outgoing.contains(&member)
    }

    /// Whether these members can decide.
    #[must_use]
    pub fn is_quorum(&self, members: &BTreeSet<u64>) -> bool {
        let is_majority = |of: &BTreeSet<u64>| of.intersection(members).count() > of.len() / 2;
        is_majority(&self.voters) && (self.outgoing.is_empty() || is_majority(&self.outgoing))
    }

    fn change(&mut self, change: ConfChangeV2) {
        match change.changes.len() {
            // The end of a change of several.
            0 => self.outgoing.clear(),
            1 => {}
            _ => self.outgoing = self.voters.clone(),
        }
        for single in change.changes {
            if single.change_type == ConfChangeType::AddNode as i32 {
                self.voters.insert(single.node_id);
            } else {
                self.voters.remove(&single.node_id);
            }
        }
    }
}

impl LogStore {
    /// Creates the log of a node that has the only vote of a generation, in a folder without a log.
    ///
    /// # Errors
    /// [`OpenError::Exists`], or the folder can't be written.
    pub fn begin(dir: &Path, identity: Identity, with: Beginning<'_>) -> Result<Self, OpenError> {
        Self::begin_in(&DiskFolder::new(dir), identity, with, false)
    }

    /// Replaces the log in a folder by one with which a generation begins. A crash leaves the one or the other.
    ///
    /// # Errors
    /// The folder can't be written.
    pub fn begin_anew(
        dir: &Path,
        identity: Identity,
        with: Beginning<'_>,
    ) -> Result<Self, OpenError> {
        Self::begin_in(&DiskFolder::new(dir), identity, with, true)
    }

    /// As [`Self::begin`] and [`Self::begin_anew`], for any kind of folder.
    pub(in crate::control) fn begin_in(
        folder: &impl Folder,
        identity: Identity,
        with: Beginning<'_>,
        replaces: bool,
    ) -> Result<Self, OpenError> {
        let Beginning { generation, index, term, state } = with;
        let members = ConfState { voters: vec![identity.raft_id], ..ConfState::default() };
        let meta = SnapshotMetadata { conf_state: Some(members), index, term };
        let hard = HardState { term, vote: 0, commit: index };
        Self::create(folder, &NewLog { identity, generation, hard, meta, state, replaces })
    }

    /// Creates the empty log of a node that joins a generation, and will receive everything from a leader.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub fn join_generation(
        dir: &Path,
        identity: Identity,
        generation: u64,
    ) -> Result<Self, OpenError> {
        Self::join_generation_in(&DiskFolder::new(dir), identity, generation)
    }

    /// As [`Self::join_generation`], for any kind of folder.
    pub(in crate::control) fn join_generation_in(
        folder: &impl Folder,
        identity: Identity,
        generation: u64,
    ) -> Result<Self, OpenError> {
        let (hard, meta) = (HardState::default(), SnapshotMetadata::default());
        let new = NewLog { identity, generation, hard, meta, state: &[], replaces: false };
        Self::create(folder, &new)
    }

    /// Reads what the log has after its snapshot.
    ///
    /// # Errors
    /// The database can't be read.
    pub fn rest(&self) -> Result<Rest, StoreError> {
        let unreadable = |what: raft::Error| {
            let source = redb::Error::Io(std::io::Error::other(error::chain(&what)));
            StoreError::Database(Box::new(source))
        };
        let members = self.snapshot.conf_state.clone().unwrap_or_default();
        let mut latest = Voting {
            voters: members.voters.into_iter().collect(),
            outgoing: members.voters_outgoing.into_iter().collect(),
        };
        let mut committed = latest.clone();
        let mut commands = Vec::new();
        let mut next = self.snapshot.index + 1;
        let end = self.last_index().map_err(unreadable)? + 1;
        while next < end {
            let context = GetEntriesContext::empty(false);
            let entries = self.entries(next, end, READ_BYTES, context).map_err(unreadable)?;
            for entry in entries {
                next = entry.index + 1;
                if entry.entry_type == EntryType::EntryConfChangeV2 as i32 {
                    let change: ConfChangeV2 = codec::decode(&entry.data).map_err(|source| {
                        StoreError::Malformed { what: "a change of the members", source }
                    })?;
                    latest.change(change);
                    if entry.index <= self.hard_state.commit {
                        committed = latest.clone();
                    }
                } else if !entry.data.is_empty() {
                    commands.push((entry.index, entry.data));
                }
            }
        }
        Ok(Rest { commands, latest, committed, term: self.hard_state.term })
    }
}
