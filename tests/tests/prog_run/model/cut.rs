//! The segments of a super-packet, as the kernel cuts them for a device that cannot. Each is a whole packet
//! with its own lengths, ids and checksums.

use super::{
    Frame,
    bytes::{Bytes, ETHERNET, IPV4, checksum, ones_sum},
    jumbo,
    vlan::{TAG, is_tag},
};
use crate::tap::{BulkKind, Unfinished};

/// Length of the outer headers: Ethernet, IPv4, UDP and VXLAN.
const OUTER: usize = 50;
const FIN: u8 = 0x01;
const PUSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// The frame's segments. A frame that is no super-packet is returned unchanged.
pub(crate) fn cut(frame: &Frame) -> Vec<Frame> {
    let Some(bulk) = frame.bulk else { return vec![frame.clone()] };
    let mut bytes = frame.bytes.clone();
    let link = if frame.tunnelled { OUTER } else { 0 };
    let mut ip = link + ETHERNET;
    while Bytes(&bytes).be16(ip - 2).is_ok_and(is_tag) {
        ip += TAG;
    }
    let is_v4 = Bytes(&bytes).be16(ip - 2) == Ok(IPV4);
    if !is_v4 && jumbo::is_before_tcp(&bytes, ip) {
        bytes[ip + 6] = bytes[ip + 40];
        bytes.drain(ip + 40..ip + 48);
    }
    let l4 = ip + if is_v4 { usize::from(bytes[ip] & 0xf) * 4 } else { 40 };
    let (header_len, sum_at) = match bulk.kind {
        BulkKind::Udp => (8, 6),
        BulkKind::TcpV4 | BulkKind::TcpV6 => (usize::from(bytes[l4 + 12] >> 4) * 4, 16),
    };
    let (headers, payload) = bytes.split_at(l4 + header_len);
    let whole = (header_len + payload.len()) as u32;
    let chunks: Vec<&[u8]> = payload.chunks(bulk.segment.into()).collect();
    let last = chunks.len() - 1;
    let segment = |(index, chunk): (usize, &&[u8])| {
        let mut out = [headers, chunk].concat();
        let len = out.len();
        if frame.tunnelled {
            mend_ipv4(&mut out, ETHERNET, index);
            put(&mut out, 38, len - 34);
        }
        if is_v4 {
            mend_ipv4(&mut out, ip, index);
        } else {
            put(&mut out, ip + 4, len - ip - 40);
        }
        if bulk.kind == BulkKind::Udp {
            put(&mut out, l4 + 4, len - l4);
        } else {
            let first = u32::from_be_bytes(out[l4 + 4..][..4].try_into().expect("four"));
            let sequence = first.wrapping_add((index * usize::from(bulk.segment)) as u32);
            out[l4 + 4..][..4].copy_from_slice(&sequence.to_be_bytes());
            if index != last {
                out[l4 + 13] &= !(FIN | PUSH);
            }
            if index != 0 {
                out[l4 + 13] &= !CWR;
            }
        }
        // The sum over the pseudo-header includes the length.
        let at = l4 + sum_at;
        let sum = u16::from_be_bytes([out[at], out[at + 1]]);
        let [old_high, old_low] = [(whole >> 16) as u16, whole as u16];
        let sum = ones_sum([sum, !old_high, !old_low, (len - l4) as u16]);
        out[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        let sum = Unfinished { start: l4 as u16, offset: sum_at as u16 };
        Frame { bytes: out, bulk: None, sum: Some(sum), ..*frame }
    };
    chunks.iter().enumerate().map(segment).collect()
}

/// Sets length, id and checksum of the IPv4 header at `ip`, in the segment with this index.
fn mend_ipv4(out: &mut [u8], ip: usize, index: usize) {
    let header = ip..ip + usize::from(out[ip] & 0xf) * 4;
    put(out, ip + 2, out.len() - ip);
    let id = u16::from_be_bytes([out[ip + 4], out[ip + 5]]).wrapping_add(index as u16);
    put(out, ip + 4, id.into());
    put(out, ip + 10, 0);
    let sum = checksum(&out[header]);
    put(out, ip + 10, sum.into());
}

fn put(out: &mut [u8], at: usize, value: usize) {
    out[at..at + 2].copy_from_slice(&(value as u16).to_be_bytes());
}

/// The frame after a device has finished this checksum.
pub(crate) fn finished(frame: &[u8], sum: Unfinished) -> Vec<u8> {
    let mut out = frame.to_vec();
    let start = usize::from(sum.start);
    let value = match checksum(&frame[start..]) {
        // In UDP a checksum of 0 means that there is none. 0xffff means the same number in ones' complement
        // (RFC 768).
        0 => 0xffff,
        value => value,
    };
    put(&mut out, start + usize::from(sum.offset), value.into());
    out
}
