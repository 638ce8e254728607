//! The hash of the whole state, by which voters find out that they hold the same.
//!
//! It is that of the snapshot's encoding: whatever a snapshot has is in it, and nothing has to be kept up to date at each
//! change. That costs time in proportion to the rows, so that it is made after so many entries as there are rows, or more.

use super::State;
use crate::model::Revision;
use sha2::{Digest as _, Sha256};
use std::io::{self, BufWriter, Write};

/// A hash of the state.
pub type StateHash = [u8; 32];

/// Which hash it is. Two programs compare only hashes of the same version: a program in which the golden value is another one
/// has another version.
pub const HASH_VERSION: u32 = 1;

/// Fewest entries from one hash to the next.
const EVERY_MIN: u64 = 1 << 10;
/// So many remembered requests cost as much as one row.
const REQUESTS_A_ROW: u64 = 8;
/// Bytes that are hashed at once.
const PIECE: usize = 1 << 16;

struct Hashing(Sha256);

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl State {
    /// The hash of all that a snapshot has.
    #[must_use]
    pub fn hash(&self) -> StateHash {
        let mut out = BufWriter::with_capacity(PIECE, Hashing(Sha256::new()));
        let written = self.write_snapshot(&mut out).and_then(|()| Ok(out.into_inner()?));
        let Hashing(hash) = written
            .unwrap_or_else(|error| unreachable!("a hash takes all that is written: {error}"));
        hash.finalize().into()
    }

    /// The revision under which the hash of this state is due before the entry `next` is applied, if it is. It is the state before
    /// the entry of that revision. This follows from the state and the log alone, so that every voter makes it of the same states.
    ///
    /// The indices of a small state are among those of a larger one, where fewer are: they are multiples of powers of two.
    #[must_use]
    pub fn hash_is_due(&self, next: Revision) -> Option<Revision> {
        let every = self.hash_every();
        let due = next / every * every;
        (due > self.revision / every * every).then_some(due)
    }

    fn hash_every(&self) -> u64 {
        let rows = self.networks.len() + self.nodes.len() + self.endpoints.len();
        let rows = rows + self.withdrawn.len();
        let requests = self.dedup.len() as u64 / REQUESTS_A_ROW;
        (rows as u64 + requests).max(EVERY_MIN).next_power_of_two()
    }
}
