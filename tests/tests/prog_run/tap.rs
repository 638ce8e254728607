//! The far end of a veth: what comes out of it, and what is put into it.

use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::{
    libc,
    sys::{
        socket::{
            AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike as _,
            bind, recv, send, setsockopt, socket, sockopt,
        },
        time::{TimeVal, TimeValLike as _},
    },
};

/// Both ends of a veth. Frames sent into the host side come out at the peer.
pub(crate) struct Tap {
    host: OwnedFd,
    peer: OwnedFd,
}

/// No program sends it.
const SENTINEL: &[u8] = b"\x02\0\0\0\x09\x09\x02\0\0\0\x09\x09\x88\xb6end";
/// Only a broken bench takes this long.
const PATIENCE_S: i64 = 5;

impl Tap {
    pub(crate) fn new(host: OwnedFd, peer: OwnedFd) -> Self {
        Self { host, peer }
    }

    /// What came out of the peer since the last call. A last frame sent after them shows the end: a
    /// veth keeps the order of what one CPU sends, and the bench is on one.
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

    /// The next frame out of the peer.
    pub(crate) fn next(&self) -> Vec<u8> {
        let mut frame = vec![0; 9000];
        let len = recv(self.peer.as_raw_fd(), &mut frame, MsgFlags::empty())
            .expect("a frame comes out in time");
        frame.truncate(len);
        frame
    }

    /// Sends what comes into the host side.
    pub(crate) fn send(&self, frame: &[u8]) {
        let sent = send(self.peer.as_raw_fd(), frame, MsgFlags::empty()).expect("a veth is up");
        assert_eq!(sent, frame.len());
    }
}

/// A packet socket on a device of this namespace. It sees what comes in by it, and not what the socket
/// itself sends.
pub(crate) fn open(ifindex: u32) -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)
        .expect("root opens packet sockets");
    // SAFETY: all zero bytes are a value of this plain C struct.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = ifindex as i32;
    // SAFETY: it points to a whole sockaddr_ll, of the family and the length that it is said to be.
    let address = unsafe {
        LinkAddr::from_raw(
            (&raw const address).cast(),
            Some(size_of::<libc::sockaddr_ll>() as libc::socklen_t),
        )
    };
    let address = address.expect("an address of the packet family");
    bind(fd.as_raw_fd(), &address).expect("the device exists");
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(PATIENCE_S)).expect("a time");
    fd
}
