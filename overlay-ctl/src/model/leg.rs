//! The gateway leg of a namespace.

use super::EndpointAddrs;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{
        MapAccess, SeqAccess, Visitor,
        value::{MapAccessDeserializer, SeqAccessDeserializer},
    },
};
use std::fmt;

/// Identifies a leg on its node. A leg that gets other addresses gets another id, because its device is made anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LegId(u64);

impl LegId {
    /// The id after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The id so many ids after this one.
    #[must_use]
    pub fn after(self, skipped: u64) -> Self {
        Self(self.0.saturating_add(skipped))
    }

    /// The id of a leg that an earlier version made: its IPv4 address, read as a number. Devices of such legs are named
    /// so. Other ids are counted from 1, and stay below these numbers: the smallest is 16,777,218 (1.0.0.2).
    #[must_use]
    pub fn of_addresses(addresses: EndpointAddrs) -> Self {
        Self(addresses.v4.map_or(0, |v4| u32::from(v4).into()))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

/// The leg of a namespace on the gateway bridge of its node.
///
/// Encoded as a map. Earlier versions wrote the bytes of its IPv4 address alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Leg {
    /// Its identity.
    pub id: LegId,
    /// Each is unique on the node.
    pub addresses: EndpointAddrs,
}

impl<'de> Deserialize<'de> for Leg {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Encoded)
    }
}

struct Encoded;

impl<'de> Visitor<'de> for Encoded {
    type Value = Leg;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a leg, or the bytes of its IPv4 address")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Leg, A::Error> {
        #[derive(Deserialize)]
        struct Fields {
            id: LegId,
            addresses: EndpointAddrs,
        }
        let Fields { id, addresses } = Fields::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Leg { id, addresses })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, array: A) -> Result<Leg, A::Error> {
        let addresses = EndpointAddrs::deserialize(SeqAccessDeserializer::new(array))?;
        Ok(Leg { id: LegId::of_addresses(addresses), addresses })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_leg_of_an_earlier_version_keeps_the_number_of_its_device() {
        let address = Ipv4Addr::new(172, 18, 0, 3);
        let former: Option<Leg> =
            rmp_serde::from_slice(&rmp_serde::to_vec_named(&Some(address)).unwrap()).unwrap();
        let former = former.unwrap();
        assert_eq!(former, Leg { id: LegId(0xac12_0003), addresses: address.into() });
        let written = rmp_serde::to_vec_named(&former).unwrap();
        assert_eq!(rmp_serde::from_slice::<Leg>(&written).unwrap(), former);
    }

    #[test]
    fn a_leg_is_read_as_it_was_written() {
        let leg = Leg { id: LegId(57), addresses: Ipv4Addr::new(172, 18, 0, 3).into() };
        let written = rmp_serde::to_vec_named(&leg).unwrap();
        assert_eq!(rmp_serde::from_slice::<Leg>(&written).unwrap(), leg);
    }
}
