//! So many nodes have new addresses at once that no quorum is left at the addresses of the rows: the nodes find each other
//! all the same.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use overlay_lab::{Host, eventually};

use crate::{
    addresses::{is_registered, move_away, reach_each_other, without_addresses},
    support::{NODES, attach, follows, scenario},
};

/// Longest time until the nodes have found each other, elected a leader and registered.
const FOUND: Duration = Duration::from_secs(60);
/// A node says once a minute that it finds nobody.
const SAID: Duration = Duration::from_secs(90);

/// Starts the node, which is told no address but perhaps the one of a node to join, and does not wait for a quorum.
fn spawn(host: &Host, join: Option<&str>) -> Result<()> {
    let mut args = vec!["--underlay", "eth0", "--listen", ""];
    args.extend(join.into_iter().flat_map(|join| ["--join", join]));
    host.spawn_node(&args)
}

/// Ends the nodes and gives their hosts other addresses, which are returned.
fn renumber(hosts: &[Arc<Host>]) -> Result<Vec<String>> {
    hosts.iter().try_for_each(|host| host.stop())?;
    hosts.iter().map(|host| move_away(host)).collect()
}

/// Ends two nodes of one subnet, gives each host the address of the other, and starts the nodes.
fn swap(one: &Host, other: &Host) -> Result<()> {
    for host in [one, other] {
        host.stop()?;
    }
    let [a, b] = [one, other].map(|host| format!("{}/24", host.address));
    for (host, has) in [(one, &a), (other, &b)] {
        host.netns.ip(&["addr", "del", has, "dev", "eth0"])?;
    }
    for (host, gets) in [(one, &b), (other, &a)] {
        let [a, b, c, _] = host.address.octets();
        host.netns.ip(&["addr", "add", gets, "dev", "eth0"])?;
        host.netns.ip(&["route", "replace", "default", "via", &format!("{a}.{b}.{c}.1")])?;
    }
    [one, other].into_iter().try_for_each(|host| spawn(host, None))
}

/// Waits until a write succeeds, which needs a leader.
fn decides(host: &Host, network: &str) -> Result<()> {
    eventually("the cluster decides", FOUND, || host.overlay(&["network", "create", network]))?;
    Ok(())
}

#[test]
fn all_at_once() {
    scenario(NODES, |lab| {
        let hosts = without_addresses(lab)?;
        let [h1, h2, _, h4] = &hosts;
        let (web1, web2) = (attach(lab, h2, "web1", &[])?, attach(lab, h4, "web2", &[])?);
        reach_each_other(&web1, &web2)?;

        let now = renumber(&hosts)?;
        let first = format!("{}:7400", now[0]);
        // It knows none of the addresses that the others have now, and they know one.
        spawn(h1, None)?;
        hosts[1..].iter().try_for_each(|host| spawn(host, Some(&first)))?;
        decides(h1, "after")?;
        for (host, now) in hosts.iter().zip(&now) {
            eventually("each is known by its new address", FOUND, || {
                is_registered(h4, &host.name, now)
            })?;
            follows(host, h1, FOUND)?;
        }
        eventually("packets flow again", FOUND, || reach_each_other(&web1, &web2))?;

        // The rows say it now, and nobody has to be told again.
        hosts.iter().try_for_each(|host| host.stop())?;
        hosts.iter().try_for_each(|host| spawn(host, None))?;
        decides(h4, "and-again")
    });
}

#[test]
fn two_of_three_voters_are_found_by_what_they_say_to_the_third() {
    scenario(NODES, |lab| {
        let hosts = without_addresses(lab)?;
        let [h1, h2, h3, h4] = &hosts;
        let moved = &hosts[1..3];
        let now = renumber(moved)?;
        for host in moved {
            spawn(host, None)?;
        }
        decides(h1, "after")?;
        for (host, now) in moved.iter().zip(&now) {
            eventually("each is known by its new address", FOUND, || {
                is_registered(h4, &host.name, now)
            })?;
        }
        // Their votes count, and so they know each other.
        h1.kill9()?;
        decides(h2, "without-the-third")?;
        follows(h3, h2, FOUND)
    });
}

#[test]
fn a_node_that_finds_nobody_says_what_to_do() {
    scenario(NODES, |lab| {
        let [h1, h2, ..] = lab.four_hosts()?;
        let without_address = ["--underlay", "eth0", "--listen", ""];
        h1.start_node(&without_address)?;
        let founder = h1.listen();
        h2.start_node(&[&without_address[..], &["--join", &founder]].concat())?;
        let hosts = [h1, h2];
        let now = renumber(&hosts)?;
        let [h1, h2] = &hosts;
        spawn(h1, None)?;
        spawn(h2, None)?;
        decides(h1, "alone")?;
        eventually("h2 says what to do", SAID, || {
            let log = h2.log();
            ensure!(log.contains("start this node again with `--join IP:7400`"), "{log}");
            Ok(())
        })?;
        h2.stop()?;
        spawn(h2, Some(&format!("{}:7400", now[0])))?;
        eventually("h2 is known by its new address", FOUND, || is_registered(h1, "h2", &now[1]))?;
        follows(h2, h1, FOUND)
    });
}

/// What is at an address that the rows name is another node of the same cluster then.
#[test]
fn two_voters_have_swapped_their_addresses() {
    scenario(NODES, |lab| {
        let hosts = without_addresses(lab)?;
        let [h1, h2, h3, h4] = &hosts;
        let (web1, web2) = (attach(lab, h2, "web1", &[])?, attach(lab, h4, "web2", &[])?);
        swap(h1, h2)?;
        decides(h3, "after")?;
        for (host, now) in [(h1, h2.address), (h2, h1.address)] {
            eventually("each is known by its new address", FOUND, || {
                is_registered(h4, &host.name, &now.to_string())
            })?;
        }
        eventually("packets flow again", FOUND, || reach_each_other(&web1, &web2))?;
        h3.kill9()?;
        decides(h1, "by-the-two")
    });
}

#[test]
fn each_node_has_the_address_of_another() {
    scenario(NODES, |lab| {
        let hosts = without_addresses(lab)?;
        let [h1, h2, h3, h4] = &hosts;
        let (web1, web2) = (attach(lab, h2, "web1", &[])?, attach(lab, h4, "web2", &[])?);
        swap(h1, h2)?;
        swap(h3, h4)?;
        decides(h1, "after")?;
        for (host, now) in [(h1, h2), (h2, h1), (h3, h4), (h4, h3)] {
            eventually("each is known by its new address", FOUND, || {
                is_registered(h1, &host.name, &now.address.to_string())
            })?;
        }
        eventually("packets flow again", FOUND, || reach_each_other(&web1, &web2))
    });
}
