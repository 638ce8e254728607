//! The sizes of packets and super-packets: nodes find them out, follow changes, and report them.

use crate::support::{
    Endpoint, NODES, attach, attach_to, create_network, leg, pair, refused_with, scenario,
};
use anyhow::{Context as _, Result, bail, ensure};
use overlay_lab::{
    Host, Lab, Netns, Requirement, capture::Capture, eventually, probe::Prober, text, transfer,
};
use serde_json::Value;
use std::{net::SocketAddr, path::Path, time::Duration};

const CAPTURED: &[Requirement] = &[
    Requirement::Root,
    Requirement::Bpffs,
    Requirement::Binary,
    Requirement::Tool("tcpdump"),
    Requirement::Tool("tshark"),
];
/// Longest time until a node has noticed a change. It is not a measure of the time that a node needs, because
/// a test on a busy machine cannot tell whether the node was notified or looked by itself.
const BOUND: Duration = Duration::from_secs(20);

fn mtu_of(netns: &Netns, device: &str) -> Result<u64> {
    let links = netns.ip_json(&["link", "show", device])?;
    links[0]["mtu"].as_u64().with_context(|| format!("{links}"))
}

fn datapath(host: &Host) -> Result<Value> {
    Ok(host.overlay_json(&["status"])?["datapath"].clone())
}

/// Waits until both sides of the endpoint's veth have that MTU and the endpoint's node reports it.
fn becomes(endpoint: &Endpoint, mtu: u64) -> Result<()> {
    eventually(&format!("{}'s MTU is {mtu}", endpoint.name), BOUND, || {
        let shown = endpoint.host.overlay_json(&["endpoint", "inspect", &endpoint.name])?;
        let outside = mtu_of(&endpoint.host.netns, text(&shown, "host_interface"))?;
        let inside = mtu_of(&endpoint.netns, "eth0")?;
        if (inside, outside, shown["mtu"].as_u64()) != (mtu, mtu, Some(mtu)) {
            bail!("{inside} inside, {outside} outside, shown as {}", shown["mtu"]);
        }
        Ok(())
    })
}

/// Waits until `overlay status` reports this MTU of the underlay, and where it comes from.
fn is_said(host: &Host, mtu: u64, source: &str) -> Result<()> {
    eventually(&format!("{} says {mtu}, {source}", host.name), BOUND, || {
        let said = datapath(host)?;
        let (underlay, endpoint) = (said["underlay_mtu"].as_u64(), said["endpoint_mtu"].as_u64());
        ensure!(underlay == Some(mtu) && endpoint == Some(mtu - 50), "{said}");
        ensure!(text(&said, "underlay_mtu_source") == source, "{said}");
        Ok(())
    })
}

fn index_of(netns: &Netns, device: &str) -> Result<Value> {
    Ok(netns.ip_json(&["link", "show", device])?[0]["ifindex"].clone())
}

#[test]
fn a_change_of_the_underlay_s_mtu_is_followed_and_loses_no_packet() {
    scenario(NODES, |lab| {
        let (hosts, [web1, web2]) = pair(lab)?;
        hosts[0].overlay(&["network", "create", "own", "--mtu", "1200"])?;
        let fixed = attach_to("own", &hosts[0], "fixed", lab.container("fixed")?, &[])?;
        let index = index_of(&web1.netns, "eth0")?;
        is_said(&hosts[0], 1500, "the device's")?;
        let probe = Prober::new(&web1.netns, web2.address)?.start(Duration::from_millis(5));
        for mtu in [9000, 1400, 1500] {
            for host in &hosts {
                host.netns.ip(&["link", "set", "eth0", "mtu", &mtu.to_string()])?;
            }
            for web in [&web1, &web2] {
                becomes(web, mtu - 50)?;
                is_said(&web.host, mtu, "the device's")?;
                ensure!(leg(&web.netns)?.mtu == mtu, "the way out follows, too");
                ensure!(mtu_of(&web.host.netns, "ov_gwbridge")? == mtu);
            }
            // A packet of exactly that size crosses.
            let payload = (mtu - 50 - 28).to_string();
            let to = web2.address.to_string();
            web1.netns.run(&["ping", "-c", "1", "-W", "5", "-M", "do", "-s", &payload, &to])?;
            becomes(&fixed, 1200)?;
        }
        probe.stop()?.none_lost()?;
        ensure!(index_of(&web1.netns, "eth0")? == index, "it is the same device");

        // An endpoint may change its own MTU, and keeps it. Endpoints that are created later start from the
        // underlay's MTU.
        web1.netns.ip(&["link", "set", "eth0", "mtu", "1280"])?;
        hosts[0].netns.ip(&["link", "set", "eth0", "mtu", "1600"])?;
        is_said(&hosts[0], 1600, "the device's")?;
        let web3 = attach(lab, &hosts[0], "web3", &[])?;
        becomes(&web3, 1550)?;
        ensure!(mtu_of(&web1.netns, "eth0")? == 1280);
        Ok(())
    });
}

