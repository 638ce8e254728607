//! Events that say that something changed, and never what: the receiver has to look.
#![expect(unsafe_code, reason = "a descriptor of a file that the kernel wakes us by is registered")]

use std::{collections::BTreeSet, fs::File, time::Duration};

use futures::StreamExt as _;
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::{MulticastGroup, packet_core::NetlinkPayload};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc,
};

use super::{Netlink, NetlinkError};

/// Events in the queue. More events are merged, and none is lost.
const QUEUE: usize = 4;
/// The pause between attempts to listen again after the kernel's socket broke.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);
const GROUPS: [MulticastGroup; 4] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv4Route,
];

/// The kind of change in the node's namespace. Several changes may come as one event, and an event may come without a
/// change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// A device, or a device's address.
    Link,
    /// A neighbour was resolved, or stopped answering.
    Neighbour,
    /// An IPv4 route.
    Route,
    /// A file system was mounted or unmounted, so a namespace may have come or gone.
    Namespace,
}

const ALL: [Change; 4] = [Change::Link, Change::Neighbour, Change::Route, Change::Namespace];

type Messages = futures::channel::mpsc::UnboundedReceiver<(
    rtnetlink::packet_core::NetlinkMessage<RouteNetlinkMessage>,
    rtnetlink::sys::SocketAddr,
)>;

impl Netlink {
    /// Listens until the receiver is dropped. Every change after the return of this call causes an event.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    pub fn changes(&self) -> Result<mpsc::Receiver<Change>, NetlinkError> {
        let messages = listen()?;
        let mounts = mounts().map_err(NetlinkError::Open)?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(forward(messages, mounts, sender));
        Ok(receiver)
    }
}

fn listen() -> Result<Messages, NetlinkError> {
    let (connection, _, messages) =
        rtnetlink::new_multicast_connection(&GROUPS).map_err(NetlinkError::Open)?;
    tokio::spawn(connection);
    Ok(messages)
}

/// The mount table, whose file the kernel marks as exceptional whenever it changes. A namespace that has a name is a
/// mount (of `ip netns`, Docker, a CNI runtime), in whatever folder; a watch of that folder would see the file before
/// the namespace is mounted on it.
fn mounts() -> std::io::Result<AsyncFd<File>> {
    let file = File::open("/proc/self/mountinfo")?;
    // SAFETY: the file owns its descriptor and keeps it until the AsyncFd that owns the file is gone.
    let mounts =
        unsafe { AsyncFd::register_with_interest(file, Interest::PRIORITY | Interest::ERROR) };
    mounts.map_err(|error| error.into_parts().1)
}

async fn forward(mut messages: Messages, mut mounts: AsyncFd<File>, sender: mpsc::Sender<Change>) {
    let mut pending = BTreeSet::new();
    loop {
        tokio::select! {
            permit = sender.reserve(), if !pending.is_empty() => match permit {
                Ok(permit) => if let Some(change) = pending.pop_first() { permit.send(change) },
                Err(_) => return,
            },
            () = sender.closed() => return,
            message = messages.next() => match message {
                Some((message, _)) => pending.extend(changes_of(&message.payload)),
                None => match reopen(&sender).await {
                    Some(opened) => {
                        messages = opened;
                        pending.extend(ALL);
                    }
                    None => return,
                },
            },
            ready = mounts.ready_mut(Interest::PRIORITY | Interest::ERROR) => match ready {
                Ok(mut guard) => {
                    guard.clear_ready();
                    pending.insert(Change::Namespace);
                }
                // Only when the runtime shuts down.
                Err(_) => return,
            },
        }
    }
}

/// Listens again. `None`: the receiver was dropped.
async fn reopen(sender: &mpsc::Sender<Change>) -> Option<Messages> {
    loop {
        match listen() {
            Ok(messages) => return Some(messages),
            Err(error) => tracing::warn!(%error, "not listening to the kernel's changes"),
        }
        tokio::select! {
            () = sender.closed() => return None,
            () = tokio::time::sleep(REOPEN_PAUSE) => {}
        }
    }
}

fn changes_of(payload: &NetlinkPayload<RouteNetlinkMessage>) -> Vec<Change> {
    let change = match payload {
        // The kernel had more to say than the socket could hold.
        NetlinkPayload::Overrun(_) => return ALL.to_vec(),
        NetlinkPayload::InnerMessage(message) => match message {
            RouteNetlinkMessage::NewLink(_)
            | RouteNetlinkMessage::DelLink(_)
            | RouteNetlinkMessage::NewAddress(_)
            | RouteNetlinkMessage::DelAddress(_) => Change::Link,
            RouteNetlinkMessage::NewNeighbour(_) | RouteNetlinkMessage::DelNeighbour(_) => {
                Change::Neighbour
            }
            RouteNetlinkMessage::NewRoute(_) | RouteNetlinkMessage::DelRoute(_) => Change::Route,
            _ => return Vec::new(),
        },
        _ => return Vec::new(),
    };
    vec![change]
}
