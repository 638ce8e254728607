//! Neighbours: the next hops that the kernel keeps resolved for this node, and the gateway legs, whose MACs are known.
//!
//! The kernel asks for an entry with NTF_MANAGED again and again for as long as the entry exists, whether or not anybody
//! answers. So the node marks the entries that it made so (NDA_PROTOCOL), and deletes them when nothing is sent by them
//! any more. It never changes an entry that another program manages, or a permanent one.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use futures::StreamExt as _;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
        NeighbourState,
    },
    route::RouteProtocol,
};
use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};

use super::{Netlink, NetlinkError, dump::dump};

/// NDA_PROTOCOL of the entries that this node made (kernel 5.2). iproute2 and the kernel give this number no name.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(111);

/// A neighbour: the device that it is behind, and its address.
pub(super) type Key = (u32, Ipv4Addr);

/// What the kernel knows about a neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Neighbour {
    /// Its MAC, where the kernel would use it now.
    pub(super) mac: Option<[u8; 6]>,
    is_static: bool,
    is_managed: bool,
    /// This node made the entry, or took it over.
    is_ours: bool,
    /// NTF_EXT_LEARNED: a program of the control plane made the entry.
    is_external: bool,
}

impl Neighbour {
    /// Returns true if the kernel keeps the entry without this node's doing, or at its request.
    ///
    /// An entry that is managed and carries no mark at all is of an earlier version of this program, which set none: it
    /// is marked now, so that it goes in its time.
    pub(super) fn is_kept(&self) -> bool {
        self.is_static || self.is_managed && (self.is_ours || self.is_external)
    }

    /// Returns true if another program keeps the entry. It is not this node's to mark, whether it is resolved or not.
    pub(super) fn is_of_others(&self) -> bool {
        self.is_kept() && !self.is_ours
    }
}

