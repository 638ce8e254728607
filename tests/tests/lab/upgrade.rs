//! Nodes are upgraded one by one, and put back, while packets flow and the cluster is written to. The earlier program is the one
//! that OVERLAY_PREVIOUS names: `cargo xtask upgrade` builds it, and runs these scenarios.

mod writer;

use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use overlay_lab::{
    Host, Lab, MachineState, Requirement, eventually, number, overlay_binary, patient,
    previous_binary,
    probe::{Prober, SteadyProbe},
    rows, text,
};

use self::writer::{Writer, Written};
use crate::support::{CATCH_UP, Cluster, Endpoint, attach, cluster_of, refused_with, scenario};

const UPGRADE: &[Requirement] = &[
    Requirement::Root,
    Requirement::Bpffs,
    Requirement::Binary,
    Requirement::Previous,
    Requirement::Tool("ping"),
    Requirement::Tool("nft"),
];
/// A node registers and catches up within seconds, and the machine is shared.
const BOUND: Duration = Duration::from_secs(30);
/// At this pace a probe's numbers last for eleven minutes.
const EVERY: Duration = Duration::from_millis(10);
/// How many writes are acknowledged between one node and the next one.
const WRITES: usize = 8;
/// What a voter of an earlier program says of what it can't read.
const UNREADABLE: &str = "can't be read";
/// What one hears that asks to join.
const NOT_SPOKEN: &str = "the cluster is at version 2, and the node's program speaks version 1";

fn previous() -> Result<std::path::PathBuf> {
    previous_binary().context("an earlier program")
}

/// A cluster of the earlier program with an agent, endpoints that ping each other, and a client that writes.
struct Site {
    cluster: Cluster,
    /// Endpoints that the clusters of both programs made.
    made: Vec<Endpoint>,
    probes: Vec<SteadyProbe>,
    writer: Writer,
}

impl Site {
    fn start(lab: &mut Lab) -> Result<Self> {
        let hosts = lab.four_hosts()?;
        let previous = previous()?;
        hosts.iter().for_each(|host| host.install(&previous));
        let cluster = cluster_of(lab, hosts, &[])?;
        let web4 = attach(lab, &cluster.hosts[3], "web4", &[])?;
        let Cluster { hosts, web1, web2, web2_2 } = &cluster;
        let ways = [(web1, web2), (web2, web1), (&web4, web1), (web2_2, &web4)];
        let mut probes = Vec::new();
        for (from, to) in ways {
            from.netns.reaches(to.address)?;
            probes.push(Prober::new(&from.netns, to.address)?.start(patient(EVERY)));
        }
        let writer = Writer::start(lab, hosts)?;
        writer.goes_on(WRITES)?;
        Ok(Self { made: vec![web4], cluster, probes, writer })
    }

    /// The hosts, the leader first or last. The agent is at the other end: so it is older than the leader for a while, and
    /// newer.
    fn order(&self, leader_first: bool) -> Result<Vec<Arc<Host>>> {
        let hosts = &self.cluster.hosts;
        let leader = hosts[3].leader()?;
        let mut order: Vec<Arc<Host>> = hosts[..3].to_vec();
        order.sort_by_key(|host| host.name != leader);
        order.push(Arc::clone(&hosts[3]));
        if !leader_first {
            order.reverse();
        }
        Ok(order)
    }

    /// Restarts a host's node by another program, and waits until the cluster is whole: the node has what the others have,
    /// three vote, writes are taken, and an endpoint that is made there reaches one of before.
    fn runs_by(
        &mut self,
        lab: &Lab,
        host: &Arc<Host>,
        program: &Path,
        args: &[&str],
    ) -> Result<()> {
        self.writer.leave_out(Some(host))?;
        host.stop()?;
        host.install(program);
        // A new node joins by the first one; one that comes back knows its cluster.
        host.start_node(args)?;
        self.is_whole(host)?;
        self.writer.leave_out(None)?;
        self.writer.goes_on(WRITES)?;
        let name = format!("made{}", self.made.len());
        let endpoint = attach(lab, host, &name, &[])?;
        let other = &self.cluster.web1;
        eventually(&format!("{name} reaches web1"), CATCH_UP, || {
            endpoint.netns.reaches(other.address)
        })?;
        self.made.push(endpoint);
        Ok(())
    }

    /// Waits until a host has what another one has now, and each node is up.
    fn is_whole(&self, host: &Host) -> Result<()> {
        let hosts = &self.cluster.hosts;
        let other = hosts.iter().find(|other| other.name != host.name).context("another")?;
        let should = number(&other.overlay_json(&["status"])?, "revision");
        eventually(&format!("{} is back", host.name), BOUND, || {
            let status = host.overlay_json(&["status"])?;
            ensure!(number(&status, "programmed_revision") >= should, "{should}: {status}");
            for asked in [host, other] {
                let ready = asked.ready_nodes()?;
                ensure!(ready.len() == hosts.len(), "only {ready:?} are ready");
            }
            let voters = other.voters()?;
            ensure!(voters.len() == 3, "{voters:?}");
            Ok(())
        })
    }

