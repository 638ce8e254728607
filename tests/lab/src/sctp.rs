//! SCTP: bulk by its own sockets, where the kernel has them, and the packet that opens an association by a raw socket, where
//! it may not.
#![expect(unsafe_code, reason = "a socket of a kind that nix does not know")]

use std::{
    io,
    net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    libc,
    sys::socket::{
        AddressFamily, Backlog, MsgFlags, SockFlag, SockType, SockaddrIn, bind, connect, listen,
        sendto,
    },
};

use super::{netns::Netns, transfer};

/// Returns true if the kernel has sockets of SCTP.
pub fn is_there(netns: &Netns) -> Result<bool> {
    netns.enter(|| match stream_socket() {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => Ok(false),
        Err(error) => Err(error).context("cannot open a socket of SCTP"),
    })
}

/// Sends bytes by an association from a socket in `from` to one at `address` in `to`, and fails if the received bytes are
/// not those that were sent.
pub fn stream(from: &Netns, to: &Netns, address: SocketAddr, length: usize) -> Result<()> {
    let SocketAddr::V4(address) = address else { bail!("{address} is no address of IPv4") };
    let at = SockaddrIn::from(address);
    let listener = to.enter(|| {
        let socket = stream_socket()?;
        bind(socket.as_raw_fd(), &at).with_context(|| format!("bind {address}"))?;
        listen(&socket, Backlog::new(1)?)?;
        // A socket of this style has all calls of one of TCP.
        let listener = TcpListener::from(socket);
        listener.set_nonblocking(true)?;
        Ok(listener)
    })?;
    let sender = from.enter(|| {
        let socket = stream_socket()?;
        connect(socket.as_raw_fd(), &at).with_context(|| format!("connect to {address}"))?;
        Ok(TcpStream::from(socket))
    })?;
    transfer::carry(sender, &listener, &transfer::pattern(length, u64::from(address.port())))
}

/// A socket for one association, with the calls of a stream (RFC 6458, section 4).
fn stream_socket() -> io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::Inet as i32, SockType::Stream as i32);
    let flags = SockFlag::SOCK_CLOEXEC.bits();
    // SAFETY: the call takes no pointer. nix has no name for the protocol.
    let fd = unsafe { libc::socket(family, kind | flags, libc::IPPROTO_SCTP) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just opened, and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

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
        return Err(io::Error::last_os_error()).context("cannot open a raw socket");
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
