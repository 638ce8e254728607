//! Underlays that are not one network card with one address: a VTEP on the loopback device, answers by another card,
//! devices without Ethernet, and devices that are renamed or made anew.

use std::{fs, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use overlay_lab::{Host, Lab, Requirement, capture::Capture, eventually, load_module, rows, text};

use crate::support::{Endpoint, NODES, answer_probes, attach, create_network, pair, scenario};

/// Longest time until a node has seen a change of the host's devices.
const SEEN: Duration = Duration::from_secs(15);

const TUNNELS: &[Requirement] = &[
    Requirement::Root,
    Requirement::Bpffs,
    Requirement::Binary,
    Requirement::Tool("ping"),
    Requirement::Tool("nft"),
    Requirement::Tool("python3"),
    Requirement::Tool("tcpdump"),
    Requirement::Tool("tshark"),
];

/// Carries the packets of a tun device in UDP, as a VPN in user space does: LOCAL REMOTE.
const VPN: &str = r#"
import fcntl, os, select, socket, struct, sys
tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, 0x400454ca, struct.pack("16sH22x", b"vpn0", 0x1001))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind((sys.argv[1], 51820))
while True:
    for ready in select.select([tun, udp], [], [])[0]:
        try:
            if ready is udp:
                os.write(tun, udp.recv(65535))
            else:
                udp.sendto(os.read(tun, 65535), (sys.argv[2], 51820))
        except OSError:
            pass
"#;

/// Gives two hosts a device vpn0 without Ethernet headers that joins them: 10.9.0.101 and 10.9.0.102.
fn vpn(lab: &mut Lab, hosts: &[Arc<Host>; 2]) -> Result<()> {
    let script = lab.folder().join("vpn.py");
    fs::write(&script, VPN)?;
    // With it comes /dev/net/tun.
    load_module("tun")?;
    let script = script.display().to_string();
    for (host, other) in [(&hosts[0], &hosts[1]), (&hosts[1], &hosts[0])] {
        let [local, remote] = [host, other].map(|host| host.address.to_string());
        lab.adopt(host.netns.start(&["python3", &script, &local, &remote])?);
        eventually("the tunnel stands", SEEN, || host.netns.ip(&["link", "show", "vpn0"]))?;
        let last = host.address.octets()[3];
        host.netns.ip(&["addr", "add", &format!("10.9.0.{last}/24"), "dev", "vpn0"])?;
        host.netns.ip(&["link", "set", "vpn0", "mtu", "1400", "up"])?;
    }
    Ok(())
}

/// Two nodes with an endpoint each, by these arguments; the second joins at `first`.
fn nodes(
    lab: &mut Lab,
    hosts: &[Arc<Host>; 2],
    [one, two]: [&[&str]; 2],
    first: &str,
) -> Result<[Endpoint; 2]> {
    hosts[0].start_node(one)?;
    hosts[1].start_node(&[two, &["--join", first]].concat())?;
    create_network(&hosts[0])?;
    Ok([attach(lab, &hosts[0], "web1", &[])?, attach(lab, &hosts[1], "web2", &[])?])
}

fn reach_each_other([web1, web2]: &[Endpoint; 2]) -> Result<()> {
    web1.netns.reaches(web2.address).context("there")?;
    web2.netns.reaches(web1.address).context("back")
}

/// The devices on which a program runs, as the node shows them.
fn devices(host: &Host, program: &str) -> Result<Vec<String>> {
    let status = host.overlay_json(&["status"])?;
    let programs = rows(&status["datapath"]["programs"]);
    let found = programs.iter().find(|row| text(row, "name") == program);
    let devices = found.map(|row| row["devices"].as_array().cloned().unwrap_or_default());
    let names = devices.unwrap_or_default();
    Ok(names.iter().filter_map(|name| name.as_str()).map(str::to_owned).collect())
}

