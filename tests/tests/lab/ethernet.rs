//! The overlay is one Ethernet across hosts that are connected by a router.

use anyhow::{Context as _, ensure};
use overlay_lab::{Requirement, capture::Capture, page, rows, text};

use crate::support::{NETWORK, NODES, attach, cluster, scenario};

const CAPTURED: &[Requirement] = &[
    Requirement::Root,
    Requirement::Bpffs,
    Requirement::Binary,
    Requirement::Tool("ping"),
    Requirement::Tool("arping"),
    Requirement::Tool("tcpdump"),
    Requirement::Tool("tshark"),
];

#[test]
fn endpoints_get_address_mac_mtu_and_route() {
    scenario(NODES, |lab| {
        let cluster = cluster(lab)?;
        let expected = [
            (&cluster.web1, "172.16.16.129", "02:42:ac:10:10:81"),
            (&cluster.web2, "172.16.16.130", "02:42:ac:10:10:82"),
            (&cluster.web2_2, "172.16.16.131", "02:42:ac:10:10:83"),
        ];
        for (endpoint, address, mac) in expected {
            ensure!(endpoint.address.to_string() == address, "{}", endpoint.address);
            ensure!(endpoint.mac == mac, "{}", endpoint.mac);
            let links = endpoint.netns.ip_json(&["addr", "show", "dev", "eth0"])?;
            let link = &links[0];
            ensure!(link["mtu"] == 1450, "{link}");
            ensure!(link["address"] == mac, "{link}");
            ensure!(link["operstate"] == "UP", "{link}");
            let inet = link["addr_info"].as_array().context("addresses")?;
            let inet = inet.iter().find(|a| a["family"] == "inet").context("an IPv4 address")?;
            ensure!(inet["local"] == address && inet["prefixlen"] == 24, "{inet}");
            let routes = endpoint.netns.ip(&["route"])?;
            ensure!(routes.contains("172.16.16.0/24 dev eth0"), "{routes}");
            let links = endpoint.netns.links()?;
            ensure!(links == ["eth0", "eth1", "lo"], "{links:?}");
        }
        Ok(())
    });
}

#[test]
fn every_endpoint_reaches_every_other_with_no_port_published() {
    scenario(NODES, |lab| {
        let cluster = cluster(lab)?;
        let web1b = attach(lab, &cluster.hosts[0], "web1b", &[])?;
        let web4 = attach(lab, &cluster.hosts[3], "web4", &[])?;
        let all = [&cluster.web1, &cluster.web2, &cluster.web2_2, &web1b, &web4];
        for endpoint in all {
            page::serve_in(&endpoint.netns, &endpoint.name)?;
        }
        for from in all {
            for to in all {
                from.netns.reaches(to.address)?;
                let page = from.netns.curl(&format!("http://{}/", to.address))?;
                ensure!(page.trim() == to.name, "{} asked {}: {page}", from.name, to.name);
            }
        }
        // The hosts themselves are not on the overlay.
        for host in &cluster.hosts {
            let ping = host.netns.ping(cluster.web1.address, 2)?;
            ensure!(ping.received == 0, "{} reaches web1", host.name);
        }
        Ok(())
    });
}

#[test]
fn a_full_packet_and_a_large_one_cross() {
    scenario(NODES, |lab| {
        let cluster = cluster(lab)?;
        let to = cluster.web2.address.to_string();
        // 1422 bytes, 8 of ICMP and 20 of IPv4 are the overlay's MTU, 1450.
        cluster.web1.netns.run(&["ping", "-c", "2", "-W", "2", "-M", "do", "-s", "1422", &to])?;
        let over = ["ping", "-c", "1", "-W", "1", "-M", "do", "-s", "1423", &to];
        ensure!(cluster.web1.netns.run(&over).is_err(), "one byte more than the MTU crossed");
        // A larger packet is fragmented inside the overlay; the outer packets are never fragmented.
        cluster.web1.netns.run(&["ping", "-c", "2", "-W", "2", "-s", "9000", &to])?;
        Ok(())
    });
}

