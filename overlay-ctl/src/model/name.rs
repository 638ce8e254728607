//! Names of networks, endpoints and nodes. Each is a DNS label or made of several, since the resolver
//! serves endpoints' names.

use super::Invalid;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Longest name, in bytes: that of a DNS label (RFC 1035, section 2.3.4), because names are resolved.
const NAME_MAX: usize = 63;

fn check(field: &'static str, text: &str) -> Result<(), Invalid> {
    let why = if text.is_empty() {
        "is empty".to_owned()
    } else if text.len() > NAME_MAX {
        format!("is longer than {NAME_MAX} bytes")
    } else if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        "has characters other than a-z A-Z 0-9 - _ .".to_owned()
    } else if !text.as_bytes()[0].is_ascii_alphanumeric() {
        "does not begin with a letter or a digit".to_owned()
    } else {
        return Ok(());
    };
    Err(Invalid::new(field, text, why))
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                check($field, text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = Invalid;

            fn try_from(text: String) -> Result<Self, Invalid> {
                check($field, &text)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name!(
    /// Name of a network, unique in the cluster.
    NetworkName,
    "network name"
);
name!(
    /// Name of an endpoint, unique on its network.
    EndpointName,
    "endpoint name"
);
name!(
    /// Name of a node, unique in the cluster.
    NodeName,
    "node name"
);

impl EndpointName {
    /// The name in lower case, as the resolver compares names: DNS ignores case (RFC 4343).
    #[must_use]
    pub fn folded(&self) -> Self {
        Self(self.0.to_ascii_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_like() {
        for good in ["web1", "a", "0", "my_net.example-1", &"x".repeat(63)] {
            assert!(good.parse::<EndpointName>().is_ok(), "{good:?}");
        }
        for bad in ["", "-a", ".a", "a b", "a/b", "ä", "a\n", &"x".repeat(64)] {
            assert!(bad.parse::<EndpointName>().is_err(), "{bad:?}");
        }
    }
}
