//! What an endpoint may send beyond its own MAC and address. Nothing of it lets the endpoint speak as another one.

use super::Invalid;
use overlay_common::{FLAG_ADVERTISING, FLAG_BRIDGING, FLAG_ROUTING};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// One permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Permission {
    /// It may send from IP addresses that no endpoint of its network has.
    Routing,
    /// It may send from MACs that no endpoint of its network has, and gets what is sent to such MACs.
    Bridging,
    /// It may send what configures others: router advertisements, redirects, a DHCP server's messages.
    Advertising,
}

impl Permission {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Routing, Self::Bridging, Self::Advertising];

    /// Its name, as users write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Routing => "routing",
            Self::Bridging => "bridging",
            Self::Advertising => "advertising",
        }
    }

    const fn flag(self) -> u32 {
        match self {
            Self::Routing => FLAG_ROUTING,
            Self::Bridging => FLAG_BRIDGING,
            Self::Advertising => FLAG_ADVERTISING,
        }
    }
}

impl FromStr for Permission {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let found = Self::ALL.into_iter().find(|permission| permission.name() == text);
        found.ok_or_else(|| {
            Invalid::new("permission", text, "is none of routing, bridging, advertising")
        })
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The permissions of an endpoint.
///
/// Rows and log entries of earlier versions hold one permission for all (`forwards`, true or false), and the values that
/// they know are still written in their way. Any other set is a list, which they cannot read: a voter of an earlier version
/// takes the entry for a command that it refuses, and its state differs from then on. So part of the permissions may be
/// given only where all nodes have this version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Stored", from = "Stored")]
pub struct Permissions(u32);

impl Permissions {
    /// No permission.
    pub const NONE: Self = Self(0);
    /// All permissions: what `--forwards` means.
    pub const ALL: Self = Self(FLAG_ROUTING | FLAG_BRIDGING | FLAG_ADVERTISING);

    /// Returns true if the permission is among them.
    #[must_use]
    pub const fn has(self, permission: Permission) -> bool {
        self.0 & permission.flag() != 0
    }

    /// The permissions one by one.
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL.into_iter().filter(move |permission| self.has(*permission))
    }

    /// The flags by which the data path knows them.
    #[must_use]
    pub const fn flags(self) -> u32 {
        self.0
    }

    /// Those that one of both has.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        Self(permissions.into_iter().fold(0, |flags, permission| flags | permission.flag()))
    }
}

/// The permissions as they are stored.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Stored {
    AllOrNone(bool),
    Some(Vec<Permission>),
}

impl From<Stored> for Permissions {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::AllOrNone(false) => Self::NONE,
            Stored::AllOrNone(true) => Self::ALL,
            Stored::Some(permissions) => permissions.into_iter().collect(),
        }
    }
}

impl From<Permissions> for Stored {
    fn from(permissions: Permissions) -> Self {
        match permissions {
            Permissions::NONE => Self::AllOrNone(false),
            Permissions::ALL => Self::AllOrNone(true),
            some => Self::Some(some.iter().collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_sets() -> impl Iterator<Item = Permissions> {
        (0..8_u8).map(|bits| {
            let chosen = Permission::ALL.into_iter().enumerate();
            chosen.filter(|(n, _)| bits >> n & 1 == 1).map(|(_, permission)| permission).collect()
        })
    }

    #[test]
    fn each_set_is_read_as_it_was_written() {
        for set in all_sets() {
            let bytes = rmp_serde::to_vec_named(&set).unwrap();
            assert_eq!(rmp_serde::from_slice::<Permissions>(&bytes).unwrap(), set, "{set:?}");
            assert_eq!(set.iter().collect::<Permissions>(), set);
        }
        assert_eq!(
            all_sets().map(|set| set.flags()).collect::<std::collections::BTreeSet<_>>().len(),
            8
        );
    }

    /// What earlier versions wrote, and read.
    #[test]
    fn none_and_all_are_stored_as_they_always_were() {
        for (set, stored) in [(Permissions::NONE, false), (Permissions::ALL, true)] {
            let bytes = rmp_serde::to_vec_named(&set).unwrap();
            assert_eq!(bytes, rmp_serde::to_vec_named(&stored).unwrap());
        }
        let some: Permissions = [Permission::Bridging].into_iter().collect();
        let bytes = rmp_serde::to_vec_named(&some).unwrap();
        assert_eq!(bytes, rmp_serde::to_vec_named(&["bridging"]).unwrap());
        assert!(rmp_serde::from_slice::<bool>(&bytes).is_err(), "an earlier version refuses it");
    }

    #[test]
    fn a_permission_has_one_name() {
        for permission in Permission::ALL {
            assert_eq!(permission.to_string().parse(), Ok(permission));
        }
        let refused = "trust".parse::<Permission>().unwrap_err().to_string();
        assert_eq!(refused, "permission \"trust\" is none of routing, bridging, advertising");
    }
}
