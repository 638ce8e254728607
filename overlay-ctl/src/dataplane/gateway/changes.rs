//! Reports that the table `ip overlay` changed. A report never says how: its receiver reads the table.

use std::time::Duration;

use nix::libc::{self, NFNL_SUBSYS_NFTABLES, NFT_MSG_NEWGEN};
use rtnetlink::{packet_core::NlaBuffer, sys::protocols::NETLINK_NETFILTER};
use tokio::sync::mpsc;

use super::{GatewayError, rules::TABLE};
use crate::dataplane::netlink::Listener;

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
const ACTION: &str = "listen to changes of nftables";

const LISTENER: Listener = Listener {
    changes: "changes of nftables",
    protocol: NETLINK_NETFILTER,
    groups: &[NFNLGRP_NFTABLES],
    buffer: Some(BUFFER),
    floor: Duration::ZERO,
    filter: Vec::new,
    concerns: is_of_our_table,
};

/// Listens as [`Listener::listen`] does. Every change of the table `ip overlay` is reported, the node's own changes too.
/// Changes of other tables are not reported, because a machine may change those many times a second.
///
/// # Errors
/// [`GatewayError::Socket`].
pub fn changes() -> Result<mpsc::Receiver<()>, GatewayError> {
    LISTENER.listen().map_err(|source| GatewayError::Socket { action: ACTION, source })
}

/// Returns true if a message is about our table, or cannot be read.
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
        assert!(LISTENER.is_concerned(&ours));
        for other in [
            foreign.clone(),
            message(NEWSETELEM, 2, b"overlay2\0"),
            message(NEWSETELEM, 10, b"overlay\0"),
            message(15, 2, b"\x00\x00\x00\x07"),
        ] {
            assert!(!LISTENER.is_concerned(&other), "{other:?}");
        }
        assert!(LISTENER.is_concerned(&[foreign.clone(), ours].concat()));
        assert!(!LISTENER.is_concerned(&[foreign.clone(), foreign.clone()].concat()));
        assert!(LISTENER.is_concerned(&foreign[..foreign.len() - 3]), "cut: could be anything");
    }
}
