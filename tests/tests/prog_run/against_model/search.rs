//! The search for a difference between programs and model. Each seed makes a world and some packets.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    env, fmt, fs,
    time::{Duration, Instant, SystemTime},
};

use proptest::{
    collection::vec,
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner},
};

use super::worlds::{Change, change, changes, world};
use crate::{
    bench::{Bench, Skb, on_bench},
    model::{End, Fate},
    tap::{Bulk, Unfinished},
    world::World,
};

/// Number of packets for all programs together, unless OVERLAY_PACKETS gives another number.
const PACKETS: u64 = 200_000;
/// Number of packets below which the ends are not compared, because in a short run all packets may have the
/// same end.
const TELLING: u64 = 1000;
/// Bytes of the longest packet that fits into the page which test_run has for a packet.
const LONGEST: usize = 3600;
/// Time between two messages about the progress.
const PROGRESS: Duration = Duration::from_secs(10);

/// A packet, and the way in which it comes in.
#[derive(Clone)]
pub(super) struct Packet {
    pub(super) skb: Skb,
    pub(super) bytes: Vec<u8>,
    /// The checksum that the sender leaves to a device. Only a packet that comes in by a device has one.
    pub(super) unfinished: Option<Unfinished>,
    /// The way in which the sender wants the packet cut. Only a packet that comes in by a device has one.
    pub(super) bulk: Option<Bulk>,
}

impl Packet {
    pub(super) fn new((mut skb, mut bytes): (Skb, Vec<u8>)) -> Self {
        bytes.truncate(LONGEST);
        // A frame to a group is no super-packet, because test_run's super-packets are of no kind, and a
        // device may do anything with copies of these.
        if bytes.first().is_some_and(|first| first & 1 == 1) {
            skb.gso_size = 0;
        }
        Self { skb, bytes, unfinished: None, bulk: None }
    }
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Skb { ifindex, gso_size } = self.skb;
        write!(f, "by device {ifindex}, gso_size {gso_size}")?;
        if let Some(Unfinished { start, offset }) = self.unfinished {
            write!(f, ", checksum from {start} on goes to {offset} behind that")?;
        }
        if let Some(Bulk { kind, segment, headers }) = self.bulk {
            write!(f, ", super-packet {kind:?} of {segment}, headers {headers}")?;
        }
        write!(f, ": {}", hex(&self.bytes))
    }
}

/// The next event of a case.
#[derive(Clone)]
pub(super) enum Step {
    Packet(Packet),
    /// User space changes the tables between two packets.
    Change(Change),
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packet(packet) => packet.fmt(f),
            Self::Change(change) => write!(f, "tables: {change:?}"),
        }
    }
}

/// A packet, or one time in twenty-five a change of the tables.
fn step(packets: impl Strategy<Value = Packet>) -> impl Strategy<Value = Step> {
    prop_oneof![24 => packets.prop_map(Step::Packet), 1 => change().prop_map(Step::Change)]
}

/// The tables after the last step.
fn tables(changes: &[Change], steps: &[Step]) -> World {
    let mut world = world(changes);
    for step in steps {
        if let Step::Change(change) = step {
            change.apply(&mut world);
        }
    }
    world
}

/// The bytes in hexadecimal. A byte that is repeated many times is written once.
pub(super) fn hex(bytes: &[u8]) -> String {
    let runs = bytes.chunk_by(|a, b| a == b).map(|run| match run.len() {
        40.. => format!("({:02x} x {})", run[0], run.len()),
        _ => format!("{:02x}", run[0]).repeat(run.len()),
    });
    runs.collect()
}

/// The number of packets for each end.
#[derive(Default)]
pub(super) struct Tally(BTreeMap<String, u64>);

impl Tally {
    pub(super) fn note(&mut self, fate: &Fate) {
        let kind = match &fate.end {
            End::Up => "up".into(),
            End::Allowed => "allowed".into(),
            End::Redirected(_, frame) => {
                let what = if frame.bulk.is_some() { "super-packet " } else { "" };
                let how = if frame.tunnelled { "encapsulated" } else { "redirected" };
                format!("{what}{how}")
            }
            End::Copied if fate.lost.is_empty() => "copied".into(),
            End::Copied => "copied, some lost".into(),
            End::Told(..) => "dropped: too_big, and told".into(),
            End::Dropped(reason) => format!("dropped: {}", reason.name()),
        };
        *self.0.entry(kind).or_default() += 1;
    }