#[test]
fn a_route_with_an_mtu_of_its_own_counts() {
    scenario(NODES, |lab| {
        let (hosts, [web1, web2]) = pair(lab)?;
        let to = format!("{}/32", hosts[1].address);
        hosts[0].netns.ip(&["route", "add", &to, "dev", "eth0", "mtu", "1400"])?;
        becomes(&web1, 1350)?;
        let source = format!("of the route to {}", hosts[1].address);
        is_said(&hosts[0], 1400, &source)?;
        ensure!(leg(&web1.netns)?.mtu == 1500, "the way out goes elsewhere");
        becomes(&web2, 1450)?;
        hosts[0].netns.ip(&["route", "del", &to])?;
        becomes(&web1, 1450)?;
        is_said(&hosts[0], 1500, "the device's")
    });
}

/// What a leg announces is what others send it: as to the host itself, no more than the host's own way out takes.
#[test]
fn the_way_out_takes_what_the_host_s_own_does() {
    scenario(NODES, |lab| {
        let (hosts, [web1, _]) = pair(lab)?;
        let via = hosts[1].address.to_string();
        let outward = |mtu: u64| {
            eventually(&format!("the leg's MTU is {mtu}"), BOUND, || {
                let (leg, bridge) =
                    (leg(&web1.netns)?.mtu, mtu_of(&hosts[0].netns, "ov_gwbridge")?);
                ensure!((leg, bridge) == (mtu, mtu), "{leg}, the bridge {bridge}");
                Ok(())
            })
        };
        hosts[0].netns.ip(&["route", "add", "default", "via", &via, "mtu", "1400"])?;
        outward(1400)?;
        becomes(&web1, 1450).context("the way to other nodes goes elsewhere")?;
        let spare = ["route", "add", "default", "via", &via, "mtu", "1300", "metric", "9"];
        hosts[0].netns.ip(&spare)?;
        hosts[0].netns.ip(&["route", "change", "default", "via", &via, "mtu", "1420"])?;
        outward(1420).context("the second way out is not used")?;
        hosts[0].netns.ip(&["route", "del", "default"])?;
        outward(1300)?;
        hosts[0].netns.ip(&["route", "del", "default", "metric", "9"])?;
        outward(1500)
    });
}

#[test]
fn an_mtu_that_was_asked_for_counts_and_one_that_can_t_be_is_refused() {
    scenario(NODES, |lab| {
        let hosts = lab.wired_pair(("h1", "10.10.10.101"), ("h2", "10.10.10.102"))?;
        let refusal = hosts[0].node_fails(&["--mtu", "9000"])?;
        refused_with(&refusal, "--mtu 9000 is more than the underlay device eth0 takes")?;
        ensure!(hosts[0].pins()?.is_empty(), "nothing is left");
        ensure!(hosts[0].node_fails(&["--mtu", "117"])?.code == Some(2));

        lab.start_cluster_with(&hosts, &["--mtu", "1300"])?;
        create_network(&hosts[0])?;
        let web1 = attach(lab, &hosts[0], "web1", &[])?;
        becomes(&web1, 1250)?;
        is_said(&hosts[0], 1300, "--mtu")?;
        hosts[0].netns.ip(&["link", "set", "eth0", "mtu", "9000"])?;
        hosts[0].netns.ip(&["link", "set", "eth0", "mtu", "1200"])?;
        becomes(&web1, 1150).context("not more than the device takes, whatever was asked for")?;
        is_said(&hosts[0], 1200, "the device's")
    });
}

