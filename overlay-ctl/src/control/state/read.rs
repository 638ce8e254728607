//! Reads entries of the log. An entry that this version can't read is no refused command: the other voters may have carried it
//! out, so a voter that went on without it would hold another state than theirs.

use super::{Envelope, RULES, State};

/// Why an entry of the log can't be read, in words that end a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It has a command, or a value in one, that this version does not know.
    #[error("this version does not know the command ({0})")]
    Unknown(String),
    /// It is to be applied by rules that this version does not know.
    #[error("it is to be applied by rules {0}, and this version knows those up to {RULES}")]
    Rules(u32),
}

impl State {
    /// Reads an entry of the log.
    ///
    /// # Errors
    /// See [`Unreadable`].
    pub fn read(entry: &[u8]) -> Result<Envelope, Unreadable> {
        let envelope: Envelope =
            rmp_serde::from_slice(entry).map_err(|error| Unreadable::Unknown(error.to_string()))?;
        if envelope.rules > RULES {
            return Err(Unreadable::Rules(envelope.rules));
        }
        Ok(envelope)
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
