//! Endpoints that exist only as entries of the maps. One machine cannot have a cluster's million endpoints,
//! but it can have maps that are as full. A packet meets nothing but the maps.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use aya::{
    Pod,
    maps::{HashMap, Map, MapData},
};
use overlay_common::{FdbEntry, FdbKey, Ip16, MacBytes, NeighEntry, NeighKey};
use overlay_lab::Host;

/// The first address of the endpoints that exist only in the maps.
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 0);

/// Fills a host's maps until they hold `endpoints` endpoints. The new ones are all on the other host, in the
/// network of the endpoint that exists there.
pub(in crate::bench) fn fill(host: &Host, endpoints: usize) -> Result<()> {
    let mut fdb: HashMap<MapData, FdbKey, FdbEntry> = open(host, "FDB")?;
    let mut neigh: HashMap<MapData, NeighKey, NeighEntry> = open(host, "NEIGH")?;
    let present: Vec<(FdbKey, FdbEntry)> = fdb.iter().collect::<Result<_, _>>()?;
    let is_remote = |(_, entry): &&(FdbKey, FdbEntry)| !entry.is_here();
    let &(key, mut entry) =
        present.iter().find(is_remote).context("no endpoint on the other host")?;
    for number in 0..endpoints.saturating_sub(present.len()) {
        let address = Ipv4Addr::from_bits(FIRST.to_bits() + u32::try_from(number)?);
        let (mac, ip) = (mac(address), mapped(address));
        entry.ip = ip;
        fdb.insert(FdbKey { mac, ..key }, entry, 0)?;
        neigh.insert(NeighKey { ip, vni: key.vni }, NeighEntry { mac, pad: [0; 2] }, 0)?;
    }
    Ok(())
}

fn open<K: Pod, V: Pod>(host: &Host, name: &str) -> Result<HashMap<MapData, K, V>> {
    let pin = host.map_pin(name)?;
    let map = MapData::from_pin(&pin).with_context(|| format!("cannot open {}", pin.display()))?;
    HashMap::try_from(Map::HashMap(map)).with_context(|| format!("{name} is another kind of map"))
}

/// The MAC of an endpoint with this address, as the controller makes it.
fn mac(address: Ipv4Addr) -> MacBytes {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

fn mapped(address: Ipv4Addr) -> Ip16 {
    address.to_ipv6_mapped().octets()
}
