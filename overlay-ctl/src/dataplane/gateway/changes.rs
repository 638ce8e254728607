//! Reports that the table `ip overlay` changed. A report never says how: its receiver reads the table.

use std::{io, time::Duration};

use nix::libc::{self, NFNL_SUBSYS_NFTABLES, NFT_MSG_NEWGEN};
use rtnetlink::{
    packet_core::{NetlinkBuffer, NlaBuffer},
    sys::{
        AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket,
        protocols::NETLINK_NETFILTER,
    },
};
use tokio::sync::mpsc::{self, error::TrySendError};

use super::{GatewayError, rules::TABLE};

/// linux/netfilter/nfnetlink.h: the group that gets each change of an nftables ruleset.
const NFNLGRP_NFTABLES: u32 = 7;
const NFPROTO_IPV4: u8 = libc::NFPROTO_IPV4 as u8;
/// `struct nfgenmsg`: family, version, resource id.
const FAMILY_HEADER: usize = 4;
/// The first attribute of every message but NFT_MSG_NEWGEN: NFTA_TABLE_NAME, NFTA_CHAIN_TABLE,
/// NFTA_RULE_TABLE, NFTA_SET_TABLE and so on have the same number.
const TABLE_NAME: u16 = 1;
/// Bytes of the socket's receive buffer. A table with a thousand elements comes in one transaction; an
/// overflow is reported as a change.
const BUFFER: usize = 1 << 20;
/// Time between attempts to listen again after the socket failed.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);
const ACTION: &str = "listen to changes of nftables";

/// Listens in the calling thread's network namespace until the receiver is dropped. From its return on,
/// every change of the table `ip overlay` is reported, the node's own changes too. Changes of other tables
/// are not reported, because a machine may change those many times a second. Several changes may come as
/// one report, and a report may come without a change.
///
/// Must be called within a tokio runtime.
///
/// # Errors
/// [`GatewayError::Socket`].
pub fn changes() -> Result<mpsc::Receiver<()>, GatewayError> {
    let socket = listen().map_err(|source| GatewayError::Socket { action: ACTION, source })?;
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(forward(socket, sender));
    Ok(receiver)
}

fn listen() -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
    socket.socket_ref().set_rx_buf_sz(BUFFER)?;
    socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
    socket.socket_mut().add_membership(NFNLGRP_NFTABLES)?;
    Ok(socket)
}

async fn forward(mut socket: TokioSocket, sender: mpsc::Sender<()>) {
    loop {
        let received = tokio::select! {
            () = sender.closed() => return,
            received = socket.recv_from_full() => received,
        };
        let changed = match received {
            Ok((datagram, _)) => concerns_us(&datagram),
            // The receive buffer overflowed: any message may be lost.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => true,
            Err(error) => {
                tracing::warn!(%error, "the socket for changes of nftables failed; opening a new one");
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
                Ok(()) | Err(TrySendError::Full(())) => {}
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
                tracing::warn!(%error, "opening a socket for changes of nftables failed");
            }
        }
        tokio::select! {
            () = sender.closed() => return None,
            () = tokio::time::sleep(REOPEN_PAUSE) => {}
        }
    }
}

/// Returns true if any of the datagram's messages is about our table, or cannot be read.
fn concerns_us(datagram: &[u8]) -> bool {
    let mut rest = datagram;
    while !rest.is_empty() {
        let Ok(message) = NetlinkBuffer::new_checked(rest) else { return true };
        if is_of_our_table(message.message_type(), message.payload()) {
            return true;
        }
        // Messages are aligned to four bytes.
        let length = (message.length() as usize).next_multiple_of(4);
        rest = rest.get(length..).unwrap_or_default();
    }
    false
}

fn is_of_our_table(kind: u16, payload: &[u8]) -> bool {
    let [subsystem, message] = kind.to_be_bytes();
    if i32::from(subsystem) != NFNL_SUBSYS_NFTABLES || i32::from(message) == NFT_MSG_NEWGEN {
        return false;
    }
    let Some((header, attributes)) = payload.split_at_checked(FAMILY_HEADER) else { return true };
    if header[0] != NFPROTO_IPV4 {
        return false;
    }
    let Ok(first) = NlaBuffer::new_checked(attributes) else { return true };
    let name = first.value().strip_suffix(&[0]).unwrap_or(first.value());
    first.kind() != TABLE_NAME || name == TABLE.as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message in the kernel's form, padded.
    fn message(kind: u8, family: u8, table: &[u8]) -> Vec<u8> {
        let padded = table.len().next_multiple_of(4);
        let length = u32::try_from(16 + 4 + 4 + padded).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend([kind, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, family, 0, 0, 0]);
        bytes.extend(u16::try_from(4 + table.len()).unwrap().to_ne_bytes());
        bytes.extend(1u16.to_ne_bytes());
        bytes.extend(table);
        bytes.resize(length as usize, 0);
        bytes
    }

    #[test]
    fn only_our_table_is_told_of() {
        const NEWSETELEM: u8 = 12;
        let ours = message(NEWSETELEM, 2, b"overlay\0");
        let foreign = message(NEWSETELEM, 2, b"filter\0");
        assert!(concerns_us(&ours));
        for other in [
            foreign.clone(),
            message(NEWSETELEM, 2, b"overlay2\0"),
            message(NEWSETELEM, 10, b"overlay\0"),
            message(15, 2, b"\x00\x00\x00\x07"),
        ] {
            assert!(!concerns_us(&other), "{other:?}");
        }
        assert!(concerns_us(&[foreign.clone(), ours].concat()));
        assert!(!concerns_us(&[foreign.clone(), foreign.clone()].concat()));
        assert!(concerns_us(&foreign[..foreign.len() - 3]), "cut: could be anything");
    }
}
