//! Forwarding of the host's devices: which of them are opened, what is remembered of that, and what others change.

use std::{collections::BTreeSet, path::Path, time::Duration};

use overlay_ctl::dataplane::{
    gateway::{Rules, Table},
    host::ForwardingKeeper,
    netlink::Netlink,
};

use crate::{
    gateway::rules,
    lab::{Netns, skip},
};

/// Longest time until something is heard that must be.
const BOUND: Duration = Duration::from_secs(10);

/// A host that is no router, with an address on eth7, a route in another table by eth8, and neither on eth9.
fn host() -> Netns {
    let host = Netns::new("host");
    host.sh("echo 0 >/proc/sys/net/ipv4/ip_forward");
    for device in ["eth7", "eth8", "eth9"] {
        host.sh(&format!("ip link add {device} type bridge; ip link set {device} up"));
    }
    host.sh("ip addr add 10.7.0.1/24 dev eth7; ip route add 10.8.0.0/24 dev eth8 table 77");
    host
}

/// The sysctls of these devices.
fn forwarding(host: &Netns, devices: &[&str]) -> String {
    let read = |device: &&str| {
        let value = host.sh(&format!("cat /proc/sys/net/ipv4/conf/{device}/forwarding"));
        format!("{device}={} ", value.trim())
    };
    devices.iter().map(read).collect::<String>().trim().to_owned()
}

async fn keeper(folder: &Path, former: &[&str]) -> ForwardingKeeper {
    let former = former.iter().map(|&device| device.to_owned()).collect();
    ForwardingKeeper::open(Netlink::open().await.unwrap(), folder, &former).unwrap()
}

fn names(keeper: &ForwardingKeeper) -> BTreeSet<&str> {
    keeper.opened().map(|device| &*device.name).collect()
}

/// Looks, guards and opens, as a node does.
async fn keep(keeper: &mut ForwardingKeeper, table: &mut Table) {
    keeper.look().await.unwrap();
    table.doubt();
    let names = names(keeper).into_iter().map(str::to_owned).collect();
    table.sync(&Rules { forwarding: names, ..rules() }).await.unwrap();
    keeper.open_guarded();
    assert_eq!(keeper.trouble().count(), 0);
}

async fn restore(folder: &Path) {
    let netlink = Netlink::open().await.unwrap();
    overlay_ctl::dataplane::host::restore_forwarding(&netlink, folder, &BTreeSet::new())
        .await
        .unwrap();
}

#[test]
fn devices_with_neighbours_are_opened_and_given_back() {
    if skip() {
        return;
    }
    let (host, folder) = (host(), tempfile::tempdir().unwrap());
    let file = folder.path().join("forwarding.json");
    let devices = ["eth7", "eth8", "eth9", "all", "default"];
    let before = forwarding(&host, &devices);
    host.block_on(|| async {
        let (mut keeper, mut table) = (keeper(folder.path(), &[]).await, Table::default());
        keeper.look().await.unwrap();
        assert_eq!(names(&keeper), BTreeSet::from(["eth7", "eth8"]));
        assert_eq!(forwarding(&host, &devices), before, "not before they are guarded");
        keep(&mut keeper, &mut table).await;
        assert_eq!(
            forwarding(&host, &["eth7", "eth8", "eth9", "all"]),
            "eth7=2 eth8=2 eth9=0 all=0"
        );
        let record = std::fs::read_to_string(&file).unwrap();
        assert!(record.contains("\"eth7\"") && record.contains("\"eth8\""), "{record}");
        // It needs no more forwarding, and another one does.
        host.sh("ip route flush table 77; ip addr add 10.9.0.1/24 dev eth9");
        keep(&mut keeper, &mut table).await;
        assert_eq!(forwarding(&host, &["eth7", "eth8", "eth9"]), "eth7=2 eth8=0 eth9=2");
        host.sh("ip link del eth9");
        keep(&mut keeper, &mut table).await;
        assert_eq!(names(&keeper), BTreeSet::from(["eth7"]));
        restore(folder.path()).await;
    });
    assert_eq!(forwarding(&host, &["eth7", "eth8"]), "eth7=0 eth8=0");
    assert!(!file.exists());
}

