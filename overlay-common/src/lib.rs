//! The definitions that the kernel and user space share: the table of maps, their keys and values, and
//! the table of drop reasons.
//!
//! Invariants: every type of an entry is `repr(C)`, has no implicit padding, no `bool` and no enum with a
//! payload; `entries` asserts the sizes at compile time. Addresses are big-endian byte arrays of sixteen bytes, so
//! that IPv6 fits; IPv4 is mapped (RFC 4291 section 2.5.5.2). Integers that are not on the wire are in
//! the host's byte order.
#![no_std]
#![warn(missing_docs)]

#[cfg(feature = "user")]
extern crate std;

mod arrivals;
#[cfg(feature = "user")]
mod btf;
mod drop_reason;
mod entries;
mod fdb;
mod flags;
mod flood;
mod limits;
mod maps;
#[cfg(feature = "user")]
mod prepare;
mod skb;
mod wire;

pub use arrivals::{Arrivals, ENOUGH, LONG, MERGED};
#[cfg(feature = "user")]
pub use btf::BtfError;
pub use drop_reason::{Direction, DropReason, FORWARDED};
pub use entries::*;
pub use fdb::{BridgeKey, FdbEntry, FdbKey};
pub use flags::*;
pub use flood::{FLOOD_BRIDGING, FLOOD_MAX, FLOOD_PAGES, FloodEntry, FloodKey};
pub use limits::{Limit, Limits};
pub use maps::*;
#[cfg(feature = "user")]
pub use prepare::{KERNEL_BTF, Prepared, prepare};
pub use skb::{CAST_PLACEHOLDER, SKB_LAYOUT, SkbLayout};
pub use wire::*;
