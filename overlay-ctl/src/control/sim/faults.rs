//! What goes wrong, at random: with a host, its disk, its clock, and the network. Each seed has its own choice of faults, and
//! rates: a run with all of them at once would rarely get far.

use super::{
    commands,
    host::TICK,
    world::{Actor, Ending, World, note},
};
use crate::{control::state::Mutation, durable::simulated::Fault as DiskFault, seeded::Rng};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Kill,
    PowerCut,
    Stop,
    Pause,
    FailDisk,
    FillDisk,
    SlowDisk,
    Clock,
    HandOver,
    SwallowSnapshot,
    DelayWay,
    CutOne,
    CutHalves,
    CutBridge,
    Strand,
    CutTwo,
    CutOneWay,
    Deafen,
    Mute,
    Renumber,
}

impl Fault {
    const ALL: [Self; 20] = [
        Self::Kill,
        Self::PowerCut,
        Self::Stop,
        Self::Pause,
        Self::FailDisk,
        Self::FillDisk,
        Self::SlowDisk,
        Self::Clock,
        Self::HandOver,
        Self::SwallowSnapshot,
        Self::DelayWay,
        Self::CutOne,
        Self::CutHalves,
        Self::CutBridge,
        Self::Strand,
        Self::CutTwo,
        Self::CutOneWay,
        Self::Deafen,
        Self::Mute,
        Self::Renumber,
    ];
}

/// All that goes wrong in a run.
pub(super) struct Faults {
    chosen: Vec<Fault>,
    /// Steps between two faults, about.
    pause: u64,
    /// Steps until a host that is down starts, or a partition heals, about.
    repair: u64,
    next: u64,
    is_over: bool,
}

impl Faults {
    pub(super) fn new(rng: &mut Rng) -> Self {
        let chosen = Fault::ALL.into_iter().filter(|_| rng.percent(60)).collect();
        let (pause, repair) = (15 + rng.below(120), 40 + rng.below(250));
        // Half of the clusters form in peace.
        let next = if rng.percent(50) { 600 } else { 0 };
        Self { chosen, pause, repair, next, is_over: false }
    }

    /// What the network does to all messages, for the whole run.
    pub(super) fn of_the_network(world: &mut World) {
        let World { net, rng, .. } = world;
        net.loss = rng.pick(&[0, 0, 1, 5, 20]).unwrap();
        net.doubles = rng.pick(&[0, 0, 3, 15]).unwrap();
        net.late = rng.pick(&[0, 0, 2, 10]).unwrap();
        net.jitter = rng.pick(&[0, 1, 4, 10]).unwrap();
    }

    fn strike(&self, world: &mut World) {
        let (numbers, voters) = (world.numbers(), world.with_a_log());
        let all = if world.rng.percent(85) { &voters } else { &numbers };
        let (Some(fault), Some(any)) = (world.rng.pick(&self.chosen), world.rng.pick(all)) else {
            return;
        };
        // The leader has most to lose.
        let host = world.leader().filter(|_| world.rng.percent(40)).unwrap_or(any);
        note!(world, "fault at host {host}: {fault:?}");
        match fault {
            Fault::Kill | Fault::PowerCut => {
                let (ending, row) = match fault {
                    Fault::Kill => (Ending::Kill, "fault: killed"),
                    _ => (Ending::PowerCut, "fault: power cut"),
                };
                world.reach.hit(row);
                world.end(host, ending);
            }
            Fault::Stop => {
                let host = world.host(host);
                host.is_stopping = host.is_up();
            }
            Fault::Pause => {
                world.reach.hit("fault: stood still");
                let until = world.now + world.rng.below(400);
                world.host(host).paused_until = until;
            }
            Fault::FailDisk => fail_disk(world, host),
            Fault::FillDisk => fill_disk(world, host),
            Fault::SlowDisk => {
                world.reach.hit("fault: disk slow");
                let time = world.rng.pick(&[0, 0, 5, 30, 100, 400]).unwrap();
                world.host(host).disk.set_sync_time(Duration::from_millis(time));
            }
            Fault::Clock => {
                world.reach.hit("fault: clock at another rate");
                let period = TICK * (50 + world.rng.below(150)) / 100;
                world.host(host).period = period;
            }
            Fault::HandOver => hand_over(world),
            Fault::Renumber => world.renumber(),
            Fault::Strand => strand(world),
            Fault::SwallowSnapshot => world.swallow += 1 + world.rng.below(2),
            Fault::DelayWay => {
                let to = world.rng.pick(&voters).unwrap_or(host);
                let steps = world.rng.below(150);
                world.net.set_delay(host, to, steps);
            }
            Fault::CutOne
            | Fault::CutHalves
            | Fault::CutBridge
            | Fault::CutTwo
            | Fault::CutOneWay
            | Fault::Deafen
            | Fault::Mute => cut(world, fault, host, &numbers),
        }
    }

