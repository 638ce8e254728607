//! The controller dies and restarts, and no packet is lost.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use overlay_lab::{
    Iperf, Requirement, attainable, eventually, number as number_of, patient, probe::Prober,
};

use crate::support::{
    CATCH_UP, Endpoint, NETWORK, NODES, address, attach, cluster, follows, knows, leader,
    other_voters, pair, refused_with, scenario,
};

const GATE: &[Requirement] = &[
    Requirement::Root,
    Requirement::Bpffs,
    Requirement::Binary,
    Requirement::Tool("ping"),
    Requirement::Tool("nft"),
    Requirement::Tool("bpftool"),
];

const MEASURED: &[Requirement] = &[
    Requirement::Root,
    Requirement::Bpffs,
    Requirement::Binary,
    Requirement::Tool("ping"),
    Requirement::Tool("iperf3"),
];
const EVERY: Duration = Duration::from_millis(2);
/// Rate of the UDP stream, 2000 packets a second. It is so low that no socket's buffer overflows, so that
/// each lost packet was lost by the overlay.
const BITS_PER_SECOND: f64 = 20e6;
const DATAGRAM: u32 = 1200;
/// Time of the stream, and its greatest time. Both nodes of a pair have restarted by then, even if they are
/// slow.
const TIME: Duration = Duration::from_secs(5);
const TIME_MAX: Duration = Duration::from_secs(20);

/// Bytes of a socket's buffer.
const BUFFER: u32 = 1 << 20;

/// The buffer size in bytes that every socket may request. With a stock kernel's limit it is a fifth of
/// [`BUFFER`].
fn largest_buffer() -> Result<u32> {
    let limit = |name: &str| -> Result<u32> {
        Ok(fs::read_to_string(Path::new("/proc/sys/net/core").join(name))?.trim().parse()?)
    };
    Ok(limit("rmem_max")?.min(limit("wmem_max")?))
}

/// Runs `meanwhile` while UDP and pings flow in both directions between two endpoints, and counts both.
fn lossless(
    web1: &Endpoint,
    web2: &Endpoint,
    meanwhile: impl FnOnce() -> Result<()>,
) -> Result<()> {
    web1.netns.reaches(web2.address)?;
    let forth = Prober::new(&web1.netns, web2.address)?.start(patient(EVERY));
    let back = Prober::new(&web2.netns, web1.address)?.start(patient(EVERY));
    let mut server = web2.netns.iperf_server(None)?;
    let (netns, to) = (web1.netns.clone(), web2.address);
    let rate = attainable(BITS_PER_SECOND);
    let time = patient(TIME).min(TIME_MAX);
    let (rate_word, length) = (format!("{rate:.0}"), DATAGRAM.to_string());
    let buffer = largest_buffer()?.min(BUFFER).to_string();
    let args = ["-u", "-b", &rate_word, "-l", &length, "-w", &buffer];
    let udp: Result<Iperf> = std::thread::scope(|scope| {
        let client = scope.spawn(|| netns.iperf(to, time.as_secs() as u32, &args));
        meanwhile()?;
        client.join().map_err(|_| anyhow::anyhow!("the client panicked"))?
    });
    let udp = udp?;
    server.wait(Duration::from_secs(10))?;
    forth.stop()?.none_lost()?;
    back.stop()?.none_lost()?;
    let asked_for = rate * time.as_secs_f64() / f64::from(DATAGRAM * 8);
    ensure!(udp.packets > asked_for as u64 / 2, "{udp:?}");
    ensure!(udp.lost == 0, "{udp:?}");
    Ok(())
}

#[test]
fn sigkill_costs_not_one_packet_and_a_restart_neither() {
    scenario(MEASURED, |lab| {
        let ([h1, h2], [web1, web2]) = pair(lab)?;
        let pins = h1.pins()?;
        ensure!(!pins.is_empty());
        lossless(&web1, &web2, || {
            h1.kill9()?;
            ensure!(h1.pins()? == pins, "pins changed with the death");
            h2.kill9()?;
            h1.spawn_again()?;
            h2.spawn_again()?;
            h1.wait_until_serving()?;
            h2.wait_until_serving()
        })?;
        ensure!(h1.pins()? == pins, "{:?} became {:?}", pins, h1.pins()?);
        // A new endpoint shows that the restarted controllers work, and are not only alive.
        let web3 = eventually("a new endpoint is made", Duration::from_secs(15), || {
            h2.overlay(&["node", "ls"])
        })
        .and_then(|_| attach(lab, &h1, "web3", &[]))?;
        web2.netns.reaches(web3.address)?;
        Ok(())
    });
}

