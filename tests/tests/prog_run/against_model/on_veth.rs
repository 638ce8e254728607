//! Packets that come in by a veth: which of them go through the merge pair.

use overlay_common::{Direction, MERGE_MAC};
use proptest::{prelude::*, test_runner::TestCaseError};

use super::{
    search::{Agree, Step, Tally},
    worlds::{Change, world},
};
use crate::{
    bench::{Bench, Skb, Verdict},
    merging::{PAIR, alone},
    model::{self, Fate, Incoming, Memory},
    world::{UNDERLAY, World},
};

/// `from_veth`, with nodes whose segments come in one by one.
pub(super) struct OnVeth;

impl Agree for OnVeth {
    fn agree(
        &mut self,
        bench: &mut Bench,
        changes: &[Change],
        steps: &[Step],
        tally: &mut Tally,
    ) -> Result<(), TestCaseError> {
        let mut world = with_pair(world(changes));
        bench.fill(&world);
        for step in steps {
            match step {
                Step::Change(change) => {
                    change.apply(&mut world);
                    world = with_pair(world);
                    bench.fill(&world);
                }
                Step::Packet(packet) if !model::kernel::may_refuse(&packet.bytes) => {
                    for node in world.nodes.values() {
                        bench.set_arrivals(node.hop, alone());
                    }
                    let out = bench.run_veth(&packet.bytes, packet.skb.gso_size);
                    let goes = out.verdict == Verdict::Redirect && out.packet[..6] == MERGE_MAC;
                    let skb = Skb { ifindex: UNDERLAY, ..packet.skb };
                    let should = model::goes_through_the_pair(&world, skb, &packet.bytes);
                    if should {
                        tally.note_way("through the pair");
                    } else {
                        tally.note(&as_it_came(&world, skb, &packet.bytes));
                    }
                    prop_assert_eq!(goes, should, "through the pair, by the program, by the model");
                    let rest = packet.bytes.get(6..).unwrap_or_default();
                    prop_assert!(!goes || out.packet[6..] == *rest, "the rest is as it came");
                }
                Step::Packet(_) => {}
            }
        }
        // They are those of `from_underlay`, and are compared there.
        bench.counts();
        bench.events();
        Ok(())
    }
}

/// What the model says of a packet that does not go through the pair.
fn as_it_came(world: &World, skb: Skb, bytes: &[u8]) -> Fate {
    let incoming = Incoming { bytes, skb, tag_beside: false, unfinished: None, bulk: None };
    model::decide(Direction::FromUnderlay, world, &mut Memory::default(), incoming)
}

fn with_pair(mut world: World) -> World {
    world.config.iter_mut().for_each(|config| config.merge_ifindex = PAIR);
    world
}
