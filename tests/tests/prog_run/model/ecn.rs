//! RFC 6040: congestion marks of the outer header that the inner header takes over, with figure 4 as a table.

use overlay_common::DropReason;

use super::bytes::{Bytes, ETHERNET, IPV4, IPV6, mended};

/// Rows are inner marks: 00 (not ECN-capable), 01 (ECT(1)), 10 (ECT(0)), 11 (congestion experienced). Columns
/// are outer marks in the same order.
const FIGURE_4: [[Option<u8>; 4]; 4] = [
    [Some(0), Some(0), Some(0), None],
    [Some(1), Some(1), Some(1), Some(3)],
    [Some(2), Some(1), Some(2), Some(3)],
    [Some(3), Some(3), Some(3), Some(3)],
];

/// The inner frame after decapsulation from a packet with this outer type of service. The DSCP stays the
/// inner one's (RFC 2983, the pipe model). A packet behind a tag stays unchanged.
pub(super) fn taken_over(inner: &[u8], outer_tos: u8) -> Result<Vec<u8>, DropReason> {
    let frame = Bytes(inner);
    let mut out = inner.to_vec();
    let marked = |tos: u8| {
        let ecn = FIGURE_4[usize::from(tos & 3)][usize::from(outer_tos & 3)];
        ecn.map(|ecn| tos & 0xfc | ecn).ok_or(DropReason::EcnNotCapable)
    };
    match frame.be16(12)? {
        IPV4 => {
            let [version, tos] = frame.array(ETHERNET)?;
            frame.at_least(ETHERNET + 20)?;
            let new = marked(tos)?;
            if new != tos {
                out[ETHERNET + 1] = new;
                let word = |tos| u16::from_be_bytes([version, tos]);
                let sum = mended(frame.be16(ETHERNET + 10)?, word(tos), word(new));
                out[ETHERNET + 10..][..2].copy_from_slice(&sum.to_be_bytes());
            }
        }
        IPV6 => {
            // Four bits of version, eight of class and twenty of label (RFC 8200, section 3).
            frame.at_least(ETHERNET + 40)?;
            let word = u32::from_be_bytes(frame.array(ETHERNET)?);
            let class = (word >> 20) as u8;
            let word = word & 0xf00f_ffff | u32::from(marked(class)?) << 20;
            out[ETHERNET..][..4].copy_from_slice(&word.to_be_bytes());
        }
        _ => {}
    }
    Ok(out)
}
