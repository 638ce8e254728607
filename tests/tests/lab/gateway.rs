//! The gateway bridge and its legs, which lead out of the host and nowhere else.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use overlay_lab::{Host, MachineState, Netns, eventually, mirror, rows, text};

use crate::support::{
    Endpoint, NETWORK, NODES, OUTSIDE, World, attach, attach_to, bridge_address, create_network,
    leg, mac_of, refused_with, scenario,
};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 1);

#[test]
fn every_endpoint_has_a_leg_that_leads_outside() {
    scenario(OUTSIDE, |lab| {
        let (world, _) = World::bare(lab)?;
        let [h1, h2] = &world.hosts;
        // An MTU other than 1500, because the legs follow the underlay device's MTU.
        h2.netns.ip(&["link", "set", "eth0", "mtu", "1400"])?;
        let forwarded = MachineState::of(h1)?.forwarding();
        world.start(lab)?;
        let web1 = attach(lab, h1, "web1", &[])?;
        let web2 = attach(lab, h2, "web2", &[])?;
        for (endpoint, mtu) in [(&web1, 1500), (&web2, 1400)] {
            leg_is_as_it_must_be(endpoint, mtu)?;
            inspect_shows_both_legs(endpoint)?;
            only_the_gateway_address_answers_the_host(endpoint)?;
            let (netns, outside) = (&endpoint.netns, world.outside.address);
            netns.reaches(outside)?;
            let seen = [netns.seen_over_tcp(outside, 80)?, netns.seen_over_udp(outside, 7)?];
            ensure!(seen == [endpoint.host.address; 2], "{} is seen as {seen:?}", endpoint.name);
        }
        network_inspect_shows_endpoints_and_peers(h2)?;
        // The node switches on forwarding for single devices, never for the host as a whole.
        let mut forwarding = MachineState::of(h1)?.forwarding();
        ensure!(!forwarding.iter().any(|device| device == "all"), "{forwarding:?}");
        ensure!(!forwarding.iter().any(|device| device == "default"), "{forwarding:?}");
        forwarding.retain(|device| !forwarded.contains(device));
        ensure!(forwarding == ["eth0", "ov_gwbridge"], "{forwarding:?}");
        Ok(())
    });
}

fn leg_is_as_it_must_be(endpoint: &Endpoint, mtu: u64) -> Result<()> {
    let (netns, host) = (&endpoint.netns, &endpoint.host);
    ensure!(bridge_address(host)? == "172.18.0.1/16", "{}", bridge_address(host)?);
    ensure!(netns.links()? == ["eth0", "eth1", "lo"], "{:?}", netns.links()?);
    let leg = leg(netns)?;
    ensure!(leg.address.octets()[..2] == [172, 18] && leg.prefix_len == 16, "{}", leg.address);
    ensure!(leg.address != GATEWAY, "{}", leg.address);
    ensure!(leg.mac == mac_of(leg.address), "{} has {}", leg.address, leg.mac);
    ensure!(leg.mtu == mtu, "{}", leg.mtu);
    let routes = netns.ip(&["route"])?;
    ensure!(routes.contains("default via 172.18.0.1 dev eth1"), "{routes}");
    ensure!(routes.contains("172.18.0.0/16 dev eth1"), "{routes}");
    let links = host.netns.ip_json(&["link", "show", "master", "ov_gwbridge"])?;
    let mut links = links.as_array().into_iter().flatten();
    let outside = links.find(|link| link["ifindex"] == leg.peer).context("the host's side")?;
    ensure!(text(outside, "ifname").starts_with("ovgw"), "{outside}");
    let node = host.overlay_json(&["node", "inspect", &host.name])?;
    ensure!(node.to_string().contains("172.18.0.0/16"), "{node}");
    Ok(())
}

/// Checks that `endpoint inspect` names both legs, and their peers on the host, as `ip` prints them inside:
/// `eth0@if17`.
fn inspect_shows_both_legs(endpoint: &Endpoint) -> Result<()> {
    let shown = endpoint.host.overlay(&["endpoint", "inspect", &endpoint.name])?;
    for device in ["eth0", "eth1"] {
        let links = endpoint.netns.ip_json(&["link", "show", "dev", device])?;
        let index = links[0]["link_index"].as_u64().context("a peer")?;
        let at_host = endpoint.host.netns.ip_json(&["link", "show"])?;
        let name = at_host.as_array().into_iter().flatten().find(|l| l["ifindex"] == index);
        let name = text(name.context("the host side")?, "ifname").to_owned();
        for words in [format!("{device}@if{index}"), name] {
            ensure!(shown.contains(&words), "no {words}: {shown}");
        }
    }
    ensure!(shown.contains(&leg(&endpoint.netns)?.address.to_string()), "{shown}");
    Ok(())
}