    /// Notes the way of a packet whose end is not looked at.
    pub(super) fn note_way(&mut self, way: &str) {
        *self.0.entry(way.to_owned()).or_default() += 1;
    }

    /// Fails if nearly all packets have the same end, because such a search proves nothing.
    fn check(&self) {
        let total: u64 = self.0.values().sum();
        let dropped = self.0.iter().filter(|(kind, _)| kind.starts_with("dropped"));
        let dropped: u64 = dropped.map(|(_, count)| count).sum();
        let few = |count: u64| total >= TELLING && count * 10 < total;
        assert!(!few(dropped) && !few(total - dropped), "nearly all packets end alike");
    }
}

/// A comparison of program and model, on one world and some steps.
pub(super) trait Agree {
    /// Returns `Ok` if program and model agree.
    fn agree(
        &mut self,
        bench: &mut Bench,
        changes: &[Change],
        steps: &[Step],
        tally: &mut Tally,
    ) -> Result<(), TestCaseError>;
}

/// Runs this share of all packets, until program and model differ about one.
pub(super) fn search<A: Agree>(
    name: &str,
    share: f64,
    packets: impl Strategy<Value = Packet>,
    judge: impl FnOnce(&mut Bench) -> A,
) {
    on_bench(|bench| {
        let goal = (number("OVERLAY_PACKETS").unwrap_or(PACKETS) as f64 * share).ceil() as u64;
        let first = number("OVERLAY_SEED").unwrap_or_else(seed_of_today);
        println!("{name}: {goal} packets from seed {first}");
        let (health, begun) = (kernel_health(), Instant::now());
        let judge = judge(bench);
        let both = RefCell::new((judge, bench, Tally::default()));
        let cases = (changes(), vec(step(packets), 1..64));
        let (mut told, mut seed, mut ran) = (Instant::now(), first, 0);
        while ran < goal {
            let mut runner = runner(seed);
            let case = cases.new_tree(&mut runner).expect("no strategy filters");
            let steps = case.current().1;
            ran += steps.iter().filter(|step| matches!(step, Step::Packet(_))).count() as u64;
            let agreed = runner.run_one(case, |(changes, steps)| {
                let (judge, bench, tally) = &mut *both.borrow_mut();
                judge.agree(bench, &changes, &steps, tally)
            });
            if let Err(TestError::Fail(why, (changes, steps))) = agreed {
                let tables = tables(&changes, &steps).rows();
                let steps: String = steps.iter().map(|step| format!("\n  {step:?}")).collect();
                panic!(
                    "{name}: {why}\nworld: {changes:?}\nsteps:{steps}\ntables at the end:\n  {tables}\n\
                     again: OVERLAY_SEED={seed} OVERLAY_PACKETS=1"
                );
            }
            seed = seed.wrapping_add(1);
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                let speed = ran as f64 / begun.elapsed().as_secs_f64();
                println!("{name}: {ran} of {goal}, {speed:.0} a second");
            }
        }
        assert_eq!(kernel_health(), health, "the kernel has warned of something: see dmesg");
        let (_, _, tally) = both.into_inner();
        println!("{name}: {ran} packets in {:.1} s", begun.elapsed().as_secs_f64());
        tally.0.iter().for_each(|(kind, count)| println!("{count:9} {kind}"));
        tally.check();
    });
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// A seed that is different in every run, so that many runs try many packets.
fn seed_of_today() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().expect("a clock that goes forward");
    since.as_millis() as u64 * 1000
}

fn runner(seed: u64) -> TestRunner {
    let config = Config {
        failure_persistence: None,
        max_shrink_iters: 20_000,
        max_shrink_time: 60_000,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

/// The kernel's marks for oopses and warnings (kernel/panic.c: bits 7 and 9).
fn kernel_health() -> u64 {
    let text = fs::read_to_string("/proc/sys/kernel/tainted").expect("/proc is mounted");
    text.trim().parse::<u64>().expect("a number") & (1 << 7 | 1 << 9)
}
