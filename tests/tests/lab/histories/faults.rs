//! The faults of a run. Each strikes several times, at hosts and moments that the seed chooses, and is healed again.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use overlay_lab::{Host, Lab, Ways, eventually, number, pass, text};

use super::{
    book::{Book, Removal},
    dice::Dice,
    world::{Needs, World},
};

/// Longest time until a node that was struck does its part again.
const BOUND: Duration = Duration::from_secs(40);
/// Bytes that a full disk has left: less than a node keeps free, and more than a vote needs.
const LEFT: u64 = 512 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    LeaderKilled,
    Stopped,
    Cut,
    CutOneWay,
    CutPair,
    Restarted,
    MajorityLost,
    DiskFull,
    VoterWiped,
    NodeRemoved,
    SeatsMoved,
}

impl Fault {
    /// Every fault with its name.
    pub(super) const ALL: [(Self, &str); 11] = [
        (Self::LeaderKilled, "leader-killed"),
        (Self::Stopped, "stopped"),
        (Self::Cut, "cut"),
        (Self::CutOneWay, "cut-one-way"),
        (Self::CutPair, "cut-pair"),
        (Self::Restarted, "restarted"),
        (Self::MajorityLost, "majority-lost"),
        (Self::DiskFull, "disk-full"),
        (Self::VoterWiped, "voter-wiped"),
        (Self::NodeRemoved, "node-removed"),
        (Self::SeatsMoved, "seats-moved"),
    ];

    pub(super) fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(fault, _)| *fault == self);
        found.map_or("", |(_, name)| name)
    }

    pub(super) fn needs(self) -> Needs {
        Needs { small_disks: self == Self::DiskFull, spare_host: self == Self::NodeRemoved }
    }
}

/// Who lets a fault strike.
pub(super) struct Striker<'a> {
    pub(super) lab: &'a Lab,
    pub(super) world: &'a World,
    pub(super) book: &'a Book,
    pub(super) dice: Dice,
}

