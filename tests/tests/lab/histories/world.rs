//! The cluster of a run: five hosts in two subnets, three or five voters, endpoints that last and namespaces for those that do not.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use overlay_lab::{Host, Lab, Netns, SmallDisk, eventually, tagged::Party};

use super::dice::Dice;
use crate::support::attach_to;

/// The network of the endpoints that come and go, with few addresses, so that each is given out again and again.
pub(super) const CHURN: &str = "churn";
/// The networks of the endpoints that last. Both have the same subnet, so that a packet which gets into the other network
/// finds somebody there.
const LASTING: [&str; 2] = ["blue", "red"];
/// MiB of a state folder that is to be filled.
const DISK: u64 = 24;
/// Namespaces of each host for endpoints that come and go.
const PLACES: usize = 4;
/// Nodes change their parts within seconds.
const BOUND: Duration = Duration::from_secs(40);

/// What a fault needs of the cluster.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Needs {
    /// State folders that can be filled.
    pub(super) small_disks: bool,
    /// A host without lasting endpoints.
    pub(super) spare_host: bool,
}

/// A namespace for endpoints that come and go.
pub(super) struct Place {
    pub(super) host: usize,
    pub(super) netns: Netns,
}

pub(super) struct World {
    pub(super) hosts: Vec<Arc<Host>>,
    /// How many of them are to vote.
    pub(super) voters: usize,
    /// The host without lasting endpoints, which may be removed.
    pub(super) spare: Option<usize>,
    /// The endpoints that last, which send to each other all the time.
    pub(super) lasting: Vec<Party>,
    pub(super) places: Vec<Place>,
    /// The hosts' state folders, where they are to be filled.
    pub(super) disks: Vec<SmallDisk>,
}

impl World {
    pub(super) fn build(lab: &mut Lab, needs: Needs, dice: &mut Dice) -> Result<Self> {
        let left = lab.subnet("10.10.10.1/24")?;
        let right = lab.subnet("192.168.50.1/24")?;
        let mut hosts = Vec::new();
        for number in 1..=5 {
            let (subnet, net) =
                if number <= 3 { (&left, "10.10.10") } else { (&right, "192.168.50") };
            hosts.push(lab.host(
                subnet,
                &format!("h{number}"),
                &format!("{net}.{}", 100 + number),
            )?);
        }
        let mut disks = Vec::new();
        if needs.small_disks {
            for host in &hosts {
                disks.push(SmallDisk::mount(&host.state_dir(), DISK)?);
            }
        }
        lab.start_cluster(&hosts)?;
        let voters = dice.pick(&[3, 5]);
        if voters == 5 {
            hosts[0].overlay(&["cluster", "voters", "5"])?;
        }
        let spare = needs.spare_host.then(|| dice.below(hosts.len()));
        let mut world =
            Self { hosts, voters, spare, lasting: Vec::new(), places: Vec::new(), disks };
        world.all_vote()?;
        world.attach_all(lab)?;
        Ok(world)
    }

    fn attach_all(&mut self, lab: &Lab) -> Result<()> {
        let first = &self.hosts[0];
        for (network, name) in LASTING.into_iter().enumerate() {
            first.overlay(&["network", "create", name, "--subnet", "10.1.0.0/24"])?;
            for (number, host) in self.hosts.iter().enumerate() {
                if self.spare == Some(number) {
                    continue;
                }
                let inside = format!("{name}-{}", host.name);
                let endpoint = attach_to(name, host, &inside, lab.container(&inside)?, &[])?;
                let (netns, address) = (endpoint.netns, endpoint.address);
                let network = u32::try_from(network)?;
                self.lasting.push(Party { name: inside, netns, address, network });
            }
        }
        let range = ["--subnet", "10.7.0.0/24", "--ip-range", "10.7.0.16/28"];
        first.overlay(&[&["network", "create", CHURN][..], &range].concat())?;
        for (host, it) in self.hosts.iter().enumerate() {
            for place in 0..PLACES {
                let netns = lab.container(&format!("{}-{place}", it.name))?;
                self.places.push(Place { host, netns });
            }
        }
        Ok(())
    }

    /// The number of the host with this name.
    pub(super) fn number(&self, name: &str) -> Result<usize> {
        let found = self.hosts.iter().position(|host| host.name == name);
        found.with_context(|| format!("{name} is none of the hosts"))
    }

    /// The first answer of a node that gives one.
    pub(super) fn any<T>(&self, what: &str, ask: impl Fn(&Host) -> Result<T>) -> Result<T> {
        eventually(what, BOUND, || {
            let mut last = None;
            for host in &self.hosts {
                match ask(host) {
                    Ok(answer) => return Ok(answer),
                    Err(error) => last = Some(error),
                }
            }
            Err(last.context("a host")?)
        })
    }

    /// The number of the host that leads.
    pub(super) fn leader(&self) -> Result<usize> {
        self.number(&self.any("a leader is known", Host::leader)?)
    }

    /// The numbers of the hosts that vote.
    pub(super) fn who_votes(&self) -> Result<Vec<usize>> {
        let names = self.any("the voters are known", Host::voters)?;
        names.iter().map(|name| self.number(name)).collect()
    }

    /// Waits until as many vote as should.
    pub(super) fn all_vote(&self) -> Result<()> {
        eventually(&format!("{} vote", self.voters), BOUND, || {
            let voters = self.any("the voters are known", Host::voters)?;
            ensure!(voters.len() == self.voters, "{voters:?}");
            Ok(())
        })
    }

    /// The hosts but for this one.
    pub(super) fn others(&self, host: usize) -> Vec<&Host> {
        let others = self.hosts.iter().enumerate().filter(|(number, _)| *number != host);
        others.map(|(_, host)| host.as_ref()).collect()
    }
}
