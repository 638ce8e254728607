//! A list of receivers, as the tests write it, and the pages of FLOOD that hold it.

use overlay_common::{FLOOD_MAX, FloodEntry};

/// A network's receivers of broadcast and multicast.
#[derive(Clone, Debug)]
pub(crate) struct Flood {
    /// VTEPs, by their indexes in HOPS.
    pub(crate) hops: Vec<u32>,
    pub(crate) ports: Vec<u32>,
    /// The numbers of VTEPs and of ports that have no place.
    pub(crate) lost: [u32; 2],
}

/// A network's receivers, for all of which there is a place.
pub(crate) fn flood(hops: &[u32], ports: &[u32]) -> Flood {
    Flood { hops: hops.to_vec(), ports: ports.to_vec(), lost: [0; 2] }
}

impl Flood {
    /// The pages: as many as the longer list needs, and one at least.
    pub(crate) fn pages(&self) -> Vec<FloodEntry> {
        let count = self.hops.len().max(self.ports.len()).div_ceil(FLOOD_MAX).max(1);
        let page = |list: &[u32], page| {
            let part = list.chunks(FLOOD_MAX).nth(page).unwrap_or_default();
            let mut places = [0; FLOOD_MAX];
            places[..part.len()].copy_from_slice(part);
            (part.len() as u32, places)
        };
        let pages = (0..count).map(|number| {
            let (hop_count, hops) = page(&self.hops, number);
            let (port_count, ports) = page(&self.ports, number);
            let [lost_hops, lost_ports] = if number == 0 { self.lost } else { [0; 2] };
            FloodEntry { hop_count, port_count, lost_hops, lost_ports, hops, ports }
        });
        pages.collect()
    }
}
