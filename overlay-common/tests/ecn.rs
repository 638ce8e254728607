//! The programs' rule for congestion marks (RFC 6040), compiled for the host: every pair of inner and outer type of
//! service. It needs neither root nor a kernel.

use overlay_common::DropReason;

#[path = "../../overlay-ebpf/src/ecn.rs"]
#[expect(unreachable_pub, reason = "the file is one of the programs' crate")]
mod ecn;

/// Figure 4 of RFC 6040. A row for each inner mark, a column for each outer one, both in the order of their numbers:
/// not ECN-capable, ECT(1), ECT(0), congestion experienced. None: the packet is dropped.
const FIGURE_4: [[Option<u8>; 4]; 4] = [
    [Some(0), Some(0), Some(0), None],
    [Some(1), Some(1), Some(1), Some(3)],
    [Some(2), Some(1), Some(2), Some(3)],
    [Some(3), Some(3), Some(3), Some(3)],
];

#[test]
fn marks_are_combined_by_figure_4_and_dscp_stays() {
    for inner in 0..=u8::MAX {
        for outer in 0..=u8::MAX {
            let mark = FIGURE_4[usize::from(inner & 3)][usize::from(outer & 3)];
            let expected = mark.map(|mark| inner & 0xfc | mark).ok_or(DropReason::EcnNotCapable);
            assert_eq!(ecn::combine(inner, outer), expected, "{inner:02x} in {outer:02x}");
        }
    }
}