#[test]
fn arp_is_answered_on_the_senders_host_and_never_crosses() {
    scenario(CAPTURED, |lab| {
        let cluster = cluster(lab)?;
        let router = lab.router()?;
        let capture = Capture::start(&router, "any", "udp port 4789 or arp")?;
        for from in [&cluster.web1, &cluster.web2, &cluster.web2_2] {
            for to in [&cluster.web1, &cluster.web2, &cluster.web2_2] {
                from.netns.reaches(to.address)?;
            }
        }
        let web2 = cluster.web2.address.to_string();
        let arping = ["arping", "-c", "2", "-w", "3", "-I", "eth0"];
        let answers = cluster.web1.netns.run(&[&arping[..], &[&web2]].concat())?;
        let mac = cluster.web2.mac.to_uppercase();
        ensure!(answers.to_uppercase().contains(&mac), "{answers}");
        // No endpoint has this address: nobody answers, and the requests are counted.
        let before = cluster.hosts[0].counter("arp_unknown_target")?;
        let nobody = cluster.web1.netns.output(&[&arping[..], &["172.16.16.250"]].concat())?;
        ensure!(!nobody.status.success(), "{}", nobody.stdout);
        ensure!(cluster.hosts[0].counter("arp_unknown_target")? >= before + 2);
        let packets = capture.stop()?;

        let vxlan = packets.fields("vxlan", &["frame.number"])?;
        ensure!(!vxlan.is_empty(), "no VXLAN passed the router");
        let inside = packets.fields("vxlan && arp", &["frame.number"])?;
        ensure!(inside.is_empty(), "ARP inside VXLAN: {inside:?}");
        let outside =
            packets.fields("arp.dst.proto_ipv4 == 172.16.16.0/24", &["arp.dst.proto_ipv4"])?;
        ensure!(outside.is_empty(), "ARP for the overlay on the underlay: {outside:?}");

        for (from, to) in [(&cluster.web1, &cluster.web2), (&cluster.web2, &cluster.web1)] {
            let neighbours = from.netns.ip(&["neigh", "show", &to.address.to_string()])?;
            ensure!(neighbours.contains(&to.mac), "{}: {neighbours}", from.name);
        }
        Ok(())
    });
}

#[test]
fn every_node_answers_for_the_cluster() {
    scenario(NODES, |lab| {
        let cluster = cluster(lab)?;
        for host in &cluster.hosts {
            let networks = host.overlay_json(&["network", "ls"])?;
            let names: Vec<&str> = rows(&networks).iter().map(|row| text(row, "name")).collect();
            ensure!(names == [NETWORK], "{}: {networks}", host.name);
            let network = host.overlay_json(&["network", "inspect", NETWORK])?;
            ensure!(network["subnet"] == "172.16.16.0/24", "{network}");
            ensure!(network["ip_range"] == "172.16.16.128/25", "{network}");
            ensure!(network["endpoints"].as_array().map(Vec::len) == Some(3), "{network}");
            let endpoint = host.overlay_json(&["endpoint", "inspect", "web2"])?;
            ensure!(text(&endpoint, "node") == "h3", "{endpoint}");
            ensure!(text(&endpoint, "state") == "up", "{endpoint}");
            ensure!(text(&endpoint, "vtep") == "192.168.50.101", "{endpoint}");
        }
        let nodes = cluster.hosts[3].overlay_json(&["node", "ls"])?;
        let mut roles: Vec<&str> = rows(&nodes).iter().map(|node| text(node, "role")).collect();
        roles.sort_unstable();
        ensure!(roles == ["agent", "leader", "voter", "voter"], "{nodes}");
        Ok(())
    });
}

#[test]
fn bpftool_prints_the_maps_with_named_fields() {
    scenario(
        &[Requirement::Root, Requirement::Bpffs, Requirement::Binary, Requirement::Tool("bpftool")],
        |lab| {
            let cluster = cluster(lab)?;
            let h1 = &cluster.hosts[0];
            for (map, fields) in [
                ("FDB", &["vni", "mac", "vtep", "ifindex", "flags", "endpoint"][..]),
                ("NEIGH", &["vni", "ip", "mac"]),
                ("PORTS", &["vni", "mac", "ip", "flags"]),
                ("NODES", &["vtep", "node", "hop"]),
                ("HOPS", &["header", "mtu", "ifindex"]),
                ("CONFIG", &["vtep", "underlay_ifindex", "vxlan_port"]),
            ] {
                let dump = h1.map_dump(map)?;
                for field in fields {
                    ensure!(dump.contains(&format!("\"{field}\"")), "{map} has no {field}: {dump}");
                }
            }
            let fdb: serde_json::Value = serde_json::from_str(&h1.map_dump("FDB")?)?;
            ensure!(fdb.as_array().map(Vec::len) == Some(3), "{fdb}");
            Ok(())
        },
    );
}

#[test]
fn a_node_holds_only_networks_that_it_has_endpoints_of() {
    scenario(
        &[Requirement::Root, Requirement::Bpffs, Requirement::Binary, Requirement::Tool("bpftool")],
        |lab| {
            let cluster = cluster(lab)?;
            let h4 = &cluster.hosts[3];
            let fdb: serde_json::Value = serde_json::from_str(&h4.map_dump("FDB")?)?;
            ensure!(fdb.as_array().is_some_and(Vec::is_empty), "h4 has no endpoint, yet: {fdb}");
            let _web4 = attach(lab, h4, "web4", &[])?;
            let fdb: serde_json::Value = serde_json::from_str(&h4.map_dump("FDB")?)?;
            ensure!(fdb.as_array().map(Vec::len) == Some(4), "{fdb}");
            Ok(())
        },
    );
}
