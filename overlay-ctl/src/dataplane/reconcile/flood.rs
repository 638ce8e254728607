//! The receivers of a network's broadcast and multicast, on pages of FLOOD.

use crate::model::Network;
use overlay_common::{FLOOD_MAX, FLOOD_PAGES, FloodEntry, FloodKey};

/// Places in each list of a network.
pub(super) const PLACES: usize = FLOOD_MAX * FLOOD_PAGES as usize;

/// The pages of a network: one at least, whose lists are empty where the network carries no broadcast. `hops` are the
/// indexes of VTEPs in HOPS, `None` for one that has none. What has no place gets no broadcast: the first page says
/// how many, and the programs count each copy that is not made.
pub(super) fn pages(
    network: &Network,
    hops: impl Iterator<Item = Option<u32>>,
    ports: impl Iterator<Item = u32>,
) -> Vec<(FloodKey, FloodEntry)> {
    let vni = network.vni.get();
    let (mut placed, mut placed_ports) = (Vec::new(), Vec::new());
    let mut lost = [0; 2];
    if network.options.multicast {
        let hops: Vec<_> = hops.collect();
        let vteps = hops.len();
        placed.extend(hops.into_iter().flatten().take(PLACES));
        let ports: Vec<_> = ports.collect();
        placed_ports.extend(ports.iter().copied().take(PLACES));
        lost = [vteps - placed.len(), ports.len() - placed_ports.len()];
    }
    let count = placed.len().max(placed_ports.len()).div_ceil(FLOOD_MAX).max(1);
    let page = |number: usize| {
        let mut entry = FloodEntry::EMPTY;
        fill(&mut entry.hops, &mut entry.hop_count, &placed, number);
        fill(&mut entry.ports, &mut entry.port_count, &placed_ports, number);
        if number == 0 {
            [entry.lost_hops, entry.lost_ports] = lost.map(self::number);
        }
        entry
    };
    (0u32..)
        .zip((0..count).map(page))
        .map(|(page, entry)| (FloodKey { vni, page }, entry))
        .collect()
}

/// The one page of these VTEPs and ports, and of `lost` VTEPs that have no index.
pub(super) fn page(
    hops: impl IntoIterator<Item = u32>,
    ports: impl IntoIterator<Item = u32>,
    lost: usize,
) -> FloodEntry {
    let [hops, ports] = [hops.into_iter().collect(), ports.into_iter().collect::<Vec<_>>()];
    let mut entry = FloodEntry::EMPTY;
    fill(&mut entry.hops, &mut entry.hop_count, &hops, 0);
    fill(&mut entry.ports, &mut entry.port_count, &ports, 0);
    let beyond = |list: &[u32]| list.len().saturating_sub(FLOOD_MAX);
    [entry.lost_hops, entry.lost_ports] = [lost + beyond(&hops), beyond(&ports)].map(number);
    entry
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Puts the part of `list` that is on the page of this number into `places`.
fn fill(places: &mut [u32; FLOOD_MAX], count: &mut u32, list: &[u32], number: usize) {
    for (place, index) in places.iter_mut().zip(list.iter().skip(number * FLOOD_MAX)) {
        *place = *index;
        *count += 1;
    }
}