    fn repair(&self, world: &mut World) {
        let now = |rng: &mut Rng| rng.below(self.repair) == 0;
        if world.net.is_partitioned() && now(&mut world.rng) {
            note!(world, "the partitions heal");
            world.reach.hit("partition: healed");
            world.net.mend();
        }
        for number in world.numbers() {
            let host = world.host(number);
            let (is_down, is_full) = (!host.is_up(), host.faults.is_full);
            if host.life.is_none() && host.is_down && now(&mut world.rng) {
                world.power_on(number);
            }
            let host = world.host(number);
            // Whoever got an older log back is the operator's.
            let may_start =
                host.life.is_some() && !host.faults.is_rolled_back && !host.faults.is_lost;
            if is_full && now(&mut world.rng) {
                let host = world.host(number);
                host.disk.set_room(None);
                host.disk.reserve(0);
                host.faults.is_full = false;
            }
            if is_down && may_start && now(&mut world.rng) {
                if world.rng.percent(15) && self.chosen.contains(&Fault::FailDisk) {
                    fail_disk(world, number);
                }
                world.start(number);
                world.check_logs(number);
            }
        }
    }
}

/// One of the next operations of a disk fails, and each after it.
fn fail_disk(world: &mut World, host: u64) {
    let (operation, fault) = (world.rng.below(40), DiskFault::any(&mut world.rng));
    world.reach.hit(match fault {
        DiskFault::Before => "fault: disk failed before the operation",
        DiskFault::After => "fault: disk failed after the operation",
    });
    world.host(host).disk.fail_at(operation, fault);
}

/// A disk has room for so much more: for no snapshot, for no entries, or for a few sectors.
fn fill_disk(world: &mut World, host: u64) {
    const MIB: u64 = 1 << 20;
    let bound = world.rng.pick(&[4 << 10, 16 << 10, 64 << 10]).unwrap();
    let some = world.rng.below(bound);
    let which = world.rng.below(10);
    let disk = world.host(host).disk.clone();
    match which {
        0..3 => {
            world.reach.hit("fault: disk full");
            disk.set_room(Some(4 * MIB));
            disk.reserve(4 * MIB);
        }
        3..5 => {
            world.reach.hit("fault: disk full for all but votes");
            disk.set_room(Some(MIB - some));
        }
        _ => disk.set_room(Some(some)),
    }
    world.host(host).faults.is_full = true;
}

/// The leader is asked to hand over to another voter.
fn hand_over(world: &mut World) {
    let Some(leader) = world.leader() else { return };
    let lives: Vec<u64> = world.lives.keys().copied().collect();
    let Some(next) = world.rng.pick(&lives) else { return };
    world.reach.hit("fault: asked to hand over");
    let (reply, answer) = tokio::sync::oneshot::channel();
    world.host(leader).ask(super::host::Item::HandOver(next, reply));
    world.handed_over = Some(answer);
}

/// The leader is cut off with writes that nobody else gets, and for which nobody waits.
fn strand(world: &mut World) {
    let Some(leader) = world.leader() else { return };
    world.reach.hit("partition: a leader with writes from all");
    for other in world.numbers().into_iter().filter(|other| *other != leader) {
        world.net.cut(leader, other);
        world.net.cut(other, leader);
    }
    let hosts = u64::try_from(world.voters).unwrap();
    for _ in 0..2 + world.rng.below(6) {
        let command = commands::any(&mut world.rng, hosts, world.agents);
        let id = [world.rng.next().to_be_bytes(), world.rng.next().to_be_bytes()].concat();
        let request = Mutation::new(id.try_into().expect("16 bytes"), &command);
        let (reply, _) = tokio::sync::oneshot::channel();
        world.host(leader).ask(super::host::Item::Propose(request, command, reply));
    }
}

fn cut(world: &mut World, fault: Fault, host: u64, numbers: &[u64]) {
    let World { net, rng, reach, .. } = world;
    let others = || numbers.iter().copied().filter(move |other| *other != host);
    let other = rng.pick(&others().collect::<Vec<u64>>()).unwrap_or(host);
    match fault {
        Fault::CutTwo => {
            reach.hit("partition: two of them");
            net.cut(host, other);
            net.cut(other, host);
        }
        Fault::CutOneWay => {
            reach.hit("partition: one way between two");
            net.cut(host, other);
        }
        Fault::Deafen => {
            reach.hit("partition: one hears nobody");
            others().for_each(|other| net.cut(other, host));
        }
        Fault::Mute => {
            reach.hit("partition: one is heard by nobody");
            others().for_each(|other| net.cut(host, other));
        }
        Fault::CutHalves | Fault::CutBridge => {
            let is_bridge = |number: &u64| fault == Fault::CutBridge && *number == host;
            reach.hit(match fault {
                Fault::CutBridge => "partition: in two halves and a bridge",
                _ => "partition: in two halves",
            });
            let numbers = numbers.iter().filter(|number| !is_bridge(number));
            let (near, far): (Vec<u64>, Vec<u64>) = numbers.partition(|_| rng.percent(50));
            for a in &near {
                for b in &far {
                    net.cut(*a, *b);
                    net.cut(*b, *a);
                }
            }
        }
        _ => {
            reach.hit("partition: one from all");
            for other in others() {
                net.cut(host, other);
                net.cut(other, host);
            }
        }
    }
}

impl Actor for Faults {
    fn step(&mut self, world: &mut World) {
        if self.is_over {
            return;
        }
        self.repair(world);
        if world.now >= self.next {
            self.next = world.now + 1 + world.rng.below(2 * self.pause);
            self.strike(world);
        }
    }

    fn finish(&mut self) {
        self.is_over = true;
    }

    fn is_at_rest(&self, _: &World) -> bool {
        self.is_over
    }
}
