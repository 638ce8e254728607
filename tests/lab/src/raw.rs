//! Sends frames unchanged out of a device.
#![expect(unsafe_code, reason = "packet sockets with a header of virtio: no safe wrapper has them")]

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    libc,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

/// Bytes of the Ethernet header.
const LINK_HEADER: usize = 14;
/// Bytes of a VLAN tag.
const TAG: usize = 4;
const IPV6: [u8; 2] = [0x86, 0xdd];

/// What a sender says of a frame that it has not finished (virtio 1.3, section 5.1.6). The kernel compares little
/// of it with the frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Virtio {
    /// [`Self::NEEDS_CSUM`], or none.
    pub flags: u8,
    /// How the frame is to be cut; 0 if not at all.
    pub gso_type: u8,
    /// Bytes of all headers of a frame that is to be cut.
    pub hdr_len: u16,
    /// Bytes of payload of each segment.
    pub gso_size: u16,
    /// Where the checksum's sum begins.
    pub csum_start: u16,
    /// Where the checksum is written, counted from there.
    pub csum_offset: u16,
}

impl Virtio {
    /// The checksum is still to be computed.
    pub const NEEDS_CSUM: u8 = 1;
    /// TCP over IPv4.
    pub const TCPV4: u8 = 1;
    /// UDP that is to be cut into fragments of one datagram.
    pub const UDP: u8 = 3;
    /// TCP over IPv6.
    pub const TCPV6: u8 = 4;
    /// UDP that is to be cut into datagrams.
    pub const UDP_L4: u8 = 5;
    /// A checksum that is to be computed, over the bytes from `start` on, and to be written `offset` behind it.
    #[must_use]
    pub fn unfinished(start: u16, offset: u16) -> Self {
        Self { flags: Self::NEEDS_CSUM, csum_start: start, csum_offset: offset, ..Self::default() }
    }

    fn bytes(self) -> [u8; 10] {
        let Self { flags, gso_type, hdr_len, gso_size, csum_start, csum_offset } = self;
        let mut bytes = [flags, gso_type, 0, 0, 0, 0, 0, 0, 0, 0];
        for (at, number) in [(2, hdr_len), (4, gso_size), (6, csum_start), (8, csum_offset)] {
            bytes[at..at + 2].copy_from_slice(&number.to_ne_bytes());
        }
        bytes
    }
}

/// A frame, and all that a packet socket lets its sender say of it.
#[derive(Debug, Clone, Default)]
pub struct Raw {
    /// The frame.
    pub frame: Vec<u8>,
    /// What is unfinished; `None` if nothing.
    pub virtio: Option<Virtio>,
    /// The protocol that the sender gives it; 0 for that in the frame.
    pub protocol: u16,
}

impl From<Vec<u8>> for Raw {
    fn from(frame: Vec<u8>) -> Self {
        Self { frame, ..Self::default() }
    }
}

/// A packet socket that sends out of one device.
pub(super) struct Socket {
    socket: OwnedFd,
    to: libc::sockaddr_ll,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub(super) fn open(device: &str) -> Result<Self> {
        let index = nix::net::if_::if_nametoindex(device)?;
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
        // SAFETY: all zeros is a value of this plain C structure.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = i32::try_from(index)?;
        Ok(Self { socket, to })
    }

    pub(super) fn send(&self, bytes: &[u8]) -> Result<()> {
        self.try_send(bytes, 0).with_context(|| format!("{} bytes", bytes.len()))
    }

    fn try_send(&self, bytes: &[u8], protocol: u16) -> io::Result<()> {
        let to = libc::sockaddr_ll { sll_protocol: protocol.to_be(), ..self.to };
        // SAFETY: the bytes and the address are valid for the lengths given.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                0,
                (&raw const to).cast(),
                size_of_val(&to) as libc::socklen_t,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Sends a frame as its sender describes it. Returns false if the sender's own kernel refuses it.
    pub(super) fn send_raw(&self, raw: &Raw) -> Result<bool> {
        let Raw { frame, virtio, protocol } = raw;
        self.take_virtio_headers(virtio.is_some())?;
        let header = virtio.map(Virtio::bytes);
        let header = header.as_ref().map_or(&[][..], |header| &header[..]);
        let sent = self.try_send(&[header, frame].concat(), *protocol);
        let refused = [libc::EINVAL, libc::EMSGSIZE, libc::ENOBUFS, libc::ENOMEM];
        match sent {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error().is_some_and(|it| refused.contains(&it)) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("{} bytes", frame.len())),
        }
    }

    /// Sends a super-packet: TCP over IPv4 or IPv6 without options, behind any number of VLAN tags.
    pub(super) fn send_super_packet(&self, frame: &[u8], segment: u16) -> Result<()> {
        self.send_described(frame, super_packet(frame, segment)?)
    }

    /// Sends a frame without its checksum, which a later device must compute: over the bytes from `start` on,
    /// to be written `offset` bytes behind `start`.
    pub(super) fn send_unfinished(&self, frame: &[u8], start: u16, offset: u16) -> Result<()> {
        self.send_described(frame, Virtio::unfinished(start, offset))
    }

    fn send_described(&self, frame: &[u8], virtio: Virtio) -> Result<()> {
        self.take_virtio_headers(true)?;
        self.send(&[&virtio.bytes()[..], frame].concat())
    }

    fn take_virtio_headers(&self, on: bool) -> Result<()> {
        let on = libc::c_int::from(on);
        // SAFETY: the option's value is valid for the length given.
        let set = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_VNET_HDR,
                (&raw const on).cast(),
                size_of_val(&on) as libc::socklen_t,
            )
        };
        ensure!(set == 0, "PACKET_VNET_HDR: {}", io::Error::last_os_error());
        Ok(())
    }
}

/// How to cut a TCP frame into segments, and which checksum to compute.
fn super_packet(frame: &[u8], segment: u16) -> Result<Virtio> {
    const CHECKSUM: u16 = 16;
    let mut l3 = LINK_HEADER;
    while matches!(frame.get(l3 - 2..l3), Some([0x81, 0] | [0x88, 0xa8])) {
        l3 += TAG;
    }
    let ethertype = frame.get(l3 - 2..l3).context("a link header")?;
    let is_ipv6 = ethertype == IPV6;
    let (gso_type, l4) = if is_ipv6 { (Virtio::TCPV6, l3 + 40) } else { (Virtio::TCPV4, l3 + 20) };
    let data_offset = frame.get(l4 + 12).context("a TCP header")? >> 4;
    Ok(Virtio {
        gso_type,
        hdr_len: u16::try_from(l4 + 4 * usize::from(data_offset))?,
        gso_size: segment,
        ..Virtio::unfinished(u16::try_from(l4)?, CHECKSUM)
    })
}