#[test]
fn a_path_that_is_smaller_than_its_ends_is_found_out() {
    scenario(NODES, |lab| {
        let (web1, web2) = over_a_narrow_router(lab, "1400")?;
        let to = web2.address.to_string();
        // The first packet is lost at the router, which sends an ICMP error. From then on the senders are
        // told.
        let ask = ["ping", "-n", "-c", "5", "-i", "0.2", "-W", "1", "-M", "do", "-s", "1422", &to];
        let told = web1.netns.output(&ask)?;
        let said = told.stdout + &told.stderr;
        ensure!(said.contains("mtu = 1350") || said.contains("mtu=1350"), "{said}");
        ensure!(web1.host.counter("too_big")? >= 1);
        let fits = ["ping", "-c", "2", "-W", "2", "-M", "do", "-s", "1322", &to];
        web1.netns.run(&fits).context("the largest that fits")?;
        ensure!(mtu_of(&web1.netns, "eth0")? == 1450, "one path is no reason to narrow all");
        Ok(())
    });
}

#[test]
fn a_stream_finds_a_smaller_path_from_its_start() {
    scenario(NODES, |lab| {
        let (web1, web2) = over_a_narrow_router(lab, "1400")?;
        // Both directions start with large packets, before any path's MTU is known.
        for (from, to) in [(&web1, &web2), (&web2, &web1)] {
            let address = SocketAddr::new(to.address.into(), 4000);
            transfer::stream(&from.netns, &to.netns, address, 2 << 20)
                .with_context(|| format!("from {}", from.name))?;
        }
        Ok(())
    });
}

/// Builds two hosts with an endpoint each, and between them a router whose links have a smaller MTU than the
/// hosts'.
fn over_a_narrow_router(lab: &mut Lab, mtu: &str) -> Result<(Endpoint, Endpoint)> {
    let left = lab.subnet("10.10.10.1/24")?;
    let right = lab.subnet("192.168.50.1/24")?;
    let hosts = [lab.host(&left, "h1", "10.10.10.101")?, lab.host(&right, "h2", "192.168.50.101")?];
    lab.start_cluster(&hosts)?;
    create_network(&hosts[0])?;
    let webs = (attach(lab, &hosts[0], "web1", &[])?, attach(lab, &hosts[1], "web2", &[])?);
    // Only the router's own links are changed. Their ports are the other ends of the hosts' wires, and must
    // accept everything that hosts send.
    let router = lab.router()?;
    for link in ["lan0", "lan1"] {
        router.ip(&["link", "set", link, "mtu", mtu])?;
    }
    Ok(webs)
}

#[test]
fn super_packets_are_large_where_they_can_be() {
    scenario(CAPTURED, |lab| {
        let hosts = lab.wired_pair(("h1", "10.10.10.101"), ("h2", "10.10.10.102"))?;
        lab.start_cluster_with(&hosts, &["--big-tcp", "on"])?;
        create_network(&hosts[0])?;
        let web1 = attach(lab, &hosts[0], "web1", &[])?;
        let web2 = attach(lab, &hosts[1], "web2", &[])?;
        let said = datapath(&hosts[0])?["super_packets"].clone();
        let ipv4 = said["ipv4"].as_u64().with_context(|| format!("{said}"))?;
        ensure!((ipv4 > 65_536) == said["reason"].is_null(), "{said}");
        let largest = || -> Result<u64> {
            let capture = Capture::start(&hosts[1].netns, "eth0", "udp port 4789")?;
            let address = SocketAddr::new(web2.address.into(), 4000);
            transfer::stream(&web1.netns, &web2.netns, address, 64 << 20)?;
            let packets = capture.stop()?.fields("frame.len > 10000", &["frame.len"])?;
            let lengths = packets.iter().filter_map(|row| row.first()?.parse().ok());
            Ok(lengths.max().unwrap_or(0))
        };
        let before = largest()?;
        // An older kernel may have no larger super-packets for IPv4, and then the node tells why.
        ensure!((before > 65_700) == (ipv4 > 65_536), "{before} bytes on the wire, and {said}");
        for host in &hosts {
            host.stop()?;
            host.start_node(&["--big-tcp", "off"])?;
        }
        eventually("super-packets are as they were", BOUND, || {
            let said = datapath(&hosts[0])?["super_packets"].clone();
            ensure!(said["ipv4"] == 65_536 && text(&said, "reason") == "--big-tcp off", "{said}");
            let now = largest()?;
            ensure!((10_000..65_700).contains(&now), "{now} bytes on the wire");
            Ok(())
        })
    });
}

