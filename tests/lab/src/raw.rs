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
        // SAFETY: the bytes and the address are valid for the lengths given.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                0,
                (&raw const self.to).cast(),
                size_of_val(&self.to) as libc::socklen_t,
            )
        };
        ensure!(sent >= 0, "{} bytes: {}", bytes.len(), io::Error::last_os_error());
        Ok(())
    }

    /// Sends a super-packet: TCP over IPv4 or IPv6 without options, behind any number of VLAN tags.
    pub(super) fn send_super_packet(&self, frame: &[u8], segment: u16) -> Result<()> {
        self.take_virtio_headers()?;
        self.send(&[&virtio_header(frame, segment)?[..], frame].concat())
    }

    /// Sends a frame without its checksum, which a later device must compute: over the bytes from `start` on,
    /// to be written `offset` bytes behind `start`.
    pub(super) fn send_unfinished(&self, frame: &[u8], start: u16, offset: u16) -> Result<()> {
        self.take_virtio_headers()?;
        let mut header = [NEEDS_CSUM, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        header[6..8].copy_from_slice(&start.to_ne_bytes());
        header[8..].copy_from_slice(&offset.to_ne_bytes());
        self.send(&[&header, frame].concat())
    }

    fn take_virtio_headers(&self) -> Result<()> {
        let on: libc::c_int = 1;
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

/// The flag of a frame whose checksum is still to be computed (virtio 1.3, section 5.1.6).
const NEEDS_CSUM: u8 = 1;

/// The header that tells how to cut a TCP frame into segments, and which checksum to compute (virtio 1.3,
/// section 5.1.6).
fn virtio_header(frame: &[u8], segment: u16) -> Result<[u8; 10]> {
    const GSO_TCPV4: u8 = 1;
    const GSO_TCPV6: u8 = 4;
    const CHECKSUM: u16 = 16;
    let mut l3 = LINK_HEADER;
    while matches!(frame.get(l3 - 2..l3), Some([0x81, 0] | [0x88, 0xa8])) {
        l3 += TAG;
    }
    let ethertype = frame.get(l3 - 2..l3).context("a link header")?;
    let (kind, l4) = if ethertype == IPV6 { (GSO_TCPV6, l3 + 40) } else { (GSO_TCPV4, l3 + 20) };
    let data_offset = frame.get(l4 + 12).context("a TCP header")? >> 4;
    let headers = u16::try_from(l4 + 4 * usize::from(data_offset))?;
    let mut header = [0; 10];
    header[0] = NEEDS_CSUM;
    header[1] = kind;
    header[2..4].copy_from_slice(&headers.to_le_bytes());
    header[4..6].copy_from_slice(&segment.to_le_bytes());
    header[6..8].copy_from_slice(&u16::try_from(l4)?.to_le_bytes());
    header[8..].copy_from_slice(&CHECKSUM.to_le_bytes());
    Ok(header)
}
