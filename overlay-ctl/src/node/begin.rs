//! The state folder of the node that begins a generation of the cluster: a new one, from a backup, or that of a voter which
//! has lived on.

use super::{Home, HomeError, Member, machine};
use crate::{
    control::{
        consensus::{Beginning, Identity, LogStore, OpenError},
        state::State,
    },
    faces::cli::Begun,
    model::{RaftId, Revision},
};
use std::{
    path::{Path, absolute},
    time::{SystemTime, UNIX_EPOCH},
};
use uuid::Uuid;

/// The node that begins a generation, and the state with which it does.
pub(super) struct First<'a> {
    /// The cluster's id.
    pub(super) cluster: Uuid,
    /// The node, as a member.
    pub(super) member: &'a Member,
    /// The state, of the new generation already.
    pub(super) state: &'a State,
    /// The last revision of the generation before that is known.
    pub(super) known: Revision,
    /// The term in which the log begins.
    pub(super) term: u64,
}

impl First<'_> {
    /// Writes the log and the generation to the node's folder. `replaces`: the folder has a log, which goes in one step.
    ///
    /// # Errors
    /// The folder can't be written.
    pub(super) fn write(&self, home: &Home, replaces: bool) -> Result<(), FirstError> {
        let Self { cluster, member, state, term, .. } = *self;
        let name = home.record().name.to_string();
        // Each voter has one.
        let raft_id = member.life().map_or(member.id, RaftId::get);
        let identity = Identity { cluster, name, raft_id };
        let with = Beginning {
            generation: state.generation().number(),
            index: state.revision(),
            term,
            state: &state.snapshot(),
        };
        let make = if replaces { LogStore::begin_anew } else { LogStore::begin };
        drop(make(home.dir(), identity, with)?);
        // The operator said that this folder is the one that counts.
        machine::bind(home.dir());
        // A log of a newer generation than this file says is right all the same.
        Ok(home.set_generation(state.generation())?)
    }

    /// What is said of it.
    pub(super) fn told(&self, home: &Home) -> Begun {
        let Self { cluster, member, state, known, .. } = *self;
        let others = state.nodes().filter(|node| node.id != member.id);
        Begun {
            name: home.record().name.to_string(),
            cluster: cluster.to_string(),
            generation: state.generation().number(),
            revision: state.revision(),
            known_revision: known,
            state_dir: shown(home.dir()),
            others: others.map(|node| node.name.to_string()).collect(),
        }
    }
}

fn shown(dir: &Path) -> std::path::PathBuf {
    absolute(dir).unwrap_or_else(|_| dir.to_owned())
}

/// Why the folder was not written.
#[derive(Debug, thiserror::Error)]
pub enum FirstError {
    /// The log can't be written.
    #[error("the log can't be written")]
    Log(#[from] OpenError),
    /// Another file can't be written.
    #[error(transparent)]
    Home(#[from] HomeError),
}

/// The seconds since 1970, of which the number of a generation is made: see [`Generation::next`].
pub(super) fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