/// The sizes of a device's super-packets. One that the kernel does not have is null.
fn super_packet_sizes(netns: &Netns, device: &str) -> Result<[Value; 4]> {
    let link = netns.ip_json(&["-d", "link", "show", device])?[0].clone();
    let sizes = ["gso_max_size", "gro_max_size", "gso_ipv4_max_size", "gro_ipv4_max_size"];
    Ok(sizes.map(|size| link[size].clone()))
}

/// A veth, and a device on top of one, passes super-packets on unchanged. The far end of the wire may be a
/// device that must cut them in software, which would slow down the host's own TCP.
#[test]
fn a_node_that_is_not_told_to_leaves_a_device_alone_that_may_not_cut_super_packets() {
    scenario(NODES, |lab| {
        let hosts = lab.wired_pair(("h1", "10.10.10.101"), ("h2", "10.10.10.102"))?;
        let [veth, macvlan] = &hosts;
        let address = "10.10.10.102/24";
        // A macvlan, because not every kernel has VLANs.
        let link = ["link", "add", "mac0", "link", "eth0", "type", "macvlan"];
        macvlan.netns.ip(&link)?;
        macvlan.netns.ip(&["link", "set", "mac0", "up"])?;
        macvlan.netns.ip(&["addr", "del", address, "dev", "eth0"])?;
        macvlan.netns.ip(&["addr", "add", address, "dev", "mac0"])?;
        let sizes = || -> Result<[[Value; 4]; 3]> {
            Ok([
                super_packet_sizes(&veth.netns, "eth0")?,
                super_packet_sizes(&macvlan.netns, "eth0")?,
                super_packet_sizes(&macvlan.netns, "mac0")?,
            ])
        };
        let had = sizes()?;
        veth.start_node(&["--underlay", "eth0"])?;
        macvlan.start_node(&["--underlay", "mac0"])?;
        for host in &hosts {
            let said = datapath(host)?["super_packets"].clone();
            let reason = text(&said, "reason");
            ensure!(said["ipv4"] == 65_536 && said["ipv6"] == 65_536, "{said}");
            let kernel_has_none = reason.contains("the kernel has none");
            ensure!(kernel_has_none || reason.starts_with("eth0 is a veth,"), "{said}");
        }
        create_network(veth)?;
        let web = attach(lab, veth, "web1", &[])?;
        let now = sizes()?;
        ensure!(now == had, "{now:?}, and before {had:?}");
        ensure!(super_packet_sizes(&web.netns, "eth0")? == had[0], "the endpoint's own");
        for host in &hosts {
            ensure!(!host.state_dir().join("underlay.json").exists(), "nothing was changed");
        }
        Ok(())
    });
}

#[test]
fn the_underlay_gets_back_what_it_had() {
    scenario(NODES, |lab| {
        let hosts = lab.wired_pair(("h1", "10.10.10.101"), ("h2", "10.10.10.102"))?;
        let size = |host: &Host| -> Result<u64> {
            let links = host.netns.ip_json(&["link", "show", "eth0"])?;
            links[0]["gso_max_size"].as_u64().with_context(|| format!("{links}"))
        };
        // A size that is not the default of any device.
        hosts[1].netns.ip(&["link", "set", "eth0", "gso_max_size", "60000"])?;
        lab.start_cluster_with(&hosts, &["--big-tcp", "on"])?;
        let ipv6 = datapath(&hosts[1])?["super_packets"]["ipv6"].as_u64().context("a size")?;
        let kept = hosts[1].state_dir().join("underlay.json");
        if ipv6 > 65_536 {
            ensure!(size(&hosts[1])? == ipv6 && kept.exists());
            // After a restart the node takes the size that it finds for one of its own.
            hosts[1].kill9()?;
            hosts[1].restart()?;
            ensure!(size(&hosts[1])? == ipv6);
            eventually("h2 is back among the others", BOUND, || {
                let error = datapath(&hosts[1])?["error"].clone();
                ensure!(error.is_null(), "{error}");
                Ok(())
            })?;
        }
        hosts[0].overlay(&["node", "rm", "h2"])?;
        eventually("h2 is no node any more", BOUND, || {
            ensure!(!hosts[1].is_running()?, "it runs");
            ensure!(size(&hosts[1])? == 60_000, "{}", size(&hosts[1])?);
            ensure!(!Path::new(&kept).exists(), "{}", kept.display());
            Ok(())
        })
    });
}
