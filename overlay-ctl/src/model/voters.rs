//! How many voters a cluster is to have.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The number of nodes that are to vote: 1, 3 or 5. An even number survives no more failures than the odd number below it.
///
/// So many nodes have a seat: a Raft id, under which they hold the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Voters {
    /// No failure is survived.
    One,
    /// One failure is survived.
    #[default]
    Three,
    /// Two failures are survived.
    Five,
}

impl Voters {
    /// All of them, in ascending order.
    pub const ALL: [Self; 3] = [Self::One, Self::Three, Self::Five];

    /// The number.
    #[must_use]
    pub const fn count(self) -> usize {
        match self {
            Self::One => 1,
            Self::Three => 3,
            Self::Five => 5,
        }
    }

    /// Returns true for the number that every cluster of version 1 has.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A number that no cluster can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a cluster has 1, 3 or 5 voters, not {0}")]
pub struct NoVoters(String);

impl TryFrom<u32> for Voters {
    type Error = NoVoters;

    fn try_from(number: u32) -> Result<Self, NoVoters> {
        let found = Self::ALL.into_iter().find(|voters| voters.count() as u64 == u64::from(number));
        found.ok_or_else(|| NoVoters(number.to_string()))
    }
}

impl TryFrom<u8> for Voters {
    type Error = NoVoters;

    fn try_from(number: u8) -> Result<Self, NoVoters> {
        Self::try_from(u32::from(number))
    }
}

impl From<Voters> for u8 {
    fn from(voters: Voters) -> Self {
        match voters {
            Voters::One => 1,
            Voters::Three => 3,
            Voters::Five => 5,
        }
    }
}

impl From<Voters> for u32 {
    fn from(voters: Voters) -> Self {
        u8::from(voters).into()
    }
}

impl FromStr for Voters {
    type Err = NoVoters;

    fn from_str(text: &str) -> Result<Self, NoVoters> {
        let number = text.parse::<u32>().map_err(|_| NoVoters(text.to_owned()))?;
        Self::try_from(number)
    }
}

impl fmt::Display for Voters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.count().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_1_3_and_5_are_numbers_of_voters() {
        for voters in Voters::ALL {
            assert_eq!(Voters::try_from(u8::from(voters)), Ok(voters));
            assert_eq!(voters.to_string().parse(), Ok(voters));
            assert_eq!(voters.count() % 2, 1);
        }
        for bad in [0, 2, 4, 6, 7, 257, u32::MAX] {
            assert_eq!(Voters::try_from(bad), Err(NoVoters(bad.to_string())), "{bad}");
        }
        let said = "three".parse::<Voters>().unwrap_err().to_string();
        assert_eq!(said, "a cluster has 1, 3 or 5 voters, not three");
    }
}
