//! Drops are streamed as they happen, with the names that their users know.

use overlay_ctl::proto::v1::{DropEvent, DropsRequest};
use tokio::time::timeout;

use crate::{
    fixture::{BOUND, NETWORK, endpoint, with_node},
    lab::Netns,
};

#[test]
fn a_drop_is_streamed_with_the_names_of_network_and_endpoint() {
    with_node(async |_, mut api| {
        api.network(NETWORK, "172.16.16.0/24").await;
        let web = Netns::new("web");
        let made = api.endpoints.create(endpoint("web1", &web)).await.unwrap().into_inner();
        let made = made.endpoint.unwrap();
        let mut drops = api.watch.drops(DropsRequest {}).await.unwrap().into_inner();
        // Nobody has this address. The programs write records only some time after the stream began,
        // so the question is asked until one is seen.
        let inside = format!("nsenter --net={} ping -c 1 -W 1 172.16.16.77", web.path().display());
        let provoke = async {
            loop {
                let ping = tokio::process::Command::new("sh").args(["-c", &inside]).output();
                assert!(!ping.await.unwrap().status.success(), "somebody answered");
            }
        };
        let wanted = async {
            loop {
                let event = drops.message().await.unwrap().expect("the stream stands");
                if event.reason == "arp_unknown_target" {
                    return event;
                }
            }
        };
        let seen: DropEvent = tokio::select! {
            seen = timeout(BOUND, wanted) => seen.expect("the drop is seen in time"),
            () = provoke => unreachable!("it never ends"),
        };
        assert_eq!((seen.network.as_str(), seen.endpoint.as_str()), (NETWORK, "web1"));
        assert_eq!(seen.direction, "from_endpoint");
        assert_eq!((&seen.interface, &seen.src_mac), (&made.host_interface, &made.mac));
        assert_eq!((seen.ethertype, seen.dst_mac.as_str()), (0x0806, "ff:ff:ff:ff:ff:ff"));
        assert!(seen.length >= 42 && seen.time_ns > 0, "{seen:?}");

        let counters = api.status().await.datapath.unwrap().counters;
        let counted = counters.iter().find(|counter| counter.reason == "arp_unknown_target");
        assert!(counted.is_some_and(|counter| counter.packets > 0), "{counters:?}");
    });
}

#[test]
fn a_forged_source_is_laid_at_the_door_of_who_sent_it() {
    with_node(async |_, mut api| {
        api.network(NETWORK, "172.16.16.0/24").await;
        let (web, victim) = (Netns::new("web"), Netns::new("victim"));
        api.endpoints.create(endpoint("web1", &web)).await.unwrap();
        api.endpoints.create(endpoint("victim", &victim)).await.unwrap();
        web.sh("ip addr add 172.16.16.3/24 dev eth0");
        // So that a packet, and not a question for the MAC, carries the forged address.
        web.sh("ip neigh add 172.16.16.4 lladdr 02:42:ac:10:10:04 dev eth0");
        let mut drops = api.watch.drops(DropsRequest {}).await.unwrap().into_inner();
        let ping = format!(
            "nsenter --net={} ping -c 1 -W 1 -I 172.16.16.3 172.16.16.4",
            web.path().display()
        );
        let provoke = async {
            loop {
                tokio::process::Command::new("sh").args(["-c", &ping]).output().await.unwrap();
            }
        };
        let wanted = async {
            loop {
                let event = drops.message().await.unwrap().expect("the stream stands");
                if event.reason == "spoofed_ip" {
                    return event;
                }
            }
        };
        let seen: DropEvent = tokio::select! {
            seen = timeout(BOUND, wanted) => seen.expect("the drop is seen in time"),
            () = provoke => unreachable!("it never ends"),
        };
        assert_eq!(seen.src_ip, "172.16.16.3", "{seen:?}");
        assert_eq!(seen.endpoint, "web1", "{seen:?}");
    });
}