    /// Ends what runs, and checks that no packet was lost, and that all voters hold what was acknowledged and the same.
    fn end(self) -> Result<()> {
        let Written { kept, gone, acknowledged, failed, refused } = self.writer.stop()?;
        println!("{acknowledged} writes were acknowledged, {} failed: {failed:?}", failed.len());
        ensure!(refused.is_empty(), "{} writes were refused: {refused:?}", refused.len());
        ensure!(failed.len() * 10 <= acknowledged, "{} writes failed: {failed:?}", failed.len());
        let voters = &self.cluster.hosts[..3];
        let (networks, endpoints) = eventually("all voters hold the same", BOUND, || {
            let held = voters.iter().map(|host| held(host)).collect::<Result<Vec<_>>>()?;
            ensure!(held.windows(2).all(|two| two[0] == two[1]), "{held:?}");
            held.into_iter().next().context("a voter")
        })?;
        for name in &kept {
            ensure!(networks.contains_key(name), "{name} was acknowledged, and is not there");
        }
        for name in &gone {
            let is_there = networks.contains_key(name) || endpoints.contains_key(name);
            ensure!(!is_there, "{name} was removed, and is there");
        }
        let Cluster { web1, web2, web2_2, .. } = &self.cluster;
        for endpoint in [web1, web2, web2_2].into_iter().chain(&self.made) {
            let row = endpoints.get(&endpoint.name).context(endpoint.name.clone())?;
            ensure!(row.contains(&endpoint.address.to_string()), "{row}");
            endpoint.netns.reaches(web1.address)?;
            web1.netns.reaches(endpoint.address)?;
        }
        self.probes.into_iter().try_for_each(|probe| probe.stop()?.none_lost())
    }
}

/// The networks and the endpoints of a voter's own state, by name, without what only the leader knows of them.
type Held = (BTreeMap<String, String>, BTreeMap<String, String>);

fn held(voter: &Host) -> Result<Held> {
    let fields = |verb: &str, fields: &[&str]| -> Result<BTreeMap<String, String>> {
        let listed = voter.overlay_json(&[verb, "ls", "--stale"])?;
        let row = |row: &serde_json::Value| {
            let shown: Vec<String> = fields.iter().map(|field| row[field].to_string()).collect();
            (text(row, "name").to_owned(), shown.join(" "))
        };
        Ok(rows(&listed["answer"]).iter().map(row).collect())
    };
    let of_network = ["id", "vni", "subnet", "ip_range", "created_revision"];
    let of_endpoint =
        ["id", "network", "node", "vtep", "address", "mac", "netns", "aliases", "published"];
    Ok((fields("network", &of_network)?, fields("endpoint", &of_endpoint)?))
}

/// The cluster's version as a node shows it, and the newest one that its program speaks; 1 = it does not say.
fn versions(host: &Host) -> Result<[u64; 2]> {
    let status = host.overlay_json(&["status"])?;
    Ok(["cluster_version", "newest_version"].map(|field| number(&status, field).max(1)))
}

fn up_and_back(lab: &mut Lab, leader_first: bool) -> Result<()> {
    let mut site = Site::start(lab)?;
    let [before, _] = versions(&site.cluster.hosts[0])?;
    for (program, is_newer) in [(overlay_binary(), true), (previous()?, false)] {
        for host in site.order(leader_first)? {
            site.runs_by(lab, &host, &program, &[])
                .with_context(|| format!("{} by the newer program: {is_newer}", host.name))?;
        }
        // Nothing is raised before all have spoken the next version for minutes: until then each can be put back.
        for host in &site.cluster.hosts {
            let [version, _] = versions(host)?;
            ensure!(version == before, "{} is at version {version}", host.name);
        }
    }
    site.end()
}

#[test]
fn nodes_are_upgraded_and_put_back_the_leader_first_and_nothing_is_lost() {
    scenario(UPGRADE, |lab| up_and_back(lab, true));
}

#[test]
fn nodes_are_upgraded_and_put_back_the_leader_last_and_nothing_is_lost() {
    scenario(UPGRADE, |lab| up_and_back(lab, false));
}

/// All files of a state folder, but for the lock, the database, in which it is noted that it was opened, and the places of the last
/// run.
fn files(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for file in fs::read_dir(folder)? {
        let file = file?;
        let name = file.file_name().to_string_lossy().into_owned();
        if !["lock", "consensus.redb", "run.json"].contains(&name.as_str()) {
            found.insert(name, fs::read(file.path())?);
        }
    }
    Ok(found)
}

