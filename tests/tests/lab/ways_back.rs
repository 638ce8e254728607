//! Ways back for a cluster that has lost its voters for good: forced recovery, and a backup. `docs/operations.md` names these
//! scenarios, which run its commands.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use anyhow::{Result, bail, ensure};
use overlay_lab::{Host, eventually, number, probe::Prober, rows, text};

use crate::support::{
    CATCH_UP, Cluster, NETWORK, NODES, attach, attach_without, cluster, follows, refused_with,
    scenario,
};

/// A node that is told of a newer generation, or that has to be found, needs some seconds; the machine is shared.
const BOUND: Duration = Duration::from_secs(30);
const EVERY: Duration = Duration::from_millis(5);

/// Waits until the node is of this generation, and knows a leader.
fn is_of_generation(host: &Host, generation: u64) -> Result<()> {
    ensure!(generation > 1, "the first is every cluster's");
    eventually(&format!("{} is of generation {generation}", host.name), BOUND, || {
        let status = host.overlay_json(&["status"])?;
        ensure!(number(&status, "generation") == generation, "{status}");
        ensure!(!text(&status, "leader").is_empty(), "{status}");
        Ok(())
    })
}

/// Waits until the nodes of these names count as down.
fn are_down(host: &Host, names: &[&str]) -> Result<()> {
    eventually(&format!("{names:?} are down"), BOUND, || {
        for name in names {
            let node = host.overlay_json(&["node", "inspect", name])?;
            ensure!(text(&node, "state") == "down", "{node}");
        }
        Ok(())
    })
}

/// The endpoints as a node lists them: name, address and node.
fn endpoints(host: &Host) -> Result<Vec<(String, String, String)>> {
    let listed = host.overlay_json(&["endpoint", "ls"])?;
    let row = |row| {
        let [name, address, node] =
            ["name", "address", "node"].map(|field| text(row, field).to_owned());
        (name, address, node)
    };
    let mut found: Vec<_> = rows(&listed).iter().map(row).collect();
    found.sort();
    Ok(found)
}

/// Gives lost nodes up, and lets their machines join as new nodes, until there are three voters again.
fn replace(survivor: &Host, lost: &[&Host]) -> Result<()> {
    for host in lost {
        survivor.overlay(&["node", "rm", &host.name])?;
        host.reinstall()?;
        host.start_node(&["--join", &survivor.listen()])?;
    }
    // Each of them holds the log by then.
    eventually("three voters", BOUND, || {
        let voters = survivor.voters()?;
        if voters.len() == 3 { Ok(()) } else { bail!("{voters:?}") }
    })
}

#[test]
fn a_voter_that_has_lived_on_goes_on_alone_and_no_packet_is_lost() {
    scenario(NODES, |lab| {
        let Cluster { hosts: [h1, h2, h3, h4], web1, web2, .. } = &cluster(lab)?;
        let web4 = attach(lab, h4, "web4", &[])?;
        web4.netns.reaches(web1.address)?;
        web4.netns.reaches(web2.address)?;
        let before = endpoints(h1)?;
        let state_dir = h1.state_dir().display().to_string();
        let recover = ["cluster", "recover", "--state-dir", &state_dir];
        let probe = Prober::new(&web4.netns, web1.address)?.start(EVERY);
        let to_h3 = Prober::new(&web4.netns, web2.address)?.start(EVERY);

        // A majority lives: with h1 running, without it, and with one of the others alone.
        refused_with(&h1.overlay_fails(&recover)?, "in use by another node")?;
        h1.overlay(&["network", "create", "acknowledged"])?;
        h1.stop()?;
        eventually("the others have a leader", BOUND, || {
            refused_with(&h1.overlay_fails(&recover)?, "knows a leader")
        })?;
        h2.kill9()?;
        eventually("h3 alone knows no leader", BOUND, || {
            refused_with(&h1.overlay_fails(&recover)?, "2 of 3 do (node h3 at")
        })?;
        // It is cut off for so long that it is taken for lost.
        h3.pause()?;
        let agent_s = h4.state_dir().display().to_string();
        let of_agent = ["cluster", "recover", "--state-dir", &agent_s];
        refused_with(&h4.overlay_fails(&of_agent)?, "is an agent")?;

        // The agent may believe in the last leader for a moment longer.
        let begun = eventually("it is recovered", BOUND, || h1.overlay_json(&recover))?;
        ensure!(begun["others"] == serde_json::json!(["h2", "h3", "h4"]), "{begun}");
        let generation = number(&begun, "generation");
        h1.restart()?;
        is_of_generation(h1, generation)?;
        h1.overlay(&["network", "create", "after"])?;
        h1.overlay(&["network", "inspect", "acknowledged"])?;
        ensure!(endpoints(h1)? == before, "{before:?} became {:?}", endpoints(h1)?);

        // The agent goes on as it is.
        is_of_generation(h4, generation)?;
        follows(h4, h1, CATCH_UP)?;
        h4.overlay(&["network", "create", "by-the-agent"])?;

        // A voter that was taken for lost does no harm: it is told, and comes back without its log.
        h3.go_on()?;
        is_of_generation(h3, generation)?;
        let kept = endpoints(h3)?;
        ensure!(
            before.iter().all(|endpoint| kept.contains(endpoint)),
            "{before:?} became {kept:?}"
        );

        // Those that are lost count as down when nothing was heard of them for a while.
        are_down(h1, &["h2"])?;
        let netns = lab.container("more")?;
        let more = attach_without(&["h2"], NETWORK, h4, "more", netns, &[])?;
        more.netns.reaches(web1.address)?;
        more.netns.reaches(web2.address)?;

        replace(h1, &[h2])?;
        h1.kill9()?;
        eventually("the new voters decide", BOUND, || {
            h2.overlay(&["network", "create", "without-h1"]).map(drop)
        })?;
        h1.restart()?;
        to_h3.stop()?.none_lost()?;
        probe.stop()?.none_lost()
    });
}

