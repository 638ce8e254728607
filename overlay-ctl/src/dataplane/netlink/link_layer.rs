//! What packets have in front of them on a device, by the type that the kernel gives it (ARPHRD).

use std::net::Ipv4Addr;

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

/// Returns true for a GRE device without one other end. The kernel then shows its outer headers, on sending and on receiving
/// (`ipgre_header_ops`, `ip6gre_header_ops`). `remote` is the address that it gives as the device's broadcast address.
pub(super) fn shows_outer_headers(kind: LinkLayerType, remote: &[u8]) -> bool {
    match kind {
        LinkLayerType::Ipgre => <[u8; 4]>::try_from(remote)
            .map(Ipv4Addr::from)
            .is_ok_and(|remote| remote.is_unspecified() || remote.is_multicast()),
        LinkLayerType::Ip6gre => remote.iter().all(|byte| *byte == 0),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gre_without_one_other_end_is_not_bare() {
        for (kind, remote, shows) in [
            (LinkLayerType::Ipgre, &[10, 0, 0, 1][..], false),
            (LinkLayerType::Ipgre, &[0; 4], true),
            (LinkLayerType::Ipgre, &[224, 0, 0, 9], true),
            (LinkLayerType::Ip6gre, &[0; 16], true),
            (LinkLayerType::Ip6gre, &[0xfd; 16], false),
            (LinkLayerType::Tunnel, &[0; 4], false),
        ] {
            assert_eq!(shows_outer_headers(kind, remote), shows, "{kind:?} {remote:?}");
        }
    }

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
