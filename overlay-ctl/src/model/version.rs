//! The cluster's version: it says which commands and row fields may be logged, by which rules entries are applied, and in
//! which format a snapshot is written.
//!
//! It is not the program's version: many releases of the program speak the same versions of the cluster.

use super::Invalid;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What this program speaks. A later version is added here, beside the commands, fields and formats that need it:
/// [`Command::needs`](crate::control::state::Command::needs) and [`Node::needs`](super::Node::needs) name it there.
pub const SPEAKS: Speaks = Speaks { oldest: Version::V1, newest: Version::V2 };

/// A version of the cluster. The first is 1, and each raise adds 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Version(u32);

impl Version {
    /// The version of everything that was written before clusters had versions.
    pub const V1: Self = Self(1);
    /// The state has its version, and the nodes' rows say what each of them speaks.
    pub const V2: Self = Self(2);

    /// The version's number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The version to which this one is raised.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Returns true for version 1, which is the version of what names none.
    #[must_use]
    pub fn is_first(&self) -> bool {
        *self == Self::V1
    }
}

impl Default for Version {
    fn default() -> Self {
        Self::V1
    }
}

impl TryFrom<u32> for Version {
    type Error = Invalid;

    fn try_from(number: u32) -> Result<Self, Invalid> {
        match number {
            0 => Err(Invalid::new("version", "0", "is none: the first version is 1")),
            number => Ok(Self(number)),
        }
    }
}

impl From<Version> for u32 {
    fn from(version: Version) -> Self {
        version.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The versions that a program speaks: all from the oldest to the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "(Version, Version)", into = "(Version, Version)")]
pub struct Speaks {
    oldest: Version,
    newest: Version,
}

impl Speaks {
    /// What a program speaks that does not say it: it is older than the field in which it would.
    pub const UNSAID: Self = Self { oldest: Version::V1, newest: Version::V1 };

    /// From `oldest` to `newest`.
    ///
    /// # Errors
    /// `oldest` is the later one.
    pub fn new(oldest: Version, newest: Version) -> Result<Self, Invalid> {
        if oldest > newest {
            let why = format!("is earlier than oldest_version, {oldest}");
            return Err(Invalid::new("newest_version", newest.to_string(), why));
        }
        Ok(Self { oldest, newest })
    }

    /// What a message says in its two fields. Both 0 = [`Speaks::UNSAID`].
    ///
    /// # Errors
    /// The two are no range of versions.
    pub fn from_wire(oldest: u32, newest: u32) -> Result<Self, Invalid> {
        if (oldest, newest) == (0, 0) {
            return Ok(Self::UNSAID);
        }
        Self::new(oldest.try_into()?, newest.try_into()?)
    }

    /// The oldest version that is spoken.
    #[must_use]
    pub const fn oldest(self) -> Version {
        self.oldest
    }

    /// The newest version that is spoken.
    #[must_use]
    pub const fn newest(self) -> Version {
        self.newest
    }

    /// Returns true if `version` is spoken.
    #[must_use]
    pub fn covers(self, version: Version) -> bool {
        (self.oldest..=self.newest).contains(&version)
    }
}

impl TryFrom<(Version, Version)> for Speaks {
    type Error = Invalid;

    fn try_from((oldest, newest): (Version, Version)) -> Result<Self, Invalid> {
        Self::new(oldest, newest)
    }
}

impl From<Speaks> for (Version, Version) {
    fn from(Speaks { oldest, newest }: Speaks) -> Self {
        (oldest, newest)
    }
}

impl fmt::Display for Speaks {
    /// `version 1`, or `versions 1 to 2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { oldest, newest } = self;
        if oldest == newest {
            write!(f, "version {newest}")
        } else {
            write!(f, "versions {oldest} to {newest}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spoken_is_a_range_of_versions() {
        for (oldest, newest, expected) in [
            (0, 0, Some("version 1")),
            (1, 1, Some("version 1")),
            (1, 2, Some("versions 1 to 2")),
            (2, 2, Some("version 2")),
            (3, 7, Some("versions 3 to 7")),
            (2, 1, None),
            (0, 1, None),
            (1, 0, None),
        ] {
            let read = Speaks::from_wire(oldest, newest);
            let said = read.as_ref().ok().map(ToString::to_string);
            assert_eq!(said.as_deref(), expected, "{oldest} to {newest}");
        }
    }

    #[test]
    fn the_ends_of_the_range_are_spoken_and_nothing_beyond() {
        let speaks = Speaks::from_wire(2, 3).unwrap();
        let covered: Vec<u32> = (1..=4).filter(|number| speaks.covers(Version(*number))).collect();
        assert_eq!(covered, [2, 3]);
    }

    #[test]
    fn an_encoded_range_is_checked_as_a_given_one() {
        let encoded = rmp_serde::to_vec_named(&SPEAKS).unwrap();
        assert_eq!(rmp_serde::from_slice::<Speaks>(&encoded).unwrap(), SPEAKS);
        for wrong in [(2_u32, 1_u32), (0, 1)] {
            let encoded = rmp_serde::to_vec_named(&wrong).unwrap();
            assert!(rmp_serde::from_slice::<Speaks>(&encoded).is_err(), "{wrong:?}");
        }
    }
}
