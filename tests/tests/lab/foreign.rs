//! Addresses at which another cluster runs now: nodes of one cluster meet nodes of another.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use overlay_lab::{Host, eventually, rows, text};

use crate::support::{NETWORK, NODES, attach, cluster, refused_with, scenario};

const BOUND: Duration = Duration::from_secs(20);
/// The message that a node logs once for each address at which it meets another cluster.
const MET: &str = "a node of another cluster answers at the address";
/// The message that a node logs once for each other cluster that calls it.
const CALLED: &str = "a node of another cluster calls this one";

/// The cluster of a node, as its status shows it.
fn cluster_of(host: &Host) -> Result<String> {
    Ok(text(&host.overlay_json(&["status"])?, "cluster").to_owned())
}

/// The names in a listing, sorted.
fn names(host: &Host, what: &str) -> Result<Vec<String>> {
    let listed = host.overlay_json(&[what, "ls"])?;
    let mut names: Vec<String> = rows(&listed).iter().map(|row| text(row, "name").into()).collect();
    names.sort();
    Ok(names)
}

fn said(host: &Host, what: &str) -> usize {
    host.log().matches(what).count()
}

/// Checks that every call on `stranger` that would need the other cluster is refused with these words, and
/// changes nothing there. `there` is a node of the other cluster.
fn refused_everywhere(stranger: &Host, there: &Host, words: &str, inside: &str) -> Result<()> {
    let held = (names(there, "network")?, names(there, "endpoint")?, names(there, "node")?);
    let create = ["endpoint", "create", "web9", "--network", "theirs", "--netns", inside];
    for call in [
        &["network", "create", "written-by-a-stranger"][..],
        &["network", "ls"],
        &["network", "inspect", "theirs"],
        &["network", "rm", "theirs"],
        &create,
        &["endpoint", "ls"],
        &["endpoint", "rm", "x1"],
        &["node", "ls"],
        &["node", "rm", "h2"],
    ] {
        let refused = stranger.overlay_fails(call)?;
        refused_with(&refused, words).with_context(|| format!("{call:?}"))?;
    }
    let holds = (names(there, "network")?, names(there, "endpoint")?, names(there, "node")?);
    ensure!(holds == held, "{held:?} became {holds:?}");
    Ok(())
}

/// Gives the other cluster something to show: a network, and an endpoint without a namespace, behind a
/// foreign VTEP.
fn fill(host: &Host) -> Result<()> {
    host.overlay(&["network", "create", "theirs", "--subnet", "10.9.0.0/24"])?;
    let (mac, ip, vtep) = ("02:42:0a:09:00:09", "10.9.0.9", "10.10.10.200");
    let words = ["--network", "theirs", "--vtep", vtep, "--mac", mac, "--ip", ip];
    host.overlay(&[&["endpoint", "create", "x1"][..], &words].concat())?;
    Ok(())
}

#[test]
fn an_agent_does_nothing_in_another_cluster_at_the_addresses_of_its_voters() {
    scenario(NODES, |lab| {
        let cluster = cluster(lab)?;
        let [h1, h2, h3, h4] = &cluster.hosts;
        let web4 = attach(lab, h4, "web4", &[])?;
        let ours = cluster_of(h4)?;
        let held = h4.map_dump("FDB")?;
        let voters = [h1, h2, h3].map(Arc::clone);
        for voter in &voters {
            voter.reinstall()?;
        }
        lab.start_cluster(&voters)?;
        let theirs = cluster_of(h1)?;
        ensure!(theirs != ours, "the voters founded no cluster of their own");
        fill(h1)?;

        let inside = web4.netns.name();
        refused_everywhere(h4, h1, &theirs, inside)?;
        ensure!(names(h1, "node")? == ["h1", "h2", "h3"], "{:?}", names(h1, "node")?);
        ensure!(cluster_of(h4)? == ours);
        ensure!(h4.map_dump("FDB")? == held, "its kernel changed: {}", h4.map_dump("FDB")?);

        // By now the agent has asked each voter many times, and each voter has been asked many times. Each of
        // them logs its message only once.
        eventually("the agent has met all three", BOUND, || {
            ensure!(said(h4, MET) >= voters.len(), "{}", h4.log());
            Ok(())
        })?;
        ensure!(said(h4, MET) == voters.len(), "{}", h4.log());
        for voter in &voters {
            ensure!(said(voter, CALLED) == 1, "{}", voter.log());
        }
        Ok(())
    });
}

#[test]
fn a_voter_has_no_part_in_another_cluster_at_the_addresses_of_the_others() {
    scenario(NODES, |lab| {
        let hosts = lab.four_hosts()?;
        let [h1, h2, h3, _] = &hosts;
        lab.start_cluster(&hosts[..3])?;
        crate::support::create_network(h1)?;
        let ours = cluster_of(h3)?;
        let others = [h1, h2].map(Arc::clone);
        for other in &others {
            other.reinstall()?;
        }
        // The nodes of the new cluster have the same ids as those of the old one: 1 leads, 2 follows, and 3
        // has not joined yet.
        lab.start_cluster(&others)?;
        let theirs = cluster_of(h1)?;
        fill(h1)?;

        let netns = lab.container("web9")?;
        // h3 has no leader without the old cluster, and does not take the other cluster's leader. Its error
        // names either the strange cluster or the missing leader, depending on the leader that it knew last.
        refused_everywhere(h3, h1, "the cluster has no leader with a quorum", netns.name())?;
        // The other cluster's messages change nothing on h3 either.
        let status = h3.overlay_json(&["status"])?;
        ensure!(text(&status, "cluster") == ours, "{status}");
        ensure!(text(&status, "leader").is_empty(), "{status}");
        eventually("h3 has met both", BOUND, || {
            ensure!(said(h3, MET) >= others.len(), "{}", h3.log());
            Ok(())
        })?;
        ensure!(said(h3, MET) == others.len(), "{}", h3.log());
        for other in &others {
            ensure!(said(other, CALLED) == 1, "{}", other.log());
        }
        // The new cluster works, and accepts h3 as a node once its state folder is empty.
        h3.reinstall()?;
        h3.start_node(&["--join", &h1.listen()])?;
        ensure!(cluster_of(h3)? == theirs);
        ensure!(names(h3, "network")? == ["theirs"], "not {NETWORK}, which is gone");
        Ok(())
    });
}
