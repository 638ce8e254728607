//! What runs inside endpoints: tunnels of their own, address translation, routers. Each byte arrives, at the rate of other
//! streams.

mod kinds;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context as _, Result, ensure};
use overlay_lab::{
    Host, Lab, Netns, Requirement, attainable, eventually, load_module, may_lack, sctp, transfer,
    tried_enough,
};

use kinds::{KINDS, Kind, VXLAN};

use crate::support::{Endpoint, attach, create_network, pair, scenario};

const NEEDS: &[Requirement] = &[
    Requirement::Root,
    Requirement::Bpffs,
    Requirement::Binary,
    Requirement::Tool("ethtool"),
    Requirement::Tool("ping"),
    Requirement::Tool("nft"),
];
/// The offloads that are off on an endpoint's interface.
const UNCARRIED: [&str; 9] = [
    "tx-udp-segmentation",
    "tx-udp_tnl-segmentation",
    "tx-udp_tnl-csum-segmentation",
    "tx-gre-segmentation",
    "tx-gre-csum-segmentation",
    "tx-ipxip4-segmentation",
    "tx-ipxip6-segmentation",
    "tx-sctp-segmentation",
    "tx-gso-list",
];
/// The offloads by which the underlay carries super-packets whole.
const WHOLE: [&str; 2] = ["tso", "gso"];

/// Bytes of a stream; fewer on a slow machine.
fn stream_len() -> usize {
    attainable(f64::from(4 << 20)) as usize
}

fn at(ip: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(ip.into(), port)
}

/// Runs `body` with an underlay that carries super-packets whole, and then with one that has them cut, as most network
/// cards do, and merges what comes in.
fn on_each_wire(hosts: &[&Host], mut body: impl FnMut(&str) -> Result<()>) -> Result<()> {
    body("a wire that carries them whole").context("a wire that carries them whole")?;
    for host in hosts {
        for offload in WHOLE {
            ensure!(host.netns.switch_offload("eth0", offload, false)?, "{offload} is fixed");
        }
        ensure!(host.netns.switch_offload("eth0", "gro", true)?, "gro is fixed");
    }
    body("a wire that cuts").context("a wire that cuts")
}

/// Sends a stream by the tunnel from one end to the other. What is dropped on the way would be sent again, which TCP
/// survives at a small part of the rate: so nearly nothing may be.
fn stream_by_tunnel(kind: &Kind, from: &Endpoint, to: &Endpoint, end: usize) -> Result<()> {
    let (sent_before, again_before) = transfer::tcp_segments(&from.netns)?;
    transfer::stream(&from.netns, &to.netns, at(kind.ip(end)?, 4000), stream_len())?;
    let (sent, again) = transfer::tcp_segments(&from.netns)?;
    let (sent, again) = (sent - sent_before, again - again_before);
    ensure!(again <= sent / 20 + 2, "{again} of {sent} segments were sent again");
    Ok(())
}

fn none_is_uncut(hosts: &[Arc<Host>]) -> Result<()> {
    for host in hosts {
        for reason in ["uncut_super_packet", "encap_failed", "unfinished_checksum"] {
            let count = host.counter(reason)?;
            ensure!(count == 0, "{}: {count} packets dropped as {reason}", host.name);
        }
    }
    Ok(())
}

#[test]
fn a_tunnel_inside_an_endpoint_carries_streams() {
    scenario(NEEDS, |lab| {
        let (hosts, [web1, web2]) = pair(lab)?;
        let [h1, h2] = &hosts;
        for offload in UNCARRIED {
            ensure!(!web1.netns.is_offload_on("eth0", offload)?, "{offload} is on");
        }
        let mut carried = Vec::new();
        for kind in &KINDS {
            if !kind.add([&web1, &web2])? {
                continue;
            }
            on_each_wire(&[h1, h2], |_| {
                web1.netns.reaches(kind.ip(1)?)?;
                stream_by_tunnel(kind, &web1, &web2, 1).context("there")?;
                stream_by_tunnel(kind, &web2, &web1, 0).context("back")
            })
            .with_context(|| kind.name)?;
            kind.remove([&web1, &web2])?;
            for host in &hosts {
                for offload in WHOLE {
                    host.netns.switch_offload("eth0", offload, true)?;
                }
            }
            none_is_uncut(&hosts).context(kind.name)?;
            carried.push(kind.name);
        }
        tried_enough(&carried, &KINDS.each_ref().map(|kind| kind.name), &[VXLAN.name])
    });
}

