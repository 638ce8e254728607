//! Frames that come in by real devices, to attached programs. The test compares the frames that leave by the
//! devices of this node and of the far node, which receives everything that this node sends.

use std::collections::BTreeMap;

use overlay_common::Direction;
use proptest::{prelude::*, test_runner::TestCaseError};

use super::{
    one_by_one::{Flows, Heard, check_device, check_heard},
    search::{Agree, Packet, Step, Tally},
    worlds::{Change, world},
};
use crate::{
    bench::{Bench, Counts, FarNode, Skb},
    model::{self, End, Frame, Incoming, Memory, Way},
    tap::{BulkKind, Tap, Unfinished},
    world::{DEVICE_TAKES, DEVICES, FAR_PORT, PEER, PORT_A, PORT_B, UNDERLAY, World},
};

/// Bytes of the longest frame that still fits a device of 1500 bytes with outer headers and tags.
const LONGEST: usize = 1400;

/// The largest number of frames that one packet may cause.
const QUEUED: usize = 500;

/// Returns true if the checksum's place is behind the part that an answer quotes.
fn is_deep(sum: Unfinished) -> bool {
    usize::from(sum.start) + usize::from(sum.offset) + 2 > 14 + 456
}

/// The treatment of super-packets by the underlay's device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Underlay {
    /// The device takes them whole, like a network card that cuts them itself.
    TakesWhole,
    /// The device takes none, so that the kernel cuts them before.
    HasThemCut,
}

/// Both nodes, and the ends of all their devices.
pub(super) struct OnDevices {
    underlay: Underlay,
    /// The devices of this node, in the order in which their frames are read.
    taps: Vec<(u32, Tap)>,
    far_node: FarNode,
    far_tap: Tap,
}

impl OnDevices {
    /// Attaches the programs of the overlay.
    pub(super) fn new(bench: &mut Bench, underlay: Underlay) -> Self {
        bench.attach(Direction::FromEndpoint, "port_a");
        bench.attach(Direction::FromEndpoint, "port_b");
        bench.attach(Direction::FromUnderlay, "underlay");
        bench.set_offloads_of_underlay(underlay == Underlay::TakesWhole);
        let taps = DEVICES.iter().map(|ifindex| (*ifindex, bench.tap(*ifindex))).collect();
        let (far_node, far_tap) = (bench.far_node(), bench.tap_far());
        Self { underlay, taps, far_node, far_tap }
    }
}

/// The results that are expected of all frames since the last change of the tables.
#[derive(Default)]
struct Expected {
    heard: Heard,
    /// Packets by reason and direction.
    counts: BTreeMap<(u32, Direction), u64>,
}

impl Agree for OnDevices {
    fn agree(
        &mut self,
        bench: &mut Bench,
        changes: &[Change],
        steps: &[Step],
        tally: &mut Tally,
    ) -> Result<(), TestCaseError> {
        // An attempt that ended early may have left frames and counts.
        self.taps.iter().for_each(|(_, tap)| drop(tap.received()));
        self.far_tap.received();
        bench.counts();
        let mut world = world(changes);
        self.fill(bench, &world);
        let (mut expected, mut memory) = (Expected::default(), Memory::default());
        let mut flows = Flows::new();
        for step in steps {
            match step {
                Step::Packet(packet) => {
                    self.send(&world, &mut memory, packet, &mut expected, tally)
                }
                Step::Change(change) => {
                    self.check(bench, &world, std::mem::take(&mut expected), &mut flows)?;
                    change.apply(&mut world);
                    self.fill(bench, &world);
                    memory = Memory::default();
                }
            }
        }
        self.check(bench, &world, expected, &mut flows)
    }
}

impl OnDevices {
    fn fill(&mut self, bench: &mut Bench, world: &World) {
        bench.fill(world);
        self.far_node.fill(&world.of_far_node());
    }