/// What a node keeps in its host's kernel for its endpoints.
fn in_the_kernel(host: &Host) -> Result<[Vec<String>; 2]> {
    let pins = host.pins()?.iter().map(|pin| pin.display().to_string()).collect();
    Ok([pins, MachineState::of(host)?.links])
}

#[test]
fn the_version_rises_when_all_speak_it_and_then_an_earlier_program_is_refused() {
    scenario(UPGRADE, |lab| {
        let mut site = Site::start(lab)?;
        let (previous, newer) = (previous()?, overlay_binary());
        let [h1, h2, h3, h4] = site.cluster.hosts.clone();
        let soon = ["--raise-version-after", "1"];
        for host in [&h1, &h2, &h3] {
            site.runs_by(lab, host, &newer, &soon)?;
        }
        let [version, newest] = versions(&h1)?;
        if version == newest {
            // The earlier program speaks it, too: it is as good as the newer one.
            site.runs_by(lab, &h2, &previous, &[])?;
            site.runs_by(lab, &h4, &newer, &soon)?;
            return site.end();
        }
        let waits = eventually("the leader says for whom it waits", BOUND, || {
            let name = h1.leader()?;
            let leader = [&h1, &h2, &h3].into_iter().find(|host| host.name == name);
            let status = leader.context("a leader")?.overlay_json(&["status"])?;
            let waits = status["version_waits_for"].to_string();
            ensure!(waits != "[]", "{status}");
            Ok(waits)
        })?;
        ensure!(waits == r#"["h4 (speaks version 1)"]"#, "{waits}");
        ensure!(versions(&h1)?[0] == version, "it was raised without h4");

        site.runs_by(lab, &h4, &newer, &soon)?;
        for host in [&h1, &h2, &h3, &h4] {
            eventually("the version is raised", BOUND, || {
                let [version, newest] = versions(host)?;
                ensure!(version == newest, "{} shows {version}", host.name);
                Ok(())
            })?;
        }
        site.writer.goes_on(WRITES)?;

        // A voter that is put back ends, and its next start by the newer program finds all as it was.
        site.writer.leave_out(Some(&h2))?;
        h2.stop()?;
        let before = (files(&h2.state_dir())?, in_the_kernel(&h2)?);
        h2.install(&previous);
        let refused = h2.node_fails(&[])?;
        refused_with(&refused, UNREADABLE)?;
        ensure!(refused.stderr.contains("Install the newer version"), "{}", refused.stderr);
        let after = (files(&h2.state_dir())?, in_the_kernel(&h2)?);
        for (name, content) in &before.0 {
            ensure!(after.0.get(name) == Some(content), "{name} was changed");
        }
        ensure!(after == before, "{:?} became {:?}", before.0.keys(), after.0.keys());
        h2.install(&newer);
        h2.start_node(&soon)?;
        site.is_whole(&h2)?;

        // An agent that is put back is served no more. What its kernel has stays, and packets flow.
        site.writer.leave_out(Some(&h4))?;
        h4.stop()?;
        h4.install(&previous);
        h4.start_node(&[])?;
        eventually("it says why nobody serves it", BOUND, || {
            let log = h4.log();
            // In the leader's words, or by the name of the refusal, which a program of version 1 does not know.
            ensure!(log.contains("the cluster does not take this node's registration"), "{log}");
            ensure!(log.contains(NOT_SPOKEN) || log.contains("VersionNotSpoken"), "{log}");
            ensure!(log.contains("what its kernel holds stays as it is"), "{log}");
            Ok(())
        })?;
        site.cluster.web1.netns.reaches(site.made[0].address)?;
        site.writer.goes_on(WRITES)?;
        h4.stop()?;
        h4.install(&newer);
        h4.start_node(&soon)?;
        site.is_whole(&h4)?;
        site.writer.leave_out(None)?;

        // A node that is new, and older than the cluster, is not taken in.
        let subnet = lab.subnet("10.20.0.1/24")?;
        let h5 = lab.host(&subnet, "h5", "10.20.0.5")?;
        h5.install(&previous);
        let bare = MachineState::of(&h5)?;
        refused_with(&h5.node_fails(&["--join", &h1.listen()])?, NOT_SPOKEN)?;
        MachineState::of(&h5)?.same_as(&bare)?;
        let nodes = h1.overlay_json(&["node", "ls"])?;
        ensure!(rows(&nodes).len() == 4, "{nodes}");
        h5.install(&newer);
        h5.start_node(&["--join", &h1.listen()])?;
        site.end()
    });
}
