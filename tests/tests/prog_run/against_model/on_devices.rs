//! The programs attached, and frames that really come in: where they come out.

use overlay_common::Direction;
use proptest::test_runner::TestCaseError;

use super::{
    one_by_one::{Flows, Heard, check_heard},
    search::{Agree, Packet, Tally},
    worlds::{Change, world},
};
use crate::{
    bench::{Bench, Skb},
    model::{self, End, Incoming, Paths, Way},
    tap::{Tap, Unfinished},
    world::{DEVICES, PORT_A, PORT_B, UNDERLAY},
};

/// What a device of 1500 bytes takes with outer headers and tags.
const LONGEST: usize = 1400;

/// Behind what an answer quotes.
fn is_deep(sum: Unfinished) -> bool {
    usize::from(sum.start) + usize::from(sum.offset) + 2 > 14 + 456
}

/// The ends of all devices.
pub(super) struct OnDevices {
    taps: Vec<(u32, Tap)>,
}

impl OnDevices {
    /// Attaches the programs of the overlay.
    pub(super) fn new(bench: &mut Bench) -> Self {
        bench.attach(Direction::FromEndpoint, "port_a");
        bench.attach(Direction::FromEndpoint, "port_b");
        bench.attach(Direction::FromUnderlay, "underlay");
        let taps = DEVICES.iter().map(|ifindex| (*ifindex, bench.tap(*ifindex))).collect();
        Self { taps }
    }
}

impl Agree for OnDevices {
    fn agree(
        &mut self,
        bench: &mut Bench,
        changes: &[Change],
        packets: &[Packet],
        tally: &mut Tally,
    ) -> Result<(), TestCaseError> {
        // What an attempt has left that ended in the middle.
        self.taps.iter().for_each(|(_, tap)| drop(tap.received()));
        let world = world(changes);
        bench.fill(&world);
        let (mut expected, mut paths) = (Heard::new(), Paths::default());
        for Packet { skb, bytes, unfinished } in packets {
            let direction = match skb.ifindex {
                PORT_A | PORT_B => Direction::FromEndpoint,
                UNDERLAY => Direction::FromUnderlay,
                _ => continue,
            };
            if !(14..=LONGEST).contains(&bytes.len()) || !model::kernel::arrives(bytes) {
                continue;
            }
            let skb = Skb { gso_size: 0, ..*skb };
            let incoming = Incoming { bytes, skb, tag_beside: true, unfinished: *unfinished };
            let fate = model::decide(direction, &world, &mut paths, incoming);
            // The kernel asks for a neighbour, and sends whenever somebody answers.
            if matches!(fate.end, End::Redirected(Way::ByRoutes, _)) {
                continue;
            }
            // A socket's frame has its transport header where the kernel's dissector saw it. Where that is
            // behind what is quoted, there is no answer; how far it looks is not the model's business.
            if matches!(fate.end, End::Told(..)) && model::kernel::has_extensions(bytes) {
                continue;
            }
            // Nor does the kernel cut off a checksum that is still to be written.
            if matches!(fate.end, End::Told(..)) && unfinished.is_some_and(is_deep) {
                continue;
            }
            let tap = self.taps.iter().find(|(ifindex, _)| *ifindex == skb.ifindex);
            let tap = &tap.expect("a device of the bench").1;
            match unfinished {
                None => tap.send(bytes),
                Some(sum) if tap.send_unfinished(bytes, *sum) => {}
                Some(_) => continue,
            }
            tally.note(&fate);
            for (ifindex, copy) in fate.copies {
                expected.entry(ifindex).or_default().push(copy);
            }
            match fate.end {
                End::Redirected(Way::OutOf(ifindex), frame)
                | End::Told(Way::OutOf(ifindex), frame)
                    if DEVICES.contains(&ifindex) =>
                {
                    expected.entry(ifindex).or_default().push(frame);
                }
                // The node's stack has nothing to say.
                _ => {}
            }
        }
        check_heard(&self.taps, expected, &mut Flows::new())
    }
}