#[test]
fn a_vtep_on_the_loopback_device_is_reached() {
    scenario(NODES, |lab| {
        let hosts = lab.wired_pair(("h1", "10.10.10.101"), ("h2", "10.10.10.102"))?;
        let [h1, h2] = &hosts;
        h2.netns.ip(&["addr", "add", "10.77.0.2/32", "dev", "lo"])?;
        h1.netns.ip(&["route", "add", "10.77.0.2/32", "via", "10.10.10.102"])?;
        let on_lo = ["--underlay", "10.77.0.2", "--listen", "10.77.0.2:7400"];
        let endpoints = nodes(lab, &hosts, [&[], &on_lo], &h1.listen())?;
        reach_each_other(&endpoints)?;
        let devices = [devices(h2, "from_underlay")?, devices(h2, "from_veth")?].concat();
        ensure!(["eth0", "lo"].iter().all(|name| devices.iter().any(|d| d == name)), "{devices:?}");
        answer_probes(&hosts)
    });
}

#[test]
fn vxlan_comes_by_one_card_and_goes_by_another() {
    scenario(NODES, |lab| {
        let (hosts, endpoints) = pair(lab)?;
        let [h1, h2] = &hosts;
        reach_each_other(&endpoints)?;
        let peer = h2.netns.name();
        h1.netns
            .ip(&["link", "add", "eth1", "type", "veth", "peer", "name", "eth1", "netns", peer])?;
        for (host, address) in [(h1, "10.10.11.101/24"), (h2, "10.10.11.102/24")] {
            host.netns.sysctl("net.ipv4.conf.all.rp_filter", "0")?;
            host.netns.sysctl("net.ipv4.conf.eth1.rp_filter", "0")?;
            host.netns.ip(&["addr", "add", address, "dev", "eth1"])?;
            host.netns.ip(&["link", "set", "eth1", "up"])?;
        }
        h1.netns.ip(&["route", "add", "10.10.10.102/32", "via", "10.10.11.102"])?;
        eventually("what comes by eth1 is received", SEEN, || reach_each_other(&endpoints))?;
        answer_probes(&hosts)?;
        // Where the host takes by a card only what it answers by it, so do we.
        h2.netns.sysctl("net.ipv4.conf.eth1.rp_filter", "1")?;
        h2.netns.ip(&["link", "set", "eth1", "txqueuelen", "999"])?;
        eventually("eth1 is no uplink any more", SEEN, || {
            let devices = devices(h2, "from_veth")?;
            ensure!(devices == ["eth0"], "{devices:?}");
            Ok(())
        })
    });
}

#[test]
fn a_tunnel_without_ethernet_is_an_underlay() {
    scenario(TUNNELS, |lab| {
        let hosts = lab.wired_pair(("h1", "10.10.10.101"), ("h2", "10.10.10.102"))?;
        vpn(lab, &hosts)?;
        let by_vpn = |last: u8| {
            let address = format!("10.9.0.{last}");
            ["--underlay".to_owned(), address.clone(), "--listen".to_owned(), address + ":7400"]
        };
        let [one, two] = [by_vpn(101), by_vpn(102)];
        let [one, two] =
            [&one, &two].map(|args| args.iter().map(String::as_str).collect::<Vec<_>>());
        let endpoints = nodes(lab, &hosts, [&one, &two], "10.9.0.101:7400")?;
        reach_each_other(&endpoints)?;
        for host in &hosts {
            let devices = devices(host, "from_bare_link")?;
            ensure!(devices == ["vpn0"], "{}: {devices:?}", host.name);
            let status = host.overlay_json(&["status"])?;
            let unresolved = &status["datapath"]["unresolved_next_hops"];
            ensure!(
                unresolved.as_array().is_none_or(Vec::is_empty),
                "none to resolve: {unresolved}"
            );
        }
        answer_probes(&hosts)
    });
}

