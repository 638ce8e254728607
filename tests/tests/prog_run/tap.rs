//! Packet sockets on both ends of a veth, which read the frames that leave by it, and send frames into it.
#![expect(unsafe_code, reason = "packet sockets: no safe wrapper has what is asked of them")]

use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::{
    errno::Errno,
    libc,
    sys::{
        socket::{
            AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike as _,
            bind, send, setsockopt, socket, sockopt,
        },
        time::{TimeVal, TimeValLike as _},
    },
};

/// The two ends of a veth. Frames that are sent into the host side come out at the peer.
pub(crate) struct Tap {
    host: OwnedFd,
    peer: OwnedFd,
}

/// A checksum that the sender leaves to the device that sends the frame on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unfinished {
    /// The byte of the frame at which the sum begins.
    pub(crate) start: u16,
    /// The checksum's place, in bytes from `start`.
    pub(crate) offset: u16,
}

/// A super-packet, which the sender leaves to a device to be cut into segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bulk {
    /// The kind of super-packet.
    pub(crate) kind: BulkKind,
    /// Bytes of payload in each segment but the last.
    pub(crate) segment: u16,
    /// Bytes of all headers, as the sender gives it; the rest lies in other pages. With 0, everything lies in
    /// one piece.
    pub(crate) headers: u16,
}

/// The kinds of super-packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BulkKind {
    TcpV4,
    TcpV6,
    /// Datagrams of one flow. Kernels from 6.2 on take them from a packet socket.
    Udp,
}

impl BulkKind {
    /// The kind's number in a virtio header (virtio 1.3, section 5.1.6).
    fn number(self) -> u8 {
        match self {
            Self::TcpV4 => 1,
            Self::TcpV6 => 4,
            Self::Udp => 5,
        }
    }
}

/// A frame that no program sends, by which [`Tap::received`] finds the end.
const SENTINEL: &[u8] = b"\x02\0\0\0\x09\x09\x02\0\0\0\x09\x09\x88\xb6end";
/// Bytes of the longest frame: a super-packet above 64 KiB with outer headers.
const LONGEST: usize = 1 << 17;
/// Bytes of a socket's buffer, enough for all copies that come before they are read.
const RECEIVE_BYTES: usize = 8 << 20;
/// Longest time to wait for a frame, in seconds. Only a broken bench needs it.
const PATIENCE_S: i64 = 5;

impl Tap {
    pub(crate) fn new(host: OwnedFd, peer: OwnedFd) -> Self {
        Self { host, peer }
    }

    /// The frames that came out of the peer since the last call. A last frame is sent after them to mark the
    /// end, because a veth keeps the order of the frames that one CPU sends, and the bench runs on one CPU.
    pub(crate) fn received(&self) -> Vec<Vec<u8>> {
        send(self.host.as_raw_fd(), SENTINEL, MsgFlags::empty()).expect("a veth takes frames");
        let mut frames = Vec::new();
        loop {
            let frame = self.next();
            if frame == SENTINEL {
                return frames;
            }
            frames.push(frame);
        }
    }

