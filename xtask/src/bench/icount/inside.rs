//! The measurement that runs in the guest: the contestants, one after the other.

use std::{collections::BTreeMap, env, fs, time::Duration};

use anyhow::{Context as _, Result};
use overlay_lab::{Lab, eventually};

use super::figures::{Figures, Protocol};
use crate::{
    bench::{
        dataplane::{
            contestants::{Contestant, Sizes, kernel, ours, underlay},
            scene::Underlay,
        },
        stats::Samples,
    },
    ping_pong::PORT,
};

/// Number of batches. A batch's figure is its mean. The least of all batches counts: it is a batch without
/// timers and nodes' heartbeats. It is the same in every run within a few instructions; the median is not.
const BATCHES: &str = "41";
/// What builds the contestants that share hosts.
type Build = fn(&mut Lab) -> Result<Vec<Contestant>>;
const ROUND_TRIPS: &str = "200";

pub(super) fn measure() -> Result<Figures> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
    let mut instructions: BTreeMap<Protocol, BTreeMap<String, f64>> = BTreeMap::new();
    let builds: [Build; 3] = [
        |lab| Ok(vec![underlay::build(lab, Underlay::USUAL)?]),
        |lab| Ok(vec![kernel::build(lab, Underlay::USUAL)?]),
        |lab| Ok(ours::two_hosts(lab, Underlay::USUAL, Sizes::Default)?.into()),
    ];
    for build in builds {
        // A lab of its own, so that nothing of the other contestants runs at the same time.
        let mut lab = Lab::new()?;
        let contestants = build(&mut lab)?;
        for (contestant, protocol) in contestants
            .iter()
            .flat_map(|contestant| Protocol::ALL.map(|protocol| (contestant, protocol)))
        {
            let samples = ping_pong(contestant, protocol)
                .with_context(|| format!("{}, {}", contestant.name, protocol.name()))?;
            println!(
                "{:24} {:4} {:8.0} (median {:.0}, greatest {:.0})",
                contestant.name,
                protocol.name(),
                samples.min(),
                samples.median(),
                samples.max()
            );
            let of_protocol = instructions.entry(protocol).or_default();
            of_protocol.insert(contestant.name.to_owned(), samples.min());
        }
    }
    Ok(Figures { kernel, instructions })
}

/// Nanoseconds of a message in one direction, which are instructions, for each batch.
pub(super) fn ping_pong(contestant: &Contestant, protocol: Protocol) -> Result<Samples> {
    let xtask = env::current_exe()?;
    let xtask = xtask.to_str().context("the path of xtask is not UTF-8")?;
    let name = protocol.name();
    let server = contestant.server.start(&[xtask, "ping-pong", name, "answer"])?;
    match protocol {
        Protocol::Tcp => contestant.server.wait_for_listener(PORT)?,
        Protocol::Udp => eventually("the answering end is there", Duration::from_secs(20), || {
            let sockets = contestant.server.run(&["ss", "-Hlun", &format!("sport = :{PORT}")])?;
            anyhow::ensure!(!sockets.trim().is_empty(), "nobody has UDP port {PORT}");
            Ok(())
        })?,
    }
    let to = contestant.server_address.to_string();
    let ask = [xtask, "ping-pong", name, "ask", &to, BATCHES, ROUND_TRIPS];
    let printed = contestant.client.run_within(&ask, Duration::from_secs(600))?;
    server.kill9()?;
    let samples: Result<Samples, _> = printed.lines().map(str::parse::<f64>).collect();
    samples.with_context(|| format!("ping-pong printed: {printed}"))
}
