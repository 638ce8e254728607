//! Packets of a tunnel that an endpoint runs itself. The kernel marks them as a tunnel's, as it does with those of the
//! overlay, and can cut a super-packet behind the headers of one tunnel only.

use std::process::Command;

use overlay_common::{Direction, DropReason};

use super::{
    bench::{Bench, on_bench},
    devices::ip_batch,
    tap::{self, Bulk, BulkKind, Tap, Unfinished},
    world::{A, FAR, FORWARDS, World},
};

const ETHERNET: usize = 14;
const IPV6: usize = 40;
const TCP: usize = 20;
/// Bytes of payload of a super-packet, and of each of its segments.
const PAYLOAD: usize = 8000;
const SEGMENT: u16 = 1200;
/// Index of the tunnel's device.
const TUNNEL: u32 = 900;
/// Bytes of the overlay's headers, and of the tunnel's own.
const OVERLAY: usize = 50;
const OWN: usize = 50;
/// The offloads that are off on an endpoint's interface, as far as this tunnel is concerned.
const OF_TUNNELS: [&str; 2] = ["tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation"];

/// Makes a VXLAN device on A's interface, from A to FAR, and returns its socket.
fn tunnel(bench: &Bench) -> Tap {
    let dotted = |ip: [u8; 4]| ip.map(|byte| byte.to_string()).join(".");
    let mac = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
    let (own, other) = (dotted(A.ip), dotted(FAR.ip));
    bench.among_peers(|| {
        ip_batch(&format!(
            "link set port_a_peer address {}\n\
             addr add {own}/32 dev port_a_peer\n\
             route add {other}/32 dev port_a_peer\n\
             neigh add {other} lladdr {} dev port_a_peer nud permanent\n\
             link add own index {TUNNEL} type vxlan id 9 dstport 8472 local {own} remote {other}\n\
             link set own up\n",
            mac(A.mac),
            mac(FAR.mac),
        ));
        Tap::new(tap::open(TUNNEL), tap::open(TUNNEL))
    })
}

/// Switches the offloads of tunnels on A's interface.
fn switch(bench: &Bench, state: &str) {
    bench.among_peers(|| {
        let mut ethtool = Command::new("ethtool");
        ethtool.args(["-K", "port_a_peer"]);
        ethtool.args(OF_TUNNELS.iter().flat_map(|name| [*name, state]));
        assert!(ethtool.status().expect("ethtool is on PATH").success(), "{ethtool:?}");
    });
}

/// A packet of TCP on IPv6 for the inside of the tunnel.
fn packet(payload: usize) -> (Vec<u8>, Unfinished) {
    let len = ((TCP + payload) as u16).to_be_bytes();
    let tcp = [&[0x9c, 0x40, 0x13, 0x89], &[0; 8][..], &[0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]];
    let bytes: Vec<u8> = (0..payload).map(|at| (at / 7) as u8).collect();
    let addresses = [[0xfd; 16], [0xfe; 16]].concat();
    let start = [&[2, 0, 0, 0, 0, 1], &[2, 0, 0, 0, 0, 2], &[0x86, 0xdd, 0x60, 0, 0, 0][..]];
    let frame = [&start.concat(), &len[..], &[6, 64], &addresses, &tcp.concat(), &bytes].concat();
    (frame, Unfinished { start: (ETHERNET + IPV6) as u16, offset: 16 })
}

fn send_super_packet(tunnel: &Tap) -> Vec<u8> {
    let (frame, sum) = packet(PAYLOAD);
    let headers = (ETHERNET + IPV6 + TCP) as u16;
    let bulk = Bulk { kind: BulkKind::TcpV6, segment: SEGMENT, headers };
    assert!(tunnel.send_offloaded(&frame, sum, Some(bulk)), "the kernel takes it");
    frame
}

fn with_tunnel(flags: u32, body: impl FnOnce(&mut Bench, &Tap)) {
    on_bench(|bench| {
        let mut world = World::default();
        world.flag(flags);
        bench.fill(&world);
        bench.attach(Direction::FromEndpoint, "port_a");
        let tunnel = tunnel(bench);
        body(bench, &tunnel);
    });
}

/// Whatever the endpoint's powers are: the packet would be cut in the wrong places on the way to any receiver.
#[test]
fn a_super_packet_of_a_tunnel_that_was_not_cut_is_refused_by_name() {
    for flags in [0, FORWARDS] {
        with_tunnel(flags, |bench, tunnel| {
            let wire = bench.tap_underlay();
            send_super_packet(tunnel);
            assert_eq!(wire.received(), [] as [Vec<u8>; 0]);
            let counts = bench.counts();
            let reason = DropReason::UncutSuperPacket as u32;
            let reasons: Vec<_> = counts.keys().copied().collect();
            assert_eq!(reasons, [(reason, Direction::FromEndpoint)], "flags {flags}");
        });
    }
}

#[test]
fn a_tunnel_of_an_endpoint_is_carried_where_its_interface_cuts() {
    for flags in [0, FORWARDS] {
        with_tunnel(flags, |bench, tunnel| {
            let wire = bench.tap_underlay();
            switch(bench, "off");
            let frame = send_super_packet(tunnel);
            let carried = wire.received();
            assert_eq!(carried.len(), PAYLOAD.div_ceil(SEGMENT.into()), "flags {flags}");
            let headers = OVERLAY + OWN + ETHERNET + IPV6 + TCP;
            let payload = carried.iter().flat_map(|packet| &packet[headers..]);
            assert!(payload.eq(&frame[frame.len() - PAYLOAD..]), "the payload is whole");
            for packet in &carried {
                // Total length of the overlay's own IPv4 header, and of the tunnel's.
                for at in [ETHERNET, OVERLAY + ETHERNET] {
                    let len = u16::from_be_bytes([packet[at + 2], packet[at + 3]]);
                    assert_eq!(usize::from(len), packet.len() - at);
                }
            }
        });
    }
}
