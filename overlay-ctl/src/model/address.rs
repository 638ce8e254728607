//! The addresses of a VTEP and of an endpoint, of either family. ARCHITECTURE.md lists what still knows IPv4 alone.

use overlay_common::Ip16;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, SeqAccess, Visitor},
    ser::SerializeTuple as _,
};
use std::{
    fmt,
    net::{AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// The bytes of an IPv4 address.
const V4: usize = 4;
/// The bytes of an IPv6 address.
const V6: usize = 16;

/// The underlay address of a VTEP, of either family.
///
/// Encoded as an array of its bytes, 4 or 16 of them, in network order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vtep(IpAddr);

impl Vtep {
    /// The address.
    #[must_use]
    pub fn ip(self) -> IpAddr {
        self.0
    }

    /// The address as the maps hold it.
    #[must_use]
    pub fn ip16(self) -> Ip16 {
        ip16(self.0)
    }
}

impl<A: Into<IpAddr>> From<A> for Vtep {
    fn from(address: A) -> Self {
        Self(address.into())
    }
}

impl fmt::Display for Vtep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Vtep {
    type Err = AddrParseError;

    fn from_str(text: &str) -> Result<Self, AddrParseError> {
        text.parse().map(Self)
    }
}

impl Serialize for Vtep {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        EndpointAddrs::from(self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Vtep {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match EndpointAddrs::deserialize(deserializer)? {
            EndpointAddrs { v4: Some(v4), v6: None } => Ok(v4.into()),
            EndpointAddrs { v4: None, v6: Some(v6) } => Ok(v6.into()),
            EndpointAddrs { .. } => Err(D::Error::custom("a VTEP has one address")),
        }
    }
}

/// The addresses of an endpoint or of a gateway leg: at most one of each family. In a request: the addresses that are
/// asked for.
///
/// Encoded as an array of the bytes of the IPv4 address, then those of the IPv6 address, in network order; nil where
/// there is neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointAddrs {
    /// The IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// The IPv6 address.
    pub v6: Option<Ipv6Addr>,
}

impl EndpointAddrs {
    /// Each address; IPv4 comes first.
    pub fn iter(self) -> impl Iterator<Item = IpAddr> {
        self.v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6))
    }
}

impl<A: Into<IpAddr>> From<A> for EndpointAddrs {
    fn from(address: A) -> Self {
        match address.into() {
            IpAddr::V4(v4) => Self { v4: Some(v4), v6: None },
            IpAddr::V6(v6) => Self { v4: None, v6: Some(v6) },
        }
    }
}

impl fmt::Display for EndpointAddrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, address) in self.iter().enumerate() {
            if nth > 0 {
                f.write_str(", ")?;
            }
            address.fmt(f)?;
        }
        Ok(())
    }
}

impl Serialize for EndpointAddrs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let v4 = self.v4.map(|v4| v4.octets());
        let v6 = self.v6.map(|v6| v6.octets());
        let bytes = [v4.as_ref().map_or(&[][..], |v4| v4), v6.as_ref().map_or(&[][..], |v6| v6)];
        let length = bytes.iter().map(|bytes| bytes.len()).sum();
        if length == 0 {
            return serializer.serialize_none();
        }
        let mut array = serializer.serialize_tuple(length)?;
        for byte in bytes.into_iter().flatten() {
            array.serialize_element(byte)?;
        }
        array.end()
    }
}

impl<'de> Deserialize<'de> for EndpointAddrs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Bytes)
    }
}

struct Bytes;

