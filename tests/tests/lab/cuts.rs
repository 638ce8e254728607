//! Wires that carry nothing, or nothing in one direction, while the nodes at both ends run.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use overlay_lab::{Cut, Host, Lab, Requirement, eventually, probe::Prober};

use crate::support::{
    CATCH_UP, Cluster, ELECTION, Endpoint, NETWORK, another_leads, attach, cluster, follows, knows,
    leader, other_voters, refused_with, scenario,
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

/// The cluster's endpoint on a host.
fn endpoint_on<'a>(cluster: &'a Cluster, host: &Host) -> Result<&'a Endpoint> {
    let all = [&cluster.web1, &cluster.web2, &cluster.web2_2];
    all.into_iter().find(|endpoint| endpoint.host.name == host.name).context("an endpoint there")
}

/// The packets that are lost on a host's wire.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lost {
    Everything,
    /// All that the host sends.
    Sent,
    /// All that is sent to the host.
    Received,
}

impl Lost {
    fn cut(self, lab: &Lab, host: &Host) -> Result<Cut> {
        match self {
            Self::Everything => lab.cut(host),
            Self::Sent => lab.cut_from(host),
            Self::Received => lab.cut_to(host),
        }
    }

    /// Checks that the host's kernel still has the endpoint that the others removed meanwhile. A host that
    /// can still receive may have removed it too, so that nothing is checked.
    fn nothing_was_heard(self, host: &Host, removed: &Endpoint) -> Result<()> {
        if self != Self::Sent {
            ensure!(knows(host, removed.address)?, "{} heard of {}", host.name, removed.name);
        }
        Ok(())
    }
}

/// The leader is cut off, and the others go on without it, as does the agent. When the wire is whole again,
/// the old leader follows the new one, and its kernel forgets the endpoints that were removed meanwhile.
fn without_the_leader(lost: Lost) {
    scenario(NEEDS, |lab| {
        let cluster = cluster(lab)?;
        let h4 = &cluster.hosts[3];
        let web4 = attach(lab, h4, "web4", &[])?;
        let old = leader(&cluster)?;
        let own = endpoint_on(&cluster, &old)?;
        let others = other_voters(&cluster, &old);
        let (gone, stays) = (endpoint_on(&cluster, others[0])?, endpoint_on(&cluster, others[1])?);
        ensure!(knows(&old, gone.address)?, "the leader's kernel has no {}", gone.name);
        let probe = Prober::new(&web4.netns, stays.address)?.start(EVERY);

        let cut = lost.cut(lab, &old)?;
        // The agent is asked, because it must have left the old leader by then.
        another_leads(h4, &old)?;
        h4.overlay(&["endpoint", "rm", &gone.name])?;
        let new = attach_elsewhere(lab, h4, "web5")?;
        stays.netns.reaches(new.address)?;
        follows(h4, others[1], CATCH_UP)?;
        lost.nothing_was_heard(&old, gone)?;
        // A node that can still send asks for votes, and so is not silent.
        if lost != Lost::Received {
            eventually("the log of the new leader names the silent voter", ELECTION, || {
                let said = others.iter().any(|host| host.log().contains("a member is silent"));
                ensure!(said, "no line says so");
                Ok(())
            })?;
        }

        cut.heal()?;
        eventually("the old leader's kernel has what is new, and no more", CATCH_UP, || {
            ensure!(!knows(&old, gone.address)?, "{} is still there", gone.name);
            ensure!(knows(&old, new.address)?, "{} is not there", new.name);
            Ok(())
        })?;
        own.netns.reaches(new.address)?;
        probe.stop()?.none_lost()
    });
}

/// Attaches one more endpoint through an agent. A node that is cut off is reported as late, and the command
/// does not wait for it.
fn attach_elsewhere(lab: &Lab, host: &Arc<Host>, name: &str) -> Result<Endpoint> {
    let netns = lab.container(name)?;
    let inside = netns.name().to_owned();
    host.overlay(&["endpoint", "create", name, "--network", NETWORK, "--netns", &inside])?;
    let shown = host.overlay_json(&["endpoint", "inspect", name])?;
    let mac = overlay_lab::text(&shown, "mac").to_owned();
    let address = crate::support::address(&shown)?;
    Ok(Endpoint { name: name.to_owned(), netns, host: Arc::clone(host), address, mac })
}

#[test]
fn a_leader_that_is_cut_off() {
    without_the_leader(Lost::Everything);
}

#[test]
fn a_leader_that_nobody_hears() {
    without_the_leader(Lost::Sent);
}

#[test]
fn a_leader_that_hears_nobody() {
    without_the_leader(Lost::Received);
}

