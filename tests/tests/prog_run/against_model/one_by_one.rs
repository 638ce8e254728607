//! Packets through BPF_PROG_TEST_RUN, with their verdicts, bytes, copies, counts and events.

use std::collections::{BTreeMap, HashMap};

use overlay_common::{CONFIG_FLOWS, CONFIG_MONITOR, Counter, Direction, SOURCE_PORT_MIN, Traffic};
use proptest::{prelude::*, test_runner::TestCaseError};

use super::{
    search::{Agree, Packet, Step, Tally, hex},
    worlds::{Change, world},
};
use crate::{
    bench::{Bench, Counts, GUARDS, Verdict},
    model::{self, End, Frame, Incoming, Memory},
    packets::is_arp,
    tap::{Tap, Unfinished},
    world::{DEVICES, UNDERLAY_MAC, World},
};

/// A direction's program, and the ends of all devices.
pub(super) struct OneByOne {
    direction: Direction,
    taps: Vec<(u32, Tap)>,
    /// True if the counts, events and copies of the last attempt were not read to their end.
    has_failed: bool,
}

impl OneByOne {
    pub(super) fn new(direction: Direction, bench: &mut Bench) -> Self {
        if direction == Direction::GuardUnderlay {
            for guard in GUARDS {
                bench.guard(guard).load().expect("the verifier takes the program");
            }
        }
        let taps = DEVICES.iter().map(|ifindex| (*ifindex, bench.tap(*ifindex))).collect();
        Self { direction, taps, has_failed: false }
    }
}

impl Agree for OneByOne {
    fn agree(
        &mut self,
        bench: &mut Bench,
        changes: &[Change],
        steps: &[Step],
        tally: &mut Tally,
    ) -> Result<(), TestCaseError> {
        if self.has_failed {
            // The last attempt ended early, and has left these.
            bench.counts();
            bench.events();
            self.taps.iter().for_each(|(_, tap)| drop(tap.received()));
        }
        self.has_failed = true;
        let mut world = world(changes);
        bench.fill(&world);
        let before = bench.read_traffic();
        let mut expected = Expected::default();
        for step in steps {
            match step {
                Step::Packet(packet) => {
                    self.agree_on(bench, &world, packet, &mut expected, tally)?;
                }
                Step::Change(change) => {
                    change.apply(&mut world);
                    bench.fill(&world);
                    // The bench forgets the routers' reports whenever it fills the maps.
                    expected.memory = Memory::default();
                }
            }
        }
        // The counts are read once for all packets, because a case with a difference is reduced to the packet
        // that causes it.
        let counts = bench.counts();
        prop_assert_eq!(counts, expected.counts, "counted by the program, by the model");
        let traffic = moved(&before, &bench.read_traffic());
        prop_assert_eq!(traffic, expected.traffic, "with endpoints, by the program, by the model");
        let told = bench.events();
        let told: Vec<_> = told.iter().map(|e| (e.reason, e.direction, e.ifindex, e.len)).collect();
        prop_assert_eq!(told, expected.events, "told by the program, by the model");
        check_heard(&self.taps, expected.copies, &mut expected.flows)?;
        self.has_failed = false;
        Ok(())
    }
}

impl OneByOne {
    fn agree_on(
        &self,
        bench: &mut Bench,
        world: &World,
        packet: &Packet,
        expected: &mut Expected,
        tally: &mut Tally,
    ) -> Result<(), TestCaseError> {
        // test_run knows neither unfinished checksums nor kinds of super-packets.
        let Packet { skb, bytes, unfinished: _, bulk: _ } = packet;
        let incoming =
            Incoming { bytes, skb: *skb, tag_beside: false, unfinished: None, bulk: None };
        // A super-packet of test_run is of no kind, and a device may do anything with copies of it.
        let mut memory = expected.memory.clone();
        if skb.gso_size != 0
            && model::decide(self.direction, world, &mut memory, incoming).end == End::Copied
        {
            return Ok(());
        }
        let (verdict, out) = match bench.run_bare(self.direction, bytes, *skb) {
            Ok(ran) => ran,
            Err(_) if model::kernel::may_refuse(bytes) => return Ok(()),
            Err(error) => return Err(TestCaseError::fail(format!("not run: {error}"))),
        };
        let fate = model::decide(self.direction, world, &mut expected.memory, incoming);
        tally.note(&fate);
        let should_be = match &fate.end {
            End::Up | End::Allowed => Verdict::Pass,
            End::Redirected(..) | End::Told(..) => Verdict::Redirect,
            End::Copied | End::Dropped(_) => Verdict::Shot,
        };
        prop_assert_eq!(verdict, should_be, "the model says {:02x?}", fate);
        match &fate.end {
            End::Up | End::Allowed => prop_assert!(out == *bytes, "changed: {}", hex(&out)),
            End::Redirected(_, frame) | End::Told(_, frame) => {
                same_bytes(out, frame, &mut expected.flows)?;
            }
            End::Copied | End::Dropped(_) => {}
        }
        for reason in fate.reasons() {
            let at = (reason, self.direction);
            count(expected.counts.entry(at).or_default(), bytes.len());
        }
        let reason = fate.end_reason();
        if let Some(reason) = reason.filter(|reason| is_told(self.direction, world, *reason, bytes))
        {
            let direction = self.direction as u32;
            expected.events.push((reason, direction, skb.ifindex, bytes.len() as u32));
        }
        for (slot, traffic) in fate.traffic {
            let sum = expected.traffic.entry(slot).or_default();
            *sum = each(*sum, traffic, |a, b| a + b);
        }
        for (ifindex, copy) in fate.copies {
            expected.copies.entry(ifindex).or_default().push(copy);
        }
        Ok(())
    }
}

