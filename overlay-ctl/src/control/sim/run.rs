//! One run: a cluster forms, is mistreated for a while, heals, and must then go on within a bound.

use super::{
    agents::Agents,
    client::Client,
    commands,
    duties::Terms,
    faults::Faults,
    host::{AGENTS, Host, TICK},
    net::Net,
    operator::Operator,
    reach::Reach,
    request::Request,
    start::Started,
    trace::{Trace, digest},
    truth::Truth,
    world::{Actor, World, note},
};
use crate::{
    control::{
        consensus::{ConsensusConfig, StateMachine as _, core::watch_applied},
        plant::{self, Plant},
        state::State,
        voter::seats::followed::Patience,
    },
    model::{Generation, Version},
    seeded::Rng,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// What a run is, besides its seed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Setting {
    /// How many voters; `None` = the seed says.
    pub(super) voters: Option<usize>,
    /// A bug that is planted.
    pub(super) plant: Option<Plant>,
    /// Each event is printed.
    pub(super) is_traced: bool,
}

/// What a run that found nothing did.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) hash: u64,
    pub(super) events: u64,
    pub(super) reach: Reach,
    /// Ticks from the end of all faults until everything was as it should be.
    pub(super) healed_after: u64,
    pub(super) terms: usize,
    pub(super) entries: usize,
}

/// Within so many ticks after all faults are over everybody is a voter, and holds what the others hold.
pub(super) const BOUND: u64 = 1_200;

/// Runs a seed.
///
/// # Panics
/// What must not be was found.
pub(super) fn run(seed: u64, setting: Setting) -> Report {
    plant::plant(setting.plant);
    watch_applied(true);
    // Its clock stands still but for the steps of the run.
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    let _entered = runtime.enter();
    let mut rng = Rng::new(seed);
    let by_seed = if rng.percent(70) { 3 } else { 5 };
    let voters = setting.voters.unwrap_or(by_seed);
    let mut world = World::new(seed, rng, voters, setting.is_traced);
    let mut faults = Faults::new(&mut world.rng);
    Faults::of_the_network(&mut world);
    // A cluster of version 1 has three voters.
    let state = match voters == 3 && world.rng.percent(70) {
        true => State::default(),
        false => {
            let number = u32::try_from(voters).unwrap();
            State::new(Version::V2).with_voters(number.try_into().unwrap())
        }
    };
    if state.version().is_first() {
        let (share, rng) = (world.rng.pick(&[0, 0, 30, 100]).unwrap(), &mut world.rng);
        world.old = world.hosts.keys().copied().filter(|_| rng.percent(share)).collect();
    }
    world.addresses = world.hosts.values().map(|host| (host.listen, host.number)).collect();
    world.bootstrap(1, &state);
    let operator = Operator::new(&mut world);
    let mut actors: Vec<Box<dyn Actor>> = vec![Box::new(operator)];
    let agent_faults = world.rng.pick(&[0, 40, 150]).unwrap();
    actors.push(Box::new(Agents::new(&world, agent_faults)));
    for _ in 0..1 + world.rng.below(4) {
        actors.push(Box::new(Client::default()));
    }
    let steps = 700 + world.rng.below(1_400);
    for _ in 0..steps {
        faults.step(&mut world);
        world.step(&mut actors);
        if world.now.is_multiple_of(50) {
            world.numbers().into_iter().for_each(|number| world.check_logs(number));
        }
    }
    faults.finish();
    actors.iter_mut().for_each(|actor| actor.finish());
    let healed_after = world.come_to_rest(&mut actors);
    plant::plant(None);
    Report {
        hash: world.trace.hash(),
        events: world.trace.events(),
        reach: world.reach,
        healed_after,
        terms: world.truths.values().map(Truth::terms).sum(),
        entries: world.truths.values().map(Truth::entries).sum(),
    }
}

