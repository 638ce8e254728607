//! Measures the time to add one published port, when few and when many exist.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Instant};

use anyhow::Result;
use overlay_lab::{Lab, check_interrupted};
use serde::Serialize;

use super::{
    contestants::Contestant,
    docker::{self, publish_rules},
};
use crate::bench::{endpoint::create_endpoint, stats::Samples};

const PORT: u16 = 9999;
const NAME: &str = "added";

/// The measured times, in milliseconds.
#[derive(Default, Serialize)]
pub(super) struct Adding {
    /// `overlay endpoint create` without a published port: the time for the endpoint itself.
    create: Samples,
    /// `overlay endpoint create` with `-p`.
    create_and_publish: Samples,
    /// The three commands of iptables that dockerd runs for a port, without dockerd.
    docker_rules: Samples,
}

/// Measures all three in turn.
pub(super) fn measure(
    lab: &Lab,
    docker: &Contestant,
    ours: &Contestant,
    present: u16,
    count: u16,
) -> Result<Adding> {
    let container = lab.container(&format!("added{present}"))?;
    let publish = format!("{PORT}:80");
    let mut adding = Adding::default();
    for _ in 0..count {
        check_interrupted()?;
        for (options, samples) in [
            (&[][..], &mut adding.create),
            (&["-p", publish.as_str()], &mut adding.create_and_publish),
        ] {
            let begun = Instant::now();
            create_endpoint(&ours.host, NAME, &container, options)?;
            samples.push(begun.elapsed().as_secs_f64() * 1e3);
            ours.host.overlay(&["endpoint", "rm", NAME])?;
        }
        let begun = Instant::now();
        run_rules(docker, "-A")?;
        adding.docker_rules.push(begun.elapsed().as_secs_f64() * 1e3);
        run_rules(docker, "-D")?;
    }
    Ok(adding)
}

fn run_rules(docker: &Contestant, how: &str) -> Result<()> {
    let to = Ipv4Addr::new(172, 18, 2, 2);
    publish_rules(how, to, PORT, 80).iter().try_for_each(|rule| docker::run(&docker.host, rule))
}

pub(super) fn print(adding: &BTreeMap<u16, Adding>) {
    println!("\nTo add one published port (ms)");
    for (present, Adding { create, create_and_publish, docker_rules }) in adding {
        for (what, samples) in [
            ("endpoint create", create),
            ("endpoint create -p", create_and_publish),
            ("Docker's 3 iptables commands alone", docker_rules),
        ] {
            println!(
                "  {present:5} present  {what:36} p50 {:8.2}   p99 {:8.2}   greatest {:8.2}",
                samples.median(),
                samples.percentile(99),
                samples.max()
            );
        }
        let added = create_and_publish.median() - create.median();
        println!("  {present:5} present  {:36} p50 {added:8.2}   (of medians)", "what -p adds");
    }
}
