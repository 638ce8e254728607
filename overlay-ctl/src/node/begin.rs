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

/// The beginning of 2025, when no cluster had generations yet.
const EARLIEST: u64 = 1_735_689_600;
/// In 2106.
const LATEST: u64 = u32::MAX as u64;
/// Seconds of a year.
const YEAR: u64 = 31_556_952;

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

/// The host's clock is wrong, and a generation would get a number that another one may have, or one that is too great. Nothing was
/// changed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this host's clock is wrong, which says that it is the year {year}: a generation of the cluster is numbered by the time, so set the clock (`date --set`, or NTP) and repeat the command"
)]
pub struct ClockError {
    /// What the clock says.
    year: u64,
}

/// The seconds since 1970, of which the number of a generation is made: see [`Generation::next`]. Nothing else that a node does
/// depends on the time of day, so that a clock may be set while it runs.
///
/// # Errors
/// The clock can't be right.
///
/// [`Generation::next`]: crate::model::Generation::next
pub(super) fn seconds() -> Result<u64, ClockError> {
    checked(SystemTime::now())
}

/// A host without a clock of its own begins in 1970, and two of them would number two generations alike. Revisions begin at
/// 65,536 a second, and have to fit into 48 bits.
fn checked(now: SystemTime) -> Result<u64, ClockError> {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if (EARLIEST..=LATEST).contains(&seconds) {
        Ok(seconds)
    } else {
        Err(ClockError { year: 1970 + seconds / YEAR })
    }
}

#[cfg(test)]
mod tests;
