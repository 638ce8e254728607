//! Devices that are made on network cards, as underlays.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use overlay_lab::{Host, Lab, may_lack, missing, rows, text, transfer, tried_enough};
use serde_json::Value;

use crate::support::{NODES, answer_probes, attach, create_network, scenario};

/// A device that carries the host's address.
struct Kind {
    name: &'static str,
    /// What `ip` is told. The kernel may not know what the first one makes.
    made_by: &'static [&'static str],
    /// The device with the host's address.
    device: &'static str,
}

const KINDS: [Kind; 5] = [
    Kind {
        name: "bridge",
        made_by: &["link add up0 type bridge", "link set eth0 master up0"],
        device: "up0",
    },
    Kind {
        name: "macvlan",
        made_by: &["link add up0 link eth0 type macvlan mode bridge"],
        device: "up0",
    },
    Kind { name: "VLAN", made_by: &["link add up0 link eth0 type vlan id 5"], device: "up0" },
    Kind {
        name: "bond",
        made_by: &[
            "link add up0 type bond mode active-backup miimon 100",
            "link set eth0 down",
            "link set eth0 master up0",
        ],
        device: "up0",
    },
    Kind { name: "dummy", made_by: &["link add up0 type dummy"], device: "up0" },
];

/// Makes the device on both hosts. Returns false where the kernel has none of this kind.
fn make(kind: &Kind, hosts: &[Arc<Host>; 2]) -> Result<bool> {
    for host in hosts {
        host.netns.ip(&["addr", "flush", "dev", "eth0"])?;
        for (number, words) in kind.made_by.iter().enumerate() {
            let words: Vec<&str> = words.split(' ').collect();
            match host.netns.ip(&words) {
                Err(error) if number == 0 => {
                    eprintln!("no {} here: {error:#}", kind.name);
                    return Ok(false);
                }
                made => drop(made?),
            }
        }
        let (address, prefix) = match kind.name {
            "dummy" => (host.address, 32),
            _ => (host.address, 24),
        };
        host.netns.ip(&["addr", "add", &format!("{address}/{prefix}"), "dev", kind.device])?;
        for device in ["eth0", kind.device] {
            host.netns.ip(&["link", "set", device, "up"])?;
        }
    }
    for (host, other, last) in [(&hosts[0], &hosts[1], 1), (&hosts[1], &hosts[0], 2)] {
        // The card has an address of its own, by which the other's leads.
        if kind.name == "dummy" {
            host.netns.ip(&["addr", "add", &format!("10.9.0.{last}/24"), "dev", "eth0"])?;
            let (to, via) = (format!("{}/32", other.address), format!("10.9.0.{}", 3 - last));
            host.netns.ip(&["route", "add", &to, "via", &via])?;
        }
    }
    Ok(true)
}

/// The devices by which VXLAN is received: those on which `from_underlay` runs, or `from_veth`.
fn uplinks(host: &Host) -> Result<Vec<String>> {
    let status = host.overlay_json(&["status"])?;
    let programs = rows(&status["datapath"]["programs"]);
    let is_uplinks = |row: &&Value| ["from_underlay", "from_veth"].contains(&text(row, "name"));
    let devices = programs.iter().filter(is_uplinks).flat_map(|row| rows(&row["devices"]));
    Ok(devices.filter_map(|name| name.as_str()).map(str::to_owned).collect())
}

fn carries(lab: &Lab, kind: &Kind, hosts: &[Arc<Host>; 2]) -> Result<()> {
    lab.start_cluster(hosts)?;
    create_network(&hosts[0])?;
    let web1 = attach(lab, &hosts[0], "web1", &[])?;
    let web2 = attach(lab, &hosts[1], "web2", &[])?;
    web1.netns.reaches(web2.address)?;
    for (from, to) in [(&web1, &web2), (&web2, &web1)] {
        transfer::stream(&from.netns, &to.netns, (to.address, 4000).into(), 1 << 20)?;
    }
    for host in hosts {
        let uplinks = uplinks(host)?;
        ensure!(uplinks.iter().any(|device| device == kind.device), "{uplinks:?}");
        let status = host.overlay_json(&["status"])?;
        let vtep = text(&status["datapath"], "underlay").to_owned();
        ensure!(vtep == kind.device, "the VTEP's device is {vtep}");
    }
    answer_probes(hosts)
}

#[test]
fn devices_that_are_made_on_cards_are_underlays() {
    let mut carried = Vec::new();
    for kind in &KINDS {
        scenario(NODES, |lab| {
            let hosts = lab.wired_pair(("h1", "10.10.10.101"), ("h2", "10.10.10.102"))?;
            if make(kind, &hosts).context(kind.name)? {
                carries(lab, kind, &hosts).context(kind.name)?;
                carried.push(kind.name);
            }
            Ok(())
        });
    }
    if missing(NODES).is_none() {
        let all = KINDS.each_ref().map(|kind| kind.name);
        tried_enough(&carried, &all, &["bridge", "macvlan"]).unwrap();
    }
}

