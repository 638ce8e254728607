//! Nodes leave the cluster, and the remaining ones can still decide.

use std::{fs, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use overlay_lab::{Host, eventually, rows, text};

use crate::support::{NODES, refused_with, scenario};

/// A removed node finds out within seconds, because it hears from no leader and asks the others.
const BOUND: Duration = Duration::from_secs(30);

/// Each node's name and role, as a host lists them.
fn roles(host: &Host) -> Result<Vec<(String, String)>> {
    let nodes = host.overlay_json(&["node", "ls"])?;
    let role = |node| (text(node, "name").to_owned(), text(node, "role").to_owned());
    Ok(rows(&nodes).iter().map(role).collect())
}

fn has_roles(host: &Host, wanted: &[(&str, &str)]) -> Result<()> {
    eventually("each node has its role", BOUND, || {
        let found = roles(host)?;
        let found: Vec<(&str, &str)> =
            found.iter().map(|(name, role)| (name.as_str(), role.as_str())).collect();
        ensure!(found == wanted, "{found:?}");
        Ok(())
    })
}

/// Waits until a write succeeds, which needs a leader.
fn decides(host: &Host, network: &str) -> Result<()> {
    eventually("the cluster decides", BOUND, || host.overlay(&["network", "create", network]))?;
    Ok(())
}

/// Waits until the node's process has ended by itself, because the node was removed.
fn ends(host: &Host) -> Result<()> {
    eventually(&format!("{} ends", host.name), BOUND, || {
        ensure!(!host.is_running()?, "it runs");
        Ok(())
    })
}

/// Removes nodes by calls to one host, all at the same time.
fn remove(by: &Host, nodes: &[&Arc<Host>]) -> Result<()> {
    std::thread::scope(|scope| {
        let asked: Vec<_> = nodes
            .iter()
            .map(|node| scope.spawn(|| by.overlay(&["node", "rm", &node.name])))
            .collect();
        for answer in asked {
            answer.join().map_err(|_| anyhow::anyhow!("the command panicked"))??;
        }
        Ok(())
    })
}

#[test]
fn of_two_nodes_the_second_costs_no_quorum_dead_or_removed() {
    scenario(NODES, |lab| {
        let hosts = lab.wired_pair(("h1", "10.10.10.101"), ("h2", "10.10.10.102"))?;
        lab.start_cluster(&hosts)?;
        let [h1, h2] = &hosts;
        has_roles(h1, &[("h1", "leader"), ("h2", "learner")])?;
        h2.kill9()?;
        h1.overlay(&["network", "create", "while-dead"])?;
        h2.restart()?;
        eventually("h2 answers for the cluster", BOUND, || {
            let networks = h2.overlay_json(&["network", "ls"])?;
            ensure!(rows(&networks).len() == 1, "{networks}");
            Ok(())
        })?;
        h2.overlay(&["node", "rm", "h2"])?;
        h1.overlay(&["network", "create", "after"])?;
        ends(h2)?;
        has_roles(h1, &[("h1", "leader")])
    });
}

#[test]
fn of_two_nodes_the_leader_can_be_removed_by_the_other() {
    scenario(NODES, |lab| {
        let hosts = lab.wired_pair(("h1", "10.10.10.101"), ("h2", "10.10.10.102"))?;
        lab.start_cluster(&hosts)?;
        let [h1, h2] = &hosts;
        h2.overlay(&["node", "rm", "h1"])?;
        decides(h2, "after")?;
        ends(h1)?;
        has_roles(h2, &[("h2", "leader")])?;
        // Other nodes can join the cluster that remains.
        fs::remove_dir_all(h1.state_dir())?;
        h1.start_node(&["--join", &h2.listen()])?;
        has_roles(h2, &[("h2", "leader"), ("h1", "learner")])
    });
}

#[test]
fn the_leader_of_three_is_removed_by_another() {
    scenario(NODES, |lab| {
        let hosts = lab.four_hosts()?;
        lab.start_cluster(&hosts[..3])?;
        let leader = hosts[0].leader()?;
        let removed = hosts.iter().find(|host| host.name == leader).context("the leader")?;
        let others: Vec<_> = hosts[..3].iter().filter(|host| host.name != leader).collect();
        remove(others[0], &[removed])?;
        decides(others[1], "after")?;
        ends(removed)?;
        let mut found: Vec<String> = roles(others[0])?.into_iter().map(|(_, role)| role).collect();
        found.sort_unstable();
        ensure!(found == ["leader", "learner"], "{found:?}");
        // With the next node that joins there are three voters again.
        hosts[3].start_node(&["--join", &others[0].listen()])?;
        eventually("three voters", BOUND, || {
            let voters = others[0].voters()?;
            ensure!(voters.len() == 3, "{voters:?}");
            Ok(())
        })
    });
}

#[test]
fn two_of_three_are_removed_at_once() {
    scenario(NODES, |lab| {
        let hosts = lab.four_hosts()?;
        lab.start_cluster(&hosts[..3])?;
        let [h1, h2, h3, _] = &hosts;
        remove(h1, &[h2, h3])?;
        decides(h1, "after")?;
        ends(h2)?;
        ends(h3)?;
        has_roles(h1, &[("h1", "leader")])
    });
}

#[test]
fn a_node_that_is_away_is_removed_and_hears_of_it() {
    scenario(NODES, |lab| {
        let hosts = lab.four_hosts()?;
        lab.start_cluster(&hosts[..3])?;
        let [h1, h2, h3, _] = &hosts;
        h3.kill9()?;
        remove(h1, &[h3])?;
        // Of the two remaining nodes only one has a vote, so that the other one may die as well.
        let leader = h1.leader()?;
        let (stays, goes) = if leader == h1.name { (h1, h2) } else { (h2, h1) };
        goes.kill9()?;
        decides(stays, "while-both-are-away")?;
        goes.restart()?;
        // When the removed node is started with its old folder, the others tell it that it was removed.
        h3.spawn_again()?;
        ends(h3)?;
        let refused = h3.node_fails(&[])?;
        refused_with(&refused, "was removed from its cluster")?;
        decides(goes, "after")
    });
}
