//! The values behind the golden files of the state folder.

use super::{Home, Member, Record};
use crate::{
    control::peers::Peer,
    model::{Generation, Subnet},
};
use std::{fs, net::Ipv4Addr};
use uuid::Uuid;

const CLUSTER: Uuid = Uuid::from_u128(0x6f76_6572_6c61_7900_0000_0000_0000_0001);
const INSTANCE: Uuid = Uuid::from_u128(0x6e6f_6465_0000_0000_0000_0000_0000_0003);

fn record(member: bool) -> Record {
    let member = member.then_some(Member {
        cluster: CLUSTER,
        id: 3,
        voter: true,
        epoch: 70_000,
        raft_id: None,
    });
    Record { name: "h1".parse().unwrap(), instance: INSTANCE, member, removed: false }
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file.json");
    crate::durable::write_json(&path, value).unwrap();
    fs::read(path).unwrap()
}

/// A state folder with one file.
fn home(file: &str, bytes: &[u8]) -> (tempfile::TempDir, Result<Home, super::HomeError>) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(file), bytes).unwrap();
    let home = Home::open(dir.path(), &"h1".parse().unwrap());
    (dir, home)
}

pub(crate) fn new_node() -> Vec<u8> {
    json(&record(false))
}

pub(crate) fn check_new_node(bytes: &[u8]) {
    assert_eq!(home("node.json", bytes).1.unwrap().record(), &record(false));
}

pub(crate) fn member() -> Vec<u8> {
    json(&record(true))
}

pub(crate) fn check_member(bytes: &[u8]) {
    assert_eq!(home("node.json", bytes).1.unwrap().record(), &record(true));
}

pub(crate) fn removed() -> Vec<u8> {
    json(&Record { removed: true, ..record(true) })
}

pub(crate) fn check_removed(bytes: &[u8]) {
    let refused = home("node.json", bytes).1.map(drop);
    assert!(matches!(refused, Err(super::HomeError::Removed { .. })), "{refused:?}");
}

fn peers_value() -> Vec<Peer> {
    let peer = |id: u8, voter| Peer {
        id: id.into(),
        listen: ([10, 10, 10, id], 7400).into(),
        voter,
        raft_id: None,
    };
    vec![peer(1, true), peer(2, false)]
}

pub(crate) fn peers() -> Vec<u8> {
    json(&peers_value())
}

pub(crate) fn check_peers(bytes: &[u8]) {
    assert_eq!(home("peers.json", bytes).1.unwrap().peers().unwrap(), peers_value());
}

fn subnet() -> Subnet {
    "172.19.0.0/16".parse().unwrap()
}

pub(crate) fn gateway() -> Vec<u8> {
    json(&subnet())
}

pub(crate) fn check_gateway(bytes: &[u8]) {
    let (dir, home) = home("gateway.json", bytes);
    assert_eq!(Home::gateway(dir.path()).unwrap(), Some(subnet()));
    drop(home);
}

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 10, 10, 1);

pub(crate) fn address() -> Vec<u8> {
    json(&ADDRESS)
}

pub(crate) fn check_address(bytes: &[u8]) {
    let (dir, home) = home("address.json", bytes);
    assert_eq!(Home::address(dir.path()).unwrap(), Some(ADDRESS));
    drop(home);
}

pub(crate) use super::machine::tests::{check_machine, machine};
pub(crate) use crate::dataplane::host::{
    big_tcp::golden::{check_underlay, underlay},
    forwarding_golden::{check_forwarding, forwarding},
    merging::golden::{check_offloads, offloads},
};

pub(crate) fn generation() -> Vec<u8> {
    json(&Generation::FIRST.next(0))
}

pub(crate) fn check_generation(bytes: &[u8]) {
    let (_dir, home) = home("generation.json", bytes);
    assert_eq!(home.unwrap().generation().unwrap(), Generation::FIRST.next(0));
}
