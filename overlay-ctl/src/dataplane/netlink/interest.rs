//! Which of the kernel's changes concern the node.
//!
//! A busy host has thousands of changes a second that are nobody's but its own: bridges learn and forget MACs, containers
//! come and go, a routing daemon writes routes. Each look at the kernel costs time, so an event counts only if what it is
//! about can have an effect on what the node looks at.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ipnet::Ipv4Net;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkMessage},
    neighbour::NeighbourMessage,
    route::{RouteAddress, RouteAttribute, RouteMessage},
    rule::{RuleAttribute, RuleFlags, RuleMessage},
    tc::{TcHandle, TcMessage},
};

use socket2::Socket;

use super::{
    Underlay,
    event_filter::{self, Filter},
    names::{MERGE_IN, MERGE_OUT, PREFIX},
    neighbour::{self, Key},
};
use crate::model::Vtep;

/// What a change in the node's namespace is about. Several changes may come as one event, and an event may come without a
/// change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Anything: events may be lost.
    Any,
    /// The device of the overlay with this index.
    Device(u32),
    /// The underlay, a device by which packets leave, the node's own address, or the merge pair.
    Link,
    /// The way to a VTEP: a next hop was resolved or stopped answering, or there is another route or routing rule.
    Way,
    /// A network namespace was mounted there, or unmounted.
    Namespace(PathBuf),
    /// A VXLAN device that is not the overlay's, with this UDP port. It may be in another namespace already, with its
    /// socket still here, and then no look at this namespace shows it.
    Vxlan(u16),
}

/// Which changes concern the node. Clones are one; the reader of events asks it, and each look at the ways to other
/// nodes tells it anew what it is about. Before the first look every change counts, except those of families of
/// addresses that nothing is asked of.
#[derive(Clone, Debug, Default)]
pub struct Interest(Arc<Mutex<Concerns>>);

#[derive(Debug, Default)]
struct Concerns {
    /// Something was told; before that, everything counts.
    is_told: bool,
    /// The node's own address on the underlay.
    own: Option<Ipv4Addr>,
    underlay: u32,
    vteps: BTreeSet<Ipv4Addr>,
    /// The devices by which packets to the VTEPs leave. Not each has a next hop.
    devices: BTreeSet<u32>,
    /// The next hops, each with its MAC as last seen or reported; `None` where it had none that counts.
    hops: BTreeMap<Key, Option<[u8; 6]>>,
    /// The devices of the overlay that looks found or events named. A renamed one is still the overlay's.
    ours: BTreeSet<u32>,
    /// The socket of the events, and what its program lets pass; `None` = everything.
    socket: Option<Socket>,
    filter: Option<Filter>,
}

impl Interest {
    fn lock(&self) -> MutexGuard<'_, Concerns> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of next hops.
    #[must_use]
    pub fn hops(&self) -> usize {
        self.lock().hops.len()
    }

    /// The ways to these VTEPs are looked at now.
    pub(super) fn expect(&self, vteps: &BTreeSet<Vtep>, underlay: &Underlay) {
        let mut concerns = self.lock();
        let v4 = |vtep: &Vtep| match vtep.ip() {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        };
        let vteps: BTreeSet<Ipv4Addr> = vteps.iter().filter_map(v4).collect();
        let now = (Some(underlay.address), underlay.ifindex);
        if (concerns.own, concerns.underlay) != now || concerns.vteps != vteps {
            concerns.open();
        }
        concerns.is_told = true;
        (concerns.own, concerns.underlay) = now;
        concerns.vteps = vteps;
    }

    /// These devices are the overlay's, as a look found them.
    pub(crate) fn has(&self, devices: impl Iterator<Item = u32>) {
        self.lock().ours.extend(devices);
    }

    /// Events come by this socket from now on.
    pub(super) fn come_by(&self, socket: Socket) {
        let mut concerns = self.lock();
        // A new socket has no program.
        concerns.filter = None;
        concerns.socket = Some(socket);
    }

    /// Packets to a VTEP leave by this device; it is looked at after this call.
    pub(super) fn watch_device(&self, index: u32) {
        let mut concerns = self.lock();
        if concerns.devices.insert(index) {
            concerns.open();
        }
    }

