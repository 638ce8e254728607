//! The address that takes the place of the node's own.

use std::net::Ipv4Addr;

use overlay_ctl::dataplane::netlink::{Netlink, UnderlayChoice, UnderlayError};

use super::pair_of_hosts;
use crate::lab::skip;

#[test]
fn an_address_that_was_not_asked_for_is_followed() {
    if skip() {
        return;
    }
    let (host, _peer) = pair_of_hosts();
    // As Docker's bridge: never the underlay by a guess.
    host.sh("ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0");
    host.sh("ip link set docker0 up; ip link add eth8 type veth peer name eth9");
    host.sh("ip addr add 10.0.8.1/24 dev eth8; ip link set eth8 up; ip link set eth9 up");
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        let by_name = UnderlayChoice::Device("eth7".to_owned());
        let before = netlink.underlay(&by_name).await.unwrap();
        let after = async |choice: &UnderlayChoice| {
            let links = netlink.link_list().await.unwrap();
            let found = netlink.underlay_after(&links, choice, &before).await;
            found.map(|found| found.map(|now| (now.name, now.address)))
        };
        let on = |name: &str, ip: [u8; 4]| Some((name.to_owned(), Ipv4Addr::from(ip)));
        let auto = UnderlayChoice::Auto;
        let is_none =
            |found| matches!(found, Err(UnderlayError::NoAddress(name)) if name == "eth7");

        assert!(netlink.has_address([10, 0, 0, 1].into()).await.unwrap());
        host.sh("ip addr flush dev eth7");
        assert!(!netlink.has_address([10, 0, 0, 1].into()).await.unwrap());
        assert!(is_none(after(&by_name).await));
        assert!(is_none(after(&auto).await), "no other device without a default route");
        host.sh("ip addr add 169.254.7.7/16 dev eth7");
        assert!(is_none(after(&by_name).await), "a device gives itself such a one meanwhile");
        host.sh("ip addr flush dev eth7; ip route add default via 10.0.8.9");
        assert!(is_none(after(&by_name).await), "another device was not asked for");
        assert_eq!(after(&auto).await.unwrap(), on("eth8", [10, 0, 8, 1]), "the default route");
        host.sh("ip addr add 10.0.0.77/24 dev eth7");
        for choice in [&by_name, &auto] {
            assert_eq!(after(choice).await.unwrap(), on("eth7", [10, 0, 0, 77]), "{choice:?}");
        }
        let named = UnderlayChoice::Address([10, 0, 0, 1].into());
        assert_eq!(after(&named).await.unwrap(), None, "that address was asked for");
    });
}
