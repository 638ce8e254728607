//! IPv6 super-packets above 64 KiB through a tunnel, and the jumbo option (RFC 2675). Kernels before 7.0
//! require the option before TCP, and kernels from 7.0 on do not know it.

use overlay_common::{Direction, FLAG_MULTICAST};

use super::{
    bench::{Bench, on_bench},
    model::JUMBO_IS_KNOWN,
    packets::GROUP,
    tap::{Bulk, BulkKind, Unfinished},
    world::{A, FAR, World},
};

const ETHERNET: usize = 14;
const IPV6: usize = 40;
const TCP: usize = 20;
/// Bytes of the hop-by-hop header with the option.
const OPTION: usize = 8;
/// More bytes of payload than IPv6's length field can hold.
const PAYLOAD: usize = 66_000;
/// Bytes of payload in each segment.
const SEGMENT: u16 = 1300;

/// A super-packet of A's as a kernel has it: with the option if the kernel knows it, or without.
fn large(to: [u8; 6], has_option: bool) -> (Vec<u8>, Unfinished) {
    let address = |ip: [u8; 4]| [&[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &ip[..]].concat();
    let (next, len) = if has_option { (0, OPTION as u16) } else { (6, 0) };
    let option = [&[6, 0, 194, 4], &((OPTION + TCP + PAYLOAD) as u32).to_be_bytes()[..]].concat();
    let tcp = [&[0x9c, 0x40, 0x13, 0x89], &[0; 8][..], &[0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]];
    let payload: Vec<u8> = (0..PAYLOAD).map(|at| (at / 7) as u8).collect();
    let frame = [
        &to[..],
        &A.mac,
        &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, next, 64],
        &address(A.ip),
        &address(FAR.ip),
        &option[..usize::from(len)],
        &tcp.concat(),
        &payload,
    ];
    let start = (ETHERNET + IPV6) as u16 + len;
    (frame.concat(), Unfinished { start, offset: 16 })
}

fn send(bench: &Bench, to: [u8; 6]) -> Vec<u8> {
    // The frame has no option, because even a kernel that knows it removes it from packets of a packet
    // socket.
    let (frame, sum) = large(to, false);
    let headers = sum.start + TCP as u16;
    let bulk = Bulk { kind: BulkKind::TcpV6, segment: SEGMENT, headers };
    assert!(bench.tap_a().send_offloaded(&frame, sum, Some(bulk)), "the kernel takes it");
    frame
}

/// A super-packet that is delivered whole looks like one of this kernel's own, because the receiving stack
/// gets it.
#[test]
fn a_large_packet_comes_out_as_this_kernel_makes_its_own() {
    on_bench(|bench| {
        let mut far_node = bench.far_node();
        far_node.fill(&World::default().of_far_node());
        bench.attach(Direction::FromEndpoint, "port_a");
        let (wire, far) = (bench.tap_underlay(), bench.tap_far());
        let frame = send(bench, FAR.mac);
        let [packet] = &wire.received()[..] else { panic!("one packet leaves") };
        // No packet has the option inside a tunnel.
        assert!(packet[50..] == frame, "changed: {:02x?}", &packet[50..130]);
        let [delivered] = &far.received()[..] else { panic!("one packet comes out") };
        let (expected, _) = large(FAR.mac, *JUMBO_IS_KNOWN);
        assert_eq!(delivered.len(), expected.len());
        assert!(*delivered == expected, "changed: {:02x?}", &delivered[..80]);
    });
}

/// The segments of a packet that is cut behind the tunnel do not have the option. Copies of a group frame
/// leave by the endpoint's device, which takes no super-packets here.
#[test]
fn no_segment_has_the_option() {
    on_bench(|bench| {
        let mut world = World::default();
        world.flag(FLAG_MULTICAST);
        bench.fill(&world);
        let mut far_node = bench.far_node();
        far_node.fill(&world.of_far_node());
        bench.attach(Direction::FromEndpoint, "port_a");
        bench.set_offloads_of_far(false);
        let (wire, far) = (bench.tap_underlay(), bench.tap_far());
        let frame = send(bench, GROUP);
        assert_eq!(wire.received().len(), 1, "it crosses the wire whole");
        let segments = far.received();
        assert_eq!(segments.len(), PAYLOAD.div_ceil(SEGMENT.into()));
        for segment in &segments {
            assert_eq!(segment[ETHERNET + 6], 6, "TCP follows the IPv6 header");
            let length = u16::from_be_bytes([segment[ETHERNET + 4], segment[ETHERNET + 5]]);
            assert_eq!(usize::from(length), segment.len() - ETHERNET - IPV6);
        }
        let payload = segments.iter().flat_map(|segment| &segment[ETHERNET + IPV6 + TCP..]);
        assert!(payload.eq(&frame[frame.len() - PAYLOAD..]), "the payload is whole");
    });
}
