//! Reads entries of the log. An entry that this version can't read is no refused command: the other voters may have carried it
//! out, so a voter that went on without it would hold another state than theirs.

use super::{Envelope, State};
use crate::model::SPEAKS;
use serde::Deserialize;

/// Why an entry of the log can't be read, in words that end a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It has a command, or a value in one, that this version does not know.
    #[error("this version does not know the command ({0})")]
    Unknown(String),
    /// It is of a version of the cluster that this program does not speak.
    #[error("it is of cluster version {0}, and this program speaks {SPEAKS}")]
    Newer(u32),
}

/// What an entry of every version has.
#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    rules: u32,
}

/// Why the entry is unreadable if its rules are those of a newer version.
fn newer(rules: u32) -> Option<Unreadable> {
    (rules > SPEAKS.newest().number()).then_some(Unreadable::Newer(rules))
}

impl State {
    /// Reads an entry of the log.
    ///
    /// # Errors
    /// See [`Unreadable`].
    pub fn read(entry: &[u8]) -> Result<Envelope, Unreadable> {
        match rmp_serde::from_slice::<Envelope>(entry) {
            Ok(envelope) => newer(envelope.rules).map_or(Ok(envelope), Err),
            // A newer version's entry is known by its number, which tells more than what its command is not.
            Err(error) => {
                let head = rmp_serde::from_slice::<Head>(entry).ok();
                let unknown = || Unreadable::Unknown(error.to_string());
                Err(head.and_then(|head| newer(head.rules)).unwrap_or_else(unknown))
            }
        }
    }

    /// Reads an entry that this version can read, and applies it.
    #[cfg(test)]
    pub(crate) fn apply_entry(
        &mut self,
        revision: crate::model::Revision,
        entry: &[u8],
    ) -> super::Outcome {
        self.apply(revision, Self::read(entry).expect("an entry of this version"))
    }
}
