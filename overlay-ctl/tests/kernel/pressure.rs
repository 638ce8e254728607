//! The kernel's table of connections, nearly full: what the node says of it.

use std::net::{Ipv4Addr, UdpSocket};

use overlay_ctl::dataplane::gateway::ConnectionPressure;

use crate::{
    gateway::inside,
    lab::{Netns, skip},
};

/// An endpoint's leg, as far as the table is concerned: what begins connections, and is in the subnet.
const LEG: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 5);
const TRACKER: &str = "nft add table ip track; nft add chain ip track o \\{ type filter hook output priority 0 \\; \\}; \
    nft add rule ip track o ct state new counter";

fn look(host: &Netns, pressure: &mut ConnectionPressure) -> Option<String> {
    host.block_on(|| async { pressure.look("172.18.0.0/16".parse().unwrap()).await.unwrap() });
    pressure.trouble().map(str::to_owned)
}

#[test]
fn a_full_table_of_connections_is_told_of_and_whose_they_are() {
    if skip() {
        return;
    }
    let host = Netns::new("host");
    host.sh("ip link set lo up; ip addr add 172.18.0.5/16 dev lo");
    host.sh(TRACKER);
    let mut pressure = ConnectionPressure::default();
    assert_eq!(look(&host, &mut pressure), None);
    let max: u32 = inside(&host, || {
        let max = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max").unwrap();
        max.trim().parse().unwrap()
    });
    let begin = |some: std::ops::Range<u32>| {
        inside(&host, || {
            let socket = UdpSocket::bind((LEG, 40_000)).unwrap();
            for number in some {
                let [_, b, c, d] = (number / 50_000).to_be_bytes();
                let to = Ipv4Addr::new(127, b, c, d + 1);
                // Nobody listens there, which the next call would say.
                drop(socket.send_to(b"x", (to, 1024 + (number % 50_000) as u16)));
            }
        });
    };
    begin(0..max / 10 * 9 + 100);
    let said = look(&host, &mut pressure).unwrap();
    assert!(said.contains("is nearly full"), "{said}");
    assert!(said.contains("the endpoint with the leg 172.18.0.5"), "{said}");
}
