//! A reference model of the data path in plain Rust: from a frame and the maps it says what goes where, or why nothing
//! does. It was written from the rules (ARCHITECTURE.md, the RFCs) and shares no code with the programs: where the two
//! differ, one of them is wrong. [`super::against_model`] looks for frames where they do.
//!
//! Each program has a file of its name here, and so has each rule that two programs keep. Of the kernel the model knows
//! only what no program can change: see [`kernel`].

mod bytes;
mod checksum;
mod cut;
mod ecn;
mod fence;
mod from_endpoint;
mod from_gateway;
mod from_underlay;
mod guard_underlay;
mod jumbo;
pub(super) mod kernel;
mod path;
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
pub(super) use jumbo::IS_KNOWN as JUMBO_IS_KNOWN;
pub(super) use path::Paths;
pub(super) use tunnel::{SOURCE_PORT_AT, flow};

/// A frame as it comes in.
#[derive(Clone, Copy)]
pub(super) struct Incoming<'a> {
    /// The whole frame, with its tags in their places.
    pub(super) bytes: &'a [u8],
    pub(super) skb: Skb,
    /// The kernel has taken the outermost tag out and keeps it beside the frame, as it does with frames that really come
    /// in.
    pub(super) tag_beside: bool,
    /// The checksum that its sender left to a device.
    pub(super) unfinished: Option<Unfinished>,
    /// What kind of super-packet it is. `None` also for the super-packets of BPF_PROG_TEST_RUN, which are of no kind: only
    /// `skb` has their segment size.
    pub(super) bulk: Option<Bulk>,
}

/// What becomes of a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fate {
    /// What becomes of the frame itself.
    pub(super) end: End,
    /// Copies that go out, in their order: devices and frames.
    pub(super) copies: Vec<(u32, Frame)>,
    /// Why other copies are lost: each is counted.
    pub(super) lost: Vec<DropReason>,
    /// What is counted for endpoints, by their slots.
    pub(super) traffic: BTreeMap<u32, Traffic>,
    /// The kind of super-packet that the frame is, and with it its copies.
    bulk: Option<Bulk>,
}

/// The end of a frame. Only [`End::Up`] is not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum End {
    /// It is not for the overlay and goes up the stack unchanged.
    #[default]
    Up,
    /// It may pass and goes up the stack unchanged.
    Allowed,
    /// These bytes go that way.
    Redirected(Way, Frame),
    /// Its copies have gone out.
    Copied,
    /// It is too big and counted as such; these bytes go back to its sender.
    Told(Way, Frame),
    /// Why it went no further.
    Dropped(DropReason),
}

/// Which way a redirected frame goes. BPF_PROG_TEST_RUN does not tell it; frames that really come in show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Out of the host-side device with this index, or straight to its peer: it comes out there.
    OutOf(u32),
    /// Into the device, as if it had received the frame.
    IntoIngress(u32),
    /// Where the kernel's own routes and neighbours lead.
    ByRoutes,
}

/// A frame as it leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) bytes: Vec<u8>,
    /// Outer headers were pushed. Their UDP source port is 0 in `bytes`: it is a hash of the flow, of which only some
    /// properties are known.
    pub(super) tunnelled: bool,
    /// What kind of super-packet it is.
    pub(super) bulk: Option<Bulk>,
    /// Where a checksum lies that the device which sends the frame may have finished, or not.
    pub(super) sum: Option<Unfinished>,
}

impl Frame {
    fn plain(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), tunnelled: false, bulk: None, sum: None }
    }
}

impl Fate {
    /// A copy goes out of the device, if that takes it; else it is lost.
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

    /// What is counted of the frame and of copies that are lost, by the numbers of reasons.
    pub(super) fn reasons(&self) -> Vec<u32> {
        self.lost.iter().map(|reason| *reason as u32).chain(self.end_reason()).collect()
    }

    /// The number of the reason that the frame itself is counted under: 0 for what was forwarded.
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

/// The fate of a frame that the direction's program gets. What a router reports about the way to a VTEP is noted in
/// `paths`.
pub(super) fn decide(
    direction: Direction,
    world: &World,
    paths: &mut Paths,
    frame: Incoming<'_>,
) -> Fate {
    let mut fate = Fate { bulk: frame.bulk, ..Fate::default() };
    let end = match direction {
        Direction::FromEndpoint => from_endpoint::decide(world, paths, frame, &mut fate),
        Direction::FromUnderlay => from_underlay::decide(world, paths, frame, &mut fate),
        Direction::FromGateway => from_gateway::decide(world, frame),
        Direction::GuardUnderlay => guard_underlay::decide(world, frame),
    };
    fate.end = end.unwrap_or_else(End::Dropped);
    if let End::Redirected(_, out) = &mut fate.end {
        out.bulk = frame.bulk;
    }
    if direction == Direction::FromEndpoint && matches!(fate.end, End::Dropped(_) | End::Told(..)) {
        // A frame of no endpoint is counted with the endpoints that have no slot.
        let slot = world.ports.get(&frame.skb.ifindex).map_or(0, |port| port.slot);
        fate.count(slot, frame.bytes.len(), |traffic| &mut traffic.dropped);
    }
    fate
}
