//! XDP programs in a description of a device.

use std::collections::BTreeSet;

use netlink_packet_route::link::LinkXdp;

/// The ids of the programs that a description of a device names.
pub(super) fn xdp_programs(attributes: &[LinkXdp]) -> BTreeSet<u32> {
    let ids = attributes.iter().filter_map(|attribute| match attribute {
        LinkXdp::ProgId(id)
        | LinkXdp::DrvProgId(id)
        | LinkXdp::SkbProgId(id)
        | LinkXdp::HwProgId(id) => Some(*id),
        _ => None,
    });
    ids.filter(|id| *id != 0).collect()
}
