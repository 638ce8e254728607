//! What a node says of itself to those who look after it: `/readyz`, `/livez`, and the exit code of `overlay status`.

use std::time::Duration;

use anyhow::{Result, ensure};
use overlay_lab::{
    Host, Requirement,
    command::{self, PATIENCE},
    eventually,
};

use crate::support::{ELECTION, refused_with, scenario};

const NEEDS: &[Requirement] = &[
    Requirement::Root,
    Requirement::Bpffs,
    Requirement::Binary,
    Requirement::Tool("nft"),
    Requirement::Tool("curl"),
];
/// Longest time until a node knows that the cluster has no quorum any more.
const BOUND: Duration = Duration::from_secs(15);

/// Waits until the node says that it is ready, or that it is not, in each of its ways.
fn is_ready(host: &Host, ready: bool, bound: Duration) -> Result<()> {
    eventually(&format!("{} is ready: {ready}", host.name), bound, || {
        let code = |path: &str| {
            let url = format!("http://127.0.0.1:7401/{path}");
            host.netns.run(&["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", &url])
        };
        ensure!(code("livez")? == "200", "it does not live");
        let (said, expected) = (code("readyz")?, if ready { "200" } else { "503" });
        ensure!(said == expected, "/readyz is {said}");
        if !ready {
            return refused_with(&host.overlay_fails(&["status"])?, "no leader");
        }
        // A node that is not ready prints its status, too: what counts is that the command succeeds.
        command::run(&mut host.overlay_command(&["status"]), PATIENCE).map(drop)
    })
}

#[test]
fn without_a_quorum_no_node_is_ready_and_each_lives() {
    scenario(NEEDS, |lab| {
        let hosts = lab.four_hosts()?;
        lab.start_cluster(&hosts)?;
        let [h1, h2, h3, h4] = &hosts;
        for host in &hosts {
            is_ready(host, true, BOUND)?;
        }
        h1.kill9()?;
        h2.kill9()?;
        // One is a voter, the other an agent.
        for host in [h3, h4] {
            is_ready(host, false, BOUND)?;
        }
        h2.restart()?;
        for host in [h2, h3, h4] {
            is_ready(host, true, 2 * ELECTION)?;
        }
        Ok(())
    });
}
