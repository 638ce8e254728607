//! A copy of a voter's folder is started on another machine, while the original runs, or may come back. What a node makes of a
//! log that has moved is the product's (`node/lives.rs`); how the two processes meet is a model.

use super::{
    host::Host,
    world::{Ending, World, note},
};
use crate::{
    control::consensus::LogStore,
    model::RaftId,
    node::{lives::distrust, machine::Moved},
};

/// The machines of originals have numbers after this one.
const ORIGINALS: u64 = 60;

/// Starts a copy of a host's folder elsewhere. Returns true if that is to go on as the node, since the original does not answer.
pub(super) fn start_a_copy(world: &mut World, host: u64) -> bool {
    let (disk, life) = (world.host(host).disk.after_kill(), world.host(host).life);
    let Some(life) = life.and_then(RaftId::new) else { return false };
    note!(world, "a copy of the folder of host {host} is started on another machine");
    let log = LogStore::open_in(&disk, None).unwrap().expect("a voter's log");
    let why = distrust(&log, life, Some(Moved::Machine)).unwrap();
    let is_alone = world.host(host).status().is_some_and(|status| status.voters == [life.get()]);
    assert!(why.is_some() || is_alone, "a copy of the log of member {life} votes");
    world.reach.hit("clone: a voter's log is not used on another machine");
    if world.rng.percent(60) {
        let ending = if world.rng.percent(50) { Ending::Kill } else { Ending::PowerCut };
        world.end(host, ending);
    }
    let is_there = world.host(host).runs();
    if is_there {
        world.reach.hit("clone: refused, as the original runs");
    }
    !is_there && !is_alone
}

/// The node goes on with its copy. The original's machine, with its folder, is one of its own from now on, and may start.
pub(super) fn go_on_elsewhere(world: &mut World, host: u64, life: u64) {
    let number = (ORIGINALS + 1..).find(|number| !world.hosts.contains_key(number));
    let Some(number) = number else { return };
    world.reach.hit("clone: came back as another life of its node");
    let copy = world.host(host);
    let mut original = Host::new(number);
    (original.life, original.last_life) = (Some(life), Some(life));
    (original.copied, original.is_down) = (copy.node, true);
    original.disk = copy.disk.clone();
    original.generations = copy.generations.clone();
    original.know(copy.directory.to_keep());
    world.lives.insert(life, number);
    world.hosts.insert(number, original);
}

impl World {
    /// An original hears, when it registers, that the leader has its copy as the node, and ends.
    pub(super) fn end_if_copied(&mut self, number: u64) {
        let Some(host) = self.hosts.get(&number).filter(|host| host.copied.is_some()) else {
            return;
        };
        let hears = host.is_up() && self.now >= host.paused_until && self.now >= host.next_renewal;
        let Some(leader) = self.leader().filter(|leader| hears && self.reaches(number, *leader))
        else {
            return;
        };
        let leader = &self.hosts[&leader];
        let life = self.hosts[&number].life;
        let knows = leader.quorum.holds()
            && leader.status().is_some_and(|status| {
                let members = [status.voters, status.outgoing, status.learners].concat();
                life.is_some_and(|life| !members.contains(&life))
            });
        if knows && self.rng.below(100) == 0 {
            note!(self, "host {number} ends, as its copy runs");
            self.reach.hit("clone: the original ended, as the copy runs");
            let host = self.host(number);
            host.end();
            (host.life, host.is_down) = (None, true);
        }
    }
}
