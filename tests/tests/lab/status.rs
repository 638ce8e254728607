//! What `overlay cluster status` says at 3 a.m.: what is wrong, and what to do, by whichever node is asked.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use overlay_lab::{
    Host, SmallDisk,
    command::{self, PATIENCE},
    eventually, number, text,
};
use serde_json::Value;

use crate::support::{NODES, create_network, refused_with, scenario};

/// A voter counts as silent after three seconds, an election takes some, and the machine is shared.
const BOUND: Duration = Duration::from_secs(30);
/// What is left on a disk that is full: less than a node keeps free, and more than a vote needs.
const LEFT: u64 = 512 << 10;

/// Waits until the node says this of the cluster, in one line, and ends with the exit code that belongs to it.
fn says(asked: &Host, verdict: &str) -> Result<Value> {
    eventually(&format!("{} says {verdict:?}", asked.name), BOUND, || {
        let status = asked.overlay_json(&["cluster", "status"])?;
        ensure!(text(&status, "verdict") == verdict, "{status:#}");
        let shown = asked.overlay(&["cluster", "status"])?;
        ensure!(shown.starts_with(verdict), "{shown}");
        if text(&status, "condition") == "healthy" {
            command::run(&mut asked.overlay_command(&["cluster", "status"]), PATIENCE)?;
        } else {
            let failed = asked.overlay_fails(&["cluster", "status"])?;
            refused_with(&failed, &format!("the cluster is not healthy; {verdict}"))?;
        }
        Ok(status)
    })
}

fn array<'a>(status: &'a Value, field: &str) -> &'a [Value] {
    status[field].as_array().map_or(&[], Vec::as_slice)
}

fn member<'a>(status: &'a Value, node: &str) -> Result<&'a Value> {
    let found = array(status, "members").iter().find(|member| text(member, "node") == node);
    found.with_context(|| format!("{node} is no member: {status:#}"))
}

/// The fault that says these words, which refers to this section.
fn fault<'a>(status: &'a Value, words: &str, section: &str) -> Result<&'a Value> {
    let found = array(status, "faults").iter().find(|fault| text(fault, "what").contains(words));
    let fault = found.with_context(|| format!("no fault says {words:?}: {status:#}"))?;
    ensure!(text(fault, "section") == section, "{fault:#}");
    Ok(fault)
}

/// The voter that leads, and the two others.
fn voters(hosts: &[Arc<Host>; 4]) -> Result<(&Arc<Host>, [&Arc<Host>; 2])> {
    let leads = hosts[3].leader()?;
    let (leader, others): (Vec<&Arc<Host>>, Vec<&Arc<Host>>) =
        hosts[..3].iter().partition(|host| host.name == leads);
    let others = others.try_into().ok().context("two others")?;
    Ok((*leader.first().context("the leader")?, others))
}