#[test]
fn no_packet_leaves_by_another_device_than_the_routes() {
    scenario(TUNNELS, |lab| {
        let (hosts, endpoints) = pair(lab)?;
        let [h1, h2] = &hosts;
        reach_each_other(&endpoints)?;
        vpn(lab, &hosts)?;
        for host in &hosts {
            host.netns.sysctl("net.ipv4.conf.all.rp_filter", "0")?;
            for device in ["eth0", "vpn0"] {
                host.netns.sysctl(&format!("net.ipv4.conf.{device}.rp_filter"), "0")?;
            }
        }
        // A VPN comes up, with a route to the other's VTEP; its own packets go by eth0.
        for (host, to) in [(h1, "10.10.10.102/32"), (h2, "10.10.10.101/32")] {
            host.netns.ip(&[
                "rule", "add", "pref", "10", "ipproto", "udp", "dport", "51820", "lookup", "main",
            ])?;
            host.netns.ip(&["route", "add", to, "dev", "vpn0", "table", "51820"])?;
            host.netns.ip(&["rule", "add", "pref", "20", "to", to, "lookup", "51820"])?;
        }
        for host in &hosts {
            // The MTU is shown when the whole pass is done. The programs are shown before.
            eventually("the way is known", SEEN, || {
                let status = host.overlay_json(&["status"])?;
                let mtu = status["datapath"]["underlay_mtu"].as_u64();
                ensure!(mtu == Some(1400), "{}: {mtu:?}", host.name);
                Ok(())
            })?;
        }
        let devices = devices(h1, "from_bare_link")?;
        ensure!(devices == ["vpn0"], "{devices:?}");
        let clear = Capture::start(&h1.netns, "eth0", "udp port 4789")?;
        eventually("endpoints reach each other by the VPN", SEEN, || reach_each_other(&endpoints))?;
        let lost = clear.stop()?.count("udp port 4789")?;
        ensure!(lost == 0, "{lost} packets left by eth0, unencrypted");
        Ok(())
    });
}

#[test]
fn the_vteps_address_is_followed_to_another_device() {
    scenario(NODES, |lab| {
        let (hosts, endpoints) = pair(lab)?;
        let [h1, h2] = &hosts;
        reach_each_other(&endpoints)?;
        h1.netns.ip(&["link", "set", "eth0", "down"])?;
        h1.netns.ip(&["link", "set", "eth0", "name", "lan0"])?;
        h1.netns.ip(&["link", "set", "lan0", "up"])?;
        let is_on = |device: &str| {
            eventually(&format!("{device} carries the VTEP's address"), SEEN, || {
                let status = h1.overlay_json(&["status"])?;
                let shown = text(&status["datapath"], "underlay");
                ensure!(shown == device, "{shown}");
                reach_each_other(&endpoints)
            })
        };
        is_on("lan0").context("renamed")?;
        // The device is made anew, and has another index.
        h1.netns.ip(&["link", "del", "lan0"])?;
        let peer = h2.netns.name();
        h1.netns
            .ip(&["link", "add", "wan0", "type", "veth", "peer", "name", "eth0", "netns", peer])?;
        for (host, device) in [(h1, "wan0"), (h2, "eth0")] {
            let address = format!("{}/24", host.address);
            host.netns.ip(&["addr", "add", &address, "dev", device])?;
            host.netns.ip(&["link", "set", device, "up"])?;
        }
        is_on("wan0").context("made anew")
    });
}

#[test]
fn nothing_is_sent_past_an_ipsec_policy() {
    scenario(TUNNELS, |lab| {
        let (hosts, endpoints) = pair(lab)?;
        let [h1, h2] = &hosts;
        reach_each_other(&endpoints)?;
        let [from, to] = [h1, h2].map(|host| host.address.to_string());
        let about = ["src", &from, "dst", &to, "proto", "udp", "dport", "4789", "dir", "out"];
        let ipsec = ["tmpl", "src", &from, "dst", &to, "proto", "esp", "mode", "transport"];
        h1.netns.ip(&[&["xfrm", "policy", "add"][..], &about, &ipsec].concat())?;
        let named = |is_named: bool| {
            eventually("the status names the policy, or none", SEEN, || {
                let status = h1.overlay_json(&["status"])?.to_string();
                ensure!(status.contains("IPsec policy") == is_named, "{status}");
                Ok(())
            })
        };
        named(true)?;
        let clear = Capture::start(&h1.netns, "eth0", &format!("dst {to} and udp port 4789"))?;
        let [web1, web2] = &endpoints;
        let ping = web1.netns.ping(web2.address.to_string(), 3)?;
        ensure!(ping.received == 0, "{} of {} answered", ping.received, ping.sent);
        ensure!(clear.stop()?.count("udp")? == 0, "VXLAN left in clear text");
        h1.netns.ip(&[&["xfrm", "policy", "delete"][..], &about].concat())?;
        named(false)?;
        reach_each_other(&endpoints)
    });
}
