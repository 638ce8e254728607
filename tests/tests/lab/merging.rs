//! Streams whose super-packets are cut on the way: the receiver's node merges the segments again.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use overlay_lab::{Host, Netns, attainable, eventually, rows, text, transfer};

use crate::support::{NODES, cluster, scenario};

/// Longest time until a node has put its devices right.
const SEEN: Duration = Duration::from_secs(15);
/// Bytes of the mean packet that an endpoint receives, if its segments are merged. Alone, each has 1,450 at most.
const MERGED: u64 = 4_000;

/// Bytes of a stream: so many that its beginning, before the node merges, does not count.
fn stream_len() -> usize {
    attainable(f64::from(16 << 20)) as usize
}

/// A counter of the namespace's IPv4, as `nstat` shows it.
fn counter(netns: &Netns, file: &str, group: &str, name: &str) -> Result<u64> {
    let text = netns.run(&["cat", &format!("/proc/thread-self/net/{file}")])?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group)?.strip_prefix(':'));
    let (names, values) = (lines.next().context("names")?, lines.next().context("values")?);
    let at = names.split_whitespace().position(|found| found == name);
    let value = at.and_then(|at| values.split_whitespace().nth(at));
    Ok(value.with_context(|| format!("no {group}{name}"))?.parse()?)
}

/// Packets and bytes that the namespace's IPv4 has received.
fn received(netns: &Netns) -> Result<[u64; 2]> {
    Ok([
        counter(netns, "snmp", "Ip", "InReceives")?,
        counter(netns, "netstat", "IpExt", "InOctets")?,
    ])
}

/// The devices on which a program runs.
fn devices(host: &Host, program: &str) -> Result<Vec<String>> {
    let status = host.overlay_json(&["status"])?;
    let programs = rows(&status["datapath"]["programs"]);
    let found = programs.iter().filter(|row| text(row, "name") == program);
    let names = found.flat_map(|row| rows(&row["devices"])).filter_map(|name| name.as_str());
    Ok(names.map(str::to_owned).collect())
}

/// The hosts' network cards are veths at a router, whose bridges cut super-packets.
#[test]
fn a_stream_by_a_router_is_merged_where_it_comes_in() {
    scenario(NODES, |lab| {
        let cluster = cluster(lab)?;
        let (h3, from, to) = (&cluster.hosts[2], &cluster.web1, &cluster.web2);
        let stream = |port: u16| {
            transfer::stream(&from.netns, &to.netns, (to.address, port).into(), stream_len())
        };
        let is_merged = |port: u16| {
            let before = received(&to.netns)?;
            stream(port)?;
            let after = received(&to.netns)?;
            let mean = (after[1] - before[1]) / (after[0] - before[0]);
            ensure!(mean > MERGED, "{mean} bytes is the mean packet");
            Ok(())
        };
        let stands = || {
            let [by_veth, usual] = [devices(h3, "from_veth")?, devices(h3, "from_underlay")?];
            ensure!(by_veth == ["eth0"] && usual == ["ovm-in"], "{by_veth:?}, {usual:?}");
            Ok(())
        };
        eventually("the merge pair stands", SEEN, stands)?;
        is_merged(4000)?;
        // Somebody takes it away, and then breaks it.
        for (port, broken) in [
            (4001, ["link", "del", "ovm-in"].as_slice()),
            (4002, &["link", "set", "ovm-out", "down"]),
            (4003, &["link", "set", "ovm-in", "mtu", "1500"]),
        ] {
            h3.netns.ip(broken)?;
            eventually("it is put right", SEEN, || {
                stands()?;
                let state = h3.netns.ip(&["link", "show", "ovm-in"])?;
                ensure!(state.contains("mtu 65535") && state.contains("LOWER_UP"), "{state}");
                is_merged(port)
            })
            .with_context(|| format!("{broken:?}"))?;
        }
        Ok(())
    });
}
