//! Bridges inside endpoints: namespaces behind them are on the network, though the cluster knows nothing of them.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use overlay_lab::{Lab, Netns, Requirement, attainable, eventually, text, transfer};

use crate::support::{Endpoint, NETWORK, attach, pair, scenario};

const NEEDS: &[Requirement] = &[
    Requirement::Root,
    Requirement::Bpffs,
    Requirement::Binary,
    Requirement::Tool("ethtool"),
    Requirement::Tool("ping"),
    Requirement::Tool("nft"),
];

/// Bytes of a stream; fewer on a slow machine.
fn stream_len() -> usize {
    attainable(f64::from(4 << 20)) as usize
}

/// Makes eth0 of an endpoint a port of a bridge, which takes its MAC and address, and joins a namespace with that address
/// to it.
fn bridge(lab: &Lab, endpoint: &Endpoint, station: &str, address: &str) -> Result<Netns> {
    let (netns, behind) = (&endpoint.netns, lab.container(station)?);
    let own = format!("{}/24", endpoint.address);
    netns.ip(&["link", "add", "br0", "address", &endpoint.mac, "type", "bridge"])?;
    netns.ip(&["addr", "del", &own, "dev", "eth0"])?;
    netns.ip(&["link", "set", "eth0", "master", "br0"])?;
    netns.ip(&["addr", "add", &own, "dev", "br0"])?;
    let veth = ["link", "add", "v0", "master", "br0", "type", "veth", "peer", "name", "eth0"];
    netns.ip(&[&veth[..], &["netns", behind.name()]].concat())?;
    let mtu = netns.ip_json(&["link", "show", "eth0"])?[0]["mtu"].to_string();
    netns.ip(&["link", "set", "v0", "up", "mtu", &mtu])?;
    netns.ip(&["link", "set", "br0", "up"])?;
    behind.ip(&["addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
    behind.ip(&["link", "set", "eth0", "up", "mtu", &mtu])?;
    Ok(behind)
}

/// A namespace with an address on the network.
type Party<'a> = (&'a Netns, String);

/// Both reach each other by ping and by TCP, whoever begins: each asks for the other's MAC first.
fn talk((a, at_a): &Party<'_>, (b, at_b): &Party<'_>, port: u16) -> Result<()> {
    for netns in [a, b] {
        netns.run(&["ip", "neigh", "flush", "all"])?;
    }
    // The bridge forwards nothing until its ports are ready.
    let first = |from: &Netns, to: &str| {
        eventually("the first reply", std::time::Duration::from_secs(20), || from.reaches(to))
    };
    first(a, at_b).with_context(|| format!("{at_a} to {at_b}"))?;
    b.run(&["ip", "neigh", "flush", "all"])?;
    first(b, at_a).with_context(|| format!("{at_b} to {at_a}"))?;
    let stream = |from: &Netns, to: &Netns, at: &str, port: u16| {
        let to_address = SocketAddr::new(at.parse()?, port);
        transfer::stream(from, to, to_address, stream_len()).with_context(|| at.to_owned())
    };
    stream(a, b, at_b, port)?;
    stream(b, a, at_a, port + 1)
}

#[test]
fn what_is_behind_a_bridge_is_on_the_network() {
    scenario(NEEDS, |lab| {
        let ([h1, h2], [web1, web2]) = pair(lab)?;
        let first = attach(lab, &h1, "bridge1", &["--allow", "bridging"])?;
        let shown = h2.overlay_json(&["endpoint", "inspect", "bridge1"])?;
        ensure!(shown["allowed"] == serde_json::json!(["bridging"]), "{shown}");
        let nearer = bridge(lab, &first, "nearer", "172.16.16.9")?;
        let nearer: Party<'_> = (&nearer, "172.16.16.9".to_owned());
        let endpoint = |endpoint: &'_ Endpoint| endpoint.address.to_string();
        let plain: [Party<'_>; 2] =
            [(&web1.netns, endpoint(&web1)), (&web2.netns, endpoint(&web2))];
        // By the only bridging endpoint of the network: on the same host, and on the other.
        talk(&nearer, &plain[0], 4000).context("on one host")?;
        talk(&nearer, &plain[1], 4002).context("across hosts")?;
        talk(&(&first.netns, endpoint(&first)), &plain[1], 4004).context("the bridge itself")?;

        // Two of them, on two hosts.
        let second = attach(lab, &h2, "bridge2", &["--allow", "bridging"])?;
        let farther = bridge(lab, &second, "farther", "172.16.16.10")?;
        let farther: Party<'_> = (&farther, "172.16.16.10".to_owned());
        talk(&nearer, &farther, 4006).context("from bridge to bridge")?;
        talk(&farther, &plain[0], 4008).context("the second bridge, across hosts")?;
        talk(&farther, &plain[1], 4010).context("the second bridge, on one host")?;
        talk(&nearer, &plain[1], 4012).context("the first bridge, now that there are two")?;

        // With one again, everything is as before.
        h1.overlay(&["endpoint", "rm", "bridge2"])?;
        talk(&nearer, &plain[1], 4014).context("after the second has gone")?;
        ensure!(h1.counter("storm")? + h2.counter("storm")? == 0);
        Ok(())
    });
}

/// A station that takes an endpoint's MAC or address is heard by nobody, on either host.
#[test]
fn nobody_behind_a_bridge_speaks_as_an_endpoint() {
    scenario(NEEDS, |lab| {
        let ([h1, _], [web1, web2]) = pair(lab)?;
        let endpoint = attach(lab, &h1, "bridge1", &["--forwards"])?;
        let station = bridge(lab, &endpoint, "station", "172.16.16.9")?;
        talk(
            &(&station, "172.16.16.9".to_owned()),
            &(&web1.netns, web1.address.to_string()),
            4000,
        )?;
        for (other, target) in [(&web1, &web2), (&web2, &web1)] {
            let (address, to) = (other.address.to_string(), target.address.to_string());
            station.ip(&["neigh", "replace", &to, "lladdr", &target.mac, "dev", "eth0"])?;
            station.ip(&["addr", "add", &format!("{address}/32"), "dev", "eth0"])?;
            let refused = |reason: &str| -> Result<()> {
                let before = h1.counter(reason)?;
                let ping = ["ping", "-c", "3", "-i", "0.05", "-W", "1", "-I", &address, &to];
                ensure!(station.run(&ping).is_err(), "{address} was taken");
                let counted = h1.counter(reason)? - before;
                ensure!(counted > 0, "{reason}: {counted}");
                Ok(())
            };
            refused("spoofed_ip").with_context(|| address.clone())?;
            let own = station.ip_json(&["link", "show", "eth0"])?[0]["address"].clone();
            station.ip(&["link", "set", "eth0", "address", &other.mac])?;
            refused("spoofed_mac").with_context(|| other.mac.clone())?;
            let own = own.as_str().context("a MAC")?.to_owned();
            station.ip(&["link", "set", "eth0", "address", &own])?;
            station.ip(&["addr", "del", &format!("{address}/32"), "dev", "eth0"])?;
            // The bridge has learnt that MAC from the station.
            let forget = ["link", "set", "v0", "type", "bridge_slave", "fdb_flush"];
            endpoint.netns.ip(&forget)?;
        }
        web1.netns.reaches(web2.address)
    });
}

/// The cluster knows the endpoint still: no station becomes it, on its own host or on another.
#[test]
fn an_endpoint_that_is_down_keeps_its_mac_and_address() {
    scenario(NEEDS, |lab| {
        let ([h1, h2], [web1, web2]) = pair(lab)?;
        let gone = attach(lab, &h1, "gone", &[])?;
        let first = attach(lab, &h1, "bridge1", &["--allow", "bridging"])?;
        let second = attach(lab, &h2, "bridge2", &["--allow", "bridging"])?;
        let stations = [
            bridge(lab, &first, "nearer", "172.16.16.9")?,
            bridge(lab, &second, "farther", "172.16.16.10")?,
        ];
        let party = |netns, address: &str| -> Party<'_> { (netns, address.to_owned()) };
        let plain = web1.address.to_string();
        talk(&party(&stations[0], "172.16.16.9"), &party(&web1.netns, &plain), 4000)?;
        talk(&party(&stations[1], "172.16.16.10"), &party(&web1.netns, &plain), 4002)?;
        gone.netns.remove()?;
        eventually("the endpoint is down", std::time::Duration::from_secs(20), || {
            let shown = h1.overlay_json(&["endpoint", "inspect", "gone"])?;
            ensure!(text(&shown, "state") != "up", "{shown}");
            Ok(())
        })?;
        let address = gone.address.to_string();
        for (station, host) in stations.iter().zip([&h1, &h2]) {
            let refused = |reason: &str| -> Result<()> {
                let before = host.counter(reason)?;
                for to in [&web1, &web2] {
                    let to = to.address.to_string();
                    let ping = ["ping", "-c", "2", "-i", "0.05", "-W", "1", "-I", &address, &to];
                    ensure!(station.run(&ping).is_err(), "{address} was taken");
                }
                let counted = host.counter(reason)? - before;
                ensure!(counted > 0, "{reason}: {counted}");
                Ok(())
            };
            for to in [&web1, &web2] {
                let to_address = to.address.to_string();
                let neighbour = ["neigh", "replace", &to_address, "lladdr", &to.mac];
                station.ip(&[&neighbour[..], &["dev", "eth0"]].concat())?;
            }
            station.ip(&["addr", "add", &format!("{address}/32"), "dev", "eth0"])?;
            refused("spoofed_ip").with_context(|| host.name.clone())?;
            station.ip(&["link", "set", "eth0", "address", &gone.mac])?;
            refused("spoofed_mac").with_context(|| host.name.clone())?;
        }
        // Whoever asks for it hears nothing.
        ensure!(
            web2.netns.ping(&address, 1)?.received + web1.netns.ping(&address, 1)?.received == 0
        );
        web1.netns.reaches(web2.address)
    });
}

/// The MAC by which a namespace knows a neighbour.
fn known_mac(netns: &Netns, address: &str) -> Result<String> {
    let neighbours = netns.ip_json(&["neigh", "show", "to", address])?;
    Ok(text(&neighbours[0], "lladdr").to_owned())
}

#[test]
fn an_address_that_moves_is_announced_where_broadcast_is_carried() {
    scenario(NEEDS, |lab| {
        let hosts = lab.wired_pair(("h1", "10.10.10.101"), ("h2", "10.10.10.102"))?;
        lab.start_cluster(&hosts)?;
        let [h1, h2] = &hosts;
        let create = ["network", "create", NETWORK, "--subnet", "172.16.16.0/24", "--ip-range"];
        h1.overlay(&[&create[..], &["172.16.16.128/25", "--multicast"]].concat())?;
        let near = attach(lab, h1, "near", &[])?;
        let far = attach(lab, h2, "far", &[])?;
        let endpoint = attach(lab, h1, "bridge1", &["--allow", "bridging"])?;
        let station = bridge(lab, &endpoint, "station", "172.16.16.9")?;
        for other in [&near, &far] {
            let other: Party<'_> = (&other.netns, other.address.to_string());
            talk(&(&station, "172.16.16.9".to_owned()), &other, 4000)?;
        }
        // The address gets another MAC, and the station says so.
        let mac = "02:00:5e:00:01:07";
        station.sysctl("net.ipv4.conf.eth0.arp_notify", "1")?;
        station.ip(&["link", "set", "eth0", "address", mac])?;
        for other in [&near, &far] {
            eventually("the announcement is heard", std::time::Duration::from_secs(5), || {
                let known = known_mac(&other.netns, "172.16.16.9")?;
                ensure!(known == mac, "{} knows {known}", other.name);
                Ok(())
            })?;
            other.netns.reaches("172.16.16.9")?;
        }
        Ok(())
    });
}

/// A frame for a station is handed to a bridging endpoint as another's, so one that is no bridge does not take it.
#[test]
fn a_bridging_endpoint_without_a_bridge_takes_nothing_for_others() {
    scenario(NEEDS, |lab| {
        let ([h1, h2], [web1, web2]) = pair(lab)?;
        let endpoint = attach(lab, &h1, "alone", &["--allow", "bridging"])?;
        endpoint.netns.ip(&["addr", "add", "172.16.16.9/32", "dev", "lo"])?;
        let no_ones = ["lladdr", "02:00:5e:00:01:08", "dev", "eth0"];
        // Its answer would be dropped, and counted: it has another address on its network.
        let heard = |other: &Endpoint| -> Result<()> {
            other.netns.ip(&[&["neigh", "replace", "172.16.16.9"][..], &no_ones].concat())?;
            let before = h1.counter("spoofed_ip")?;
            ensure!(other.netns.ping("172.16.16.9", 3)?.received == 0);
            ensure!(h1.counter("spoofed_ip")? == before, "{} is answered", other.name);
            Ok(())
        };
        for other in [&web1, &web2] {
            heard(other).context("as the only one")?;
        }
        attach(lab, &h2, "another", &["--allow", "bridging"])?;
        for other in [&web1, &web2] {
            heard(other).context("as one of two")?;
        }
        // A frame to its own MAC is answered, so that the silence was not of another cause.
        for other in [&web1, &web2] {
            let meant = ["lladdr", &endpoint.mac, "dev", "eth0"];
            other.netns.ip(&[&["neigh", "replace", "172.16.16.9"][..], &meant].concat())?;
            let before = h1.counter("spoofed_ip")?;
            ensure!(other.netns.ping("172.16.16.9", 1)?.received == 0);
            ensure!(h1.counter("spoofed_ip")? > before, "{} is not answered", other.name);
        }
        Ok(())
    });
}

/// Each permission gives what it is called after, and nothing of the others.
#[test]
fn one_permission_is_not_another() {
    scenario(NEEDS, |lab| {
        let ([h1, h2], [_, web2]) = pair(lab)?;
        let router = attach(lab, &h1, "router1", &["--allow", "routing"])?;
        let bridging = attach(lab, &h1, "bridge1", &["--allow", "bridging"])?;
        for endpoint in [&router, &bridging] {
            endpoint.netns.ip(&["addr", "add", "10.1.1.1/32", "dev", "lo"])?;
        }
        let to = web2.address.to_string();
        let by = |endpoint: &Endpoint| -> Result<()> {
            let via = endpoint.address.to_string();
            web2.netns.ip(&["route", "replace", "10.1.1.0/24", "via", &via])?;
            web2.netns.reaches("10.1.1.1")
        };
        by(&router).context("a routing endpoint answers from another address")?;
        let before = h1.counter("spoofed_ip")?;
        ensure!(by(&bridging).is_err(), "a bridging endpoint routes");
        ensure!(h1.counter("spoofed_ip")? > before);

        // A station behind each.
        let routed = bridge(lab, &router, "routed", "172.16.16.20")?;
        let bridged = bridge(lab, &bridging, "bridged", "172.16.16.21")?;
        let party = |netns, address: &str| -> Party<'_> { (netns, address.to_owned()) };
        talk(&party(&bridged, "172.16.16.21"), &party(&web2.netns, &to), 4000)
            .context("a station behind the bridging endpoint")?;
        let before = h1.counter("spoofed_mac")?;
        ensure!(routed.ping(&to, 3)?.received == 0, "a routing endpoint bridges");
        ensure!(h1.counter("spoofed_mac")? > before);
        ensure!(h2.counter("spoofed_mac")? + h2.counter("spoofed_ip")? == 0, "it ends at home");
        Ok(())
    });
}
