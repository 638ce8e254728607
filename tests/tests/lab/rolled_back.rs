//! An endpoint is created in the log, but its node then cannot make it.

use std::time::Duration;

use anyhow::{bail, ensure};
use overlay_lab::{eventually, rows, text};

use crate::support::{
    ELECTION, NETWORK, NODES, address, another_leads, attach, cluster, leader, refused_with,
    scenario,
};

/// The message that the leader logs when the command is in the log.
const LOGGED: &str = "endpoint created";

/// The node is asked before anything is logged, and agrees. Then the namespace gets a foreign `eth0`. The
/// messages to the agent are lost until that device exists, so that the agent cannot make the endpoint
/// before.
#[test]
fn an_endpoint_that_its_node_could_not_make_is_taken_back() {
    scenario(NODES, |lab| {
        let cluster = cluster(lab)?;
        let h4 = &cluster.hosts[3];
        let leads = leader(&cluster)?;
        let netns = lab.container("web4")?;
        let said = || leads.log().matches(LOGGED).count();
        let before = said();
        let held_back = lab.lose_to(h4, "tcp sport 7400")?;
        let inside = netns.name().to_owned();
        let create = ["endpoint", "create", "web4", "--network", NETWORK, "--netns", &inside];
        let words = [&create[..], &["--node", "h4", "-p", "8080:80", "--alias", "app"]].concat();
        let refused = std::thread::scope(|scope| {
            let creating = scope.spawn(|| leads.overlay_fails(&words));
            eventually("it is in the log", Duration::from_secs(3), || {
                if said() > before { Ok(()) } else { bail!("{}", leads.log()) }
            })?;
            netns.ip(&["link", "add", "eth0", "type", "bridge"])?;
            held_back.heal()?;
            creating.join().map_err(|_| anyhow::anyhow!("the caller panicked"))?
        })?;
        refused_with(&refused, "node h4 could not make the endpoint")?;
        ensure!(refused.stderr.contains("eth0"), "{}", refused.stderr);

        // Nothing of the endpoint is left: no row, no device, no port, and no node that knows the address.
        let listed = h4.overlay_json(&["endpoint", "ls"])?;
        ensure!(rows(&listed).iter().all(|row| text(row, "name") != "web4"), "{listed}");
        // The node removes its part when it hears of the removal, possibly after the caller has the answer.
        eventually("its node has removed what it had made", Duration::from_secs(10), || {
            let links = netns.links()?;
            ensure!(links == ["eth0", "lo"], "{links:?}");
            Ok(())
        })?;
        netns.ip(&["link", "del", "eth0"])?;
        // The name, the alias and the port are free again, and the endpoint can be created.
        let created = leads.overlay_json(&words)?;
        let web4 = address(created.get("endpoint").unwrap_or(&created))?;
        cluster.web1.netns.reaches(web4)?;
        let near = attach(lab, h4, "near", &[])?;
        near.netns.reaches(web4)
    });
}

/// As above, but the leader is killed before it has heard from the node. Nobody repeats the request.
#[test]
fn an_endpoint_whose_leader_died_is_taken_back_by_the_next() {
    scenario(NODES, |lab| {
        let cluster = cluster(lab)?;
        let h4 = &cluster.hosts[3];
        let leads = leader(&cluster)?;
        let netns = lab.container("web4")?;
        let said = || leads.log().matches(LOGGED).count();
        let before = said();
        let held_back = lab.lose_to(h4, "tcp sport 7400")?;
        let create = ["endpoint", "create", "web4", "--network", NETWORK, "--netns", netns.name()];
        let words = [&create[..], &["--node", "h4"]].concat();
        std::thread::scope(|scope| {
            let creating = scope.spawn(|| leads.overlay_fails(&words));
            eventually("it is in the log", Duration::from_secs(3), || {
                if said() > before { Ok(()) } else { bail!("{}", leads.log()) }
            })?;
            netns.ip(&["link", "add", "eth0", "type", "bridge"])?;
            leads.kill9()?;
            let failed = creating.join().map_err(|_| anyhow::anyhow!("the caller panicked"))??;
            // Whatever it says, it is not that the endpoint could not be made, as if nothing were left of it.
            ensure!(!failed.stderr.contains("could not make"), "{}", failed.stderr);
            held_back.heal()
        })?;
        another_leads(h4, &leads)?;
        eventually("the next leader takes it back", ELECTION * 2, || {
            let listed = h4.overlay_json(&["endpoint", "ls"])?;
            ensure!(rows(&listed).iter().all(|row| text(row, "name") != "web4"), "{listed}");
            Ok(())
        })?;
        // The others, of which some may be down with their node, stay.
        let listed = h4.overlay_json(&["endpoint", "ls"])?;
        ensure!(rows(&listed).len() == 3, "{listed}");
        netns.ip(&["link", "del", "eth0"])?;
        // The leader that died may have programmed it, and go on with it: its word is missing until it is back.
        leads.restart()?;
        eventually("the name is free", ELECTION * 2, || h4.overlay(&words))?;
        Ok(())
    });
}
