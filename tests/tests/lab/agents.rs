//! Agents, which are nodes without a vote, restart, with voters in reach and without any.

use std::time::Duration;

use anyhow::{Result, ensure};
use overlay_lab::{Host, Requirement, eventually, number, probe::Prober};

use crate::support::{
    CATCH_UP, Cluster, Endpoint, attach, attach_to, cluster, follows, knows, scenario,
};

const NEEDS: &[Requirement] = &[
    Requirement::Root,
    Requirement::Bpffs,
    Requirement::Binary,
    Requirement::Tool("ping"),
    Requirement::Tool("nft"),
    Requirement::Tool("bpftool"),
];
const EVERY: Duration = Duration::from_millis(2);
/// The message that an agent logs once when it has asked every voter and none serves it.
const NOBODY: &str = "no voter with a quorum serves this node";

/// The revision that a node has programmed. A restarted node has one after its first pass over the kernel.
fn programmed(host: &Host) -> Result<u64> {
    Ok(number(&host.overlay_json(&["status"])?, "programmed_revision"))
}

/// Two endpoints on h4: one on the common network, and one that is the only endpoint of another network.
fn with_an_agent(lab: &overlay_lab::Lab) -> Result<[Endpoint; 2]> {
    let h4 = &lab.hosts()[3];
    h4.overlay(&["network", "create", "other", "--subnet", "10.3.0.0/24"])?;
    let last = attach_to("other", h4, "last", lab.container("last")?, &[])?;
    Ok([attach(lab, h4, "web4", &[])?, last])
}

#[test]
fn an_agent_that_restarts_learns_what_it_missed_and_loses_no_packet() {
    scenario(NEEDS, |lab| {
        let Cluster { hosts: [h1, _, _, h4], web1, web2, .. } = &cluster(lab)?;
        let [web4, last] = with_an_agent(lab)?;
        web4.netns.reaches(web1.address)?;
        let probe = Prober::new(&web4.netns, web1.address)?.start(EVERY);
        h4.kill9()?;
        h1.overlay(&["endpoint", "rm", "web2"])?;
        h1.overlay(&["endpoint", "rm", "last"])?;
        ensure!(knows(h4, web2.address)? && knows(h4, last.address)?, "who told the dead agent?");
        h4.restart()?;
        follows(h4, h1, CATCH_UP)?;
        eventually("its kernel has no more than there is", CATCH_UP, || {
            ensure!(!knows(h4, web2.address)?, "web2 is still there");
            ensure!(!knows(h4, last.address)?, "last is still there");
            // The entries are removed before the devices.
            let links = last.netns.links()?;
            ensure!(links == ["lo"], "{links:?}");
            Ok(())
        })?;
        ensure!(knows(h4, web1.address)?, "web1 went with them");
        let more = attach(lab, h4, "more", &[])?;
        more.netns.reaches(web4.address)?;
        probe.stop()?.none_lost()
    });
}

#[test]
fn an_agent_that_restarts_without_a_voter_in_reach_sweeps_nothing() {
    scenario(NEEDS, |lab| {
        let Cluster { hosts: [h1, h2, h3, h4], web1, web2, .. } = &cluster(lab)?;
        let [web4, _] = with_an_agent(lab)?;
        let held = [h4.map_dump("FDB")?, h4.map_dump("NEIGH")?];
        let links = h4.netns.links()?;
        web4.netns.reaches(web1.address)?;
        let probe = Prober::new(&web4.netns, web1.address)?.start(EVERY);
        // The voters still accept TCP connections, but do not answer. An agent notices this later than a
        // voter's death.
        for voter in [h1, h2, h3] {
            voter.pause()?;
        }
        let said = || h4.log().matches(NOBODY).count();
        let before = said();
        h4.kill9()?;
        h4.restart()?;
        eventually("it has asked all voters", CATCH_UP, || {
            ensure!(said() > before, "{}", h4.log());
            Ok(())
        })?;
        ensure!(programmed(h4)? == 0, "by what view?");
        ensure!([h4.map_dump("FDB")?, h4.map_dump("NEIGH")?] == held, "it swept");
        ensure!(h4.netns.links()? == links, "it swept: {:?}", h4.netns.links()?);

        for voter in [h1, h2, h3] {
            voter.go_on()?;
        }
        follows(h4, h1, CATCH_UP)?;
        h1.overlay(&["endpoint", "rm", "web2"])?;
        ensure!(!knows(h4, web2.address)?, "it is in charge again, and web2 stays");
        probe.stop()?.none_lost()
    });
}

/// A new cluster begins at the newest version that its first node speaks.
#[test]
fn every_node_shows_the_version_of_its_cluster_also_after_a_restart() {
    scenario(NEEDS, |lab| {
        let Cluster { hosts: [h1, h2, h3, h4], .. } = &cluster(lab)?;
        let shows = |host: &Host| {
            eventually("it shows the version", CATCH_UP, || {
                let status = host.overlay_json(&["status"])?;
                let [has, newest] =
                    ["cluster_version", "newest_version"].map(|field| number(&status, field));
                ensure!(newest >= 2 && has == newest, "version {has} of {newest}");
                Ok(())
            })
        };
        [h1, h2, h3, h4].into_iter().try_for_each(|host| shows(host))?;
        for host in [h2, h4] {
            host.stop()?;
            host.restart()?;
            shows(host)?;
            let refused = "the cluster does not take this node's registration";
            ensure!(!host.log().contains(refused), "{}", host.log());
        }
        Ok(())
    });
}
