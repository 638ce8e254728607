//! The size of packets: what the underlay carries, and what is left of that for endpoints.

use super::Way;
use crate::model::{ENDPOINT_MTU_MIN, Encapsulation, Vtep};
use std::{collections::BTreeMap, fmt};

/// The source of the underlay's MTU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MtuSource {
    /// The underlay device.
    #[default]
    Device,
    /// The route to this VTEP, which has a smaller MTU, by a metric of its own or by its device.
    Route(Vtep),
    /// The operator (`--mtu`).
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

/// The MTUs of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mtus {
    /// The size that every way on the underlay takes, in bytes.
    pub underlay: u32,
    /// The source of that size.
    pub source: MtuSource,
    /// The underlay device's own MTU, in bytes.
    pub device: u32,
    /// The MTU of an endpoint whose network sets none, in bytes.
    pub endpoint: u32,
    /// The MTU of the way to the outside world, which the gateway bridge and the legs get, in bytes.
    pub outward: u32,
}

impl Mtus {
    /// The MTUs that follow from the MTU of the underlay device and from the ways. `asked` replaces what was found, but
    /// cannot make a device take more than its own MTU.
    pub fn new(device: u32, asked: Option<u16>, ways: &BTreeMap<Vtep, Way>) -> Self {
        let (underlay, source) = match asked.map(u32::from) {
            Some(asked) if asked < device => (asked, MtuSource::Asked),
            Some(_) => (device, MtuSource::Device),
            None => {
                // Of several with the same MTU the first, so that the next pass finds the same one.
                let least = ways.iter().min_by_key(|(vtep, way)| (way.mtu, **vtep));
                match least {
                    Some((vtep, way)) if way.mtu < device => (way.mtu, MtuSource::Route(*vtep)),
                    _ => (device, MtuSource::Device),
                }
            }
        };
        // Of the ways with the largest overhead, so that a packet of an endpoint fits on each way.
        let carried = ways.values().map(|way| way.encapsulation.overhead());
        let overhead = carried.max().unwrap_or(Encapsulation::VxlanIpv4.overhead());
        let endpoint = underlay.saturating_sub(overhead).max(ENDPOINT_MTU_MIN);
        Self { underlay, source, device, endpoint, outward: device }
    }

    /// These, where the host's own way to the outside takes packets of at most so many bytes. A leg with a larger MTU
    /// would let others send what does not get through, where the host itself does not: the MTU is what a TCP announces.
    #[must_use]
    pub fn with_outward(self, takes: Option<u32>) -> Self {
        let takes = takes.map_or(self.device, |takes| takes.max(ENDPOINT_MTU_MIN));
        Self { outward: takes.min(self.device), ..self }
    }
}

/// An MTU as HOPS holds it, where 65,535 bytes are enough: no IPv4 packet is longer.
pub fn packet_mtu(mtu: u32) -> u16 {
    u16::try_from(mtu).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::{super::LinkLayer, *};

    fn mtus(device: u32, asked: Option<u16>, ways: &[(u8, u32)]) -> (u32, MtuSource, u32) {
        let way = |(last, mtu): &(u8, u32)| {
            (
                Vtep::from([10, 0, 0, *last]),
                Way {
                    mtu: *mtu,
                    encapsulation: Encapsulation::VxlanIpv4,
                    device: 1,
                    link_layer: LinkLayer::Ethernet,
                    hop: None,
                },
            )
        };
        let mtus = Mtus::new(device, asked, &ways.iter().map(way).collect());
        assert_eq!(mtus.device, device);
        (mtus.underlay, mtus.source, mtus.endpoint)
    }

    #[test]
    fn legs_take_what_the_host_s_own_way_out_takes() {
        let outward = |takes| Mtus::new(9000, None, &BTreeMap::new()).with_outward(takes).outward;
        assert_eq!(outward(None), 9000, "no way out");
        assert_eq!(outward(Some(1500)), 1500);
        assert_eq!(outward(Some(65_536)), 9000, "not more than the underlay device");
        assert_eq!(outward(Some(1)), ENDPOINT_MTU_MIN);
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