#[test]
fn what_was_opened_is_known_whatever_is_lost_meanwhile() {
    if skip() {
        return;
    }
    let (host, folder) = (host(), tempfile::tempdir().unwrap());
    host.block_on(|| async {
        let mut table = Table::default();
        keep(&mut keeper(folder.path(), &[]).await, &mut table).await;
        for lose in [
            "nft flush ruleset",
            "ip link set eth7 name lan0",
            "nft flush ruleset; ip link set lan0 name lan1",
            "ip link set lan1 down; ip link set lan1 name lan2; ip link set lan2 up",
        ] {
            host.sh(lose);
            let mut again = keeper(folder.path(), &[]).await;
            keep(&mut again, &mut table).await;
            let guarded = host.sh("nft list set ip overlay opened");
            for device in names(&again) {
                assert!(guarded.contains(&format!("\"{device}\"")), "{lose}: {guarded}");
            }
            assert_eq!(names(&again).len(), 2, "{lose}");
        }
        // Without the state folder, too.
        host.sh("nft flush ruleset");
        let other = tempfile::tempdir().unwrap();
        keep(&mut keeper(other.path(), &[]).await, &mut table).await;
        assert!(host.sh("nft list set ip overlay opened").contains("\"lan2\""));
        restore(other.path()).await;
        assert_eq!(forwarding(&host, &["lan2", "eth8"]), "lan2=0 eth8=0");
    });
}

#[test]
fn the_guard_follows_a_device_that_is_renamed_while_no_node_runs() {
    if skip() {
        return;
    }
    let (host, folder) = (host(), tempfile::tempdir().unwrap());
    host.block_on(|| async {
        keep(&mut keeper(folder.path(), &[]).await, &mut Table::default()).await;
    });
    host.sh("ip link set eth7 name lan0");
    let guarded = host.sh("nft list set ip overlay opened");
    assert!(guarded.contains("\"lan0\"") && !guarded.contains("eth7"), "{guarded}");
}

#[test]
fn what_others_switch_on_is_theirs() {
    if skip() {
        return;
    }
    let (host, folder) = (host(), tempfile::tempdir().unwrap());
    let set = |device: &str, value: u8| {
        host.sh(&format!("echo {value} >/proc/sys/net/ipv4/conf/{device}/forwarding"));
    };
    host.block_on(|| async {
        let (mut keeper, mut table) = (keeper(folder.path(), &[]).await, Table::default());
        set("eth8", 1);
        keep(&mut keeper, &mut table).await;
        assert_eq!(names(&keeper), BTreeSet::from(["eth7"]), "it was open before");
        set("eth7", 1);
        keep(&mut keeper, &mut table).await;
        assert_eq!(names(&keeper), BTreeSet::new(), "an administrator wants it open");
        // Switched off is wanted on again.
        set("eth7", 0);
        set("eth8", 0);
        keep(&mut keeper, &mut table).await;
        assert_eq!(forwarding(&host, &["eth7", "eth8"]), "eth7=2 eth8=2");
        set("all", 1);
        keep(&mut keeper, &mut table).await;
        assert_eq!(names(&keeper), BTreeSet::new(), "the host is a router");
        restore(folder.path()).await;
        assert_eq!(forwarding(&host, &["eth7", "eth8", "all"]), "eth7=1 eth8=1 all=1");
        set("all", 0);
        keep(&mut keeper, &mut table).await;
        assert_eq!(forwarding(&host, &["eth7", "eth8", "all"]), "eth7=2 eth8=2 all=0");
    });
}

#[test]
fn what_an_earlier_version_opened_is_taken_over_once() {
    if skip() {
        return;
    }
    let (host, folder) = (host(), tempfile::tempdir().unwrap());
    host.block_on(|| async {
        host.sh("echo 1 >/proc/sys/net/ipv4/conf/eth7/forwarding");
        let mut table = Table::default();
        keep(&mut keeper(folder.path(), &["eth7", "gone0"]).await, &mut table).await;
        assert_eq!(forwarding(&host, &["eth7"]), "eth7=2");
        // From here on the value tells.
        host.sh("echo 1 >/proc/sys/net/ipv4/conf/eth7/forwarding");
        let mut later = keeper(folder.path(), &["eth7"]).await;
        keep(&mut later, &mut table).await;
        assert_eq!(forwarding(&host, &["eth7"]), "eth7=1");
        assert_eq!(names(&later), BTreeSet::from(["eth8"]));
    });
}

#[test]
fn a_change_of_forwarding_or_of_an_address_is_heard() {
    if skip() {
        return;
    }
    let host = host();
    host.block_on(|| async {
        let mut heard = Netlink::forwarding_changes().unwrap();
        for change in [
            "echo 1 >/proc/sys/net/ipv4/conf/eth7/forwarding",
            "echo 0 >/proc/sys/net/ipv4/conf/eth7/forwarding",
            "echo 1 >/proc/sys/net/ipv4/ip_forward",
            "ip addr add 10.9.0.1/24 dev eth9",
        ] {
            host.sh(change);
            tokio::time::timeout(BOUND, heard.recv()).await.expect(change).unwrap();
        }
    });
}
