//! Which of the kernel's events are told.

use overlay_ctl::dataplane::netlink::{Change, Interest, Netlink, UnderlayChoice};

use super::{BOUND, pair_of_hosts};
use crate::lab::{Netns, skip};

/// So long nothing comes that was caused before.
const QUIET: std::time::Duration = std::time::Duration::from_millis(300);

#[test]
fn changes_of_others_are_not_told() {
    if skip() {
        return;
    }
    let (host, _peer) = pair_of_hosts();
    host.sh("ip link add foreign0 type bridge; ip link set foreign0 up");
    host.sh("ip addr add 10.99.0.1/24 dev foreign0");
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        let underlay = netlink.underlay(&UnderlayChoice::Device("eth7".into())).await.unwrap();
        let interest = Interest::default();
        let vteps = [[10, 0, 0, 2].into(), [192, 0, 2, 7].into()].into();
        let mut changes = netlink.changes(interest.clone()).unwrap();
        netlink.ways(&vteps, (&underlay, 4789), &interest).await;
        // What the look itself caused, and what came before it ended.
        let marker = "ip rule add pref 80 to 192.0.2.7 lookup main";
        host.sh(marker);
        super::tell(&mut changes, Change::Way).await;
        settled(&mut changes).await;
        for foreign in [
            "ip link add foreign1 type veth peer name foreign2; ip link set foreign1 master foreign0 up",
            "bridge fdb add 02:00:00:00:00:07 dev foreign1 master",
            "ip neigh add 10.99.0.7 lladdr 02:00:00:00:00:07 dev foreign0",
            "ip neigh add 10.0.0.77 lladdr 02:00:00:00:00:77 dev eth7",
            "ip route add 198.51.100.0/24 dev foreign0; ip addr add 10.98.0.1/24 dev foreign0",
            "ip rule add pref 90 to 198.51.100.7 lookup main; ip rule add pref 91 fwmark 7 lookup main",
            "tc qdisc add dev foreign0 root handle 1: htb; tc class add dev foreign0 parent 1: classid 1:1 htb rate 1mbit",
            "tc qdisc add dev eth7 clsact; tc qdisc del dev eth7 clsact",
            "ip link del foreign1",
        ] {
            host.sh(foreign);
        }
        // Events are read in their order, and this one is of the kind that is handed on last.
        host.sh("ip route add 192.0.2.0/24 via 10.0.0.2");
        let first = tokio::time::timeout(BOUND, changes.recv()).await.expect("the route counts");
        assert_eq!(first, Some(Change::Way), "and nothing before it");
        let ours = [
            (Change::Way, "ip neigh replace 10.0.0.2 lladdr 02:00:00:00:00:02 dev eth7"),
            (Change::Way, "ip rule add pref 92 to 192.0.2.7 lookup main"),
            (Change::Way, "ip rule del pref 92"),
            (Change::Link, "ip link set eth7 mtu 1400"),
            (Change::Link, "ip addr add 10.0.0.201/24 dev eth7"),
        ];
        for (change, command) in ours {
            host.sh(command);
            super::tell(&mut changes, change).await;
        }
        host.sh(&format!("ip link add ovk1 index 777 group {GROUP} type veth peer name foreign3"));
        super::tell(&mut changes, Change::Device(777)).await;
        host.sh("ip link set ovk1 name foreign4");
        super::tell(&mut changes, Change::Any).await;
        let new = Netns::new("new");
        super::tell(&mut changes, Change::Namespace(new.path())).await;
    });
}

/// The link group of the overlay's devices.
const GROUP: u32 = u32::from_be_bytes(*b"ovly");

/// Waits until nothing comes any more.
async fn settled(changes: &mut tokio::sync::mpsc::Receiver<Change>) {
    while tokio::time::timeout(QUIET, changes.recv()).await.is_ok() {}
}
