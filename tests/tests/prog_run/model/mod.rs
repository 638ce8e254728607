//! A reference model of the data path in plain Rust. From a frame and the maps it decides what goes where, or
//! why nothing does. It was written from the rules (ARCHITECTURE.md, the RFCs) and shares no code with the
//! programs: where the two differ, one of them is wrong. [`super::against_model`] searches for such frames.
//!
//! Each program has a file of its name here, and so has each rule that two programs share. The model contains
//! only those parts of the kernel that no program can change: see [`kernel`].

mod arp;
mod bytes;
mod checksum;
mod claim;
mod cut;
mod ecn;
mod fence;
mod from_endpoint;
mod from_gateway;
mod from_underlay;
mod from_veth;
mod guard_underlay;
mod icmp;
mod jumbo;
pub(super) mod kernel;
mod memory;
mod path;
mod sender;
mod too_big;
mod tunnel;
mod vlan;

use std::collections::BTreeMap;

use overlay_common::{Counter, Direction, DropReason, Traffic};

use super::{
    bench::Skb,
    tap::{Bulk, Unfinished},
    world::World,
};

pub(super) use cut::{cut, finished};
pub(super) use from_veth::goes_through_the_pair;
pub(super) use jumbo::IS_KNOWN as JUMBO_IS_KNOWN;
pub(super) use memory::Memory;
pub(super) use tunnel::{SOURCE_PORT_AT, flow};

/// A frame as it comes in.
#[derive(Clone, Copy)]
pub(super) struct Incoming<'a> {
    /// The whole frame, with its tags in their places.
    pub(super) bytes: &'a [u8],
    pub(super) skb: Skb,
    /// True if the kernel has taken the outermost tag out and keeps it beside the frame, as it does with
    /// frames that come in by a device.
    pub(super) tag_beside: bool,
    /// The checksum that the sender left to a device.
    pub(super) unfinished: Option<Unfinished>,
    /// The kind of super-packet. It is also `None` for super-packets of BPF_PROG_TEST_RUN, which are of no
    /// kind and have only a segment size, in `skb`.
    pub(super) bulk: Option<Bulk>,
}

/// The results of a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fate {
    /// The end of the frame itself.
    pub(super) end: End,
    /// Copies that go out, in their order: devices and frames.
    pub(super) copies: Vec<(u32, Frame)>,
    /// The reasons why other copies are lost, each of which is counted.
    pub(super) lost: Vec<DropReason>,
    /// The counts of endpoints, by slot.
    pub(super) traffic: BTreeMap<u32, Traffic>,
    /// The kind of super-packet of the frame and of its copies.
    bulk: Option<Bulk>,
}

/// The end of a frame. Only [`End::Up`] is not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum End {
    /// The frame is not for the overlay, and goes up the stack unchanged.
    #[default]
    Up,
    /// The frame may pass, and goes up the stack unchanged.
    Allowed,
    /// These bytes go this way.
    Redirected(Way, Frame),
    /// The frame's copies have gone out.
    Copied,
    /// The frame is too big and counted as such, and these bytes go back to its sender.
    Told(Way, Frame),
    /// The frame is dropped for this reason.
    Dropped(DropReason),
}

/// The way of a redirected frame. BPF_PROG_TEST_RUN does not show it, but frames that come in by a device do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The frame leaves by the host-side device with this index, or goes straight to its peer.
    OutOf(u32),
    /// The frame enters the device, as if the device had received it.
    IntoIngress(u32),
    /// The frame leaves by the device with this index, to the next hop that the kernel's own routes and neighbours
    /// name there.
    ByNeighbour(u32),
}

/// A frame as it leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) bytes: Vec<u8>,
    /// True if outer headers were added. Their UDP source port is 0 in `bytes`, because the port is a hash of
    /// the flow of which the model only knows some properties.
    pub(super) tunnelled: bool,
    /// The kind of super-packet.
    pub(super) bulk: Option<Bulk>,
    /// The place of a checksum that the device which sends the frame may have finished or not.
    pub(super) sum: Option<Unfinished>,
}

impl Frame {
    fn plain(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), tunnelled: false, bulk: None, sum: None }
    }
}

impl Fate {
    /// Sends a copy out of the device, or counts the copy as lost if the device does not take it.
    fn copy(&mut self, ifindex: u32, frame: Frame) {
        let mut frame = Frame { bulk: self.bulk, ..frame };
        if frame.bulk.is_some() && !frame.tunnelled {
            frame.bytes = jumbo::taken_out(frame.bytes);
        }
        if kernel::takes_copy(ifindex, &frame) {
            self.copies.push((ifindex, frame));
        } else {
            self.lost.push(DropReason::RedirectFailed);
        }
    }

    /// Counts copies for receivers that have no place in FLOOD.
    fn overflow(&mut self, copies: u32) {
        self.lost.extend((0..copies).map(|_| DropReason::FloodOverflow));
    }

    /// The numbers of the reasons under which the frame and its lost copies are counted.
    pub(super) fn reasons(&self) -> Vec<u32> {
        self.lost.iter().map(|reason| *reason as u32).chain(self.end_reason()).collect()
    }

    /// The number of the reason under which the frame itself is counted: 0 if it was forwarded.
    pub(super) fn end_reason(&self) -> Option<u32> {
        match self.end {
            End::Up => None,
            End::Allowed | End::Redirected(..) | End::Copied => Some(0),
            End::Told(..) => Some(DropReason::TooBig as u32),
            End::Dropped(reason) => Some(reason as u32),
        }
    }

    fn count(&mut self, slot: u32, len: usize, which: fn(&mut Traffic) -> &mut Counter) {
        let counter = which(self.traffic.entry(slot).or_default());
        counter.packets += 1;
        counter.bytes += len as u64;
    }
}

/// The fate of a frame that comes to the direction's program. What the program remembers is noted in `memory`.
pub(super) fn decide(
    direction: Direction,
    world: &World,
    memory: &mut Memory,
    frame: Incoming<'_>,
) -> Fate {
    let mut fate = Fate { bulk: frame.bulk, ..Fate::default() };
    let end = match direction {
        Direction::FromEndpoint => from_endpoint::decide(world, memory, frame, &mut fate),
        Direction::FromUnderlay => from_underlay::decide(world, memory, frame, &mut fate),
        Direction::FromGateway => from_gateway::decide(world, frame),
        Direction::GuardUnderlay => guard_underlay::decide(world, frame),
    };
    fate.end = end.unwrap_or_else(End::Dropped);
    if let End::Redirected(_, out) = &mut fate.end {
        out.bulk = frame.bulk;
    }
    if direction == Direction::FromEndpoint && matches!(fate.end, End::Dropped(_) | End::Told(..)) {
        // A frame from no endpoint is counted in the slot that endpoints without their own slot share.
        let slot = world.ports.get(&frame.skb.ifindex).map_or(0, |port| port.slot);
        fate.count(slot, frame.bytes.len(), |traffic| &mut traffic.dropped);
    }
    fate
}
