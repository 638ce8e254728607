//! Unfinished checksums. The device that sends the packet on writes each one where the packet's sender said,
//! over the bytes that are there.

use overlay_common::DropReason;

use super::{Incoming, kernel};

/// The places in a frame where a checksum may be written after the program has checked the frame.
#[derive(Clone, Copy, Debug)]
pub(super) enum Carries {
    /// The checksum field of a header: the header's offset, and the field's offset in the header.
    Own(usize, usize),
    /// The checksum field of a header, and any place from the third offset on, where nothing was checked.
    OwnAndMore(usize, usize, usize),
    /// Any place from this offset on, where nothing was checked.
    Anything(usize),
    /// No place.
    NoChecksum,
}

impl Carries {
    /// The places in an IPv4 packet that carries `protocol` from `at` on.
    pub(super) fn of_ipv4(protocol: u8, is_later_fragment: bool, at: usize) -> Self {
        if is_later_fragment { Self::Anything(at) } else { Self::of(protocol, at) }
    }

    /// The places in a packet that carries `protocol` from `at` on. TCP: RFC 9293, section 3.1; UDP: RFC 768;
    /// SCTP: RFC 9260, section 3.1. UDP may contain a tunnel. ICMP's checksum is never left to a device.
    pub(super) fn of(protocol: u8, at: usize) -> Self {
        match protocol {
            6 => Self::Own(at, 16),
            17 => Self::OwnAndMore(at, 6, at + 8),
            132 => Self::Own(at, 8),
            1 | 58 => Self::NoChecksum,
            _ => Self::Anything(at),
        }
    }
}

/// Drops a frame whose unfinished checksum would be written to any other place.
pub(super) fn check(frame: Incoming<'_>, carries: Carries) -> Result<(), DropReason> {
    let Some(sum) = kernel::unfinished(frame) else { return Ok(()) };
    let (start, offset) = (usize::from(sum.start), usize::from(sum.offset));
    let may_be = match carries {
        Carries::Own(header, field) => (start, offset) == (header, field),
        Carries::OwnAndMore(header, field, more) => {
            (start, offset) == (header, field) || start >= more
        }
        Carries::Anything(from) => start >= from,
        Carries::NoChecksum => false,
    };
    if may_be { Ok(()) } else { Err(DropReason::UnfinishedChecksum) }
}