    /// The next frame out of the peer, with the tag that the kernel keeps beside it put back.
    pub(crate) fn next(&self) -> Vec<u8> {
        let mut frame = vec![0; LONGEST];
        let mut control = [0_u64; 16];
        let mut part = libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() };
        // SAFETY: all zero bytes are a value of this plain C struct.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        // SAFETY: the message points to buffers that are as long as it says and outlive the call.
        let len = unsafe { libc::recvmsg(self.peer.as_raw_fd(), &raw mut message, 0) };
        frame.truncate(Errno::result(len).expect("a frame comes out in time") as usize);
        // SAFETY: the kernel filled the message in, and its buffers are still there.
        if let Some([tpid, tci]) = unsafe { tag_beside(&message) } {
            frame.splice(12..12, [tpid.to_be_bytes(), tci.to_be_bytes()].concat());
        }
        frame
    }

    /// Sends a frame from the peer, so that it comes in by the host side.
    pub(crate) fn send(&self, frame: &[u8]) {
        let sent = send(self.peer.as_raw_fd(), frame, MsgFlags::empty()).expect("a veth is up");
        assert_eq!(sent, frame.len());
    }

    /// Sends a frame with an unfinished checksum. Returns false if the kernel refuses it, because the
    /// checksum is not within the frame, or begins in the link header (from 6.12 on).
    pub(crate) fn send_unfinished(&self, frame: &[u8], sum: Unfinished) -> bool {
        self.send_offloaded(frame, sum, None)
    }

    /// Sends a frame with an unfinished checksum, which is a super-packet if `bulk` is given. Returns false
    /// if the kernel refuses it.
    pub(crate) fn send_offloaded(&self, frame: &[u8], sum: Unfinished, bulk: Option<Bulk>) -> bool {
        // The header of virtio (virtio 1.3, section 5.1.6), in the host's byte order.
        const NEEDS_CSUM: u8 = 1;
        let kind = bulk.map_or(0, |bulk| bulk.kind.number());
        let (headers, segment) = bulk.map_or((0, 0), |bulk| (bulk.headers, bulk.segment));
        let words = [headers, segment, sum.start, sum.offset].map(u16::to_ne_bytes).concat();
        let header = [&[NEEDS_CSUM, kind][..], &words].concat();
        // The option is on for this frame alone, because received frames would have such a header as well.
        set_option(&self.peer, libc::PACKET_VNET_HDR, 1);
        let sent = send(self.peer.as_raw_fd(), &[&header, frame].concat(), MsgFlags::empty());
        set_option(&self.peer, libc::PACKET_VNET_HDR, 0);
        match sent {
            Err(Errno::EINVAL) => false,
            sent => {
                assert_eq!(sent.expect("a veth is up"), header.len() + frame.len());
                true
            }
        }
    }
}

/// The tag that the kernel took out of the frame (packet(7), PACKET_AUXDATA).
///
/// # Safety
/// `recvmsg` filled the message in, and its control buffer is still there.
unsafe fn tag_beside(message: &libc::msghdr) -> Option<[u16; 2]> {
    // SAFETY: as this function's.
    let header = unsafe { libc::CMSG_FIRSTHDR(message).as_ref() }?;
    assert_eq!((header.cmsg_level, header.cmsg_type), (libc::SOL_PACKET, libc::PACKET_AUXDATA));
    // SAFETY: a control message of this type holds this struct.
    let data = unsafe { libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned() };
    let is_tagged = data.tp_status & libc::TP_STATUS_VLAN_VALID != 0;
    is_tagged.then_some([data.tp_vlan_tpid, data.tp_vlan_tci])
}

/// A packet socket on a device of this namespace. It receives the frames that come in by the device, without
/// those that the socket itself sends.
pub(crate) fn open(ifindex: u32) -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)
        .expect("root opens packet sockets");
    // SAFETY: all zero bytes are a value of this plain C struct.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = ifindex as i32;
    // SAFETY: the pointer is to a whole sockaddr_ll, of the family and the length that are given.
    let address = unsafe {
        LinkAddr::from_raw(
            (&raw const address).cast(),
            Some(size_of::<libc::sockaddr_ll>() as libc::socklen_t),
        )
    };
    let address = address.expect("an address of the packet family");
    bind(fd.as_raw_fd(), &address).expect("the device exists");
    setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BYTES).expect("root sets it");
    set_option(&fd, libc::PACKET_AUXDATA, 1);
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(PATIENCE_S)).expect("a time");
    fd
}

fn set_option(fd: &OwnedFd, option: libc::c_int, value: libc::c_int) {
    // SAFETY: the option takes an int, and is given the length of one.
    let set = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    Errno::result(set).expect("a packet socket has the option");
}
