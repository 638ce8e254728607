//! The jumbo option (RFC 2675) of IPv6 super-packets above 64 KiB. Kernels before 7.0 require the option
//! before TCP, but none has it inside a tunnel. A packet from a packet socket never has it at a program: such
//! a kernel parses the packet before the sender's device takes it, and removes the option.

use std::{fs, sync::LazyLock};

use super::{
    bytes::{Bytes, ETHERNET, IPV6},
    vlan::{TAG, is_tag},
};

const TCP: u8 = 6;
/// Bytes of a hop-by-hop header with this option alone.
const OPTION: usize = 8;

/// True if this kernel knows the option, which shows in a type of the kernel's.
pub(crate) static IS_KNOWN: LazyLock<bool> = LazyLock::new(|| {
    let types = fs::read("/sys/kernel/btf/vmlinux").expect("the kernel tells its types");
    let name = b"\0hop_jumbo_hdr\0";
    types.windows(name.len()).any(|window| window == name)
});

/// The offset of the IPv6 header, in a frame whose payload is longer than the header's length field can hold.
fn ipv6_at(frame: &[u8]) -> Option<usize> {
    let mut at = 12;
    while Bytes(frame).be16(at).is_ok_and(is_tag) {
        at += TAG;
    }
    let ip = at + 2;
    let is_jumbo = Bytes(frame).be16(at) == Ok(IPV6) && frame.len() > ip + 40 + 0xffff;
    is_jumbo.then_some(ip)
}

/// The frame as it comes out of a tunnel.
pub(super) fn put_in(mut frame: Vec<u8>) -> Vec<u8> {
    let Some(ip) = ipv6_at(&frame).filter(|_| *IS_KNOWN) else { return frame };
    if frame[ip + 6] == TCP && frame[ip + 4..ip + 6] == [0, 0] {
        frame[ip + 6] = 0;
        let len = (frame.len() - ip - 40 + OPTION) as u32;
        let option = [&[TCP, 0, 194, 4], &len.to_be_bytes()[..]].concat();
        frame.splice(ip + 40..ip + 40, option);
    }
    frame
}

/// The frame as it leaves by a device. The kernel parses a super-packet that a program has changed
/// (SKB_GSO_DODGY) and removes the option, but not behind two tags (seen on 6.18).
pub(super) fn taken_out(mut frame: Vec<u8>) -> Vec<u8> {
    let found = |ip: &usize| *ip <= ETHERNET + TAG && is_before_tcp(&frame, *ip);
    if let Some(ip) = ipv6_at(&frame).filter(found) {
        frame[ip + 6] = TCP;
        frame.drain(ip + 40..ip + 40 + OPTION);
    }
    frame
}

/// Returns true if the option lies between the IPv6 and the TCP header.
pub(super) fn is_before_tcp(frame: &[u8], ip: usize) -> bool {
    frame.get(ip + 6) == Some(&0) && frame.get(ip + 40..ip + 43) == Some(&[TCP, 0, 194])
}
