//! The underlay that is found or chosen, and the next hops on it.

use std::net::Ipv4Addr;

use overlay_ctl::dataplane::netlink::{Netlink, UnderlayChoice, UnderlayError};

use super::{MAC_OF_ETH7, hop, mac, pair_of_hosts, resolved};
use crate::lab::skip;

#[test]
fn the_next_hop_on_the_link_is_the_vtep_and_is_kept_resolved() {
    if skip() {
        return;
    }
    let (host, peer) = pair_of_hosts();
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        let underlay = netlink.underlay(&UnderlayChoice::Auto).await.unwrap();
        let first = hop(&netlink, [10, 0, 0, 2], &underlay).await;
        assert_eq!(first, None, "nobody asked yet");
        let found = resolved(&netlink, &underlay, [10, 0, 0, 2]).await;
        assert_eq!(found, mac(&peer.sh(MAC_OF_ETH7)));
        let next = hop(&netlink, [10, 0, 0, 2], &underlay).await.unwrap();
        assert_eq!(next.source_mac, mac(&host.sh(MAC_OF_ETH7)));
        assert!(host.sh("ip neigh show 10.0.0.2").contains("managed"));

        for absent in [[10, 0, 0, 1], [192, 0, 2, 1]] {
            let unresolved = hop(&netlink, absent, &underlay).await;
            assert_eq!(unresolved, None, "{absent:?} is ourselves or has no route");
        }
        host.sh("ip neigh add 10.0.0.5 lladdr 02:00:00:00:00:05 dev eth7 nud permanent");
        assert_eq!(resolved(&netlink, &underlay, [10, 0, 0, 5]).await, [2, 0, 0, 0, 0, 5]);
        assert!(host.sh("ip neigh show 10.0.0.5").contains("PERMANENT"), "left as it was");
    });
}

#[test]
fn the_next_hop_to_another_subnet_is_the_router() {
    if skip() {
        return;
    }
    let (host, router) = pair_of_hosts();
    host.sh("ip route add default via 10.0.0.2");
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        let underlay = netlink.underlay(&UnderlayChoice::Auto).await.unwrap();
        let hop = resolved(&netlink, &underlay, [192, 168, 50, 101]).await;
        assert_eq!(hop, mac(&router.sh(MAC_OF_ETH7)));
    });
}

#[test]
fn an_underlay_that_sends_nothing_has_the_mtu_of_the_way_out() {
    if skip() {
        return;
    }
    let (host, _peer) = pair_of_hosts();
    host.sh("ip link set eth7 mtu 1400 && ip addr add 10.7.7.7/32 dev lo");
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        let choice = UnderlayChoice::Address([10, 7, 7, 7].into());
        let underlay = netlink.underlay(&choice).await.unwrap();
        assert_eq!((underlay.name.as_str(), underlay.mtu, underlay.is_silent), ("lo", 1400, true));
        let underlay = netlink.underlay(&UnderlayChoice::Auto).await.unwrap();
        assert_eq!(
            (underlay.name.as_str(), underlay.mtu, underlay.is_silent),
            ("eth7", 1400, false)
        );
    });
}

#[test]
fn the_underlay_is_found_or_the_choice_is_named() {
    if skip() {
        return;
    }
    let (host, _peer) = pair_of_hosts();
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        let auto = || netlink.underlay(&UnderlayChoice::Auto);
        let by_address = |ip: [u8; 4]| UnderlayChoice::Address(ip.into());
        let by_name = |name: &str| UnderlayChoice::Device(name.to_owned());

        let underlay = auto().await.unwrap();
        assert_eq!((underlay.name.as_str(), underlay.mtu), ("eth7", 1500));
        assert_eq!(underlay.address, Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(netlink.underlay(&by_name("eth7")).await.unwrap(), underlay);
        assert_eq!(netlink.underlay(&by_address([10, 0, 0, 1])).await.unwrap(), underlay);

        host.sh("ip link add eth8 type veth peer name eth9");
        host.sh("ip addr add 10.0.8.1/24 dev eth8; ip link set eth8 up");
        let error = auto().await.unwrap_err();
        assert!(error.to_string().contains("eth7 (10.0.0.1), eth8 (10.0.8.1)"), "{error}");
        host.sh("ip link set eth9 up; ip route add default via 10.0.8.9");
        assert_eq!(auto().await.unwrap().name, "eth8", "the default route decides");
        host.sh("ip route add default via 10.0.0.2 metric 100");
        assert_eq!(auto().await.unwrap().name, "eth8", "the better metric decides");

        let error = async |choice| netlink.underlay(&choice).await.unwrap_err();
        assert!(matches!(error(by_name("eth77")).await, UnderlayError::NoDevice(_)));
        assert!(matches!(error(by_name("eth9")).await, UnderlayError::NoAddress(_)));
        assert!(matches!(error(by_address([192, 0, 2, 1])).await, UnderlayError::NoSuchAddress(_)));
        host.sh("ip link set eth7 down");
        assert!(matches!(error(by_name("eth7")).await, UnderlayError::Down(_)));
        host.sh("ip link del eth8; ip addr flush dev eth7");
        assert!(matches!(auto().await.unwrap_err(), UnderlayError::None));
    });
}