#[test]
fn sctp_carries_bulk() {
    scenario(NEEDS, |lab| {
        let (hosts, [web1, web2]) = pair(lab)?;
        if !sctp::is_there(&web1.netns)? {
            return may_lack("SCTP");
        }
        on_each_wire(&[&hosts[0], &hosts[1]], |_| {
            for (from, to) in [(&web1, &web2), (&web2, &web1)] {
                sctp::stream(&from.netns, &to.netns, at(to.address, 4000), stream_len())?;
            }
            Ok(())
        })?;
        none_is_uncut(&hosts)
    });
}

/// Who switches the offloads on again loses super-packets of the tunnel, by name, and nothing else.
#[test]
fn an_endpoint_that_does_not_cut_loses_its_own_packets_alone() {
    scenario(NEEDS, |lab| {
        let ([h1, _], [web1, web2]) = pair(lab)?;
        ensure!(VXLAN.add([&web1, &web2])?, "the kernel has VXLAN");
        for offload in ["tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation"] {
            ensure!(web1.netns.switch_offload("eth0", offload, true)?, "{offload} is fixed");
        }
        std::thread::scope(|scope| -> Result<()> {
            // It gets through in the end, segment by segment, or not in time: both are the endpoint's own doing.
            let stuck = scope.spawn(|| {
                transfer::stream(&web1.netns, &web2.netns, at([10, 77, 0, 2], 4000), 1 << 20)
            });
            eventually("its packets are counted", std::time::Duration::from_secs(10), || {
                ensure!(h1.counter("uncut_super_packet")? > 0);
                Ok(())
            })?;
            transfer::stream(&web1.netns, &web2.netns, at(web2.address, 4001), stream_len())
                .context("beside the tunnel")?;
            for offload in ["tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation"] {
                web1.netns.switch_offload("eth0", offload, false)?;
            }
            drop(stuck.join());
            Ok(())
        })?;
        ensure!(h1.counter("encap_failed")? == 0);
        transfer::stream(&web1.netns, &web2.netns, at([10, 77, 0, 2], 4002), stream_len())
            .context("cut again")
    });
}

/// Three endpoints: two on one host, and between them one on the other host.
fn around_a_middle(lab: &mut Lab, flags: &[&str]) -> Result<([Arc<Host>; 2], [Endpoint; 3])> {
    let (hosts, [first, _]) = pair(lab)?;
    let middle = attach(lab, &hosts[1], "middle", flags)?;
    let last = attach(lab, &hosts[0], "last", &[])?;
    Ok((hosts, [first, middle, last]))
}

/// A load balancer: it has its own address towards both sides, so that it is no router for the overlay.
#[test]
fn a_plain_endpoint_translates_addresses_both_ways() {
    scenario(NEEDS, |lab| {
        let ([h1, h2], [first, middle, last]) = around_a_middle(lab, &[])?;
        middle.netns.sysctl("net.ipv4.ip_forward", "1")?;
        let rules = format!(
            "table ip nat {{
                chain in {{
                    type nat hook prerouting priority -100;
                    tcp dport 5000 dnat to {}:5001
                }}
                chain out {{
                    type nat hook postrouting priority 100;
                    oifname eth0 masquerade
                }}
            }}",
            last.address
        );
        middle.netns.run(&["nft", &rules])?;
        on_each_wire(&[&h1, &h2], |_| {
            let (asked, address) = (at(middle.address, 5000), at(last.address, 5001));
            transfer::stream_by(&first.netns, asked, &last.netns, address, stream_len())
        })?;
        for host in [&h1, &h2] {
            ensure!(host.counter("uncut_super_packet")? + host.counter("encap_failed")? == 0);
        }
        Ok(())
    });
}