    /// A neighbour is a next hop; it is looked at after this call.
    pub(super) fn watch(&self, hop: Key) {
        let mut concerns = self.lock();
        if let Entry::Vacant(place) = concerns.hops.entry(hop) {
            place.insert(None);
            concerns.open();
        }
    }

    /// The MAC of a next hop, as the look found it.
    ///
    /// An event in between may have told a newer one. That event counted, so another look follows, and corrects this.
    pub(super) fn saw(&self, hop: Key, mac: Option<[u8; 6]>) {
        self.lock().hops.insert(hop, mac);
    }

    /// No other neighbour is a next hop: the look is over. A device by which packets left before counts until it is gone: its
    /// carrier may come back, and with it a route of which nothing is told.
    pub(super) fn retain(&self, used: &BTreeSet<Key>, devices: BTreeSet<u32>) {
        let mut concerns = self.lock();
        concerns.hops.retain(|hop, _| used.contains(hop));
        concerns.devices.extend(devices);
        concerns.close();
    }

    /// The look is over, and some ways are not known: all that counted before counts still.
    pub(super) fn keep(&self) {
        self.lock().close();
    }

    /// The change that an event tells of, where it concerns the node.
    pub(super) fn concerns(&self, event: &RouteNetlinkMessage) -> Option<Change> {
        let mut concerns = self.lock();
        match event {
            RouteNetlinkMessage::NewLink(message) => concerns.link(message, true),
            RouteNetlinkMessage::DelLink(message) => concerns.link(message, false),
            RouteNetlinkMessage::NewAddress(message) | RouteNetlinkMessage::DelAddress(message) => {
                concerns.address(message)
            }
            RouteNetlinkMessage::NewNeighbour(message) => concerns.neighbour(message, true),
            RouteNetlinkMessage::DelNeighbour(message) => concerns.neighbour(message, false),
            RouteNetlinkMessage::NewRoute(message) | RouteNetlinkMessage::DelRoute(message) => {
                concerns.route(message)
            }
            RouteNetlinkMessage::NewRule(message) | RouteNetlinkMessage::DelRule(message) => {
                concerns.rule(message)
            }
            RouteNetlinkMessage::NewQueueDiscipline(message)
            | RouteNetlinkMessage::DelQueueDiscipline(message) => concerns.queue(message),
            _ => None,
        }
    }
}

impl Concerns {
    /// Has the kernel hand over every event, until the next [`Concerns::close`]: what is looked at next is not known to
    /// the socket's program.
    fn open(&mut self) {
        if let (Some(socket), Some(_)) = (&self.socket, &self.filter) {
            match event_filter::pass_all(socket) {
                Ok(()) => self.filter = None,
                Err(error) => tracing::warn!(%error, "the kernel goes on to hold events back"),
            }
        }
    }

    /// Has the kernel hand over only those events that can concern the node.
    fn close(&mut self) {
        let Some(socket) = &self.socket else { return };
        let addresses =
            |ips: &mut dyn Iterator<Item = Ipv4Addr>| event_filter::ranges(ips.map(u32::from));
        let filter = Filter {
            own: self.own.map(u32::from),
            devices: self.devices.iter().copied().chain([self.underlay]).collect(),
            hop_devices: self.hops.keys().map(|(device, _)| *device).collect(),
            hops: addresses(&mut self.hops.keys().map(|(_, ip)| *ip)),
            vteps: addresses(&mut self.vteps.iter().copied()),
        };
        if self.filter.as_ref() == Some(&filter) {
            return;
        }
        match filter.attach(socket) {
            Ok(()) => self.filter = Some(filter),
            // Each event is looked at then, as it comes.
            Err(error) => tracing::warn!(%error, "the kernel does not hold events of others back"),
        }
    }

    /// The underlay device, and those by which packets to VTEPs leave.
    fn is_on_a_way(&self, index: u32) -> bool {
        index == self.underlay || self.devices.contains(&index)
    }

