//! The values behind the golden files of the state folder.

use super::{
    Home, Member, Record, home,
    run_file::{self, Places, RunFile},
    state_files,
};
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

fn run_value() -> RunFile {
    let folder = std::path::Path::new("/sys/fs/bpf/overlay");
    let places = Places::new(folder, "/run/overlay/overlay.sock".as_ref(), 4789).unwrap();
    let namespace = serde_json::from_str(r#"{"boot": "b1", "inode": 4026531840}"#).unwrap();
    RunFile {
        name: "h1".parse().unwrap(),
        places: vec![places],
        made_netns_folder: true,
        namespace,
    }
}

pub(crate) fn run() -> Vec<u8> {
    json(&run_value())
}

pub(crate) fn check_run(bytes: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(run_file::FILE), bytes).unwrap();
    assert_eq!(RunFile::read(dir.path()).unwrap(), Some(run_value()));
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

/// A file that a node keeps is read by each later program, so that there is one of each here. The lock has no content.
#[test]
fn each_file_of_a_state_folder_is_here() {
    let folder = fs::read_dir(crate::golden::folder()).unwrap();
    let here: Vec<String> =
        folder.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    for file in state_files::files().into_iter().filter(|file| *file != home::LOCK) {
        let stem = file.split('.').next().unwrap();
        let is_of = |name: &&String| {
            name.strip_prefix(stem).is_some_and(|rest| rest.starts_with(['.', '-']))
        };
        assert!(here.iter().any(|name| is_of(&name)), "{file}");
    }
}