impl<'de> Visitor<'de> for Bytes {
    type Value = EndpointAddrs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the bytes of an IPv4 address, of an IPv6 address, or of both: 4, 16 or 20")
    }

    fn visit_unit<E: Error>(self) -> Result<EndpointAddrs, E> {
        Ok(EndpointAddrs::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<EndpointAddrs, A::Error> {
        let mut bytes = Vec::with_capacity(V4 + V6);
        while let Some(byte) = array.next_element::<u8>()? {
            if bytes.len() == V4 + V6 {
                return Err(A::Error::invalid_length(bytes.len() + 1, &self));
            }
            bytes.push(byte);
        }
        let (v4, v6) = bytes.split_at(if bytes.len() == V6 { 0 } else { V4.min(bytes.len()) });
        let both = match (<[u8; V4]>::try_from(v4), <[u8; V6]>::try_from(v6)) {
            (Ok(v4), Ok(v6)) => (Some(v4), Some(v6)),
            (Ok(v4), Err(_)) if v6.is_empty() => (Some(v4), None),
            (Err(_), Ok(v6)) => (None, Some(v6)),
            _ => return Err(A::Error::invalid_length(bytes.len(), &self)),
        };
        Ok(EndpointAddrs { v4: both.0.map(Ipv4Addr::from), v6: both.1.map(Ipv6Addr::from) })
    }
}

/// An address as the maps hold it.
#[must_use]
pub fn ip16(address: IpAddr) -> Ip16 {
    match address {
        IpAddr::V4(v4) => overlay_common::ip16_from_v4(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const V6_ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0xff);

    fn read<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Option<T> {
        rmp_serde::from_slice(&rmp_serde::to_vec(bytes).unwrap()).ok()
    }

    #[test]
    fn each_combination_is_read_as_it_was_written() {
        for v4 in [None, Some(V4_ADDRESS)] {
            for v6 in [None, Some(V6_ADDRESS)] {
                let addresses = EndpointAddrs { v4, v6 };
                let bytes = rmp_serde::to_vec(&addresses).unwrap();
                assert_eq!(rmp_serde::from_slice::<EndpointAddrs>(&bytes).unwrap(), addresses);
                assert!(
                    addresses.iter().eq(v4.map(IpAddr::V4).into_iter().chain(v6.map(IpAddr::V6)))
                );
            }
        }
        for vtep in [Vtep::from(V4_ADDRESS), Vtep::from(V6_ADDRESS)] {
            let bytes = rmp_serde::to_vec(&vtep).unwrap();
            assert_eq!(rmp_serde::from_slice::<Vtep>(&bytes).unwrap(), vtep);
        }
    }

    /// Earlier versions had a type for IPv4 alone.
    #[test]
    fn an_ipv4_address_is_encoded_as_ever() {
        let former = rmp_serde::to_vec(&Some(V4_ADDRESS)).unwrap();
        assert_eq!(rmp_serde::to_vec(&EndpointAddrs::from(V4_ADDRESS)).unwrap(), former);
        assert_eq!(rmp_serde::to_vec(&Vtep::from(V4_ADDRESS)).unwrap(), former);
        let none = rmp_serde::to_vec(&None::<Ipv4Addr>).unwrap();
        assert_eq!(rmp_serde::to_vec(&EndpointAddrs::default()).unwrap(), none);
    }

    #[test]
    fn another_number_of_bytes_is_refused() {
        for length in 0..40 {
            let bytes = vec![1; length];
            let is_whole = [V4, V6, V4 + V6].contains(&length);
            assert_eq!(read::<EndpointAddrs>(&bytes).is_some(), is_whole, "{length}");
            let is_one = [V4, V6].contains(&length);
            assert_eq!(read::<Vtep>(&bytes).is_some(), is_one, "{length}");
        }
        assert!(rmp_serde::from_slice::<Vtep>(&rmp_serde::to_vec(&()).unwrap()).is_err());
    }

    #[test]
    fn people_and_maps_read_them() {
        let both = EndpointAddrs { v4: Some(V4_ADDRESS), v6: Some(V6_ADDRESS) };
        assert_eq!(both.to_string(), "10.0.0.1, fd00::ff");
        assert_eq!(EndpointAddrs::from(V4_ADDRESS).to_string(), "10.0.0.1");
        assert_eq!(both.iter().collect::<Vec<_>>(), [IpAddr::V4(V4_ADDRESS), V6_ADDRESS.into()]);
        assert_eq!(
            Vtep::from(V4_ADDRESS).ip16(),
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1]
        );
        assert_eq!(Vtep::from(V6_ADDRESS).ip16(), V6_ADDRESS.octets());
    }
}