    fn link(&mut self, message: &LinkMessage, stands: bool) -> Option<Change> {
        let index = message.header.index;
        let name = message.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.as_str()),
            _ => None,
        });
        let is_named = name.is_some_and(|name| name.starts_with(PREFIX));
        let was_ours = self.ours.contains(&index);
        let is_on_a_way = self.is_on_a_way(index);
        if is_named && stands {
            self.ours.insert(index);
        // A bridge says in the same way that a device is no port of it any more.
        } else if !stands && message.header.interface_family != AddressFamily::Bridge {
            self.ours.remove(&index);
            self.devices.remove(&index);
        }
        if !self.is_told {
            Some(Change::Any)
        } else if is_on_a_way || matches!(name, Some(MERGE_IN | MERGE_OUT)) {
            Some(Change::Link)
        } else if is_named {
            Some(Change::Device(index))
        } else {
            // Whatever it was, it has another name now.
            was_ours.then_some(Change::Any)
        }
    }

    fn address(&self, message: &AddressMessage) -> Option<Change> {
        if message.header.family != AddressFamily::Inet {
            return None;
        }
        let is_own = message.attributes.iter().any(|attribute| match attribute {
            AddressAttribute::Local(IpAddr::V4(ip)) | AddressAttribute::Address(IpAddr::V4(ip)) => {
                Some(*ip) == self.own
            }
            _ => false,
        });
        let index = message.header.index;
        if !self.is_told {
            Some(Change::Any)
        } else if is_own || self.is_on_a_way(index) {
            Some(Change::Link)
        } else {
            self.ours.contains(&index).then_some(Change::Device(index))
        }
    }

    /// What the host sends by a device of the overlay is to wait in another queue.
    fn queue(&self, message: &TcMessage) -> Option<Change> {
        let index = u32::try_from(message.header.index).ok()?;
        let is_root = message.header.parent == TcHandle::ROOT;
        (is_root && self.ours.contains(&index)).then_some(Change::Device(index))
    }

    fn neighbour(&mut self, message: &NeighbourMessage, stands: bool) -> Option<Change> {
        let key = neighbour::key(message)?;
        if !self.is_told {
            return Some(Change::Way);
        }
        let mac = if stands { neighbour::parse(message).mac } else { None };
        let last = self.hops.get_mut(&key)?;
        (std::mem::replace(last, mac) != mac).then_some(Change::Way)
    }

    fn route(&self, message: &RouteMessage) -> Option<Change> {
        if message.header.address_family != AddressFamily::Inet {
            return None;
        }
        let to = message.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(*ip),
            _ => None,
        });
        let to = to.unwrap_or(Ipv4Addr::UNSPECIFIED);
        // What cannot be understood counts.
        let leads_to_a_vtep = Ipv4Net::new(to, message.header.destination_prefix_length)
            .map_or(true, |net| self.vteps.range(net.network()..=net.broadcast()).next().is_some());
        (!self.is_told || leads_to_a_vtep).then_some(Change::Way)
    }

    /// A routing rule counts unless it is about other packets than those to VTEPs: of another destination or source, with
    /// a mark, or from elsewhere. What the host itself sends comes from lo.
    fn rule(&self, message: &RuleMessage) -> Option<Change> {
        let header = &message.header;
        if header.family != AddressFamily::Inet {
            return None;
        }
        let within = |ip: Ipv4Addr, length: u8| Ipv4Net::new(ip, length).ok();
        let may_be_ours = message.attributes.iter().all(|attribute| match attribute {
            RuleAttribute::Destination(IpAddr::V4(ip)) => within(*ip, header.dst_len)
                .is_none_or(|net| self.vteps.iter().any(|vtep| net.contains(vtep))),
            RuleAttribute::Source(IpAddr::V4(ip)) => within(*ip, header.src_len)
                .is_none_or(|net| self.own.is_none_or(|own| net.contains(&own))),
            RuleAttribute::Iifname(name) => name == "lo",
            RuleAttribute::FwMark(mark) => *mark == 0,
            _ => true,
        });
        let is_inverted = header.flags.contains(RuleFlags::Invert);
        (!self.is_told || may_be_ours || is_inverted).then_some(Change::Way)
    }
}

#[cfg(test)]
mod tests;