impl Striker<'_> {
    /// Lets the fault strike once; returns what was done when it is healed.
    pub(super) fn strike(&mut self, fault: Fault) -> Result<String> {
        match fault {
            Fault::LeaderKilled => self.kill_leader(),
            Fault::Stopped => self.stop(),
            Fault::Cut => self.cut(&[Ways::Both]),
            Fault::CutOneWay => self.cut(&[Ways::From, Ways::To]),
            Fault::CutPair => self.cut_pair(),
            Fault::Restarted => self.restart_all(),
            Fault::MajorityLost => self.lose_majority(),
            Fault::DiskFull => self.fill_disk(),
            Fault::VoterWiped => self.wipe(),
            Fault::NodeRemoved => self.remove(),
            Fault::SeatsMoved => self.move_seats(),
        }
    }

    /// The leader, or any host that is.
    fn victim(&mut self) -> Result<usize> {
        let leader = self.world.leader()?;
        let any = self.dice.below(self.world.hosts.len());
        Ok(if self.dice.percent(60) { leader } else { any })
    }

    /// The leader, or any voter.
    fn voter(&mut self) -> Result<usize> {
        let (leader, voters) = (self.world.leader()?, self.world.who_votes()?);
        let any = self.dice.pick(&voters);
        Ok(if self.dice.percent(60) { leader } else { any })
    }

    fn hold(&mut self, from: usize, to: usize) -> Result<()> {
        pass(self.dice.millis(from, to))
    }

    fn kill_leader(&mut self) -> Result<String> {
        let leader = &self.world.hosts[self.world.leader()?];
        leader.kill9()?;
        self.hold(200, 4000)?;
        leader.restart()?;
        Ok(leader.name.clone())
    }

    fn stop(&mut self) -> Result<String> {
        let host = &self.world.hosts[self.victim()?];
        host.pause()?;
        let held = pass(Duration::from_secs(5));
        host.go_on()?;
        held?;
        Ok(host.name.clone())
    }

    fn cut(&mut self, ways: &[Ways]) -> Result<String> {
        let (victim, ways) = (self.victim()?, self.dice.pick(ways));
        let host = &self.world.hosts[victim];
        let cut = self.lab.cut_controllers(host, &self.world.others(victim), ways)?;
        self.hold(2500, 6500)?;
        cut.heal()?;
        Ok(format!("{} {ways:?}", host.name))
    }

    fn cut_pair(&mut self) -> Result<String> {
        let victim = self.victim()?;
        let (host, others) = (&self.world.hosts[victim], self.world.others(victim));
        let other = self.dice.pick(&others);
        let cut = self.lab.cut_controllers(host, &[other], Ways::Both)?;
        self.hold(2500, 6500)?;
        cut.heal()?;
        Ok(format!("{} and {}", host.name, other.name))
    }

    fn restart_all(&mut self) -> Result<String> {
        for number in self.dice.shuffled(self.world.hosts.len()) {
            let host = &self.world.hosts[number];
            host.stop()?;
            host.restart()?;
            self.hold(0, 800)?;
        }
        Ok("each".to_owned())
    }

    /// Takes away so many voters that the others can't decide.
    fn lose_majority(&mut self) -> Result<String> {
        let voters = self.world.who_votes()?;
        let lost = voters.len() / 2 + 1;
        let places = self.dice.shuffled(voters.len()).into_iter().take(lost);
        let lost: Vec<&Host> =
            places.map(|place| self.world.hosts[voters[place]].as_ref()).collect();
        let are_killed = self.dice.percent(50);
        for host in &lost {
            if are_killed { host.kill9()? } else { host.pause()? }
        }
        self.hold(2000, 6000)?;
        for host in &lost {
            if are_killed { host.spawn_again()? } else { host.go_on()? }
        }
        for host in &lost {
            host.wait_until_serving()?;
        }
        let names: Vec<&str> = lost.iter().map(|host| host.name.as_str()).collect();
        Ok(format!("{} {}", names.join(", "), if are_killed { "killed" } else { "stopped" }))
    }

    fn fill_disk(&mut self) -> Result<String> {
        let victim = self.voter()?;
        let (host, disk) = (&self.world.hosts[victim], &self.world.disks[victim]);
        disk.fill(LEFT)?;
        let held = self.hold(3000, 7000);
        disk.free()?;
        held?;
        Ok(host.name.clone())
    }

    fn wipe(&mut self) -> Result<String> {
        let victim = self.voter()?;
        let host = &self.world.hosts[victim];
        let life = self.life(&host.name)?;
        host.kill9()?;
        fs::remove_file(host.state_dir().join("consensus.redb"))?;
        self.hold(0, 2000)?;
        host.spawn_again()?;
        host.wait_until_serving()?;
        // Only then may another voter lose its log.
        eventually(&format!("{} is another member", host.name), BOUND, || {
            let now = self.life(&host.name)?;
            ensure!(now != life, "it is {now} still");
            Ok(())
        })?;
        self.world.all_vote()?;
        Ok(host.name.clone())
    }

    /// The Raft id of a node.
    fn life(&self, name: &str) -> Result<u64> {
        let row = |host: &Host| host.overlay_json(&["node", "inspect", name]);
        Ok(number(&self.world.any("the node's row", row)?, "raft_id"))
    }

    /// Removes the spare host's node, alive or dead, and lets the machine join as a new one.
    fn remove(&mut self) -> Result<String> {
        let spare = self.world.spare.context("a spare host")?;
        let (host, others) = (&self.world.hosts[spare], self.world.others(spare));
        let by = self.dice.pick(&others);
        let is_dead = self.dice.percent(50);
        if is_dead {
            host.kill9()?;
            eventually(&format!("{} is down", host.name), BOUND, || {
                let row = by.overlay_json(&["node", "inspect", &host.name])?;
                ensure!(text(&row, "state") == "down", "{row}");
                Ok(())
            })?;
        }
        let sent = self.book.now();
        by.overlay(&["node", "rm", "--force", &host.name])?;
        self.book.note_removal(Removal { host: spare, sent, answered: self.book.now() });
        eventually(&format!("{} ends", host.name), BOUND, || {
            if host.is_running()? { bail!("it runs") } else { Ok(()) }
        })?;
        self.hold(0, 1000)?;
        host.reinstall()?;
        host.start_node(&["--join", &by.listen()])?;
        self.world.all_vote()?;
        Ok(format!("{}, {}", host.name, if is_dead { "dead" } else { "alive" }))
    }

    /// Takes a voter's seat, and gives it one again if there is room then.
    fn move_seats(&mut self) -> Result<String> {
        let victim = self.voter()?;
        let host = &self.world.hosts[victim];
        self.world.any("a seat is taken", |by| by.overlay(&["node", "demote", &host.name]))?;
        self.hold(300, 2000)?;
        let mut said = format!("{} demoted", host.name);
        // Where an agent was left, it has the seat.
        let is_promoted =
            self.world.hosts.iter().any(|by| by.overlay(&["node", "promote", &host.name]).is_ok());
        if is_promoted {
            said += ", promoted";
        }
        self.world.all_vote()?;
        Ok(said)
    }
}
