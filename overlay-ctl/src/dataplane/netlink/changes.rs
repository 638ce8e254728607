//! Events that say that something changed which concerns the node, and never what: the receiver has to look.
#![expect(unsafe_code, reason = "a descriptor of a file that the kernel wakes us by is registered")]

use std::{collections::BTreeSet, fs::File, time::Duration};

use futures::StreamExt as _;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoVxlan, LinkAttribute, LinkInfo},
};
use overlay_common::VNI_RESERVED;
use rtnetlink::{MulticastGroup, packet_core::NetlinkPayload};
use tokio::{
    io::{Interest as Readiness, unix::AsyncFd},
    sync::mpsc,
    time::Instant,
};

use super::{
    Netlink, NetlinkError,
    interest::{Change, Interest},
};

/// Events in the queue. More events are merged, and none is lost.
const QUEUE: usize = 4;
/// The pause between attempts to listen again after the kernel's socket broke.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);
const MOUNTS: &str = "/proc/self/mountinfo";
/// The pause between two looks at the mount table, which may be long.
const MOUNTS_PAUSE: Duration = Duration::from_millis(250);
const GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv4Rule,
];

const ALL: [Change; 3] = [Change::Link, Change::Way, Change::Namespace];

type Messages = futures::channel::mpsc::UnboundedReceiver<(
    rtnetlink::packet_core::NetlinkMessage<RouteNetlinkMessage>,
    rtnetlink::sys::SocketAddr,
)>;

impl Netlink {
    /// Listens until the receiver is dropped. Every change after the return of this call causes an event, if it is
    /// within `interest`.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    pub fn changes(&self, interest: Interest) -> Result<mpsc::Receiver<Change>, NetlinkError> {
        let messages = listen()?;
        let mounts = Mounts::watch().map_err(NetlinkError::Open)?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(forward(messages, mounts, interest, sender));
        Ok(receiver)
    }
}

fn listen() -> Result<Messages, NetlinkError> {
    let (connection, _, messages) =
        rtnetlink::new_multicast_connection(&GROUPS).map_err(NetlinkError::Open)?;
    tokio::spawn(connection);
    Ok(messages)
}

/// The namespaces that have a name, because they are mounted (by `ip netns`, Docker, a CNI runtime), in whatever folder;
/// a watch of that folder would see the file before the namespace is mounted on it.
pub(crate) struct Mounts {
    /// The mount table, which the kernel marks as exceptional whenever it changes.
    table: AsyncFd<File>,
    /// The mounts of network namespaces when they were last read.
    namespaces: BTreeSet<String>,
    /// The table is not read before.
    next: Instant,
}

impl Mounts {
    /// Begins to watch. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The mount table cannot be read or watched.
    pub(crate) fn watch() -> std::io::Result<Self> {
        let file = File::open(MOUNTS)?;
        // SAFETY: the file owns its descriptor and keeps it until the AsyncFd that owns the file is gone.
        let table = unsafe {
            AsyncFd::register_with_interest(file, Readiness::PRIORITY | Readiness::ERROR)
        };
        let table = table.map_err(|error| error.into_parts().1)?;
        let namespaces = std::fs::read_to_string(MOUNTS).map(|text| namespaces(&text))?;
        Ok(Self { table, namespaces, next: Instant::now() })
    }

    /// Waits until the mounts of namespaces change.
    ///
    /// # Errors
    /// The runtime shuts down.
    pub(crate) async fn changed(&mut self) -> std::io::Result<()> {
        loop {
            tokio::time::sleep_until(self.next).await;
            self.table.ready_mut(Readiness::PRIORITY | Readiness::ERROR).await?.clear_ready();
            self.next = Instant::now() + MOUNTS_PAUSE;
            // After the mark was cleared, so that a change from here on sets it again.
            let Ok(text) = std::fs::read_to_string(MOUNTS) else { return Ok(()) };
            let now = namespaces(&text);
            if now != self.namespaces {
                self.namespaces = now;
                return Ok(());
            }
        }
    }
}

/// The lines of a mount table that are of network namespaces (proc(5): the fourth field is the mount's root, which of such
/// a mount is "net:[INODE]").
fn namespaces(table: &str) -> BTreeSet<String> {
    let is_namespace = |line: &&str| line.split(' ').nth(3).is_some_and(|r| r.starts_with("net:["));
    table.lines().filter(is_namespace).map(ToOwned::to_owned).collect()
}

async fn forward(
    mut messages: Messages,
    mut mounts: Mounts,
    interest: Interest,
    sender: mpsc::Sender<Change>,
) {
    let mut pending = BTreeSet::new();
    loop {
        tokio::select! {
            permit = sender.reserve(), if !pending.is_empty() => match permit {
                Ok(permit) => if let Some(change) = pending.pop_first() { permit.send(change) },
                Err(_) => return,
            },
            () = sender.closed() => return,
            message = messages.next() => match message {
                Some((message, _)) => pending.extend(changes_of(&message.payload, &interest)),
                None => match reopen(&sender).await {
                    Some(opened) => {
                        messages = opened;
                        pending.extend(ALL);
                    }
                    None => return,
                },
            },
            changed = mounts.changed() => match changed {
                Ok(()) => _ = pending.insert(Change::Namespace),
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

fn changes_of(payload: &NetlinkPayload<RouteNetlinkMessage>, interest: &Interest) -> Vec<Change> {
    match payload {
        // The kernel had more to say than the socket could hold.
        NetlinkPayload::Overrun(_) => ALL.to_vec(),
        NetlinkPayload::InnerMessage(message) => {
            let vxlan = foreign_vxlan(message).map(Change::Vxlan);
            interest.concerns(message).into_iter().chain(vxlan).collect()
        }
        _ => Vec::new(),
    }
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
    }
}
