//! Sends the packet that opens an SCTP association through a raw socket, because a kernel may lack SCTP
//! sockets.
#![expect(unsafe_code, reason = "a socket of a kind that nix does not know")]

use std::{
    net::SocketAddrV4,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};
use nix::{
    libc,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, sendto},
};

use super::netns::Netns;

/// Sends an INIT (RFC 9260, section 3.3.2) from inside a namespace.
pub fn send_init(netns: &Netns, source_port: u16, to: SocketAddrV4) -> Result<()> {
    netns.enter(|| {
        let socket = raw_socket()?;
        let address = SockaddrIn::from(SocketAddrV4::new(*to.ip(), 0));
        let packet = init(source_port, to.port());
        sendto(socket.as_raw_fd(), &packet, &address, MsgFlags::empty())
            .with_context(|| format!("cannot send an SCTP INIT to {to}"))?;
        Ok(())
    })
}

fn raw_socket() -> Result<OwnedFd> {
    let (family, kind) = (AddressFamily::Inet as i32, SockType::Raw as i32);
    let flags = SockFlag::SOCK_CLOEXEC.bits();
    // SAFETY: the call takes no pointer. nix has no name for the protocol.
    let fd = unsafe { libc::socket(family, kind | flags, libc::IPPROTO_SCTP) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error()).context("cannot open a raw socket");
    }
    // SAFETY: the descriptor was just opened, and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn init(source_port: u16, port: u16) -> Vec<u8> {
    const INIT: u8 = 1;
    let mut packet = Vec::new();
    packet.extend(source_port.to_be_bytes());
    packet.extend(port.to_be_bytes());
    // Verification tag, which is 0 on an INIT, and room for the checksum.
    packet.extend([0; 8]);
    packet.extend([INIT, 0, 0, 20]);
    // Initiate tag, window, numbers of streams out and in, first TSN.
    packet.extend(0x1234_5678_u32.to_be_bytes());
    packet.extend(65536_u32.to_be_bytes());
    packet.extend([0, 1, 0, 1]);
    packet.extend(1_u32.to_be_bytes());
    // The checksum is little-endian, unlike all other fields (RFC 9260, appendix A).
    let sum = crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&sum);
    packet
}

fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let fold = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), fold))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        // RFC 3720, appendix B.4, and the usual check value.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn an_init_has_the_lengths_that_it_says() {
        let packet = init(1, 2);
        assert_eq!(packet.len(), 12 + 20);
        assert_eq!(packet[12..16], [1, 0, 0, 20]);
    }
}