#[test]
fn a_cluster_says_how_it_is_from_each_node_and_without_a_quorum() {
    scenario(NODES, |lab| {
        let hosts = lab.four_hosts()?;
        lab.start_cluster(&hosts)?;
        create_network(&hosts[0])?;
        let (leader, [second, third]) = voters(&hosts)?;
        let (leads, h4) = (&leader.name, &hosts[3]);
        for asked in &hosts {
            let healthy =
                says(asked, &format!("healthy: {leads} leads 3 voters, and 1 may be lost"))?;
            ensure!(array(&healthy, "faults").is_empty(), "{healthy:#}");
            ensure!(number(&healthy, "nodes") == 4, "{healthy:#}");
            let members = array(&healthy, "members");
            ensure!(members.len() == 3, "{healthy:#}");
            let agents: u64 = members.iter().map(|it| number(&it["says"]["log"], "agents")).sum();
            ensure!(agents == 1, "h4 watches one of them: {healthy:#}");
            for member in members {
                let log = &member["says"]["log"];
                ensure!(member["has_seat"] == true && log["has_quorum"] == true, "{member:#}");
                let leads = text(member, "node") == leads;
                ensure!(
                    text(member, "raft") == if leads { "leader" } else { "voter" },
                    "{member:#}"
                );
                ensure!(number(log, "writes") > 0 && number(log, "log_bytes") > 0, "{member:#}");
                ensure!(number(&member["says"], "free_bytes") > 0, "{member:#}");
                ensure!(member["lag"].is_u64(), "{member:#}");
            }
        }

        // One voter goes.
        third.kill9()?;
        let verdict = format!(
            "degraded: {leads} leads, 2 of 3 voters keep up, and no further one may be lost"
        );
        let name = &third.name;
        for asked in [leader, second, h4] {
            let degraded = says(asked, &verdict)?;
            let dead =
                fault(&degraded, &format!("{name} votes and does not answer"), "Replace a voter")?;
            ensure!(text(dead, "remedy").contains(&format!("overlay node rm {name}")), "{dead:#}");
            ensure!(array(&degraded, "faults").len() == 1, "it is said once: {degraded:#}");
            let member = member(&degraded, name)?;
            ensure!(text(member, "raft") == "voter" && member["says"].is_null(), "{member:#}");
            ensure!(number(member, "heard_ms_ago") >= 3_000, "{member:#}");
            ensure!(!text(member, "unanswered").is_empty(), "{member:#}");
        }

        // And the quorum with the next one.
        leader.kill9()?;
        let left = &second.name;
        for asked in [second, h4] {
            let verdict = format!(
                "no quorum: 1 of 3 voters answers {}, and 2 are needed; packets flow on, and nothing can be changed",
                asked.name
            );
            let none = says(asked, &verdict)?;
            ensure!(none["leader"].is_null(), "{none:#}");
            let lost = fault(&none, "too few voters answer", "No quorum")?;
            for silent in [leads, name] {
                ensure!(text(lost, "what").contains(silent.as_str()), "{lost:#}");
            }
            ensure!(text(lost, "remedy").contains(&format!("recover on {left}")), "{lost:#}");
            eventually("it finds that it has no quorum", BOUND, || {
                let none = asked.overlay_json(&["cluster", "status"])?;
                ensure!(member(&none, left)?["says"]["log"]["has_quorum"] == false, "{none:#}");
                Ok(())
            })?;
        }

        // Nobody is left to ask.
        second.kill9()?;
        let verdict = "unknown: no voter answers h4, so that it can't tell how the cluster is; packets flow on";
        let unknown = says(h4, verdict)?;
        fault(&unknown, "none of those that h4 knows as voters answers it", "No quorum")?;
        ensure!(array(&unknown, "members").len() == 3, "it knows who they are: {unknown:#}");
        let alone = h4.overlay(&["cluster", "status", "--stale"])?;
        ensure!(alone.starts_with("STALE: as of revision "), "{alone}");

        for host in [leader, second, third] {
            host.spawn_again()?;
        }
        for host in [leader, second, third] {
            host.wait_until_serving()?;
        }
        eventually("it is healthy again", BOUND, || {
            let status = h4.overlay_json(&["cluster", "status"])?;
            ensure!(text(&status, "condition") == "healthy", "{status:#}");
            Ok(())
        })
    });
}

#[test]
fn a_voter_that_lags_is_named_with_the_reason() {
    scenario(NODES, |lab| {
        let hosts = lab.four_hosts()?;
        let [h1, _, h3, h4] = &hosts;
        let small = SmallDisk::mount(&h3.state_dir(), 8)?;
        lab.start_cluster(&hosts)?;
        create_network(h1)?;
        small.fill(LEFT)?;
        for number in 0..20 {
            h1.overlay(&["network", "create", &format!("n{number}")])?;
        }
        for asked in &hosts {
            eventually(&format!("{} says that h3 lags", asked.name), BOUND, || {
                let status = asked.overlay_json(&["cluster", "status"])?;
                let verdict = "2 of 3 voters keep up, and no further one may be lost";
                ensure!(text(&status, "verdict").ends_with(verdict), "{status:#}");
                fault(&status, "h3 lacks ", "A voter lags")?;
                let full =
                    fault(&status, "the disk of the state folder", "A disk is full or slow")?;
                ensure!(text(full, "what").starts_with("h3: "), "{full:#}");
                ensure!(number(member(&status, "h3")?, "lag") > 0, "{status:#}");
                Ok(())
            })?;
        }
        small.free()?;
        eventually("it has caught up", BOUND, || {
            let status = h4.overlay_json(&["cluster", "status"])?;
            ensure!(text(&status, "condition") == "healthy", "{status:#}");
            Ok(())
        })?;

        // One that stands still is one that does not answer: each is asked for some seconds, and all at once.
        let (_, [_, still]) = voters(&hosts)?;
        still.pause()?;
        let name = &still.name;
        eventually(&format!("h4 says that {name} stands still"), BOUND, || {
            let status = h4.overlay_json(&["cluster", "status"])?;
            let words = format!("{name} votes and does not answer (no answer within 3 s)");
            fault(&status, &words, "Replace a voter").map(drop)
        })?;
        still.go_on()?;
        eventually("it is healthy again", BOUND, || {
            let status = h4.overlay_json(&["cluster", "status"])?;
            ensure!(text(&status, "condition") == "healthy", "{status:#}");
            Ok(())
        })
    });
}
