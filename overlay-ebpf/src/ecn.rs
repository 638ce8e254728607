//! Explicit congestion notification through a tunnel (RFC 6040): how the outer mark is combined with the inner
//! one on decapsulation. Encapsulation copies DSCP and ECN outwards (section 4.1, normal mode).

use overlay_common::DropReason;

const NOT_ECT: u8 = 0;
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
const CE: u8 = 3;
const MASK: u8 = 3;

/// The inner type of service after decapsulation, from the inner and the outer one (section 4.2,
/// figure 4). DSCP stays the inner one's (RFC 2983, the pipe model).
///
/// # Errors
/// [`DropReason::EcnNotCapable`]: the packet experienced congestion, but its sender does not understand the
/// mark, so that only a drop can tell it.
#[inline(always)]
pub fn combine(inner: u8, outer: u8) -> Result<u8, DropReason> {
    let ecn = match (inner & MASK, outer & MASK) {
        (NOT_ECT, CE) => return Err(DropReason::EcnNotCapable),
        (NOT_ECT, _) => NOT_ECT,
        (CE, _) | (_, CE) => CE,
        (ECT_0, ECT_1) => ECT_1,
        (inner, _) => inner,
    };
    Ok(inner & !MASK | ecn)
}
