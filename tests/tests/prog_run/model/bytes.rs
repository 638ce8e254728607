//! Fields of a packet, which are read by their offset. A field beyond the packet's end is `Malformed`.

use overlay_common::{DropReason, Ip16, MacBytes, ip16_from_v4};

pub(super) const IPV4: u16 = 0x0800;
pub(super) const ARP: u16 = 0x0806;
pub(super) const IPV6: u16 = 0x86dd;
/// Length of an Ethernet header without a tag.
pub(super) const ETHERNET: usize = 14;

/// A frame, or the part of it behind some header.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(super) fn array<const N: usize>(self, at: usize) -> Result<[u8; N], DropReason> {
        let bytes = self.0.get(at..at + N).ok_or(DropReason::Malformed)?;
        Ok(bytes.try_into().expect("as long as asked for"))
    }

    pub(super) fn byte(self, at: usize) -> Result<u8, DropReason> {
        self.array::<1>(at).map(|[byte]| byte)
    }

    pub(super) fn be16(self, at: usize) -> Result<u16, DropReason> {
        self.array(at).map(u16::from_be_bytes)
    }

    /// A number of three bytes.
    pub(super) fn be24(self, at: usize) -> Result<u32, DropReason> {
        self.array(at).map(|[a, b, c]| u32::from_be_bytes([0, a, b, c]))
    }

    pub(super) fn mac(self, at: usize) -> Result<MacBytes, DropReason> {
        self.array(at)
    }

    /// An IPv4 address as the maps hold it.
    pub(super) fn ip(self, at: usize) -> Result<Ip16, DropReason> {
        self.array(at).map(ip16_from_v4)
    }

    /// Checks that there are at least `len` bytes.
    pub(super) fn at_least(self, len: usize) -> Result<(), DropReason> {
        if self.0.len() < len { Err(DropReason::Malformed) } else { Ok(()) }
    }

    /// The bytes from `at` on, or none if there are fewer.
    pub(super) fn from(self, at: usize) -> Bytes<'a> {
        Bytes(self.0.get(at..).unwrap_or_default())
    }
}

/// The sum of the words by RFC 1071, folded and not inverted.
pub(super) fn ones_sum(words: impl IntoIterator<Item = u16>) -> u16 {
    let mut sum: u32 = words.into_iter().map(u32::from).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

/// The checksum of RFC 1071 of a whole header whose checksum field is zero.
pub(super) fn checksum(header: &[u8]) -> u16 {
    !ones_sum(
        header
            .chunks(2)
            .map(|word| u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or_default()])),
    )
}

/// The checksum after one word of the covered bytes has changed (RFC 1624, equation 3).
pub(super) fn mended(checksum: u16, old: u16, new: u16) -> u16 {
    !ones_sum([!checksum, !old, new])
}

/// Returns true for the group MACs that no bridge passes on (IEEE 802.1Q, section 8.6.3).
pub(super) fn is_reserved_group(mac: MacBytes) -> bool {
    mac[..5] == [0x01, 0x80, 0xc2, 0, 0] && mac[5] < 0x10
}

/// Returns true if a MAC is the broadcast address or a group's (IEEE 802, the I/G bit).
pub(super) fn is_group(mac: MacBytes) -> bool {
    mac[0] & 1 != 0
}