/// Returns true if a packet makes an event. A drop does so if there is a listener. A forwarded packet does so
/// in a world with flows, where each is reported, but not ARP, which is answered or is for stations.
fn is_told(direction: Direction, world: &World, reason: u32, packet: &[u8]) -> bool {
    let flags = world.config.map_or(0, |config| config.flags);
    match reason {
        0 => flags & CONFIG_FLOWS != 0 && !is_arp(direction, packet),
        _ => flags & CONFIG_MONITOR != 0,
    }
}

fn count(counter: &mut Counter, len: usize) {
    counter.packets += 1;
    counter.bytes += len as u64;
}

/// Combines every counter of `a` with the same counter of `b`.
fn each(a: Traffic, b: Traffic, with: fn(u64, u64) -> u64) -> Traffic {
    let counter = |a: Counter, b: Counter| Counter {
        packets: with(a.packets, b.packets),
        bytes: with(a.bytes, b.bytes),
    };
    Traffic {
        sent: counter(a.sent, b.sent),
        received: counter(a.received, b.received),
        from_neighbours: counter(a.from_neighbours, b.from_neighbours),
        dropped: counter(a.dropped, b.dropped),
    }
}

/// The counts that were added between `before` and `now`.
fn moved(before: &BTreeMap<u32, Traffic>, now: &BTreeMap<u32, Traffic>) -> BTreeMap<u32, Traffic> {
    let moved = now.iter().map(|(slot, now)| {
        let before = before.get(slot).copied().unwrap_or_default();
        (*slot, each(*now, before, |now, before| now - before))
    });
    moved.filter(|(_, traffic)| *traffic != Traffic::default()).collect()
}

/// The results that are expected of all packets of a case together.
#[derive(Default)]
struct Expected {
    counts: Counts,
    traffic: BTreeMap<u32, Traffic>,
    /// Reason, direction, device and length of each event.
    events: Vec<(u32, u32, u32, u32)>,
    /// The copies, by device.
    copies: Heard,
    flows: Flows,
    /// What the model remembers.
    memory: Memory,
}

/// The frames that come out of the peer of each device.
pub(super) type Heard = BTreeMap<u32, Vec<Frame>>;

/// The outer source port of each flow so far.
pub(super) type Flows = HashMap<[u8; 13], u16>;

/// Compares the frames that came out of the devices with the expected ones.
pub(super) fn check_heard(
    taps: &[(u32, Tap)],
    mut expected: Heard,
    flows: &mut Flows,
) -> Result<(), TestCaseError> {
    for (ifindex, tap) in taps {
        let frames = expected.remove(ifindex).unwrap_or_default();
        check_device(*ifindex, tap, frames, flows)?;
    }
    prop_assert!(expected.is_empty(), "to no device: {:02x?}", expected);
    Ok(())
}

/// Compares the frames that came out of one device with the expected ones.
pub(super) fn check_device(
    ifindex: u32,
    tap: &Tap,
    mut frames: Vec<Frame>,
    flows: &mut Flows,
) -> Result<(), TestCaseError> {
    let mut heard = tap.received();
    heard.retain(|frame| !is_nodes_own(frame));
    // The device's other end belongs to a kernel as well, which drops some tagged frames.
    frames.retain(|frame| model::kernel::arrives(&frame.bytes));
    let told = || {
        let heard: Vec<_> = heard.iter().map(|frame| hex(frame)).collect();
        let frames: Vec<_> = frames.iter().map(|frame| hex(&frame.bytes)).collect();
        format!("out of device {ifindex}: {heard:#?}\nthe model's: {frames:#?}")
    };
    prop_assert!(heard.len() == frames.len(), "{}", told());
    for (heard, frame) in heard.into_iter().zip(&frames) {
        same_bytes(heard, frame, flows)?;
    }
    Ok(())
}

/// Returns true for the kernel's own ARP request for a VTEP. No program sends ARP on the underlay.
fn is_nodes_own(frame: &[u8]) -> bool {
    frame.len() >= 14 && frame[6..12] == UNDERLAY_MAC && frame[12..14] == [8, 6]
}

/// Compares a frame with the expected one. The outer source port is only checked for its range, and for being
/// the same throughout a flow.
fn same_bytes(mut out: Vec<u8>, expected: &Frame, flows: &mut Flows) -> Result<(), TestCaseError> {
    let Frame { bytes, tunnelled, bulk: _, sum } = expected;
    if *tunnelled && out.len() == bytes.len() {
        let field = &mut out[model::SOURCE_PORT_AT..][..2];
        let port = u16::from_be_bytes([field[0], field[1]]);
        field.fill(0);
        prop_assert!(port >= SOURCE_PORT_MIN, "source port {}", port);
        if let Some(flow) = model::flow(bytes) {
            prop_assert_eq!(*flows.entry(flow).or_insert(port), port, "a flow has two ports");
        }
    }
    let is_finished = |sum: &Unfinished| out == model::finished(bytes, *sum);
    if sum.as_ref().is_some_and(is_finished) {
        return Ok(());
    }
    prop_assert!(out == *bytes, "bytes out: {}\nthe model's: {}", hex(&out), hex(bytes));
    Ok(())
}
