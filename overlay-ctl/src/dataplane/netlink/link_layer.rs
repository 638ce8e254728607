//! What packets have in front of them on a device, by the type that the kernel gives it (ARPHRD).

use crate::dataplane::kernel::LinkLayer;
use netlink_packet_route::link::LinkLayerType;

/// Of the types that the kernel's `dev_is_mac_header_xmit` names; any other that is not Ethernet has a header of its own.
pub(super) fn link_layer_of(kind: LinkLayerType) -> LinkLayer {
    match kind {
        LinkLayerType::Ether | LinkLayerType::Loopback => LinkLayer::Ethernet,
        LinkLayerType::Ppp => LinkLayer::Ppp,
        LinkLayerType::None
        | LinkLayerType::Void
        | LinkLayerType::Rawip
        | LinkLayerType::Tunnel
        | LinkLayerType::Tunnel6
        | LinkLayerType::Sit
        | LinkLayerType::Ipgre
        | LinkLayerType::Ip6gre
        | LinkLayerType::Pimreg => LinkLayer::Bare,
        _ => LinkLayer::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_without_a_header_are_those_from_which_the_kernel_strips_one() {
        for (kind, layer) in [
            (LinkLayerType::Ether, LinkLayer::Ethernet),
            (LinkLayerType::Loopback, LinkLayer::Ethernet),
            (LinkLayerType::None, LinkLayer::Bare),
            (LinkLayerType::Tunnel, LinkLayer::Bare),
            (LinkLayerType::Ppp, LinkLayer::Ppp),
            (LinkLayerType::Infiniband, LinkLayer::Foreign),
        ] {
            assert_eq!(link_layer_of(kind), layer, "{kind:?}");
        }
    }
}
