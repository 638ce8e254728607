//! The number of a network on the wire.

use super::Invalid;
use overlay_common::{VNI_MAX, VNI_RESERVED};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A VXLAN network identifier (RFC 7348, section 5): 24 bits, neither 0 nor the reserved one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u32", try_from = "u32")]
pub struct Vni(u32);

impl Vni {
    /// The first VNI that is given when none is asked for. Lower ones stay free for networks that are
    /// configured by other means.
    pub const FIRST: Self = Self(4097);

    /// The number, in host byte order.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Vni {
    type Error = Invalid;

    fn try_from(number: u32) -> Result<Self, Invalid> {
        if number == 0 || number > VNI_MAX {
            let why = format!("is not within 1..={}", VNI_MAX - 1);
            return Err(Invalid::new("vni", number.to_string(), why));
        }
        if number == VNI_RESERVED {
            return Err(Invalid::new(
                "vni",
                number.to_string(),
                "is reserved for the node's own use",
            ));
        }
        Ok(Self(number))
    }
}

impl From<Vni> for u32 {
    fn from(vni: Vni) -> Self {
        vni.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        for good in [1, 4097, VNI_MAX - 1] {
            assert_eq!(Vni::try_from(good).unwrap().get(), good);
        }
        for bad in [0, VNI_MAX, VNI_MAX + 1, u32::MAX] {
            assert!(Vni::try_from(bad).is_err(), "{bad}");
        }
    }
}
