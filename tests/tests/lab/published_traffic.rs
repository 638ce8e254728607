//! Published ports under traffic, while firewalls are reloaded and controllers die.

use std::{
    fs,
    net::SocketAddrV4,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use overlay_lab::{Host, clients::Clients, eventually, mirror};

use crate::support::{OUTSIDE, World, attach, scenario};

const FOREIGN: &str = "table inet firewall {
    set trusted { type ipv4_addr; elements = { 192.0.2.7 } }
    chain input { type filter hook input priority filter; policy accept; tcp dport 9 counter drop; }
    chain nat { type nat hook prerouting priority dstnat; policy accept; tcp dport 9 redirect to :10; }
}
";

fn list(host: &Host, table: &[&str]) -> Result<String> {
    host.netns.run(&[&["nft", "--stateless", "list"], table].concat())
}

/// Runs `nft`, and waits until the node has restored its own rules. Returns the longest time for which they can have been
/// different: from before the change, since `nft` may take long to end after it.
fn back_within_a_second(host: &Host, nft: &[&str], ours: &str) -> Result<Duration> {
    let begun = Instant::now();
    host.netns.run(&[&["nft"], nft].concat())?;
    eventually("our rules are back", Duration::from_secs(1), || {
        let now = list(host, &["table", "ip", "overlay"])?;
        if now == ours { Ok(()) } else { bail!("not as they were: {now}") }
    })?;
    Ok(begun.elapsed())
}

#[test]
fn flushed_rules_are_back_within_a_second_and_foreign_ones_untouched() {
    scenario(OUTSIDE, |lab| {
        let world = World::build(lab)?;
        let ([h1, _], outside) = (&world.hosts, &world.outside);
        let reload = lab.folder().join("firewall.nft");
        fs::write(&reload, format!("flush ruleset\n{FOREIGN}"))?;
        let reload = reload.display().to_string();
        h1.netns.run(&["nft", "-f", &reload])?;
        // The list contains handles, because a rule that was removed and added again has a new handle.
        let foreign = || h1.netns.run(&["nft", "-as", "list", "table", "inet", "firewall"]);

        let web1 = attach(lab, h1, "web1", &["-p", "8080:80"])?;
        mirror::tcp(&web1.netns, 80)?;
        let port = SocketAddrV4::new(h1.address, 8080);
        let ours = list(h1, &["table", "ip", "overlay"])?;
        let clients = Clients::start(&outside.netns, port)?;
        let mut before = foreign()?;
        let mut gaps = Vec::new();
        for (line, spares_foreign) in [
            (&["-f", &reload][..], false),
            (&["delete", "table", "ip", "overlay"], true),
            (&["flush", "table", "ip", "overlay"], true),
            (&["flush", "ruleset"], false),
        ] {
            gaps.push(back_within_a_second(h1, line, &ours)?);
            // The port is reachable as soon as the rules are back.
            outside.netns.seen_over_tcp(h1.address, 8080)?;
            let tables = list(h1, &["tables"])?;
            ensure!(
                tables.contains("inet firewall") == (line != ["flush", "ruleset"]),
                "{line:?}: {tables}"
            );
            if spares_foreign {
                ensure!(foreign()? == before, "{line:?}: {before}\n{}", foreign()?);
            } else if tables.contains("inet firewall") {
                before = foreign()?;
            }
        }
        let (lasting, fleeting) = clients.stop()?;
        eprintln!(
            "rules were away {gaps:?}; {} of {} connections failed, {} questions of the lasting one",
            fleeting.failed.len(),
            fleeting.answered + fleeting.failed.len(),
            lasting.failed.len()
        );
        // While the rules are away, a new connection finds no translation. A client opens one every five
        // milliseconds at most, which bounds the number of failures; one more may have begun just before each
        // gap.
        let away: Duration = gaps.iter().sum();
        let met = away.as_millis() as usize / 5 + 2 * gaps.len();
        fleeting.failed_at_most(met)?;

        // A change of our own rules does not touch the foreign rules either.
        back_within_a_second(h1, &["-f", &reload], &ours)?;
        let before = foreign()?;
        attach(lab, h1, "more", &["-p", "8082:80"])?;
        h1.overlay(&["endpoint", "rm", "web1", "more"])?;
        h1.kill9()?;
        h1.restart()?;
        ensure!(foreign()? == before, "{before}\n{}", foreign()?);
        Ok(())
    });
}

#[test]
fn the_controllers_death_costs_no_connection() {
    scenario(OUTSIDE, |lab| {
        let world = World::build(lab)?;
        let ([h1, h2], outside) = (&world.hosts, &world.outside);
        let web1 = attach(lab, h1, "web1", &["-p", "8080:80"])?;
        let far = attach(lab, h2, "far", &[])?;
        mirror::tcp(&web1.netns, 80)?;
        let port = SocketAddrV4::new(h1.address, 8080);
        let clients = [Clients::start(&outside.netns, port)?, Clients::start(&far.netns, port)?];
        let outwards = Clients::start(&web1.netns, SocketAddrV4::new(outside.address, 80))?;
        let ours = list(h1, &["table", "ip", "overlay"])?;

        h1.kill9()?;
        ensure!(list(h1, &["table", "ip", "overlay"])? == ours, "the rules changed with the death");
        outside.netns.seen_over_tcp(h1.address, 8080)?;
        // New connections work in both directions without the controller.
        web1.netns.seen_over_tcp(outside.address, 80)?;
        h1.restart()?;
        ensure!(list(h1, &["table", "ip", "overlay"])? == ours, "the rules changed with the start");
        h1.stop()?;
        outside.netns.seen_over_tcp(h1.address, 8080)?;
        h1.restart()?;
        // A new endpoint shows that the controller works again, and is not only alive.
        attach(lab, h1, "more", &["-p", "8081:80"])?;
        for client in clients.into_iter().chain([outwards]) {
            let (lasting, fleeting) = client.stop()?;
            lasting.none_failed()?;
            fleeting.none_failed()?;
        }
        Ok(())
    });
}
