//! Events that say that somebody switched forwarding of a device on or off, or that the host got or lost an address. An
//! event never says more: its receiver looks.
//!
//! A socket of its own, because the library that reads the other events does not know these messages.

use std::{io, time::Duration};

use nix::libc;
use rtnetlink::{
    packet_core::{NetlinkBuffer, NlasIterator},
    sys::{
        AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE,
    },
};
use tokio::sync::mpsc::{self, error::TrySendError};

use super::{Netlink, NetlinkError};

/// linux/rtnetlink.h: the groups RTNLGRP_IPV4_NETCONF and RTNLGRP_IPV4_IFADDR. Another family of addresses has groups of
/// its own.
const GROUPS: [u32; 2] = [24, 5];
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWNETCONF: u16 = 80;
/// `struct netconfmsg`: the family, padded.
const NETCONF_HEADER: usize = 4;
/// linux/netconf.h. A device that is new or was renamed is announced with all of these; one whose forwarding changed with
/// its index and NETCONFA_FORWARDING alone.
const NETCONFA_FORWARDING: u16 = 2;
const NETCONFA_RP_FILTER: u16 = 3;
/// The least time from one event to the next, so that a program that undoes each change costs a bounded part of a CPU.
const FLOOR: Duration = Duration::from_millis(100);
/// Time between attempts to listen again after the socket failed.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);

impl Netlink {
    /// Listens in the calling thread's network namespace until the receiver is dropped. Every change after the return of
    /// this call causes an event, the node's own changes too; several may cause one.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    pub fn forwarding_changes() -> Result<mpsc::Receiver<()>, NetlinkError> {
        let socket = listen().map_err(NetlinkError::Open)?;
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(forward(socket, sender));
        Ok(receiver)
    }
}

fn listen() -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
    for group in GROUPS {
        socket.socket_mut().add_membership(group)?;
    }
    Ok(socket)
}

async fn forward(mut socket: TokioSocket, sender: mpsc::Sender<()>) {
    loop {
        let received = tokio::select! {
            () = sender.closed() => return,
            received = socket.recv_from_full() => received,
        };
        let changed = match received {
            Ok((datagram, _)) => concerns_forwarding(&datagram),
            // The receive buffer overflowed: any message may be lost.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => true,
            Err(error) => {
                tracing::warn!(%error, "the socket for changes of forwarding failed; opening a new one");
                match reopen(&sender).await {
                    Some(opened) => socket = opened,
                    None => return,
                }
                true
            }
        };
        if changed {
            match sender.try_send(()) {
                // A report that was not taken yet stands for this change too.
                Ok(()) | Err(TrySendError::Full(())) => tokio::time::sleep(FLOOR).await,
                Err(TrySendError::Closed(())) => return,
            }
        }
    }
}

/// `None` if the receiver was dropped.
async fn reopen(sender: &mpsc::Sender<()>) -> Option<TokioSocket> {
    loop {
        match listen() {
            Ok(socket) => return Some(socket),
            Err(error) => {
                tracing::warn!(%error, "opening a socket for changes of forwarding failed");
            }
        }
        tokio::select! {
            () = sender.closed() => return None,
            () = tokio::time::sleep(REOPEN_PAUSE) => {}
        }
    }
}

/// Returns true if any of the datagram's messages concerns forwarding, or cannot be read.
fn concerns_forwarding(datagram: &[u8]) -> bool {
    let mut rest = datagram;
    while !rest.is_empty() {
        let Ok(message) = NetlinkBuffer::new_checked(rest) else { return true };
        let concerns = match message.message_type() {
            RTM_NEWADDR | RTM_DELADDR => true,
            RTM_NEWNETCONF => is_change_of_forwarding(message.payload()),
            _ => false,
        };
        if concerns {
            return true;
        }
        // Messages are aligned to four bytes.
        let length = (message.length() as usize).next_multiple_of(4);
        rest = rest.get(length..).unwrap_or_default();
    }
    false
}

fn is_change_of_forwarding(payload: &[u8]) -> bool {
    let Some(attributes) = payload.get(NETCONF_HEADER..) else { return true };
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
    fn only_changes_of_forwarding_and_of_addresses_count() {
        let (changed, new) =
            (message(RTM_NEWNETCONF, &[1, 2]), message(RTM_NEWNETCONF, &[1, 2, 3]));
        let (other, gone) = (message(RTM_NEWNETCONF, &[1, 3]), message(81, &[1]));
        assert!(concerns_forwarding(&changed));
        assert!(concerns_forwarding(&message(RTM_NEWADDR, &[])));
        for quiet in [&new, &other, &gone, &[new.clone(), gone.clone()].concat()] {
            assert!(!concerns_forwarding(quiet), "{quiet:?}");
        }
        assert!(concerns_forwarding(&[new.clone(), changed].concat()));
        assert!(concerns_forwarding(&new[..new.len() - 3]), "cut: could be anything");
    }
}
