//! What must hold after a run, when all is healed: every node says the same, and has it in its kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{HashMap, Map, MapData};
use overlay_common::{FdbEntry, FdbKey, IP16_NONE, NeighEntry, NeighKey, ip16_from_v4};
use overlay_lab::{Host, eventually, linear::Call, number, rows, text};
use serde_json::Value;

use super::{
    book::{Book, Kind, Record},
    name::Operation,
    world::{CHURN, World},
};

const BOUND: Duration = Duration::from_secs(60);

/// What the cluster says at the end.
pub(super) struct End {
    networks: Value,
    endpoints: Value,
    sent: u64,
    answered: u64,
}

/// An endpoint as a node's kernel must have it: its address, the VTEP where it is elsewhere, and its id.
type Place = ([u8; 16], [u8; 16], u64);

/// Waits until all nodes say the same, and their kernels hold it.
pub(super) fn settle(world: &World, book: &Book) -> Result<End> {
    eventually("every node is at the same revision, in its kernel too", BOUND, || {
        let mut seen = BTreeSet::new();
        for host in &world.hosts {
            let status = host.overlay_json(&["status"])?;
            let revisions = [number(&status, "revision"), number(&status, "programmed_revision")];
            seen.extend(revisions);
            ensure!(seen.len() == 1, "{} is at {revisions:?}, others at {seen:?}", host.name);
            let troubles = &status["troubles"];
            ensure!(rows(troubles).is_empty(), "{}: {troubles}", host.name);
        }
        Ok(())
    })?;
    world.all_vote()?;
    let end = eventually("every node lists the same", BOUND, || {
        let sent = book.now();
        let mut lists = BTreeMap::new();
        for host in &world.hosts {
            let networks = host.overlay_json(&["network", "ls"])?;
            let endpoints = host.overlay_json(&["endpoint", "ls"])?;
            for endpoint in rows(&endpoints) {
                ensure!(text(endpoint, "state") == "up", "{}: {endpoint}", host.name);
            }
            lists.insert((networks.to_string(), endpoints.to_string()), (networks, endpoints));
        }
        let found = lists.len();
        let (_, (networks, endpoints)) = lists.pop_first().context("a list")?;
        ensure!(found == 1, "there are {found} lists, one of them {networks} {endpoints}");
        Ok(End { networks, endpoints, sent, answered: book.now() })
    })?;
    for host in &world.hosts {
        eventually(&format!("{}'s kernel holds what is listed", host.name), BOUND, || {
            end.is_held_by(host, world)
        })?;
    }
    Ok(end)
}

impl End {
    /// The rows of all endpoints, each with the VNI of its network.
    fn endpoints(&self) -> Result<Vec<(u32, &Value)>> {
        let networks = rows(&self.networks).iter();
        let vnis: BTreeMap<&str, u64> =
            networks.map(|row| (text(row, "name"), number(row, "vni"))).collect();
        let of = |row| -> Result<(u32, &Value)> {
            let network = text(row, "network");
            let vni = vnis.get(network).with_context(|| format!("no network {network}"))?;
            Ok((u32::try_from(*vni)?, row))
        };
        rows(&self.endpoints).iter().map(of).collect()
    }

    /// Fails unless the kernel has the endpoints of the host's networks, and no others.
    fn is_held_by(&self, host: &Host, world: &World) -> Result<()> {
        let endpoints = self.endpoints()?;
        let is_here = |row: &Value| text(row, "node") == host.name;
        let here: BTreeSet<u32> =
            endpoints.iter().filter(|(_, row)| is_here(row)).map(|(vni, _)| *vni).collect();
        let (mut places, mut macs) = (BTreeMap::new(), BTreeMap::new());
        for (vni, row) in endpoints.iter().filter(|(vni, _)| here.contains(vni)) {
            let address = crate::support::address(row)?.octets();
            let (ip, mac) = (ip16_from_v4(address), mac(text(row, "mac"))?);
            let vtep = world.hosts[world.number(text(row, "node"))?].address.octets();
            let vtep = if is_here(row) { IP16_NONE } else { ip16_from_v4(vtep) };
            places.insert((*vni, mac), (ip, vtep, number(row, "id")));
            macs.insert((*vni, ip), mac);
        }
        same("FDB", &fdb(host)?, &places)?;
        same("NEIGH", &neighbours(host)?, &macs)
    }

    /// What the lists say of a name, as the last call of its history.
    pub(super) fn last_look(&self, record: &Record, world: &World) -> Call<Operation> {
        let list = match record.kind {
            Kind::Network => &self.networks,
            Kind::Endpoint => &self.endpoints,
        };
        let is_its = |row: &&Value| {
            let is_of_kind = record.kind == Kind::Network || text(row, "network") == CHURN;
            is_of_kind && text(row, "name") == record.name
        };
        let operation = rows(list).iter().find(is_its).map_or(Operation::Absent, |row| {
            let host = world.number(text(row, "node")).ok();
            Operation::Shown { id: number(row, "id"), host }
        });
        Call { sent: self.sent, until: self.answered, is_sure: true, operation }
    }
}

fn same<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
    map: &str,
    found: &BTreeMap<K, V>,
    wanted: &BTreeMap<K, V>,
) -> Result<()> {
    let keys: BTreeSet<&K> = found.keys().chain(wanted.keys()).collect();
    let differ: Vec<_> = keys
        .into_iter()
        .filter(|key| found.get(key) != wanted.get(key))
        .map(|key| format!("{key:?}: has {:?}, should have {:?}", found.get(key), wanted.get(key)))
        .collect();
    ensure!(differ.is_empty(), "{map}: {differ:#?}");
    Ok(())
}

fn fdb(host: &Host) -> Result<BTreeMap<(u32, [u8; 6]), Place>> {
    let map = Map::HashMap(MapData::from_pin(host.map_pin("FDB")?)?);
    let map: HashMap<_, FdbKey, FdbEntry> = map.try_into()?;
    let entry = |entry: std::result::Result<(FdbKey, FdbEntry), _>| -> Result<_> {
        let (key, entry) = entry?;
        ensure!(entry.is_somewhere(), "FDB of {}: {key:?} is nowhere", host.name);
        Ok(((key.vni, key.mac), (entry.ip, entry.vtep, entry.endpoint)))
    };
    map.iter().map(entry).collect()
}

/// MACs by VNI and address.
type Neighbours = BTreeMap<(u32, [u8; 16]), [u8; 6]>;

fn neighbours(host: &Host) -> Result<Neighbours> {
    let map = Map::HashMap(MapData::from_pin(host.map_pin("NEIGH")?)?);
    let map: HashMap<_, NeighKey, NeighEntry> = map.try_into()?;
    let entry = |entry: std::result::Result<(NeighKey, NeighEntry), _>| -> Result<_> {
        let (key, entry) = entry?;
        Ok(((key.vni, key.ip), entry.mac))
    };
    map.iter().map(entry).collect()
}

fn mac(text: &str) -> Result<[u8; 6]> {
    let bytes: Result<Vec<u8>, _> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect();
    let bytes = bytes.with_context(|| format!("{text} is no MAC"))?;
    bytes.try_into().map_err(|_| anyhow::anyhow!("{text} is no MAC"))
}
