//! VXLAN frames from addresses that no node has, as an attacker would flood a node with.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use overlay_lab::{Netns, text};

/// Number of forged senders, which is that of the frames in a batch.
const SENDERS: u8 = 64;
/// Bytes of the inner frame: the shortest that Ethernet allows.
const INNER: usize = 60;
const VXLAN_PORT: u16 = 4789;

/// One frame from each forged sender, to a host's own MAC and address. It is valid except for its sender.
pub(super) fn frames(host: &Netns, address: Ipv4Addr) -> Result<Vec<Vec<u8>>> {
    let links = host.ip_json(&["link", "show", "dev", "eth0"])?;
    let mac = parse_mac(text(&links[0], "address"))?;
    Ok((1..=SENDERS).map(|sender| frame(mac, Ipv4Addr::new(198, 18, 0, sender), address)).collect())
}

fn frame(to: [u8; 6], from_ip: Ipv4Addr, to_ip: Ipv4Addr) -> Vec<u8> {
    let udp_len = (8 + 8 + INNER) as u16;
    let mut ip = [0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    ip[2..4].copy_from_slice(&(20 + udp_len).to_be_bytes());
    ip[12..16].copy_from_slice(&from_ip.octets());
    ip[16..].copy_from_slice(&to_ip.octets());
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let [port, len] = [VXLAN_PORT.to_be_bytes(), udp_len.to_be_bytes()];
    let udp = [0xc0, from_ip.octets()[3], port[0], port[1], len[0], len[1], 0, 0];
    // VNI 4097, the first that a cluster gives out.
    let vxlan = [8, 0, 0, 0, 0, 0x10, 1, 0];
    let mut inner = [0; INNER];
    inner[..12].copy_from_slice(&[2, 0x42, 10, 0, 0, 2, 2, 0x42, 10, 0, 0, 1]);
    inner[12..14].copy_from_slice(&[0x88, 0xb5]);
    let eth = [&to[..], &[2, 0, 0, 0, 0, 0x66, 0x08, 0x00]].concat();
    [&eth[..], &ip, &udp, &vxlan, &inner].concat()
}

/// The checksum of RFC 1071.
fn checksum(header: &[u8; 20]) -> u16 {
    let words =
        header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

fn parse_mac(mac: &str) -> Result<[u8; 6]> {
    let bytes: Result<Vec<u8>, _> =
        mac.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect();
    bytes.ok().and_then(|bytes| bytes.try_into().ok()).with_context(|| format!("the MAC {mac:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forged_frame_is_whole() {
        let frame = frame([2; 6], Ipv4Addr::new(198, 18, 0, 1), Ipv4Addr::new(10, 9, 0, 2));
        assert_eq!(frame.len(), 14 + 20 + 8 + 8 + INNER);
        let header: &[u8; 20] = frame[14..34].try_into().unwrap();
        assert_eq!(checksum(header), 0, "its checksum is right");
        assert_eq!(header[2..4], (frame.len() as u16 - 14).to_be_bytes());
        assert_eq!(parse_mac("02:00:0a:0b:ff:01").unwrap(), [2, 0, 10, 11, 255, 1]);
        assert!(parse_mac("").is_err());
    }
}
