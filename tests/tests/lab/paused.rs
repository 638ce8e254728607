//! Nodes whose process is paused: their sockets are open, and nothing answers.

use anyhow::{Context as _, bail, ensure};
use overlay_lab::{eventually, probe::Prober, rows, text};

use crate::support::{
    CATCH_UP, ELECTION, NETWORK, NODES, address, another_leads, attach, cluster, follows, leader,
    other_voters, refused_with, scenario,
};

#[test]
fn an_agent_leaves_a_leader_that_stands_still() {
    scenario(NODES, |lab| {
        let cluster = cluster(lab)?;
        let h4 = &cluster.hosts[3];
        let web4 = attach(lab, h4, "web4", &[])?;
        let old = leader(&cluster)?;
        let others = other_voters(&cluster, &old);
        let probe = Prober::new(&web4.netns, cluster.web1.address)?
            .start(std::time::Duration::from_millis(2));
        old.pause()?;
        another_leads(h4, &old)?;
        h4.overlay(&["network", "create", "other", "--subnet", "10.3.0.0/24"])?;
        follows(h4, others[0], CATCH_UP)?;

        // When the old leader goes on, it still believes that it leads. Its answers must be up to date all
        // the same.
        old.go_on()?;
        let networks = eventually("it answers", CATCH_UP, || old.overlay_json(&["network", "ls"]))?;
        let names: Vec<&str> = rows(&networks).iter().map(|row| text(row, "name")).collect();
        ensure!(names.contains(&"other"), "{names:?}");
        follows(h4, &old, CATCH_UP)?;
        // No packet was lost, also not of the paused node's endpoints.
        probe.stop()?.none_lost()
    });
}

#[test]
fn a_create_names_the_node_that_stands_still() {
    scenario(NODES, |lab| {
        let cluster = cluster(lab)?;
        let h1 = &cluster.hosts[0];
        // The paused node is not the leader, and has an endpoint of the network.
        let leads = leader(&cluster)?;
        let still = other_voters(&cluster, &leads)[0];
        let own = [&cluster.web1, &cluster.web2, &cluster.web2_2]
            .into_iter()
            .find(|endpoint| endpoint.host.name == still.name)
            .context("its endpoint")?;
        let asked = if still.name == h1.name { &leads } else { h1 };
        still.pause()?;
        let netns = lab.container("web5")?;
        let create = ["endpoint", "create", "web5", "--network", NETWORK, "--netns", netns.name()];
        let created = asked.overlay_json(&create)?;
        ensure!(created["lagging_nodes"] == serde_json::json!([still.name]), "{created}");
        let made = address(created.get("endpoint").unwrap_or(&created))?;
        eventually("it counts as down", ELECTION, || {
            let node = asked.overlay_json(&["node", "inspect", &still.name])?;
            if text(&node, "state") == "down" { Ok(()) } else { bail!("{node}") }
        })?;
        still.go_on()?;
        follows(still, &leads, CATCH_UP)?;
        eventually("its endpoint reaches the new one", CATCH_UP, || own.netns.reaches(made))
    });
}

/// What the endpoint had is held back until every node that may go on with it has forgotten it. The paused one counts as
/// down, and its kernel forwards as before.
#[test]
fn a_removal_names_the_node_that_stands_still() {
    scenario(NODES, |lab| {
        let cluster = cluster(lab)?;
        let leads = leader(&cluster)?;
        let still = other_voters(&cluster, &leads)[0];
        let endpoints = [&cluster.web1, &cluster.web2, &cluster.web2_2];
        let of = |host: &overlay_lab::Host| {
            endpoints.into_iter().find(|endpoint| endpoint.host.name == host.name)
        };
        let (own, gone) = (of(still).context("its")?, of(&leads).context("the leader's")?);
        still.pause()?;
        let removed = leads.overlay_json(&["endpoint", "rm", &gone.name])?;
        let row = rows(&removed).first().context("a row")?;
        ensure!(row["lagging_nodes"] == serde_json::json!([still.name]), "{removed}");
        let (netns, ip) = (lab.container("heir")?, gone.address.to_string());
        let create = ["endpoint", "create", &gone.name, "--network", NETWORK, "--ip", &ip];
        let create = [&create[..], &["--netns", netns.name()]].concat();
        let named = format!("(not yet: {})", still.name);
        refused_with(&leads.overlay_fails(&create)?, &named)?;
        still.go_on()?;
        follows(still, &leads, CATCH_UP)?;
        leads.overlay_json(&create)?;
        eventually("its endpoint reaches the heir", CATCH_UP, || own.netns.reaches(gone.address))
    });
}
