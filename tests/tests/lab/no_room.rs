//! The disk of a state folder is full: the node goes on without what does not fit, says so, and catches up by itself.

use std::time::Duration;

use anyhow::{Result, ensure};
use overlay_lab::{Host, SmallDisk, eventually, number, rows};

use crate::support::{NODES, attach, create_network, refused_with, scenario};

const BOUND: Duration = Duration::from_secs(20);
/// What is left on a disk that is full: less than a node keeps free, and more than a vote needs.
const LEFT: u64 = 512 << 10;

/// A small disk in the place of a host's state folder.
fn disk(host: &Host) -> Result<SmallDisk> {
    SmallDisk::mount(&host.state_dir(), 8)
}

/// What the node's status says that must be seen to.
fn alarms(host: &Host) -> Result<String> {
    let status = host.overlay_json(&["status"])?;
    Ok(rows(&status["alarms"]).iter().map(ToString::to_string).collect())
}

fn has_alarm(host: &Host) -> Result<()> {
    eventually(&format!("{} says that it has no room", host.name), BOUND, || {
        let said = alarms(host)?;
        ensure!(said.contains("state folder") && said.contains("is full"), "{said:?}");
        Ok(())
    })
}

#[test]
fn a_voter_and_an_agent_without_room_go_on_and_start() {
    scenario(NODES, |lab| {
        let hosts = lab.four_hosts()?;
        let [h1, _, h3, h4] = &hosts;
        let (of_voter, of_agent) = (disk(h3)?, disk(h4)?);
        lab.start_cluster(&hosts)?;
        create_network(h1)?;
        let (web1, web3) = (attach(lab, h1, "web1", &[])?, attach(lab, h3, "web3", &[])?);
        of_voter.fill(LEFT)?;
        for number in 0..20 {
            h1.overlay(&["network", "create", &format!("n{number}")])?;
        }
        has_alarm(h3)?;
        web1.netns.reaches(web3.address)?;

        h3.kill9()?;
        h3.restart()?;
        h1.overlay(&["network", "create", "more"])?;
        has_alarm(h3)?;
        web1.netns.reaches(web3.address)?;
        of_voter.free()?;
        eventually("it has caught up", BOUND, || {
            let revision = |host: &Host| -> Result<u64> {
                Ok(number(&host.overlay_json(&["status"])?, "revision"))
            };
            let (has, should) = (revision(h3)?, revision(h1)?);
            ensure!(has >= should, "it is at {has}, h1 at {should}");
            let said = alarms(h3)?;
            ensure!(said.is_empty(), "{said}");
            Ok(())
        })?;

        // What an agent would note in its folder at its start is left out.
        h4.stop()?;
        of_agent.fill(0)?;
        h4.start_node(&["--join", &h1.listen(), "--big-tcp", "on"])?;
        of_agent.free()
    });
}

#[test]
fn a_voter_alone_without_room_refuses_writes_until_there_is_some() {
    scenario(NODES, |lab| {
        let hosts = lab.wired_pair(("h1", "10.10.10.101"), ("h2", "10.10.10.102"))?;
        let [h1, h2] = &hosts;
        let small = disk(h1)?;
        lab.start_cluster(&hosts[..1])?;
        create_network(h1)?;
        let web1 = attach(lab, h1, "web1", &[])?;
        let web2 = attach(lab, h1, "web2", &[])?;
        small.fill(LEFT)?;
        let refused = h1.overlay_fails(&["network", "create", "more"])?;
        refused_with(&refused, "is full")?;
        has_alarm(h1)?;
        web1.netns.reaches(web2.address)?;
        small.free()?;
        eventually("writes are taken again", BOUND, || {
            h1.overlay(&["network", "create", "more"]).map(drop)
        })?;

        // A node that is new is refused before the cluster hears of it.
        let small = disk(h2)?;
        small.fill(LEFT)?;
        let refused = h2.node_fails(&["--join", &h1.listen()])?;
        refused_with(&refused, "has 0 MiB free, 4 are needed")?;
        let nodes = h1.overlay_json(&["node", "ls"])?;
        ensure!(rows(&nodes).len() == 1, "{nodes}");
        Ok(())
    });
}