#[test]
fn a_cluster_without_any_voter_s_folder_is_restored_and_no_packet_is_lost() {
    scenario(NODES, |lab| {
        let Cluster { hosts: [h1, h2, h3, h4], web1, web2, .. } = &cluster(lab)?;
        let web4 = attach(lab, h4, "web4", &[])?;
        web4.netns.reaches(web1.address)?;
        web4.netns.reaches(web2.address)?;
        let before = endpoints(h1)?;
        let probe = Prober::new(&web4.netns, web1.address)?.start(EVERY);
        let to_h3 = Prober::new(&web4.netns, web2.address)?.start(EVERY);
        let file = lab.folder().join("backup");
        let backup = file.display().to_string();
        // From an agent, which asks a voter.
        let written = h4.overlay_json(&["cluster", "backup", &backup])?;
        let mode = fs::metadata(&file)?.permissions().mode() & 0o777;
        ensure!(mode == 0o600, "{mode:o}");
        ensure!(number(&written, "bytes") == fs::metadata(&file)?.len(), "{written}");
        refused_with(&h1.overlay_fails(&["cluster", "backup", &backup])?, "exists")?;
        h1.overlay(&["cluster", "backup", "--force", &backup])?;
        h1.overlay(&["network", "create", "after-the-backup"])?;

        let state_dir = h1.state_dir().display().to_string();
        let restore = ["cluster", "restore", &backup, "--state-dir", &state_dir, "--name", "h1"];
        refused_with(&h1.overlay_fails(&restore)?, "is that of node h1 of cluster")?;
        let elsewhere = lab.folder().join("elsewhere").display().to_string();
        let twice = ["cluster", "restore", &backup, "--state-dir", &elsewhere, "--name", "h1"];
        refused_with(&h1.overlay_fails(&twice)?, "the cluster lives")?;
        for host in [h1, h2, h3] {
            host.kill9()?;
        }
        // Of h1 all is lost, of h3 the log, and h2 does not come back.
        fs::remove_dir_all(h1.state_dir())?;
        fs::remove_file(h3.state_dir().join("consensus.redb"))?;
        let damaged = lab.folder().join("damaged");
        let bytes = fs::read(&file)?;
        fs::write(&damaged, &bytes[..bytes.len() / 2])?;
        let damaged = damaged.display().to_string();
        let of_damaged =
            ["cluster", "restore", &damaged, "--state-dir", &state_dir, "--name", "h1"];
        refused_with(&h1.overlay_fails(&of_damaged)?, "damaged")?;
        ensure!(!Path::new(&state_dir).exists(), "something half-made is left");

        // The agent may believe in the last leader for a moment longer.
        let begun = eventually("it is restored", BOUND, || h1.overlay_json(&restore))?;
        ensure!(number(&begun, "known_revision") >= number(&written, "revision"), "{begun}");
        let generation = number(&begun, "generation");
        h1.start_node(&[])?;
        is_of_generation(h1, generation)?;
        ensure!(endpoints(h1)? == before, "{before:?} became {:?}", endpoints(h1)?);
        let networks = h1.overlay_json(&["network", "ls"])?;
        let names: Vec<&str> = rows(&networks).iter().map(|row| text(row, "name")).collect();
        ensure!(!names.contains(&"after-the-backup"), "{names:?}");
        refused_with(&h1.overlay_fails(&twice)?, "restored already")?;

        is_of_generation(h4, generation)?;
        follows(h4, h1, CATCH_UP)?;
        // Those that are lost count as down when nothing was heard of them for a while.
        are_down(h1, &["h2", "h3"])?;
        let netns = lab.container("more")?;
        let more = attach_without(&["h2", "h3"], NETWORK, h4, "more", netns, &[])?;
        more.netns.reaches(web1.address)?;
        h3.spawn_again()?;
        is_of_generation(h3, generation)?;
        let kept = endpoints(h3)?;
        ensure!(
            before.iter().all(|endpoint| kept.contains(endpoint)),
            "{before:?} became {kept:?}"
        );
        // Its kernel gets what was made without it as soon as it has the new view.
        eventually("h3 knows the new endpoint", BOUND, || more.netns.reaches(web2.address))?;
        replace(h1, &[h2])?;
        to_h3.stop()?.none_lost()?;
        probe.stop()?.none_lost()
    });
}