/// Gives an endpoint an address of IPv6, and its neighbours, which the overlay's directory does not have.
fn give_ipv6(own: &Endpoint, addresses: &[&str], neighbours: &[(&str, &Endpoint)]) -> Result<()> {
    for address in addresses {
        own.netns.ip(&["addr", "add", address, "dev", "eth0", "nodad"])?;
    }
    for (address, neighbour) in neighbours {
        own.netns.ip(&["neigh", "add", address, "lladdr", &neighbour.mac, "dev", "eth0"])?;
    }
    Ok(())
}

#[test]
fn an_endpoint_routes_ipv6_as_it_routes_ipv4() {
    scenario(NEEDS, |lab| {
        let ([h1, h2], [first, middle, last]) = around_a_middle(lab, &["--forwards"])?;
        middle.netns.sysctl("net.ipv6.conf.all.forwarding", "1")?;
        give_ipv6(&first, &["fd01::2/64"], &[("fd01::1", &middle)])?;
        give_ipv6(&last, &["fd02::2/64"], &[("fd02::1", &middle)])?;
        let ends = [("fd01::2", &first), ("fd02::2", &last)];
        give_ipv6(&middle, &["fd01::1/64", "fd02::1/64"], &ends)?;
        first.netns.ip(&["route", "add", "fd02::/64", "via", "fd01::1"])?;
        last.netns.ip(&["route", "add", "fd01::/64", "via", "fd02::1"])?;
        on_each_wire(&[&h1, &h2], |_| {
            first.netns.reaches("fd02::2")?;
            // Before 6.3 the kernel cannot be told of headers of IPv4 in front of a super-packet of IPv6.
            if !kernel_knows("BPF_F_ADJ_ROOM_DECAP_L3_IPV4")? {
                return Ok(());
            }
            let to: IpAddr = "fd02::2".parse()?;
            transfer::stream(&first.netns, &last.netns, at(to, 4000), stream_len())
        })?;
        for host in [&h1, &h2] {
            ensure!(host.counter("uncut_super_packet")? + host.counter("encap_failed")? == 0);
        }
        Ok(())
    });
}

/// Offloads that others recommend for a host's own forwarding merge datagrams inside VXLAN. They are off while the node
/// is there, and on again when it is removed.
#[test]
fn datagrams_arrive_where_the_underlay_was_told_to_merge_them() {
    scenario(NEEDS, |lab| {
        let (hosts, [web1, web2]) = pair(lab)?;
        let [h1, h2] = &hosts;
        for offload in WHOLE {
            ensure!(h1.netns.switch_offload("eth0", offload, false)?, "{offload} is fixed");
        }
        ensure!(h2.netns.switch_offload("eth0", "gro", true)?, "gro is fixed");
        for (port, offload) in [(5000, "rx-udp-gro-forwarding"), (5001, "rx-gro-list")] {
            h2.netns.run(&["ethtool", "-K", "eth0", offload, "on"])?;
            is_off(&h2.netns, offload)?;
            for _ in 0..5 {
                transfer::datagrams(&web1.netns, &web2.netns, at(web2.address, port), (1400, 40))
                    .context(offload)?;
            }
        }
        h1.overlay(&["endpoint", "rm", "web2"])?;
        h1.overlay(&["node", "rm", "h2"])?;
        eventually("the host is as it was", std::time::Duration::from_secs(20), || {
            for offload in ["rx-udp-gro-forwarding", "rx-gro-list"] {
                ensure!(h2.netns.is_offload_on("eth0", offload)?, "{offload} is off");
            }
            Ok(())
        })
    });
}

