//! The definitions that the kernel and user space share: map keys and values, names, capacities and
//! drop reasons.
//!
//! Invariants: every type is `repr(C)`, has no implicit padding, no `bool` and no enum with a payload;
//! `maps` asserts the sizes at compile time. Addresses are big-endian byte arrays of sixteen bytes, so
//! that IPv6 fits; IPv4 is mapped (RFC 4291 section 2.5.5.2). Integers that are not on the wire are in
//! the host's byte order.
#![no_std]
#![warn(missing_docs)]

mod drop_reason;
mod maps;
mod wire;

pub use drop_reason::{Direction, DropReason};
pub use maps::*;
pub use wire::*;