/// Checks that the host reaches an endpoint by its gateway address alone, even with a route by which the host
/// would find the overlay address.
fn only_the_gateway_address_answers_the_host(endpoint: &Endpoint) -> Result<()> {
    let (host, leg) = (&endpoint.host, leg(&endpoint.netns)?);
    let overlay = endpoint.address.to_string();
    let no_answer = || -> Result<()> {
        let ping = host.netns.ping(&overlay, 2)?;
        ensure!(ping.received == 0, "{} reaches {overlay}", host.name);
        Ok(())
    };
    host.netns.reaches(leg.address)?;
    let route = host.netns.ip(&["route", "get", &overlay])?;
    ensure!(route.contains("dev eth0"), "{route}");
    no_answer()?;
    let direct = ["dev", "ov_gwbridge"];
    let via = leg.address.to_string();
    for way in [&direct[..], &["via", &via]] {
        host.netns.ip(&[&["route", "add", &overlay], way].concat())?;
        no_answer().with_context(|| format!("{way:?}"))?;
        host.netns.ip(&["route", "del", &overlay])?;
    }
    Ok(())
}

fn network_inspect_shows_endpoints_and_peers(host: &Host) -> Result<()> {
    let network = host.overlay_json(&["network", "inspect", NETWORK])?;
    let endpoints = network["endpoints"].as_array().context("endpoints")?;
    let names: Vec<&str> = endpoints.iter().map(|endpoint| text(endpoint, "name")).collect();
    ensure!(names == ["web1", "web2"], "{network}");
    let peers = network["peers"].as_array().context("peers")?;
    let nodes: Vec<&str> = peers.iter().map(|peer| text(peer, "node")).collect();
    ensure!(nodes == ["h1", "h2"], "{network}");
    Ok(())
}

#[test]
fn a_subnet_that_collides_is_passed_over_or_refused() {
    scenario(NODES, |lab| {
        let hosts = lab.wired_pair(("h1", "10.10.10.101"), ("h2", "10.10.10.102"))?;
        let [h1, h2] = &hosts;
        h1.netns.ip(&["link", "add", "d0", "type", "bridge"])?;
        h1.netns.ip(&["addr", "add", "172.18.7.1/24", "dev", "d0"])?;
        h1.netns.ip(&["link", "set", "d0", "up"])?;
        h1.netns.ip(&["route", "add", "172.19.64.0/20", "dev", "d0"])?;

        let before = MachineState::of(h1)?;
        for taken in ["172.18.0.0/16", "172.19.64.0/24", "10.10.10.0/24"] {
            let refused = h1.node_fails(&["--gateway-subnet", taken])?;
            refused_with(&refused, "collides")?;
            refused_with(&refused, taken)?;
            MachineState::of(h1)?.same_as(&before)?;
        }
        h1.start_node(&[])?;
        ensure!(bridge_address(h1)? == "172.20.0.1/16", "{}", bridge_address(h1)?);
        let log = h1.log();
        let said = log.lines().any(|l| l.contains("172.20.0.0/16") && l.contains("172.18.0.0/16"));
        ensure!(said, "not said: {log}");

        h2.netns.ip(&["route", "add", "172.16.0.0/12", "dev", "eth0"])?;
        let before = MachineState::of(h2)?;
        let join = ["--join", &h1.listen()];
        refused_with(&h2.node_fails(&join)?, "--gateway-subnet")?;
        MachineState::of(h2)?.same_as(&before)?;
        h2.start_node(&[&join[..], &["--gateway-subnet", "192.168.77.0/24"]].concat())?;
        ensure!(bridge_address(h2)? == "192.168.77.1/24", "{}", bridge_address(h2)?);
        // The nodes' gateway subnets differ, and the overlay works all the same.
        create_network(h1)?;
        let web1 = attach(lab, h1, "web1", &[])?;
        let web2 = attach(lab, h2, "web2", &[])?;
        web1.netns.reaches(web2.address)?;
        h1.netns.reaches(leg(&web1.netns)?.address)?;
        h2.netns.reaches(leg(&web2.netns)?.address)
    });
}

