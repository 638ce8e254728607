//! Checksums that are still to be written. The device that sends the packet on writes them where the packet's sender
//! said, over whatever is there.

use overlay_common::DropReason;

use super::{Incoming, kernel};

/// Where a checksum may be written into a frame after the program has checked it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Carries {
    /// In a header, into its own checksum field: where the header begins, and where in it the field is.
    Own(usize, usize),
    /// The same, and anywhere from the third place on, behind the header, where nothing was checked.
    OwnAndMore(usize, usize, usize),
    /// Anywhere from there on: nothing behind it was checked.
    Anything(usize),
    /// Nowhere.
    NoChecksum,
}

impl Carries {
    /// Of an IPv4 packet that carries `protocol` from `at` on.
    pub(super) fn of_ipv4(protocol: u8, is_later_fragment: bool, at: usize) -> Self {
        if is_later_fragment { Self::Anything(at) } else { Self::of(protocol, at) }
    }

    /// Of a packet that carries `protocol` from `at` on. TCP: RFC 9293, section 3.1; UDP: RFC 768; SCTP: RFC 9260,
    /// section 3.1. In UDP may be a tunnel. ICMP's checksum is never left to others.
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

/// Drops a frame whose unfinished checksum would be written elsewhere.
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
