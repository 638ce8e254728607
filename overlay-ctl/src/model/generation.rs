//! The generation of a cluster: it tells the logs and views of before a restore, or a forced recovery, from those after it.

use super::Invalid;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A generation of a cluster. The first is 1, and each restore or forced recovery begins a greater one: the seconds since 1970
/// at that moment, so that two that begin from the same one differ, and the later one is the greater.
///
/// Two generations of one cluster have logs that are not parts of one another, so their nodes exchange neither messages nor
/// views.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Generation(u64);

impl Generation {
    /// The generation of every cluster that was neither restored nor recovered, and of what names none.
    pub const FIRST: Self = Self(1);

    /// The generation's number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The generation that begins after this one, `seconds` after 1970.
    #[must_use]
    pub const fn next(self, seconds: u64) -> Self {
        let next = self.0.saturating_add(1);
        Self(if seconds > next { seconds } else { next })
    }

    /// Returns true for generation 1.
    #[must_use]
    pub fn is_first(&self) -> bool {
        *self == Self::FIRST
    }

    /// What a message says in its field. 0 = not said, which means generation 1.
    #[must_use]
    pub fn from_wire(number: u64) -> Self {
        Self(number.max(Self::FIRST.0))
    }
}

impl Default for Generation {
    fn default() -> Self {
        Self::FIRST
    }
}

impl TryFrom<u64> for Generation {
    type Error = Invalid;

    fn try_from(number: u64) -> Result<Self, Invalid> {
        match number {
            0 => Err(Invalid::new("generation", "0", "is none: the first generation is 1")),
            number => Ok(Self(number)),
        }
    }
}

impl From<Generation> for u64 {
    fn from(generation: Generation) -> Self {
        generation.0
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