#[test]
fn one_leg_for_several_networks_and_none_for_internal_ones() {
    scenario(OUTSIDE, |lab| {
        let world = World::build(lab)?;
        let [h1, h2] = &world.hosts;
        h1.overlay(&["network", "create", "other", "--subnet", "10.1.0.0/24"])?;
        h1.overlay(&["network", "create", "inner", "--subnet", "10.2.0.0/24", "--internal"])?;

        let inner = lab.container("inner")?;
        let alone = attach_to("inner", h1, "alone", inner.clone(), &[])?;
        let far = attach_to("inner", h2, "far", lab.container("far")?, &[])?;
        ensure!(inner.links()? == ["eth0", "lo"], "{:?}", inner.links()?);
        no_default_route(&inner)?;
        inner.reaches(far.address)?;
        no_leg_shown(h2, "alone")?;

        let multi = lab.container("multi")?;
        let first = attach_to(NETWORK, h1, "first", multi.clone(), &[])?;
        let alone_leg = leg(&multi)?.address;
        let second = attach_to("other", h1, "second", multi.clone(), &[])?;
        let third = attach_to("inner", h1, "third", multi.clone(), &[])?;
        let links = multi.links()?;
        ensure!(links == ["eth0", "eth1", "eth2", "eth3", "lo"], "{links:?}");
        ensure!(leg(&multi)?.address == alone_leg, "{}", leg(&multi)?.address);
        let addresses = multi.ip(&["-brief", "-4", "addr"])?;
        for (device, endpoint) in [("eth0", &first), ("eth2", &second), ("eth3", &third)] {
            let line = addresses.lines().find(|line| line.starts_with(device)).context("a line")?;
            ensure!(line.contains(&format!("{}/24", endpoint.address)), "{addresses}");
        }
        for (network, name) in [(NETWORK, "on-first"), ("other", "on-second")] {
            let peer = attach_to(network, h2, name, lab.container(name)?, &[])?;
            multi.reaches(peer.address)?;
        }
        multi.reaches(far.address)?;
        multi.reaches(world.outside.address)?;

        // The leg stays as long as one network of the namespace needs it.
        h1.overlay(&["endpoint", "rm", "first"])?;
        ensure!(multi.links()? == ["eth1", "eth2", "eth3", "lo"], "{:?}", multi.links()?);
        multi.reaches(world.outside.address)?;
        h1.overlay(&["endpoint", "rm", "second"])?;
        ensure!(multi.links()? == ["eth3", "lo"], "{:?}", multi.links()?);
        no_default_route(&multi)?;
        multi.reaches(alone.address)?;
        let legs = h1.netns.links()?;
        ensure!(!legs.iter().any(|link| link.starts_with("ovgw")), "{legs:?}");
        Ok(())
    });
}

fn no_default_route(netns: &Netns) -> Result<()> {
    let routes = netns.ip(&["route", "show", "default"])?;
    ensure!(routes.trim().is_empty(), "{routes}");
    Ok(())
}

fn no_leg_shown(host: &Host, name: &str) -> Result<()> {
    let shown = host.overlay(&["endpoint", "inspect", name])?;
    ensure!(shown.contains("eth0@if") && !shown.contains("eth1"), "{shown}");
    Ok(())
}

#[test]
fn another_gateway_subnet_renumbers_the_legs() {
    scenario(OUTSIDE, |lab| {
        let world = World::build(lab)?;
        let [h1, h2] = &world.hosts;
        let web1 = attach(lab, h1, "web1", &["-p", "8080:80"])?;
        let web2 = attach(lab, h2, "web2", &[])?;
        mirror::tcp(&web1.netns, 80)?;
        let before = leg(&web2.netns)?.address;
        ensure!(world.outside.netns.seen_over_tcp(h1.address, 8080)? == world.outside.address);

        h1.stop()?;
        let resolv_conf = world.resolv_conf();
        h1.start_node(&["--resolv-conf", &resolv_conf, "--gateway-subnet", "10.200.0.0/16"])?;
        eventually("web1 has a new gateway leg", Duration::from_secs(15), || {
            let leg = leg(&web1.netns)?;
            if leg.address.octets()[..2] != [10, 200] {
                bail!("it has {}", leg.address);
            }
            ensure!(leg.mac == mac_of(leg.address), "{}", leg.mac);
            Ok(())
        })?;
        ensure!(bridge_address(h1)? == "10.200.0.1/16", "{}", bridge_address(h1)?);
        eventually("web1 reaches the outside again", Duration::from_secs(10), || {
            let routes = web1.netns.ip(&["route", "show", "default"])?;
            ensure!(routes.starts_with("default via 10.200.0.1 dev eth1"), "{routes}");
            web1.netns.reaches(world.outside.address)
        })?;
        eventually("the published port leads there", Duration::from_secs(10), || {
            world.outside.netns.seen_over_tcp(h1.address, 8080)
        })?;
        web1.netns.reaches(web2.address)?;
        let state = MachineState::of(h1)?;
        for line in state.links.iter().chain(&state.routes).chain(&state.ruleset) {
            ensure!(!line.contains("172.18."), "{line}");
        }
        // The other node keeps its own gateway subnet, and knows the new one of this node.
        ensure!(leg(&web2.netns)?.address == before, "{}", leg(&web2.netns)?.address);
        let nodes = h2.overlay_json(&["node", "ls"])?;
        let h1_row = rows(&nodes).iter().find(|node| text(node, "name") == "h1").context("h1")?;
        ensure!(h1_row.to_string().contains("10.200.0.0/16"), "{nodes}");
        Ok(())
    });
}