impl Netlink {
    /// All neighbours of IPv4.
    pub(super) async fn neighbours(&self) -> Result<BTreeMap<Key, Neighbour>, NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        let request = RouteNetlinkMessage::GetNeighbour(message);
        let entry = |message| match message {
            RouteNetlinkMessage::NewNeighbour(message) => Some((key(&message)?, parse(&message))),
            _ => None,
        };
        let listed = dump(&self.handle, request, "list the neighbours", entry).await?;
        // Of two answers about one neighbour the later one holds.
        Ok(listed.items.into_iter().collect())
    }

    /// One neighbour.
    pub(super) async fn neighbour(
        &self,
        (ifindex, ip): Key,
    ) -> Result<Option<Neighbour>, NetlinkError> {
        let action = "look a neighbour up";
        let mut request =
            NetlinkMessage::from(RouteNetlinkMessage::GetNeighbour(message(ifindex, ip)));
        request.header.flags = NLM_F_REQUEST;
        let mut handle = self.handle.clone();
        let mut answers =
            handle.request(request).map_err(|error| NetlinkError::new(action, error))?;
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(message)) => {
                    return Ok(Some(parse(&message)));
                }
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    let error = NetlinkError::new(action, rtnetlink::Error::NetlinkError(error));
                    return if error.is_gone() { Ok(None) } else { Err(error) };
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// Starts the resolution now, which NTF_USE does on every kernel; NTF_MANAGED makes newer kernels repeat it.
    /// NTF_EXT_LEARNED keeps the entry when the kernel makes room in a full table.
    ///
    /// # Errors
    /// [`NetlinkError::NeighbourTableFull`] where there is no room for the entry. rtnetlink's.
    pub(super) async fn keep_resolved(&self, (ifindex, ip): Key) -> Result<(), NetlinkError> {
        let mut request = self
            .handle
            .neighbours()
            .add(ifindex, IpAddr::V4(ip))
            .replace()
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use | NeighbourFlags::ExtLearned);
        request.message_mut().attributes.extend([
            NeighbourAttribute::Protocol(PROTOCOL),
            NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed),
        ]);
        let done = request.execute().await;
        match done.map_err(|error| NetlinkError::new("resolve a neighbour", error)) {
            // The device went away or down in between: there is no next hop, and a change follows.
            Err(error)
                if error.is_gone()
                    || matches!(error.errno(), Some(Errno::ENETDOWN | Errno::EINVAL)) =>
            {
                Ok(())
            }
            Err(error) if error.errno() == Some(Errno::ENOBUFS) => {
                Err(NetlinkError::NeighbourTableFull)
            }
            other => other,
        }
    }

    /// Deletes the neighbours among `known` that this node had the kernel resolve, except those that are `used`.
    /// Returns the first failure; the others are deleted all the same.
    pub(super) async fn release(
        &self,
        known: &BTreeMap<Key, Neighbour>,
        used: &BTreeSet<Key>,
    ) -> Result<(), NetlinkError> {
        let mut outcome = Ok(());
        let ours =
            known.iter().filter(|(key, neighbour)| is_left(neighbour) && !used.contains(key));
        for (key, _) in ours {
            tracing::debug!(ifindex = key.0, ip = %key.1, "a neighbour is no next hop any more");
            outcome = outcome.and(self.delete(*key).await);
        }
        outcome
    }

    /// Tells the host permanently which MAC a neighbour has.
    pub(super) async fn fix(&self, (ifindex, ip): Key, mac: [u8; 6]) -> Result<(), NetlinkError> {
        let mut request = self.handle.neighbours().add(ifindex, IpAddr::V4(ip)).replace();
        request = request.state(NeighbourState::Permanent).link_layer_address(&mac);
        request.message_mut().attributes.push(NeighbourAttribute::Protocol(PROTOCOL));
        let fixed = request.execute().await;
        fixed.map_err(|error| NetlinkError::new("make a neighbour permanent", error))
    }

    /// Makes these the permanent neighbours on a device that this node has set, each with its MAC.
    pub(super) async fn keep_fixed(
        &self,
        ifindex: u32,
        wanted: &BTreeMap<Ipv4Addr, [u8; 6]>,
    ) -> Result<(), NetlinkError> {
        let known = self.neighbours().await?;
        let held = |ip: &Ipv4Addr| known.get(&(ifindex, *ip));
        let has = |ip: &Ipv4Addr, mac| held(ip).is_some_and(|n| n.is_static && n.mac == Some(mac));
        for (ip, mac) in wanted.iter().filter(|(ip, mac)| !has(ip, **mac)) {
            self.fix((ifindex, *ip), *mac).await?;
        }
        let is_stale = |(key, neighbour): &(&Key, &Neighbour)| {
            let is_set = neighbour.is_ours && neighbour.is_static;
            key.0 == ifindex && is_set && !wanted.contains_key(&key.1)
        };
        for (key, _) in known.iter().filter(is_stale) {
            self.delete(*key).await?;
        }
        Ok(())
    }

    /// Deletes a permanent neighbour, where this node has set it.
    pub(super) async fn unfix(&self, key: Key) -> Result<(), NetlinkError> {
        match self.neighbour(key).await? {
            Some(neighbour) if neighbour.is_ours && neighbour.is_static => self.delete(key).await,
            _ => Ok(()),
        }
    }

    async fn delete(&self, (ifindex, ip): Key) -> Result<(), NetlinkError> {
        let deleted = self.handle.neighbours().del(message(ifindex, ip)).execute().await;
        match deleted.map_err(|error| NetlinkError::new("delete a neighbour", error)) {
            Err(error) if error.is_gone() => Ok(()),
            deleted => deleted,
        }
    }

    /// Deletes all neighbours that this node, or one before it in this namespace, had the kernel resolve. Returns how
    /// many there were.
    ///
    /// # Errors
    /// The first failure; the others are deleted all the same.
    pub async fn release_neighbours(&self) -> Result<usize, NetlinkError> {
        let known = self.neighbours().await?;
        self.release(&known, &BTreeSet::new()).await?;
        Ok(known.values().filter(|neighbour| is_left(neighbour)).count())
    }
}

/// Returns true for an entry that is to go when nothing is sent by it. A static one may be somebody's who made it out of
/// ours.
fn is_left(neighbour: &Neighbour) -> bool {
    neighbour.is_ours && !neighbour.is_static
}