#[test]
fn a_voter_that_is_cut_off_answers_that_it_has_no_quorum_and_keeps_its_packets() {
    scenario(NEEDS, |lab| {
        let cluster = cluster(lab)?;
        let leads = leader(&cluster)?;
        let follower = other_voters(&cluster, &leads)[0];
        let near = attach(lab, follower, "near", &[])?;
        let own = endpoint_on(&cluster, follower)?;
        let probe = Prober::new(&near.netns, own.address)?.start(EVERY);
        let cut = lab.cut(follower)?;
        // A read is refused as well as a write, because its result could be old.
        for call in [&["network", "ls"][..], &["network", "create", "other"]] {
            refused_with(&follower.overlay_fails(call)?, "quorum")?;
        }
        ensure!(leader(&cluster)?.name == leads.name, "the leader changed for a follower");
        cut.heal()?;
        eventually("it answers again", CATCH_UP, || follower.overlay(&["network", "ls"]))?;
        ensure!(leader(&cluster)?.name == leads.name, "the leader changed for its return");
        probe.stop()?.none_lost()
    });
}

/// An agent is cut off, and counts as down. Afterwards its kernel has nothing that was removed meanwhile, and
/// packets between its own endpoints flow all the time.
fn without_the_agent(lost: Lost) {
    scenario(NEEDS, |lab| {
        let cluster = cluster(lab)?;
        let [h1, _, _, h4] = &cluster.hosts;
        let [web4, near] = [attach(lab, h4, "web4", &[])?, attach(lab, h4, "near", &[])?];
        // The agent has the last endpoint of another network. When the endpoint is removed, the network's
        // state must be removed too.
        h1.overlay(&["network", "create", "other", "--subnet", "10.3.0.0/24"])?;
        let last = crate::support::attach_to("other", h4, "last", lab.container("last")?, &[])?;
        let probe = Prober::new(&web4.netns, near.address)?.start(EVERY);
        let cut = lost.cut(lab, h4)?;
        eventually("the agent is down", ELECTION, || {
            let ready = h1.ready_nodes()?;
            if ready.contains(&h4.name) { bail!("{ready:?} are ready") } else { Ok(()) }
        })?;
        h1.overlay(&["endpoint", "rm", "web2"])?;
        h1.overlay(&["endpoint", "rm", "last"])?;
        lost.nothing_was_heard(h4, &cluster.web2)?;
        lost.nothing_was_heard(h4, &last)?;
        cut.heal()?;
        follows(h4, h1, CATCH_UP)?;
        eventually("the agent's kernel has no more than there is", CATCH_UP, || {
            for address in [cluster.web2.address, last.address] {
                ensure!(!knows(h4, address)?, "{address} is still there");
            }
            // The entries are removed before the devices.
            let links = last.netns.links()?;
            ensure!(links == ["lo"], "{links:?}");
            Ok(())
        })?;
        web4.netns.reaches(cluster.web1.address)?;
        probe.stop()?.none_lost()
    });
}

#[test]
fn an_agent_that_is_cut_off() {
    without_the_agent(Lost::Everything);
}

#[test]
fn an_agent_that_nobody_hears() {
    without_the_agent(Lost::Sent);
}

#[test]
fn an_agent_that_hears_nobody() {
    without_the_agent(Lost::Received);
}

/// The voters are cut off from each other, but not from the agent. So the agent can choose a wrong voter: one
/// that is cut off from the quorum and has fewer commands than the agent.
#[test]
fn an_agent_does_not_stay_with_a_voter_that_is_behind_it() {
    scenario(NEEDS, |lab| {
        let cluster = cluster(lab)?;
        let h4 = &cluster.hosts[3];
        let behind = leader(&cluster)?;
        let others = other_voters(&cluster, &behind);
        let cut = lab.cut_between(&behind, &[others[0], others[1]])?;
        another_leads(h4, &behind)?;
        let web4 = attach_elsewhere(lab, h4, "web4")?;
        follows(h4, others[1], CATCH_UP)?;

        // The other voter then has no leader, and sends its agents away, so that the agent tries the one that
        // is behind.
        others[0].kill9()?;
        let netns = lab.container("web5")?;
        let create = ["endpoint", "create", "web5", "--network", NETWORK, "--netns", netns.name()];
        // Each call lasts longer than a voter without a quorum keeps an agent.
        for _ in 0..2 {
            refused_with(&h4.overlay_fails(&create)?, "quorum")?;
        }
        others[0].restart()?;
        follows(h4, others[1], CATCH_UP)?;
        h4.overlay(&create)?;
        web4.netns.reaches(endpoint_on(&cluster, others[1])?.address)?;
        cut.heal()
    });
}
