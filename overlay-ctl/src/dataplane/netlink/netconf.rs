//! Events that say that somebody switched forwarding of a device on or off, or that the host got or lost an address. An
//! event never says more: its receiver looks.

use std::time::Duration;

use rtnetlink::{packet_core::NlasIterator, sys::protocols::NETLINK_ROUTE};
use tokio::sync::mpsc;

use super::{Listener, Netlink, NetlinkError, event_filter};

/// linux/rtnetlink.h: the groups RTNLGRP_IPV4_NETCONF and RTNLGRP_IPV4_IFADDR. Another family of addresses has groups of
/// its own.
const GROUPS: [u32; 2] = [24, 5];
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWNETCONF: u16 = 80;
/// `struct netconfmsg`: the family, padded.
const NETCONF_HEADER: u8 = 4;
/// linux/netconf.h. A device that is new or was renamed is announced with all of these; one whose forwarding changed with
/// its index and NETCONFA_FORWARDING alone.
const NETCONFA_FORWARDING: u16 = 2;
const NETCONFA_RP_FILTER: u16 = 3;

const LISTENER: Listener = Listener {
    changes: "changes of forwarding",
    protocol: NETLINK_ROUTE,
    groups: &GROUPS,
    buffer: None,
    floor: Duration::from_millis(100),
    filter: || event_filter::without(RTM_NEWNETCONF, NETCONF_HEADER, NETCONFA_RP_FILTER),
    concerns: concerns_forwarding,
};

impl Netlink {
    /// Listens as [`Listener::listen`] does. The node's own changes cause events too.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    pub fn forwarding_changes() -> Result<mpsc::Receiver<()>, NetlinkError> {
        LISTENER.listen().map_err(NetlinkError::Open)
    }
}

/// Returns true if a message concerns forwarding, or cannot be read.
fn concerns_forwarding(kind: u16, payload: &[u8]) -> bool {
    match kind {
        RTM_NEWADDR | RTM_DELADDR => true,
        RTM_NEWNETCONF => is_change_of_forwarding(payload),
        _ => false,
    }
}

fn is_change_of_forwarding(payload: &[u8]) -> bool {
    let Some(attributes) = payload.get(NETCONF_HEADER.into()..) else { return true };
    let mut forwarding = false;
    for attribute in NlasIterator::new(attributes) {
        match attribute.map(|attribute| attribute.kind()) {
            Ok(NETCONFA_FORWARDING) => forwarding = true,
            Ok(NETCONFA_RP_FILTER) => return false,
            Ok(_) => {}
            Err(_) => return true,
        }
    }
    forwarding
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message in the kernel's form.
    fn message(kind: u16, attributes: &[u16]) -> Vec<u8> {
        let length = u32::try_from(16 + 4 + 8 * attributes.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend([2, 0, 0, 0]);
        for attribute in attributes {
            bytes.extend(8u16.to_ne_bytes());
            bytes.extend(attribute.to_ne_bytes());
            bytes.extend(1u32.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn the_kernel_holds_back_what_does_not_count() {
        let (reads, writes) = std::os::unix::net::UnixDatagram::pair().unwrap();
        reads.set_nonblocking(true).unwrap();
        let socket = socket2::SockRef::from(&reads);
        socket.attach_filter(&(LISTENER.filter)()).unwrap();
        for (passes, message) in [
            (true, message(RTM_NEWNETCONF, &[1, 2])),
            (false, message(RTM_NEWNETCONF, &[1, 2, 3])),
            (false, message(RTM_NEWNETCONF, &[1, 3])),
            (false, message(81, &[1])),
            (true, message(RTM_NEWADDR, &[])),
        ] {
            writes.send(&message).unwrap();
            assert_eq!(reads.recv(&mut [0; 64]).is_ok(), passes, "{message:?}");
        }
    }

    #[test]
    fn only_changes_of_forwarding_and_of_addresses_count() {
        let (changed, new) =
            (message(RTM_NEWNETCONF, &[1, 2]), message(RTM_NEWNETCONF, &[1, 2, 3]));
        let (other, gone) = (message(RTM_NEWNETCONF, &[1, 3]), message(81, &[1]));
        assert!(LISTENER.is_concerned(&changed));
        assert!(LISTENER.is_concerned(&message(RTM_NEWADDR, &[])));
        for quiet in [&new, &other, &gone, &[new.clone(), gone.clone()].concat()] {
            assert!(!LISTENER.is_concerned(quiet), "{quiet:?}");
        }
        assert!(LISTENER.is_concerned(&[new.clone(), changed].concat()));
        assert!(LISTENER.is_concerned(&new[..new.len() - 3]), "cut: could be anything");
    }
}