#[test]
fn a_tcp_stream_runs_through_death_and_restart() {
    /// Least share of the rate that the same path has while no controller dies. A path without GSO and GRO
    /// has a tenth.
    const AS_FAST: f64 = 0.3;
    scenario(MEASURED, |lab| {
        let ([h1, _], [web1, web2]) = pair(lab)?;
        let stream = |meanwhile: &dyn Fn() -> Result<()>| -> Result<f64> {
            let mut server = web2.netns.iperf_server(None)?;
            let (netns, to) = (web1.netns.clone(), web2.address);
            let iperf = std::thread::scope(|scope| {
                let client = scope.spawn(|| netns.iperf(to, 4, &[]));
                meanwhile()?;
                client.join().map_err(|_| anyhow::anyhow!("the client panicked"))?
            })?;
            server.wait(Duration::from_secs(10))?;
            Ok(iperf.bits_per_second)
        };
        let before = stream(&|| Ok(()))?;
        let through = stream(&|| {
            h1.kill9()?;
            h1.restart()
        })?;
        let after = stream(&|| Ok(()))?;
        for speed in [through, after] {
            ensure!(speed > AS_FAST * before, "{before:.3e}, {through:.3e}, {after:.3e} bit/s");
        }
        Ok(())
    });
}

#[test]
fn an_orderly_end_keeps_the_packets_flowing() {
    scenario(MEASURED, |lab| {
        let ([h1, _], [web1, web2]) = pair(lab)?;
        lossless(&web1, &web2, || {
            h1.stop()?;
            web1.netns.reaches(web2.address)?;
            h1.restart()
        })
    });
}

#[test]
fn what_changed_while_a_node_was_dead_reaches_it_after_its_restart() {
    scenario(NODES, |lab| {
        let cluster = cluster(lab)?;
        let [_, h2, h3, h4] = &cluster.hosts;
        // The voter that dies does not lead, and has an endpoint.
        h2.kill9()?;
        let web4 = {
            let netns = lab.container("web4")?;
            let inside = netns.name().to_owned();
            h4.overlay(&["endpoint", "create", "web4", "--network", NETWORK, "--netns", &inside])?;
            netns
        };
        h3.overlay(&["endpoint", "rm", "web2"])?;
        h2.restart()?;
        let address = address(&h4.overlay_json(&["endpoint", "inspect", "web4"])?)?;
        eventually("web2-2 reaches web4", Duration::from_secs(10), || {
            cluster.web2_2.netns.reaches(address)
        })?;
        web4.reaches(cluster.web2_2.address)?;
        let gone = cluster.web2_2.netns.ping(cluster.web2.address, 2)?;
        ensure!(gone.received == 0, "web2 was removed, and answers");
        Ok(())
    });
}

/// A voter may have programmed an endpoint just before its death without having logged it as committed. It
/// must not take the endpoint as removed, however long there is no quorum.
#[test]
fn a_voter_that_restarts_without_a_quorum_sweeps_nothing() {
    /// Attempts to kill the voter before its log records the commit, which takes a tenth of a second at most.
    const TRIES: usize = 20;
    scenario(GATE, |lab| {
        let cluster = cluster(lab)?;
        let leads = leader(&cluster)?;
        let others = other_voters(&cluster, &leads);
        let (dies, other) = (others[0], others[1]);
        let own = [&cluster.web1, &cluster.web2, &cluster.web2_2]
            .into_iter()
            .find(|endpoint| endpoint.host.name == dies.name)
            .context("an endpoint there")?;
        for number in 0..TRIES {
            let name = format!("new{number}");
            let netns = lab.container(&name)?;
            let inside = netns.name().to_owned();
            let create = ["endpoint", "create", &name, "--network", NETWORK, "--netns", &inside];
            let created = leads.overlay_json(&[&create[..], &["--no-wait"]].concat())?;
            let made = created.get("endpoint").unwrap_or(&created);
            let (new, revision) = (address(made)?, number_of(made, "created_revision"));
            ensure!(revision > 0, "{created}");
            eventually("its kernel has it", Duration::from_secs(5), || {
                if knows(dies, new)? { Ok(()) } else { bail!("{new} is not there") }
            })?;
            dies.kill9()?;
            // The new endpoint's node may still be creating it, because the command did not wait.
            eventually("the new endpoint answers", Duration::from_secs(10), || {
                own.netns.reaches(new)
            })?;
            let held = [dies.map_dump("FDB")?, dies.map_dump("NEIGH")?];
            for voter in [&leads, other] {
                voter.pause()?;
            }
            dies.restart()?;
            let status = dies.overlay_json(&["status"])?;
            let behind = number_of(&status, "revision") < revision;
            if behind {
                let probe = Prober::new(&own.netns, new)?.start(EVERY);
                // The two calls take as long as a node looks for a quorum, twice.
                for _ in 0..2 {
                    refused_with(&dies.overlay_fails(&["network", "ls"])?, "quorum")?;
                }
                let status = dies.overlay_json(&["status"])?;
                ensure!(number_of(&status, "programmed_revision") == 0, "by whose word? {status}");
                ensure!([dies.map_dump("FDB")?, dies.map_dump("NEIGH")?] == held, "it swept");
                probe.stop()?.none_lost()?;
            }
            for voter in [&leads, other] {
                voter.go_on()?;
            }
            follows(dies, &leads, CATCH_UP)?;
            own.netns.reaches(new)?;
            if behind {
                return Ok(());
            }
        }
        bail!("in {TRIES} tries its log knew of every commit when it died")
    });
}