/// Linux answers ARP requests for an address on each device that hears them, so a neighbour may know either MAC.
#[test]
fn what_is_sent_to_the_card_below_a_macvlan_is_received() {
    scenario(NODES, |lab| {
        let hosts = lab.wired_pair(("h1", "10.10.10.101"), ("h2", "10.10.10.102"))?;
        let [_, macvlan, ..] = &KINDS;
        if !make(macvlan, &hosts)? {
            return may_lack(macvlan.name);
        }
        for (host, other) in [(&hosts[0], &hosts[1]), (&hosts[1], &hosts[0])] {
            let (address, mac) = (other.address.to_string(), other.netns.mac("eth0")?);
            let neighbour = ["neigh", "replace", &address, "lladdr", &mac, "dev", "up0"];
            host.netns.ip(&[&neighbour[..], &["nud", "permanent"]].concat())?;
            for key in ["all", "eth0"] {
                host.netns.sysctl(&format!("net.ipv4.conf.{key}.rp_filter"), "0")?;
            }
        }
        carries(lab, macvlan, &hosts)
    });
}

/// Only a socket that is bound to the VRF may have an address of it, and the node binds none.
#[test]
fn an_address_in_a_vrf_is_refused() {
    scenario(NODES, |lab| {
        let [host, _] = lab.wired_pair(("h1", "10.10.10.101"), ("h2", "10.10.10.102"))?;
        if host.netns.ip(&["link", "add", "red", "type", "vrf", "table", "10"]).is_err() {
            return may_lack("VRF");
        }
        host.netns.ip(&["link", "set", "red", "up"])?;
        host.netns.ip(&["link", "set", "eth0", "master", "red"])?;
        let Err(error) = host.start_node(&["--underlay", "eth0"]) else { bail!("the node runs") };
        let said = format!("{error:#}");
        ensure!(said.contains("can't listen on 10.10.10.101:7400"), "{said}");
        Ok(())
    });
}

#[test]
fn gre_without_a_remote_address_is_refused() {
    scenario(NODES, |lab| {
        let hosts = lab.wired_pair(("h1", "10.10.10.101"), ("h2", "10.10.10.102"))?;
        let host = &hosts[0];
        let gre = ["link", "add", "up0", "type", "gre", "local", "10.10.10.101", "key", "7"];
        if host.netns.ip(&gre).is_err() {
            return may_lack("GRE");
        }
        host.netns.ip(&["addr", "add", "10.9.0.1/24", "dev", "up0"])?;
        host.netns.ip(&["link", "set", "up0", "up"])?;
        let started = host.start_node(&["--underlay", "10.9.0.1"]);
        let Err(error) = started else { bail!("the node runs") };
        let said = format!("{error:#}");
        ensure!(
            said.contains("the device up0 has a link layer that the overlay cannot use"),
            "{said}"
        );
        Ok(())
    });
}

#[test]
fn routes_by_two_cards_lead_to_a_vtep() {
    scenario(NODES, |lab| {
        let hosts = lab.wired_pair(("h1", "10.10.10.101"), ("h2", "10.10.10.102"))?;
        let [h1, h2] = &hosts;
        let there = ["peer", "name", "eth1", "netns", h2.netns.name()];
        h1.netns.ip(&[&["link", "add", "eth1", "type", "veth"][..], &there].concat())?;
        for (host, last, other) in [(h1, 101, 102), (h2, 102, 101)] {
            host.netns.ip(&["addr", "add", &format!("10.10.11.{last}/24"), "dev", "eth1"])?;
            host.netns.ip(&["link", "set", "eth1", "up"])?;
            for key in ["all", "eth0", "eth1"] {
                host.netns.sysctl(&format!("net.ipv4.conf.{key}.rp_filter"), "0")?;
            }
            host.netns.ip(&["addr", "add", &format!("10.77.0.{last}/32"), "dev", "lo"])?;
            let (to, first, second) = (
                format!("10.77.0.{other}/32"),
                format!("10.10.10.{other}"),
                format!("10.10.11.{other}"),
            );
            host.netns
                .ip(&["route", "add", &to, "nexthop", "via", &first, "nexthop", "via", &second])?;
        }
        let on_lo = |last: u8| {
            let address = format!("10.77.0.{last}");
            ["--underlay".to_owned(), address.clone(), "--listen".to_owned(), address + ":7400"]
        };
        let [one, two] = [on_lo(101), on_lo(102)];
        h1.start_node(&one.each_ref().map(String::as_str))?;
        let join = ["--join".to_owned(), "10.77.0.101:7400".to_owned()];
        let two: Vec<&str> = two.iter().chain(&join).map(String::as_str).collect();
        h2.start_node(&two)?;
        create_network(h1)?;
        let web1 = attach(lab, h1, "web1", &[])?;
        let web2 = attach(lab, h2, "web2", &[])?;
        web1.netns.reaches(web2.address)?;
        transfer::stream(&web1.netns, &web2.netns, (web2.address, 4000).into(), 1 << 20)?;
        transfer::stream(&web2.netns, &web1.netns, (web1.address, 4000).into(), 1 << 20)?;
        let uplinks = uplinks(h2)?;
        for device in ["eth0", "eth1", "lo"] {
            ensure!(uplinks.iter().any(|uplink| uplink == device), "{uplinks:?}");
        }
        answer_probes(&hosts)
    });
}
