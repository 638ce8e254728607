//! Events that say that something changed which concerns the node, and never what: the receiver has to look.
#![expect(unsafe_code, reason = "a descriptor of a file that the kernel wakes us by is registered")]

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io, mem,
    path::PathBuf,
    time::Duration,
};

use futures::FutureExt as _;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoVxlan, LinkAttribute, LinkInfo},
};
use nix::{
    libc,
    sys::socket::{setsockopt, sockopt::RcvBufForce},
};
use overlay_common::VNI_RESERVED;
use rtnetlink::{
    MulticastGroup,
    packet_core::{NetlinkBuffer, NetlinkMessage, NetlinkPayload},
    sys::{
        AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE,
    },
};
use tokio::{
    io::{Interest as Readiness, unix::AsyncFd},
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use super::{
    Netlink, NetlinkError, event_filter,
    interest::{Change, Interest},
};

/// Events in the queue. More events are merged, and none is lost.
const QUEUE: usize = 4;
/// More changes than this that were not handed on yet are one: anything may have changed.
const PENDING_MAX: usize = 512;
/// The pause between attempts to listen again after the kernel's socket broke.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);
const MOUNTS: &str = "/proc/self/mountinfo";
/// The pause between two looks at the mount table, which may be long: the first value, and at least so many times as long as
/// the last look took, up to the last value.
const MOUNTS_PAUSE: Duration = Duration::from_millis(250);
const MOUNTS_SHARE: u32 = 200;
const MOUNTS_PAUSE_MAX: Duration = Duration::from_secs(2);
/// The pause after an event that does not concern the node: of many such events several are read at once.
const LULL: Duration = Duration::from_millis(20);
/// The most that is read at once, without a pause and without a look at anything else.
const AT_ONCE: usize = 1024;
/// Bytes of the socket's receive buffer. What does not fit into it is reported as [`Change::Any`].
const BUFFER: usize = 1 << 20;
/// Bytes of one message at most.
const MESSAGE_MAX: usize = 1 << 16;
const GROUPS: [MulticastGroup; 6] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Tc,
];

impl Netlink {
    /// Listens until the receiver is dropped. Every change after the return of this call causes an event, if it is
    /// within `interest`.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    pub fn changes(&self, interest: Interest) -> Result<mpsc::Receiver<Change>, NetlinkError> {
        let socket = listen(&interest).map_err(NetlinkError::Open)?;
        let mounts = Mounts::watch().map_err(NetlinkError::Open)?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(forward(socket, mounts, interest, sender));
        Ok(receiver)
    }
}

/// A socket that gets the events which `interest` lets pass.
fn listen(interest: &Interest) -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    let handle = event_filter::handle(socket.socket_ref())?;
    if let Err(error) = setsockopt(&handle, RcvBufForce, &BUFFER) {
        tracing::debug!(%error, "the buffer for events stays as small as it is");
    }
    socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
    for group in GROUPS {
        socket.socket_mut().add_membership(group as u32)?;
    }
    interest.come_by(handle);
    Ok(socket)
}

/// The namespaces that have a name, because they are mounted (by `ip netns`, Docker, a CNI runtime), in whatever folder;
/// a watch of that folder would see the file before the namespace is mounted on it.
pub(crate) struct Mounts {
    /// The mount table, which the kernel marks as exceptional whenever it changes.
    table: AsyncFd<File>,
    /// The table as it was last read.
    text: String,
    /// It is not read before.
    next: Instant,
}

impl Mounts {
    /// Begins to watch. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The mount table cannot be read or watched.
    pub(crate) fn watch() -> io::Result<Self> {
        let file = File::open(MOUNTS)?;
        // SAFETY: the file owns its descriptor and keeps it until the AsyncFd that owns the file is gone.
        let table = unsafe {
            AsyncFd::register_with_interest(file, Readiness::PRIORITY | Readiness::ERROR)
        };
        let table = table.map_err(|error| error.into_parts().1)?;
        Ok(Self { table, text: fs::read_to_string(MOUNTS)?, next: Instant::now() })
    }

    /// Waits until the mounts of namespaces change. Returns where one was mounted or unmounted; none of these where the
    /// table cannot be read.
    ///
    /// # Errors
    /// The runtime shuts down.
    pub(crate) async fn changed(&mut self) -> io::Result<BTreeSet<PathBuf>> {
        loop {
            sleep_until(self.next).await;
            self.table.ready_mut(Readiness::PRIORITY | Readiness::ERROR).await?.clear_ready();
            let begun = Instant::now();
            // After the mark was cleared, so that a change from here on sets it again.
            let read = fs::read_to_string(MOUNTS);
            self.next = begun + MOUNTS_PAUSE;
            let Ok(text) = read else { return Ok(BTreeSet::new()) };
            let before = mem::replace(&mut self.text, text);
            let (before, now) = (namespaces(&before), namespaces(&self.text));
            let changed: BTreeSet<PathBuf> =
                before.symmetric_difference(&now).map(|line| mounted_at(line)).collect();
            let pause = (begun.elapsed() * MOUNTS_SHARE).clamp(MOUNTS_PAUSE, MOUNTS_PAUSE_MAX);
            self.next = begun + pause;
            if !changed.is_empty() {
                return Ok(changed);
            }
        }
    }
}

/// The lines of a mount table that are of network namespaces (proc(5): the fourth field is the mount's root, which of such
/// a mount is "net:[INODE]").
fn namespaces(table: &str) -> BTreeSet<&str> {
    let is_namespace = |line: &&str| line.split(' ').nth(3).is_some_and(|r| r.starts_with("net:["));
    table.lines().filter(is_namespace).collect()
}

