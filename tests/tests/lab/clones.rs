//! A state folder that is copied to a second host: of the two processes that are one node, one stops with a sentence.

use std::{fs, sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use overlay_lab::{Host, Lab, eventually, number, patient, probe::Prober, text};

use crate::support::{NODES, attach, copy_folder, create_network, refused_with, scenario};

/// A node registers every thirty seconds, and hears then of a second process.
const BOUND: Duration = Duration::from_secs(45);
const EVERY: Duration = Duration::from_millis(5);
/// What the process is told that has to end.
const SECOND: &str = "this is a second process with a copy of its state folder";
/// What the other one says.
const FIRST: &str =
    "a second process, with a copy of this node's state folder, asks to be this node";

/// Three voters and an agent on one subnet, and a host without a node.
fn hosts(lab: &mut Lab) -> Result<([Arc<Host>; 4], Arc<Host>)> {
    let subnet = lab.subnet("10.10.10.1/24")?;
    let mut host = |last: u8| lab.host(&subnet, &format!("h{last}"), &format!("10.10.10.10{last}"));
    let nodes = [host(1)?, host(2)?, host(3)?, host(4)?];
    let spare = host(5)?;
    lab.start_cluster(&nodes)?;
    Ok((nodes, spare))
}

/// The node's row: its id, its Raft id, and its VTEP.
fn row(asked: &Host, name: &str) -> Result<(u64, u64, String)> {
    let shown = asked.overlay_json(&["node", "inspect", name])?;
    Ok((number(&shown, "id"), number(&shown, "raft_id"), text(&shown, "vtep").to_owned()))
}

fn three_vote(asked: &Host) -> Result<()> {
    eventually("three voters", BOUND, || {
        let voters = asked.voters()?;
        ensure!(voters == ["h1", "h2", "h3"], "{voters:?}");
        Ok(())
    })
}

/// Waits until the process of the host has ended, with a sentence in its log.
fn ends_as_the_second(host: &Host) -> Result<()> {
    eventually(&format!("{} ends", host.name), BOUND, || {
        ensure!(!host.is_running()?, "it runs");
        Ok(())
    })?;
    ensure!(host.log().contains(SECOND), "{}", host.log());
    Ok(())
}

#[test]
fn a_copy_that_starts_beside_its_node_is_refused_and_no_packet_is_lost() {
    scenario(NODES, |lab| {
        let (nodes, spare) = hosts(lab)?;
        let [h1, h2, _, h4] = &nodes;
        create_network(h1)?;
        let web2 = attach(lab, h2, "web2", &[])?;
        let web4 = attach(lab, h4, "web4", &[])?;
        let probe = Prober::new(&web4.netns, web2.address)?.start(patient(EVERY));
        for node in [h2, h4] {
            node.stop()?;
            copy_folder(&node.state_dir(), &spare.state_dir())?;
            node.restart()?;
            three_vote(h1)?;
            let before = row(h1, &node.name)?;
            refused_with(&spare.node_fails(&["--name", &node.name])?, SECOND)?;
            ensure!(row(h1, &node.name)? == before, "{before:?} became another row");
            eventually(&format!("{} says that there is a second one", node.name), BOUND, || {
                let status = node.overlay_json(&["status"])?;
                let alarms = status["alarms"].to_string();
                ensure!(alarms.contains("a second process at 10.10.10.105:7400"), "{alarms}");
                ensure!(node.log().contains(FIRST), "{}", node.log());
                Ok(())
            })?;
            fs::remove_dir_all(spare.state_dir())?;
        }
        probe.stop()?.none_lost()
    });
}

/// The machine was down when its clone was started. What its endpoints have in its kernel stays.
#[test]
fn a_copy_that_runs_first_is_the_node_and_the_original_is_refused() {
    scenario(NODES, |lab| {
        let ([h1, _, h3, _], spare) = &hosts(lab)?;
        let (_, life, _) = row(h1, "h3")?;
        h3.stop()?;
        copy_folder(&h3.state_dir(), &spare.state_dir())?;
        spare.start_node(&["--name", "h3"])?;
        three_vote(h1)?;
        let (_, now, vtep) = row(h1, "h3")?;
        ensure!(now > life, "its log is a copy, and votes under the id of the original: {now}");
        ensure!(vtep == "10.10.10.105", "{vtep}");
        refused_with(&h3.node_fails(&[])?, SECOND)?;
        ensure!(spare.is_running()?, "{}", spare.log());
        three_vote(h1)
    });
}

/// A machine that was paused is cloned from its disk; then it goes on.
#[test]
fn a_node_that_stood_still_while_its_copy_took_its_place_ends() {
    scenario(NODES, |lab| {
        let ([h1, _, h3, h4], spare) = &hosts(lab)?;
        for node in [h3, h4] {
            node.pause()?;
            eventually(&format!("{} is down", node.name), BOUND, || {
                let shown = h1.overlay_json(&["node", "inspect", &node.name])?;
                ensure!(text(&shown, "state") == "down", "{shown}");
                Ok(())
            })?;
            copy_folder(&node.state_dir(), &spare.state_dir())?;
            spare.start_node(&["--name", &node.name])?;
            node.go_on()?;
            ends_as_the_second(node)?;
            ensure!(spare.is_running()?, "{}", spare.log());
            ensure!(row(h1, &node.name)?.2 == "10.10.10.105", "{:?}", row(h1, &node.name)?);
            three_vote(h1)?;
            // The clone is given up, and the node comes back: its folder is that of a life before.
            spare.stop()?;
            fs::remove_dir_all(spare.state_dir())?;
            node.restart()?;
            three_vote(h1)?;
            ensure!(
                row(h1, &node.name)?.2 == node.address.to_string(),
                "{:?}",
                row(h1, &node.name)?
            );
        }
        Ok(())
    });
}

/// Nobody can tell: neither hears of the other.
#[test]
fn the_only_voter_goes_on_from_a_copy_and_says_what_that_may_mean() {
    scenario(NODES, |lab| {
        let hosts = lab.wired_pair(("h1", "10.10.10.101"), ("h2", "10.10.10.102"))?;
        let [h1, h2] = &hosts;
        lab.start_cluster(&hosts[..1])?;
        h1.stop()?;
        copy_folder(&h1.state_dir(), &h2.state_dir())?;
        h2.start_node(&["--name", "h1"])?;
        ensure!(h2.log().contains("there are two clusters with one id"), "{}", h2.log());
        h2.overlay(&["network", "create", "written"])?;
        h2.stop()?;
        // It has a place of its own from now on.
        h2.restart()?;
        let said = h2.log().matches("there are two clusters with one id").count();
        ensure!(said == 1, "{}", h2.log());
        Ok(())
    });
}
