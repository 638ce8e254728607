//! The host around its node: a second network, a bridge with virtual machines, an administrator who routes, programs that
//! reset what the node set, and firewalls that drop.

use std::{net::Ipv4Addr, path::Path, sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use overlay_lab::{Host, Lab, Netns, Requirement, eventually, mirror};

use crate::support::{Endpoint, NODES, attach, bridge_address, create_network, scenario};

const BOUND: Duration = Duration::from_secs(20);
/// Who notices a reset by its event puts it back long before the next look, which comes every five seconds.
const AT_ONCE: Duration = Duration::from_secs(1);
pub(crate) const AT_HOST: &str = "10.1.0.1";
pub(crate) const IN_LAN: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
const BRIDGED: &str = "net.bridge.bridge-nf-call-iptables";

/// Joins a host to one more network by its device `eth1`. The other end is returned, and has the host as its router.
fn second_network(lab: &Lab, host: &Host) -> Result<Netns> {
    let lan = lab.container("lan")?;
    wire(host, "eth1", &lan)?;
    host.netns.ip(&["addr", "add", &format!("{AT_HOST}/24"), "dev", "eth1"])?;
    lan.ip(&["addr", "add", &format!("{IN_LAN}/24"), "dev", "eth0"])?;
    lan.ip(&["route", "add", "default", "via", AT_HOST])?;
    Ok(lan)
}

/// Joins `device` of a host to `eth0` of another namespace, both up.
fn wire(host: &Host, device: &str, other: &Netns) -> Result<()> {
    let there = ["peer", "name", "eth0", "netns", other.name()];
    host.netns.ip(&[&["link", "add", device, "type", "veth"][..], &there].concat())?;
    host.netns.ip(&["link", "set", device, "up"])?;
    other.ip(&["link", "set", "eth0", "up"])?;
    Ok(())
}

fn opened(host: &Host) -> Result<String> {
    host.netns.run(&["nft", "list", "set", "ip", "overlay", "opened"])
}

/// Returns true if packets that come in by the device are forwarded.
fn is_open(host: &Host, device: &str) -> Result<bool> {
    let file = format!("/proc/sys/net/ipv4/conf/{device}/forwarding");
    Ok(host.netns.run(&["cat", &file])?.trim() != "0")
}

/// Waits until these devices are guarded and open, and the others not guarded.
fn guarded(host: &Host, devices: &[&str], others: &[&str]) -> Result<()> {
    eventually(&format!("{devices:?} are guarded"), BOUND, || {
        let opened = opened(host)?;
        let is_in = |device: &&str| opened.contains(&format!("\"{device}\""));
        for device in devices {
            ensure!(is_in(device) && is_open(host, device)?, "{device}: {opened}");
        }
        ensure!(!others.iter().any(is_in), "{opened}");
        Ok(())
    })
}

fn no_router(from: &Netns, to: Ipv4Addr) -> Result<()> {
    ensure!(from.ping(to, 2)?.received == 0, "{} reaches {to}", from.name());
    Ok(())
}

/// Two nodes with an endpoint each, of which web1's port is published, and h1's second network.
pub(crate) fn two_networks(lab: &mut Lab) -> Result<([Arc<Host>; 2], [Endpoint; 2], Netns)> {
    let hosts = lab.wired_pair(("h1", "10.10.10.101"), ("h2", "10.10.10.102"))?;
    for host in &hosts {
        host.netns.sysctl("net.ipv4.ip_forward", "0")?;
    }
    lab.start_cluster(&hosts)?;
    create_network(&hosts[0])?;
    let web1 = attach(lab, &hosts[0], "web1", &["-p", "8080:80"])?;
    let web2 = attach(lab, &hosts[1], "web2", &[])?;
    mirror::tcp(&web1.netns, 80)?;
    // By which answers would come if h1 were a router.
    hosts[1].netns.ip(&["route", "add", "10.1.0.0/24", "via", "10.10.10.101"])?;
    let lan = second_network(lab, &hosts[0])?;
    guarded(&hosts[0], &["eth0", "eth1"], &[])?;
    Ok((hosts, [web1, web2], lan))
}

#[test]
fn a_second_network_and_endpoints_reach_each_other_and_nobody_else() {
    scenario(NODES, |lab| {
        let ([_, h2], [web1, _], lan) = two_networks(lab)?;
        web1.netns.reaches(IN_LAN)?;
        let seen = lan.seen_over_tcp(AT_HOST.parse()?, 8080)?;
        ensure!(seen == IN_LAN, "{seen}");
        no_router(&lan, h2.address)?;
        no_router(&h2.netns, IN_LAN)?;
        Ok(())
    });
}

#[test]
fn no_device_stays_open_without_its_guard() {
    scenario(NODES, |lab| {
        let ([h1, h2], [web1, _], lan) = two_networks(lab)?;
        for (what, rename) in [("flush", None), ("rename", Some(["eth1", "lan0"]))] {
            h1.stop()?;
            if let Some([from, to]) = rename {
                h1.netns.ip(&["link", "set", from, "down"])?;
                h1.netns.ip(&["link", "set", from, "name", to, "up"])?;
                no_router(&lan, h2.address)?;
            }
            h1.netns.run(&["nft", "flush", "ruleset"])?;
            h1.restart()?;
            guarded(&h1, &["eth0", rename.map_or("eth1", |[_, to]| to)], &[])?;
            no_router(&lan, h2.address)?;
            no_router(&h2.netns, IN_LAN)?;
            eventually(&format!("web1 reaches the LAN after the {what}"), BOUND, || {
                web1.netns.reaches(IN_LAN)
            })?;
        }
        // While the node runs. The address stays on a device that is renamed while it is down.
        h1.netns.ip(&["link", "set", "lan0", "down"])?;
        h1.netns.ip(&["link", "set", "lan0", "name", "lan1", "up"])?;
        guarded(&h1, &["eth0", "lan1"], &[])?;
        no_router(&h2.netns, IN_LAN)?;
        Ok(())
    });
}

#[test]
fn what_an_administrator_opens_is_his() {
    scenario(NODES, |lab| {
        let ([h1, h2], [web1, _], lan) = two_networks(lab)?;
        for device in ["eth0", "eth1"] {
            h1.netns.sysctl(&format!("net.ipv4.conf.{device}.forwarding"), "1")?;
        }
        guarded(&h1, &[], &["eth0", "eth1"])?;
        lan.reaches(h2.address)?;
        h2.netns.reaches(IN_LAN)?;
        web1.netns.reaches(IN_LAN)?;
        h1.netns.sysctl("net.ipv4.ip_forward", "1")?;
        h1.netns.sysctl("net.ipv4.ip_forward", "0")?;
        guarded(&h1, &["eth0", "eth1"], &[])?;
        no_router(&h2.netns, IN_LAN)?;
        web1.netns.reaches(IN_LAN)
    });
}

#[test]
fn forwarding_that_another_program_switches_off_is_back_at_once() {
    scenario(NODES, |lab| {
        let ([h1, _], _, _) = two_networks(lab)?;
        for reset in ["conf.eth0.forwarding", "conf.ov_gwbridge.forwarding", "ip_forward"] {
            if reset == "ip_forward" {
                h1.netns.sysctl("net.ipv4.ip_forward", "1")?;
            }
            h1.netns.sysctl(&format!("net.ipv4.{reset}"), "0")?;
            eventually(&format!("{reset} is put back"), AT_ONCE, || {
                for device in ["eth0", "eth1", "ov_gwbridge"] {
                    ensure!(is_open(&h1, device)?, "{device} is closed");
                }
                Ok(())
            })?;
        }
        ensure!(h1.log().contains("net.ipv4.conf.eth0.forwarding"), "{}", h1.log());
        Ok(())
    });
}

#[test]
fn a_bridge_by_which_the_host_is_reached_goes_on_carrying_its_machines() {
    scenario(NODES, |lab| {
        let hosts = lab.wired_pair(("h1", "10.10.10.101"), ("h2", "10.10.10.102"))?;
        let [h1, h2] = &hosts;
        let machine = lab.container("machine")?;
        h1.netns.ip(&["addr", "flush", "dev", "eth0"])?;
        h1.netns.ip(&["link", "add", "br1", "type", "bridge"])?;
        wire(h1, "tap1", &machine)?;
        for port in ["eth0", "tap1"] {
            h1.netns.ip(&["link", "set", port, "master", "br1"])?;
        }
        h1.netns.ip(&["link", "set", "br1", "up"])?;
        h1.netns.ip(&["addr", "add", "10.10.10.101/24", "dev", "br1"])?;
        machine.ip(&["addr", "add", "10.10.10.50/24", "dev", "eth0"])?;
        h1.netns.sysctl("net.ipv4.ip_forward", "0")?;
        let filters = Path::new("/proc/sys").join(BRIDGED.replace('.', "/")).exists();
        if filters {
            h1.netns.sysctl(BRIDGED, "1")?;
        }
        machine.reaches(h2.address)?;
        lab.start_cluster(&hosts)?;
        guarded(h1, &["br1"], &[])?;
        machine.reaches(h2.address)?;
        h2.netns.reaches("10.10.10.50")
    });
}

#[test]
fn a_firewall_that_drops_is_named_with_what_to_do() {
    let mut needs = NODES.to_vec();
    needs.push(Requirement::Tool("iptables-nft"));
    scenario(&needs, |lab| {
        let ([h1, _], [web1, _], lan) = two_networks(lab)?;
        let status = || h1.overlay(&["status"]);
        let passes = || -> Result<()> {
            web1.netns.reaches(IN_LAN)?;
            lan.seen_over_tcp(AT_HOST.parse()?, 8080).map(drop)
        };
        passes()?;
        let nft = "add table inet fw; add chain inet fw f { type filter hook forward priority 10; policy drop; }; \
                   add rule inet fw f ct state established,related accept";
        for (make, place, remove) in [
            (&["nft", nft][..], "table inet fw, chain f", &["nft", "delete table inet fw"][..]),
            (
                &["iptables-nft", "-P", "FORWARD", "DROP"],
                "table ip filter, chain FORWARD",
                &["nft", "delete table ip filter"],
            ),
        ] {
            h1.netns.run(make)?;
            if place.contains("FORWARD") {
                let answers =
                    ["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "ACCEPT"];
                h1.netns.run(&[&["iptables-nft", "-A", "FORWARD"][..], &answers].concat())?;
            }
            ensure!(passes().is_err(), "{place} does not drop");
            eventually(&format!("{place} is named"), BOUND, || {
                let said = status()?;
                ensure!(said.contains(place), "{said}");
                Ok(())
            })?;
            // The advice, word by word, works.
            let said = status()?;
            let (_, from) = said.split_once(&format!("{place} (")).unwrap_or_default();
            let advice =
                from.split('`').nth(1).unwrap_or_default().replace("iptables", "iptables-nft");
            h1.netns.run(&["sh", "-ec", &advice])?;
            passes()?;
            eventually("nothing is said any more", BOUND, || {
                let said = status()?;
                ensure!(!said.contains(place), "{said}");
                Ok(())
            })?;
            h1.netns.run(remove)?;
        }
        Ok(())
    });
}

#[test]
fn the_gateway_subnet_outlives_a_reboot_and_a_later_collision_is_said() {
    scenario(NODES, |lab| {
        let hosts = lab.wired_pair(("h1", "10.10.10.101"), ("h2", "10.10.10.102"))?;
        let [h1, _] = &hosts;
        let docker = || -> Result<()> {
            h1.netns.ip(&["link", "add", "br-d", "type", "bridge"])?;
            h1.netns.ip(&["addr", "add", "172.18.0.1/16", "dev", "br-d"])?;
            h1.netns.ip(&["link", "set", "br-d", "up"]).map(drop)
        };
        docker()?;
        lab.start_cluster(&hosts)?;
        ensure!(bridge_address(h1)? == "172.19.0.1/16", "{}", bridge_address(h1)?);
        // The node starts before the other program.
        h1.reboot()?;
        h1.restart()?;
        ensure!(bridge_address(h1)? == "172.19.0.1/16", "{}", bridge_address(h1)?);
        docker()?;
        h1.netns.ip(&["addr", "add", "172.19.5.1/24", "dev", "br-d"])?;
        eventually("the collision is said", BOUND, || {
            let said = h1.overlay(&["status"])?;
            ensure!(said.contains("172.19.5.0/24") && said.contains("br-d"), "{said}");
            Ok(())
        })
    });
}