impl World {
    fn new(seed: u64, mut rng: Rng, voters: usize, is_traced: bool) -> Self {
        let config = ConsensusConfig {
            snapshot_every: 3 + rng.below(40),
            keep_entries: rng.below(8),
            snapshot_ticks: 30,
            room_ticks: 60,
            max_voters: voters,
            max_message_bytes: rng.pick(&[1_500, 4_000, 1 << 20]).unwrap(),
            log_bytes_max: rng.pick(&[2_000, 1 << 20]).unwrap(),
            start: [0; 16],
            ..ConsensusConfig::default()
        };
        let agents = rng.pick(&[1, 3, 6, 20]).unwrap();
        let hosts = (1..=u64::try_from(voters).unwrap()).chain(AGENTS + 1..=AGENTS + agents);
        let voter = rng.pick(&[None, Some(2), Some(4)]).unwrap().map(Duration::from_secs);
        let terms = Terms {
            lease: Duration::from_secs(rng.pick(&[4, 6, 30]).unwrap()),
            patience: Patience { voter, learner: Duration::from_secs(6) },
            hold: Duration::from_millis(rng.pick(&[0, 1_000]).unwrap()),
        };
        let remembered = rng.pick(&[3, 20, 1_000]).unwrap();
        let truth = Truth::default();
        Self {
            seed,
            rng,
            now: 0,
            voters,
            terms,
            config,
            net: Net::default(),
            hosts: hosts.map(|number| (number, Host::new(number))).collect(),
            lives: BTreeMap::new(),
            truths: [(Generation::FIRST, truth.clone())].into(),
            truth,
            trace: Trace::new(is_traced),
            reach: Reach::default(),
            agents,
            agents_to_come: agents,
            remembered,
            machines: BTreeMap::new(),
            old: BTreeSet::new(),
            off: BTreeMap::new(),
            on_since: BTreeMap::new(),
            addresses: BTreeMap::new(),
            moves: 0,
            in_hand: None,
            over: BTreeSet::new(),
            is_healed: false,
            handed_over: None,
            swallow: 0,
        }
    }

    /// All faults are over: the network is whole, disks are sound, clocks are right, and whoever is down starts.
    fn heal(&mut self) {
        note!(self, "all faults are over");
        self.is_healed = true;
        self.net.heal();
        // A program that is too old for what it finds says so, and is replaced.
        self.old.clear();
        self.swallow = 0;
        for number in self.numbers() {
            let host = self.host(number);
            host.period = TICK;
            host.paused_until = 0;
            host.disk.set_room(None);
            host.disk.reserve(0);
            host.faults.is_full = false;
            host.disk.set_sync_time(Duration::ZERO);
            if !host.disk.failed() {
                host.disk.mend();
            }
            if host.life.is_none() {
                self.power_on(number);
            }
        }
    }

    fn come_to_rest(&mut self, actors: &mut [Box<dyn Actor>]) -> u64 {
        self.heal();
        let began = self.now;
        let mut last: Option<Request> = None;
        let mut is_written = false;
        while self.now < began + BOUND * TICK {
            for number in self.numbers() {
                let host = self.host(number);
                let is_mine =
                    host.life.is_some() && !host.faults.is_rolled_back && !host.faults.is_lost;
                // A disk that failed before the end gives its voter up in its next turn.
                if !host.is_up() && is_mine {
                    assert_ne!(self.start(number), Started::Forgot);
                }
            }
            self.step(actors);
            if !actors.iter().all(|actor| actor.is_at_rest(self)) {
                continue;
            }
            match &mut last {
                None => {
                    let command = commands::any(&mut self.rng, 0, 0);
                    last = Some(Request::new(self, command));
                }
                Some(request) if !is_written => is_written = request.poll(self).is_some(),
                Some(_) if self.is_registered_rightly() && self.is_equal() => {
                    let ticks = (self.now - began) / TICK;
                    note!(self, "at rest after {ticks} ticks");
                    return ticks;
                }
                Some(_) => {}
            }
        }
        let hosts: Vec<String> = self.hosts.values().map(describe).collect();
        let rest: Vec<bool> = actors.iter().map(|actor| actor.is_at_rest(self)).collect();
        panic!(
            "not as it should be {BOUND} ticks after all faults: actors at rest {rest:?}, last write {is_written}\n{}",
            hosts.join("\n")
        );
    }

    /// Everybody has applied what was acknowledged, and nothing but that: the states are the same to the byte.
    fn is_equal(&mut self) -> bool {
        let floor = self.truth.floor();
        let cores: Vec<_> = self.hosts.values().filter_map(|host| host.core.as_ref()).collect();
        let applied = cores.iter().map(|core| core.machine().published);
        let applied: BTreeSet<u64> = applied.collect();
        let with_a_log = self.hosts.values().filter(|host| host.life.is_some()).count();
        if cores.len() != with_a_log || applied.len() != 1 || applied.first() < Some(&floor) {
            return false;
        }
        let hashes = cores.iter().map(|core| digest(&core.machine().snapshot()));
        let hashes: BTreeSet<u64> = hashes.collect();
        assert_eq!(hashes.len(), 1, "equal states are encoded differently");
        note!(self, "the state is {:x}", hashes.first().copied().unwrap_or_default());
        true
    }
}

fn describe(host: &Host) -> String {
    let Host { number, life, faults, is_stopping, .. } = host;
    format!(
        "host {number}, node {life:?}, {faults:?}, stopping {is_stopping}, leaving {:?}: {:?}",
        host.leaving,
        host.status()
    )
}