/// Where the mount of this line of a mount table is (proc(5): the fifth field, in which a space is "\\040").
fn mounted_at(line: &str) -> PathBuf {
    let place = line.split(' ').nth(4).unwrap_or_default();
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    let plain = |text: String, (escape, plain): (&str, &str)| text.replace(escape, plain);
    escapes.into_iter().fold(place.to_owned(), plain).into()
}

async fn forward(
    mut socket: TokioSocket,
    mut mounts: Mounts,
    interest: Interest,
    sender: mpsc::Sender<Change>,
) {
    let mut pending = BTreeSet::new();
    let mut buffer = Vec::with_capacity(MESSAGE_MAX);
    let mut lull = None;
    let mut failed = None;
    loop {
        if pending.len() > PENDING_MAX {
            pending.retain(|change| matches!(change, Change::Vxlan(_)));
            pending.insert(Change::Any);
        }
        buffer.clear();
        buffer.reserve(MESSAGE_MAX);
        let received = async {
            if let Some(error) = failed.take() {
                return Err(error);
            }
            if let Some(until) = lull {
                sleep_until(until).await;
            }
            socket.recv(&mut buffer).await
        };
        tokio::select! {
            permit = sender.reserve(), if !pending.is_empty() => match permit {
                Ok(permit) => if let Some(change) = pending.pop_first() { permit.send(change) },
                Err(_) => return,
            },
            () = sender.closed() => return,
            received = received => match received {
                Ok(()) => {
                    let mut changes = changes_of(&buffer, &interest);
                    // What has come meanwhile. An error is met again by the next call.
                    let mut more = AT_ONCE;
                    loop {
                        more -= 1;
                        buffer.clear();
                        buffer.reserve(MESSAGE_MAX);
                        match socket.recv(&mut buffer).now_or_never() {
                            Some(Ok(())) => changes.extend(changes_of(&buffer, &interest)),
                            Some(Err(error)) => {
                                failed = Some(error);
                                break;
                            }
                            None => break,
                        }
                        if more == 0 {
                            break;
                        }
                    }
                    lull = (changes.is_empty() && more > 0).then(|| Instant::now() + LULL);
                    pending.extend(changes);
                }
                Err(error) => {
                    // The kernel had more to say than the socket could hold (ENOBUFS), and says no more of what is lost until
                    // all is read (netlink_overrun): a new socket misses nothing behind the look that follows.
                    if error.raw_os_error() != Some(libc::ENOBUFS) {
                        tracing::warn!(%error, "the socket for the kernel's changes failed; opening a new one");
                    }
                    lull = None;
                    match reopen(&sender, &interest).await {
                        Some(opened) => {
                            socket = opened;
                            pending.insert(Change::Any);
                        }
                        None => return,
                    }
                }
            },
            changed = mounts.changed() => match changed {
                Ok(places) if places.is_empty() => _ = pending.insert(Change::Any),
                Ok(places) => pending.extend(places.into_iter().map(Change::Namespace)),
                // Only when the runtime shuts down.
                Err(_) => return,
            },
        }
    }
}

/// Listens again. `None`: the receiver was dropped.
async fn reopen(sender: &mpsc::Sender<Change>, interest: &Interest) -> Option<TokioSocket> {
    loop {
        match listen(interest) {
            Ok(socket) => return Some(socket),
            Err(error) => tracing::warn!(%error, "not listening to the kernel's changes"),
        }
        tokio::select! {
            () = sender.closed() => return None,
            () = sleep(REOPEN_PAUSE) => {}
        }
    }
}

/// The UDP port of a VXLAN device that is not the overlay's, if the event is about one.
fn foreign_vxlan(event: &RouteNetlinkMessage) -> Option<u16> {
    let RouteNetlinkMessage::NewLink(link) = event else { return None };
    let infos = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    })?;
    let data = infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vxlan(data)) => Some(data),
        _ => None,
    })?;
    let is_ours = data.contains(&InfoVxlan::Id(VNI_RESERVED));
    data.iter().find_map(|info| match info {
        InfoVxlan::Port(port) if !is_ours => Some(*port),
        _ => None,
    })
}

/// What the messages of a datagram are about, as far as it concerns the node. What cannot be read may be anything.
fn changes_of(datagram: &[u8], interest: &Interest) -> BTreeSet<Change> {
    let mut changes = BTreeSet::new();
    let mut rest = datagram;
    while !rest.is_empty() {
        let Ok(buffer) = NetlinkBuffer::new_checked(rest) else {
            changes.insert(Change::Any);
            break;
        };
        // Messages are aligned to four bytes.
        let length = (buffer.length() as usize).next_multiple_of(4);
        match NetlinkMessage::deserialize(rest).map(|message| message.payload) {
            Ok(NetlinkPayload::InnerMessage(message)) => {
                changes.extend(foreign_vxlan(&message).map(Change::Vxlan));
                changes.extend(interest.concerns(&message));
            }
            Ok(NetlinkPayload::Overrun(_)) | Err(_) => _ = changes.insert(Change::Any),
            Ok(_) => {}
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_of_network_namespaces_are_looked_at() {
        let table = "\
            25 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
            99 25 0:4 net:[4026532281] /run/netns/web1 rw shared:50 - nsfs nsfs rw\n\
            98 25 0:4 mnt:[4026532282] /run/snapd/ns/x.mnt rw - nsfs nsfs rw\n";
        let found: Vec<_> = namespaces(table).into_iter().collect();
        assert!(matches!(&found[..], [one] if one.contains("/run/netns/web1")), "{found:?}");
        assert_eq!(mounted_at(found[0]), PathBuf::from("/run/netns/web1"));
        let strange = "99 25 0:4 net:[4026532281] /run/netns/a\\040b\\134c rw - nsfs nsfs rw";
        assert_eq!(mounted_at(strange), PathBuf::from("/run/netns/a b\\c"));
    }
}