    /// Sends the packet, and notes the expected results. A packet whose fate the model does not know is not
    /// sent.
    fn send(
        &self,
        world: &World,
        memory: &mut Memory,
        packet: &Packet,
        expected: &mut Expected,
        tally: &mut Tally,
    ) {
        let Packet { skb, bytes, unfinished, bulk } = packet;
        let direction = match skb.ifindex {
            PORT_A | PORT_B => Direction::FromEndpoint,
            UNDERLAY => Direction::FromUnderlay,
            _ => return,
        };
        let is_short = (14..=LONGEST).contains(&bytes.len()) || bulk.is_some();
        if !is_short || !model::kernel::arrives(bytes) {
            return;
        }
        if direction == Direction::FromEndpoint && model::kernel::is_short_ip_on_vlan(bytes) {
            return;
        }
        // The super-packets of test_run are of no kind, so they are not sent here.
        let gso_size = if bulk.is_some() { skb.gso_size } else { 0 };
        let skb = Skb { gso_size, ..*skb };
        let (unfinished, bulk) = (*unfinished, *bulk);
        let incoming = Incoming { bytes, skb, tag_beside: true, unfinished, bulk };
        let mut after = memory.clone();
        let fate = model::decide(direction, world, &mut after, incoming);
        // The kernel asks for the neighbour first, and sends the packet at an unknown time.
        if matches!(fate.end, End::Redirected(Way::ByNeighbour(_), _)) {
            return;
        }
        // The kernel's flow dissector finds the transport header of a frame that a socket sends. If that
        // header is behind the quoted part, there is no answer. The model does not know how far the dissector
        // looks.
        if matches!(fate.end, End::Told(..)) && model::kernel::has_extensions(bytes) {
            return;
        }
        // The kernel cuts no packet before the place of an unfinished checksum either.
        if matches!(fate.end, End::Told(..)) && unfinished.is_some_and(is_deep) {
            return;
        }
        // The kernel queues a thousand frames for a CPU (net.core.netdev_max_backlog), and drops the frames
        // after these.
        let copies: Vec<Frame> = fate.copies.iter().map(|(_, copy)| copy.clone()).collect();
        if self.as_sent(copies).len() > QUEUED {
            return;
        }
        let tap = self.taps.iter().find(|(ifindex, _)| *ifindex == skb.ifindex);
        let tap = &tap.expect("a device of the bench").1;
        match unfinished {
            None => tap.send(bytes),
            Some(sum) if tap.send_offloaded(bytes, sum, bulk) => {}
            Some(_) => return,
        }
        *memory = after;
        tally.note(&fate);
        for reason in fate.reasons() {
            *expected.counts.entry((reason, direction)).or_default() += 1;
        }
        for (ifindex, copy) in fate.copies {
            expected.heard.entry(ifindex).or_default().push(copy);
        }
        match fate.end {
            End::Redirected(Way::OutOf(ifindex), frame) | End::Told(Way::OutOf(ifindex), frame)
                if DEVICES.contains(&ifindex) =>
            {
                expected.heard.entry(ifindex).or_default().push(frame);
            }
            // The node's own stack sends nothing.
            _ => {}
        }
    }

    /// Compares all results with the expected ones.
    fn check(
        &self,
        bench: &mut Bench,
        world: &World,
        mut expected: Expected,
        flows: &mut Flows,
    ) -> Result<(), TestCaseError> {
        let sent = expected.heard.remove(&UNDERLAY).unwrap_or_default();
        let sent = self.as_sent(sent);
        let delivered = self.delivered(world, &sent);
        expected.heard.insert(UNDERLAY, sent);
        // The underlay is checked first: when its frames have come out, the far node's program has seen them.
        check_heard(&self.taps, expected.heard, flows)?;
        check_device(FAR_PORT, &self.far_tap, delivered, flows)?;
        let packets = |counts: Counts| -> BTreeMap<_, _> {
            counts.into_iter().map(|(at, counter)| (at, counter.packets)).collect()
        };
        let counted = packets(bench.counts());
        prop_assert_eq!(counted, expected.counts, "packets counted by the program, by the model");
        Ok(())
    }

    /// The frames as they leave by the underlay's device.
    fn as_sent(&self, frames: Vec<Frame>) -> Vec<Frame> {
        if self.underlay == Underlay::TakesWhole {
            return frames;
        }
        let cut = frames.iter().flat_map(model::cut);
        // A frame that is too long for the device is lost.
        cut.filter(|frame| frame.bytes.len() <= DEVICE_TAKES).collect()
    }

    /// The frames that the far node hands its endpoint.
    fn delivered(&self, world: &World, sent: &[Frame]) -> Vec<Frame> {
        let world = world.of_far_node();
        let mut delivered = Vec::new();
        let mut memory = Memory::default();
        for frame in sent {
            let gso_size = frame.bulk.map_or(0, |bulk| bulk.segment.into());
            let incoming = Incoming {
                bytes: &frame.bytes,
                skb: Skb { ifindex: UNDERLAY + PEER, gso_size },
                tag_beside: true,
                unfinished: None,
                bulk: frame.bulk,
            };
            let fate = model::decide(Direction::FromUnderlay, &world, &mut memory, incoming);
            let whole = match fate.end {
                End::Redirected(Way::OutOf(FAR_PORT), whole) => vec![whole],
                // To the kernel, a super-packet of datagrams that crossed the wire whole is still a tunnel's,
                // and cannot be cut. Its copies leave by a device that needs it cut, so none of them arrives.
                _ if frame.bulk.is_some_and(|bulk| bulk.kind == BulkKind::Udp) => vec![],
                _ => fate.copies.into_iter().map(|(_, copy)| copy).collect(),
            };
            // The checksum is at the same place of the inner frame, which has lost its outer headers.
            const OUTER: u16 = 50;
            let sum = frame.sum.map(|sum| Unfinished { start: sum.start - OUTER, ..sum });
            delivered.extend(whole.into_iter().map(|whole| Frame { sum, ..whole }));
        }
        delivered
    }
}