/// Behind a bridge whose packets the host's firewall sees, a packet comes with the firewall's mark, and with its entry of
/// connection tracking. An endpoint's own rules see neither.
#[test]
fn what_the_host_s_firewall_notes_of_a_packet_stays_with_the_host() {
    scenario(NEEDS, |lab| {
        let hosts = lab.wired_pair(("h1", "10.10.10.101"), ("h2", "10.10.10.102"))?;
        let host = &hosts[1].netns;
        host.ip(&["link", "add", "br0", "type", "bridge"])?;
        host.ip(&["addr", "flush", "dev", "eth0"])?;
        host.ip(&["link", "set", "eth0", "master", "br0"])?;
        host.ip(&["addr", "add", "10.10.10.102/24", "dev", "br0"])?;
        host.ip(&["link", "set", "br0", "up"])?;
        load_module("br_netfilter")?;
        if host.sysctl("net.bridge.bridge-nf-call-iptables", "1").is_err() {
            return may_lack("br_netfilter");
        }
        host.run(&[
            "nft",
            "table ip h {
                chain p {
                    type filter hook prerouting priority -150;
                    udp dport 4789 meta mark set 0x77 counter comment \"seen\"
                    ct state new counter
                }
            }",
        ])?;
        lab.start_cluster(&hosts)?;
        create_network(&hosts[0])?;
        let web1 = attach(lab, &hosts[0], "web1", &[])?;
        let web2 = attach(lab, &hosts[1], "web2", &[])?;
        web2.netns.run(&[
            "nft",
            "table ip e {
                chain p {
                    type filter hook prerouting priority 0;
                    icmp type echo-request counter comment \"all\"
                    icmp type echo-request meta mark 0x77 counter comment \"mark\"
                    icmp type echo-request ct original proto-dst 4789 counter comment \"outer\"
                    icmp type echo-request ct state new counter comment \"new\"
                }
            }",
        ])?;
        // Each from another identifier, so that each is new.
        for _ in 0..3 {
            web1.netns.reaches(web2.address)?;
        }
        ensure!(counted(host, "h", "seen")? >= 9, "the host's firewall does not see VXLAN");
        let inside = |what| counted(&web2.netns, "e", what);
        ensure!(inside("all")? == 9, "{} of 9", inside("all")?);
        ensure!(inside("mark")? == 0, "{} with the host's mark", inside("mark")?);
        ensure!(inside("outer")? == 0, "{} of the outer connection", inside("outer")?);
        ensure!(inside("new")? >= 3, "{} are new", inside("new")?);
        Ok(())
    });
}

/// The packets that a rule has counted, by its comment.
fn counted(netns: &Netns, table: &str, comment: &str) -> Result<u64> {
    let shown = netns.run(&["nft", "list", "table", "ip", table])?;
    let line = shown.lines().find(|line| line.ends_with(&format!("comment \"{comment}\"")));
    let line = line.with_context(|| format!("no rule {comment} in {shown}"))?;
    let packets = line.split_once("packets ").and_then(|(_, rest)| rest.split(' ').next());
    Ok(packets.context("no counter")?.parse()?)
}

/// Whether this kernel has a flag, by the name in its types.
fn kernel_knows(flag: &str) -> Result<bool> {
    let types = std::fs::read("/sys/kernel/btf/vmlinux").context("the kernel's types")?;
    let name = [flag.as_bytes(), &[0]].concat();
    Ok(types.windows(name.len()).any(|bytes| bytes == name))
}

fn is_off(netns: &Netns, offload: &str) -> Result<()> {
    eventually("the node switches it off", std::time::Duration::from_secs(20), || {
        ensure!(!netns.is_offload_on("eth0", offload)?, "{offload} is on");
        Ok(())
    })
}
