//! A case of a table: a packet, the changes of the usual maps, and the expected result.

use overlay_common::{CONFIG_FLOWS, CONFIG_MONITOR, Counter, Direction, DropReason};

use super::{
    bench::{Bench, Counts, Outcome, Skb, Verdict},
    packets::is_arp,
    world::World,
};

/// The expected result of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// The stack gets the packet unchanged, and nothing is counted.
    Pass,
    /// The stack gets the packet unchanged, and the packet is counted as forwarded.
    Allow,
    /// The packet is redirected, and is counted as forwarded.
    Redirect,
    /// Copies of the packet have gone out, except for those that were lost for these reasons. The packet
    /// itself ends here, and is counted as forwarded.
    Replicated(Vec<DropReason>),
    /// The packet is dropped, and counted under this reason.
    Drop(DropReason),
    /// The packet is dropped and counted as too big, and its sender gets an answer.
    Told,
}

/// A packet, the changes of the usual maps, and the expected result.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    arrange: fn(&mut World),
    packet: Vec<u8>,
    skb: Option<Skb>,
    pub(crate) expected: Expected,
}

/// Makes a case with the usual properties of a packet.
pub(crate) fn case(
    name: &'static str,
    arrange: fn(&mut World),
    packet: Vec<u8>,
    expected: Expected,
) -> Case {
    Case { name, arrange, packet, skb: None, expected }
}

impl Case {
    /// Gives the packet other properties than the usual ones.
    pub(crate) fn with(self, skb: Skb) -> Self {
        Self { skb: Some(skb), ..self }
    }

    /// Runs the case without a listener, with a listener to drops and with a listener to every packet, and
    /// checks all rules that hold for any packet. The caller can check the result of the first run further.
    pub(crate) fn check(&self, bench: &mut Bench, direction: Direction) -> Outcome {
        let Self { name, arrange, packet, skb, expected: _ } = self;
        let skb = skb.unwrap_or(Skb::usual(direction));
        let mut world = World::default();
        arrange(&mut world);

        bench.fill(&world);
        let quiet = bench.run_skb(direction, packet, skb);
        self.check_outcome(direction, &quiet);
        assert_eq!(quiet.events, [], "{name}: nobody listens");

        world.configure(CONFIG_MONITOR);
        self.check_told(bench, direction, skb, &world);
        world.sample(1);
        self.check_told(bench, direction, skb, &world);
        quiet
    }

    /// Checks that a listener gets one event of the packet, or none if it does not listen to packets of this
    /// kind.
    fn check_told(&self, bench: &mut Bench, direction: Direction, skb: Skb, world: &World) {
        let Self { name, packet, expected, .. } = self;
        bench.fill(world);
        let told = bench.run_skb(direction, packet, skb);
        self.check_outcome(direction, &told);
        let hears_flows = world.config.is_some_and(|config| config.flags & CONFIG_FLOWS != 0);
        // The programs answer ARP packets, and tell of none that they forward.
        let is_arp = is_arp(direction, packet);
        let reason = match expected {
            Expected::Told => Some(DropReason::TooBig as u32),
            Expected::Drop(reason) if world.config.is_some() => Some(*reason as u32),
            Expected::Drop(_) | Expected::Pass => None,
            Expected::Allow | Expected::Redirect | Expected::Replicated(_) => {
                (hears_flows && !is_arp).then_some(0)
            }
        };
        let Some(reason) = reason else {
            assert_eq!(told.events, [], "{name}: nothing to tell");
            return;
        };
        let [event] = told.events[..] else { panic!("{name}: {:?}", told.events) };
        assert_eq!(event.reason, reason, "{name}");
        assert_eq!(event.direction, direction as u32, "{name}");
        assert_eq!(event.ifindex, skb.ifindex, "{name}");
        assert_eq!(event.len as usize, packet.len(), "{name}");
        assert_eq!(event.sample, 1, "{name}");
    }

    fn check_outcome(&self, direction: Direction, outcome: &Outcome) {
        let Self { name, packet, expected, .. } = self;
        let (verdict, counted) = match expected {
            Expected::Pass => (Verdict::Pass, vec![]),
            Expected::Allow => (Verdict::Pass, vec![0]),
            Expected::Redirect => (Verdict::Redirect, vec![0]),
            Expected::Replicated(lost) => {
                (Verdict::Shot, lost.iter().map(|reason| *reason as u32).chain([0]).collect())
            }
            Expected::Drop(reason) => (Verdict::Shot, vec![*reason as u32]),
            Expected::Told => (Verdict::Redirect, vec![DropReason::TooBig as u32]),
        };
        let mut counts = Counts::new();
        for reason in counted {
            let counter: &mut Counter = counts.entry((reason, direction)).or_default();
            counter.packets += 1;
            counter.bytes += packet.len() as u64;
        }
        assert_eq!(outcome.counts, counts, "{name}: counts");
        assert_eq!(outcome.verdict, verdict, "{name}: verdict");
        if matches!(expected, Expected::Pass | Expected::Allow) {
            assert_eq!(outcome.packet, *packet, "{name}: the packet is untouched");
        }
    }
}

/// Checks all cases of a table.
pub(crate) fn check_all(bench: &mut Bench, direction: Direction, cases: Vec<Case>) {
    for case in cases {
        case.check(bench, direction);
    }
}
