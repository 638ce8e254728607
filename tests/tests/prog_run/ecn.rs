//! RFC 6040: the outer header gets the packet's DSCP and ECN, and the inner header gets its ECN back by
//! figure 4.

use etherparse::{Ipv4Header, Ipv6Header};
use nix::errno::Errno;
use overlay_common::{Direction, DropReason};

use super::{
    bench::{Bench, Verdict, on_bench},
    packets::{Flow, Vxlan, ipv4, ipv6},
    world::{A, FAR},
};

const NOT_ECT: u8 = 0;
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
const CE: u8 = 3;

/// An outer mark, and the inner mark that results from it. `None`: the packet is dropped.
type Cell = (u8, Option<u8>);

/// Figure 4 of RFC 6040, one row for each inner mark.
const FIGURE_4: [(u8, [Cell; 4]); 4] = [
    (
        NOT_ECT,
        [(NOT_ECT, Some(NOT_ECT)), (ECT_0, Some(NOT_ECT)), (ECT_1, Some(NOT_ECT)), (CE, None)],
    ),
    (ECT_0, [(NOT_ECT, Some(ECT_0)), (ECT_0, Some(ECT_0)), (ECT_1, Some(ECT_1)), (CE, Some(CE))]),
    (ECT_1, [(NOT_ECT, Some(ECT_1)), (ECT_0, Some(ECT_1)), (ECT_1, Some(ECT_1)), (CE, Some(CE))]),
    (CE, [(NOT_ECT, Some(CE)), (ECT_0, Some(CE)), (ECT_1, Some(CE)), (CE, Some(CE))]),
];

/// Pairs of an inner and an outer DSCP. The inner one must stay (RFC 2983, the pipe model).
const DSCPS: [(u8, u8); 4] = [(0, 0), (0, 46), (46, 0), (63, 21)];

#[test]
fn figure_4_for_ipv4() {
    on_bench(|bench| {
        for_all(|inner, outer, expected| {
            // The checksum is corrected by the difference, so different ids test different carries.
            for id in [0, 1, 0x4242, 0x7f5b, 0xc19d, 0xffff] {
                let frame = |tos| ipv4(FAR, A, Flow { tos, id, ..Flow::default() });
                let Some(packet) = decapsulated(bench, &frame(inner), outer, expected) else {
                    continue;
                };
                let (ip, _) = Ipv4Header::from_slice(&packet[14..]).expect("an IPv4 header");
                assert_eq!(ip.header_checksum, ip.calc_header_checksum(), "{inner} in {outer}");
                assert_eq!(packet, frame(expected.expect("not dropped")), "{inner} in {outer}");
            }
        });
    });
}

#[test]
fn figure_4_for_ipv6() {
    on_bench(|bench| {
        bench.fill_with_routers();
        for_all(|inner, outer, expected| {
            let frame = |tos| ipv6(FAR, A, Flow { tos, ..Flow::default() });
            let Some(packet) = decapsulated(bench, &frame(inner), outer, expected) else { return };
            let (ip, _) = Ipv6Header::from_slice(&packet[14..]).expect("an IPv6 header");
            assert_eq!(ip.traffic_class, expected.expect("not dropped"), "{inner} in {outer}");
            // The flow label in the same word is unchanged.
            assert_eq!(packet, frame(ip.traffic_class), "{inner} in {outer}");
        });
    });
}

/// If a device computed the sum of the whole packet (CHECKSUM_COMPLETE), the kernel relies on it. The bytes
/// that are removed or changed must be subtracted from that sum, or the kernel reports "hw csum failure".
#[test]
fn the_devices_sum_stays_true() {
    on_bench(|bench| {
        bench.fill_with_routers();
        for_all(|inner, outer, expected| {
            let flow = Flow { tos: inner, ..Flow::default() };
            for frame in [ipv4(FAR, A, flow), ipv6(FAR, A, flow)] {
                let packet = Vxlan { tos: outer, ..Vxlan::default() }.around(&frame);
                match bench.run_summed(Direction::FromUnderlay, &packet) {
                    Ok(Verdict::Redirect) => assert!(expected.is_some()),
                    Ok(verdict) => assert_eq!((verdict, expected), (Verdict::Shot, None)),
                    // Kernels before 6.17 do not have this check in test_run.
                    Err(Errno::EINVAL) => {}
                    Err(error) => panic!("{inner} in {outer}: {error} (EBADMSG: a wrong sum)"),
                }
            }
        });
    });
}

/// A frame of another protocol has no ECN field that could take the mark.
#[test]
fn congestion_means_nothing_to_other_protocols() {
    on_bench(|bench| {
        let frame = super::packets::other(FAR.mac, A.mac, 0x88b5, &[0; 46]);
        let packet = decapsulated(bench, &frame, CE, Some(0)).expect("not dropped");
        assert_eq!(packet, frame);
    });
}

/// Calls `check` with the inner and the outer type of service, and the inner one that must result.
fn for_all(mut check: impl FnMut(u8, u8, Option<u8>)) {
    for (inner_dscp, outer_dscp) in DSCPS {
        for (inner, row) in FIGURE_4 {
            for (outer, expected) in row {
                let tos = |dscp: u8, ecn: u8| dscp << 2 | ecn;
                let expected = expected.map(|ecn| tos(inner_dscp, ecn));
                check(tos(inner_dscp, inner), tos(outer_dscp, outer), expected);
            }
        }
    }
}

/// The frame after decapsulation from a packet with this outer type of service, or `None` if it is dropped as
/// it must be.
fn decapsulated(
    bench: &mut Bench,
    frame: &[u8],
    outer: u8,
    expected: Option<u8>,
) -> Option<Vec<u8>> {
    let packet = Vxlan { tos: outer, ..Vxlan::default() }.around(frame);
    let outcome = bench.run(Direction::FromUnderlay, &packet);
    let reason = if expected.is_some() { 0 } else { DropReason::EcnNotCapable as u32 };
    let counted: Vec<_> = outcome.counts.keys().copied().collect();
    assert_eq!(counted, [(reason, Direction::FromUnderlay)]);
    (outcome.verdict == Verdict::Redirect).then_some(outcome.packet)
}