fn message(ifindex: u32, ip: Ipv4Addr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = ifindex;
    message.attributes = vec![NeighbourAttribute::Destination(NeighbourAddress::Inet(ip))];
    message
}

/// The neighbour that a message is about; `None` where it is not one of IPv4.
pub(super) fn key(message: &NeighbourMessage) -> Option<Key> {
    let ip = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(*ip),
        _ => None,
    });
    (message.header.family == AddressFamily::Inet).then_some((message.header.ifindex, ip?))
}

pub(super) fn parse(message: &NeighbourMessage) -> Neighbour {
    let state = message.header.state;
    // NUD_VALID of the kernel (include/net/neighbour.h): there is an address and it may be used.
    let is_valid = matches!(
        state,
        NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
            | NeighbourState::Noarp
    );
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(mac) if is_valid => {
            <[u8; 6]>::try_from(mac.as_slice()).ok()
        }
        _ => None,
    });
    let has = |wanted: &dyn Fn(&NeighbourAttribute) -> bool| message.attributes.iter().any(wanted);
    let is_managed = has(&|attribute| {
        matches!(attribute, NeighbourAttribute::ExtFlags(flags)
            if flags.contains(NeighbourExtFlags::Managed))
    });
    let is_ours = has(
        &|attribute| matches!(attribute, NeighbourAttribute::Protocol(protocol) if *protocol == PROTOCOL),
    );
    let is_external = message.header.flags.contains(NeighbourFlags::ExtLearned);
    // Marking a static entry would turn it into a learned one.
    let is_static = matches!(state, NeighbourState::Permanent | NeighbourState::Noarp);
    Neighbour { mac, is_static, is_managed, is_ours, is_external }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(
        state: NeighbourState,
        flags: NeighbourFlags,
        more: &[NeighbourAttribute],
    ) -> Neighbour {
        let mut message = message(7, Ipv4Addr::new(10, 0, 0, 2));
        (message.header.state, message.header.flags) = (state, flags);
        message.attributes.extend_from_slice(more);
        assert_eq!(key(&message), Some((7, Ipv4Addr::new(10, 0, 0, 2))));
        parse(&message)
    }

    #[test]
    fn an_entry_is_kept_and_goes_by_whose_it_is() {
        let managed = NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed);
        let ours = NeighbourAttribute::Protocol(PROTOCOL);
        let other = NeighbourAttribute::Protocol(RouteProtocol::Bgp);
        let (none, external) = (NeighbourFlags::empty(), NeighbourFlags::ExtLearned);
        let reachable = NeighbourState::Reachable;
        for (what, neighbour, is_kept, goes) in [
            ("ordinary", entry(reachable, none, &[]), false, false),
            ("ours", entry(reachable, external, &[ours.clone(), managed.clone()]), true, true),
            (
                "ours, before 5.16",
                entry(reachable, external, std::slice::from_ref(&ours)),
                false,
                true,
            ),
            (
                "of an earlier version",
                entry(reachable, none, std::slice::from_ref(&managed)),
                false,
                false,
            ),
            (
                "another program's",
                entry(reachable, external, std::slice::from_ref(&managed)),
                true,
                false,
            ),
            ("a route daemon's", entry(reachable, external, &[other, managed]), true, false),
            ("permanent", entry(NeighbourState::Permanent, none, &[]), true, false),
            ("made permanent", entry(NeighbourState::Permanent, external, &[ours]), true, false),
        ] {
            assert_eq!((neighbour.is_kept(), is_left(&neighbour)), (is_kept, goes), "{what}");
        }
    }

    #[test]
    fn a_mac_counts_only_while_the_kernel_uses_it() {
        let mac = [NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 9])];
        for (state, is_valid) in [
            (NeighbourState::Stale, true),
            (NeighbourState::Probe, true),
            (NeighbourState::Failed, false),
            (NeighbourState::Incomplete, false),
        ] {
            let neighbour = entry(state, NeighbourFlags::empty(), &mac);
            assert_eq!(neighbour.mac.is_some(), is_valid, "{state:?}");
        }
    }
}
