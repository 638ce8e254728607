//! Listens to groups of netlink, and says that something changed. An event never says what: its receiver looks.
//!
//! For messages that the library which reads the other events does not know.

use std::{io, time::Duration};

use nix::libc;
use rtnetlink::{
    packet_core::NetlinkBuffer,
    sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket},
};
use socket2::SockFilter;
use tokio::sync::mpsc::{self, error::TrySendError};

use super::event_filter;

/// Time between attempts to listen again after the socket failed.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);

/// What to listen to.
#[derive(Debug, Clone, Copy)]
pub struct Listener {
    /// The changes that are listened to, in words for the log.
    pub changes: &'static str,
    /// A protocol of netlink (`NETLINK_ROUTE`, …).
    pub protocol: isize,
    /// Multicast groups of this protocol.
    pub groups: &'static [u32],
    /// Bytes of the socket's receive buffer; `None` = the kernel's default.
    pub buffer: Option<usize>,
    /// The least time from one event to the next, so that a program that undoes each change costs a bounded part of a
    /// CPU.
    pub floor: Duration,
    /// What the kernel hands over of these groups; empty = everything.
    pub filter: fn() -> Vec<SockFilter>,
    /// Returns true if a message with this type and payload is a change that counts. A payload that cannot be read may be
    /// one.
    pub concerns: fn(u16, &[u8]) -> bool,
}

impl Listener {
    /// Listens in the calling thread's network namespace until the receiver is dropped. Every change after the return of
    /// this call causes an event; several may cause one, and there may be one without a change.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The kernel gives no such socket.
    pub fn listen(self) -> io::Result<mpsc::Receiver<()>> {
        let socket = self.open()?;
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(self.forward(socket, sender));
        Ok(receiver)
    }

    fn open(&self) -> io::Result<TokioSocket> {
        let mut socket = TokioSocket::new(self.protocol)?;
        if let Some(buffer) = self.buffer {
            socket.socket_ref().set_rx_buf_sz(buffer)?;
        }
        socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
        let filter = (self.filter)();
        if !filter.is_empty()
            && let Err(error) = event_filter::handle(socket.socket_ref())?.attach_filter(&filter)
        {
            // Each message is looked at then, as it comes.
            tracing::debug!(%error, "the kernel holds nothing back of {}", self.changes);
        }
        for group in self.groups {
            socket.socket_mut().add_membership(*group)?;
        }
        Ok(socket)
    }

    async fn forward(self, mut socket: TokioSocket, sender: mpsc::Sender<()>) {
        loop {
            let received = tokio::select! {
                () = sender.closed() => return,
                received = socket.recv_from_full() => received,
            };
            let changed = match received {
                Ok((datagram, _)) => self.is_concerned(&datagram),
                // The receive buffer overflowed: any message may be lost.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => true,
                Err(error) => {
                    let changes = self.changes;
                    tracing::warn!(%error, "the socket for {changes} failed; opening a new one");
                    match self.reopen(&sender).await {
                        Some(opened) => socket = opened,
                        None => return,
                    }
                    true
                }
            };
            if changed {
                match sender.try_send(()) {
                    // An event that was not taken yet stands for this change too.
                    Ok(()) | Err(TrySendError::Full(())) => tokio::time::sleep(self.floor).await,
                    Err(TrySendError::Closed(())) => return,
                }
            }
        }
    }

    /// `None` if the receiver was dropped.
    async fn reopen(&self, sender: &mpsc::Sender<()>) -> Option<TokioSocket> {
        loop {
            match self.open() {
                Ok(socket) => return Some(socket),
                Err(error) => {
                    tracing::warn!(%error, "opening a socket for {} failed", self.changes);
                }
            }
            tokio::select! {
                () = sender.closed() => return None,
                () = tokio::time::sleep(REOPEN_PAUSE) => {}
            }
        }
    }

    /// Returns true if any of the datagram's messages counts, or cannot be read.
    pub(crate) fn is_concerned(&self, datagram: &[u8]) -> bool {
        let mut rest = datagram;
        while !rest.is_empty() {
            let Ok(message) = NetlinkBuffer::new_checked(rest) else { return true };
            if (self.concerns)(message.message_type(), message.payload()) {
                return true;
            }
            // Messages are aligned to four bytes.
            let length = (message.length() as usize).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
        }
        false
    }
}
