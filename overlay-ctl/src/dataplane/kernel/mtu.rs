//! How large a packet may be: what the underlay carries, and what endpoints get of it.

use super::Way;
use overlay_common::VXLAN_OVERHEAD;
use std::{collections::BTreeMap, fmt, net::Ipv4Addr};

/// The smallest packet that IPv4 asks every link to carry (RFC 791, section 3.2).
const ENDPOINT_MIN: u32 = 68;

/// Where the MTU of the underlay is known from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MtuSource {
    /// It is the device's.
    #[default]
    Device,
    /// The route to this VTEP has less, by a metric of its own or by another device.
    Route(Ipv4Addr),
    /// The node was told (`--mtu`).
    Asked,
}

impl fmt::Display for MtuSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device => f.write_str("the device's"),
            Self::Route(vtep) => write!(f, "of the route to {vtep}"),
            Self::Asked => f.write_str("--mtu"),
        }
    }
}

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mtus {
    /// Bytes that every way on the underlay takes.
    pub underlay: u32,
    /// Where that is known from.
    pub source: MtuSource,
    /// Bytes: the underlay device's own.
    pub device: u32,
    /// Bytes: what an endpoint gets whose network sets none.
    pub endpoint: u32,
}

impl Mtus {
    /// `asked` stands in the place of all that was found, but can't make a device take more than it does.
    pub fn new(device: u32, asked: Option<u16>, ways: &BTreeMap<Ipv4Addr, Way>) -> Self {
        let (underlay, source) = match asked.map(u32::from) {
            Some(asked) if asked < device => (asked, MtuSource::Asked),
            Some(_) => (device, MtuSource::Device),
            None => {
                // The first of those with the same, so that it is the same in the next pass.
                let least = ways.iter().min_by_key(|(vtep, way)| (way.mtu, **vtep));
                match least {
                    Some((vtep, way)) if way.mtu < device => (way.mtu, MtuSource::Route(*vtep)),
                    _ => (device, MtuSource::Device),
                }
            }
        };
        let endpoint = underlay.saturating_sub(u32::from(VXLAN_OVERHEAD)).max(ENDPOINT_MIN);
        Self { underlay, source, device, endpoint }
    }
}

/// As HOPS holds it: no IPv4 packet is longer.
pub fn packet_mtu(mtu: u32) -> u16 {
    u16::try_from(mtu).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mtus(device: u32, asked: Option<u16>, ways: &[(u8, u32)]) -> (u32, MtuSource, u32) {
        let way = |(last, mtu): &(u8, u32)| {
            (Ipv4Addr::new(10, 0, 0, *last), Way { mtu: *mtu, hop: None })
        };
        let mtus = Mtus::new(device, asked, &ways.iter().map(way).collect());
        assert_eq!(mtus.device, device);
        (mtus.underlay, mtus.source, mtus.endpoint)
    }

    #[test]
    fn the_smallest_way_counts_unless_the_node_was_told() {
        let route = |last| MtuSource::Route([10, 0, 0, last].into());
        assert_eq!(mtus(1500, None, &[]), (1500, MtuSource::Device, 1450));
        assert_eq!(mtus(1500, None, &[(2, 1500)]), (1500, MtuSource::Device, 1450));
        assert_eq!(mtus(9000, None, &[(2, 9000), (3, 1400), (4, 1400)]), (1400, route(3), 1350));
        assert_eq!(mtus(1500, Some(1400), &[(2, 1300)]), (1400, MtuSource::Asked, 1350));
        assert_eq!(mtus(1300, Some(1400), &[]), (1300, MtuSource::Device, 1250), "it shrank");
        assert_eq!(mtus(100, None, &[]).2, 68, "no IPv4 device takes less");
        assert_eq!(packet_mtu(65_536), 65_535, "loopback's");
    }
}
