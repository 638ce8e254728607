//! Sends traffic of every sort, with each offload of each device switched in turn. Everything must arrive
//! unchanged, and must be correct on the wire.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use overlay_lab::{
    Host, Lab, Netns, Requirement, attainable,
    capture::Capture,
    eventually, text,
    transfer::{self, ETHERTYPE},
};

use crate::{
    frames::Party,
    support::{Endpoint, attach, pair, scenario},
};

/// The requirements of a scenario that switches offloads and checks the packets on the wire.
pub(crate) const NEEDS: &[Requirement] = &[
    Requirement::Root,
    Requirement::Bpffs,
    Requirement::Binary,
    Requirement::Tool("ethtool"),
    Requirement::Tool("tcpdump"),
    Requirement::Tool("tshark"),
];
/// The offloads that are switched, by the names of `ethtool -K`.
const OFFLOADS: [&str; 7] =
    ["tx", "rx", "tso", "gso", "gro", "tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation"];
/// The offloads that merge packets or leave checksums to others. With all of them off, every packet on the
/// wire is as a network card would send it.
const WHOLE: [&str; 4] = ["tx", "tso", "gso", "gro"];
/// The share of a stream's segments that may be retransmitted in addition to the underlay's own share, which
/// is measured just before. A path on which segments arrive only when they are retransmitted would be correct
/// but useless.
const SENT_AGAIN: f64 = 0.02;
/// The share that may be retransmitted in some of the attempts, because on a busy machine a sender may
/// wrongly assume a loss.
const SENT_AGAIN_BY_CHANCE: f64 = 0.2;

/// Bytes of a stream: three dozen super-packets. On a slow machine there are fewer, because each packet is
/// carried and later read there at the same low speed.
fn stream_len() -> usize {
    attainable(f64::from(3 << 20)) as usize
}

/// Two hosts with a plain endpoint each. The first host also has an endpoint that routes for a container on a
/// bridge inside it. The second host also has two endpoints with a further address behind each; eth0 of one of them
/// is a port of a bridge.
struct World {
    hosts: [Arc<Host>; 2],
    plain: [Endpoint; 2],
    router: Endpoint,
    /// A container behind `router`.
    nested: Netns,
    bridged: Endpoint,
    /// An endpoint whose packets to `bridged` pass `router`.
    around: Endpoint,
}

const NESTED: &str = "192.168.77.2";
const BEHIND_BRIDGED: &str = "192.168.88.1";
const BEHIND_AROUND: &str = "192.168.99.1";

/// A device, and the namespace that it is in.
type Device<'a> = (&'a Netns, String);

impl World {
    fn build(lab: &mut Lab) -> Result<Self> {
        let (hosts, plain) = pair(lab)?;
        let router = attach(lab, &hosts[0], "router", &["--forwards"])?;
        let bridged = attach(lab, &hosts[1], "bridged", &["--forwards"])?;
        let around = attach(lab, &hosts[1], "around", &["--allow", "routing"])?;
        let nested = lab.container("nested")?;
        let world = Self { hosts, plain, router, nested, bridged, around };
        world.give_other_addresses()?;
        world.nest()?;
        world.bridge()?;
        Ok(world)
    }

    /// Gives the plain endpoints IPv6 addresses. Their neighbour entries are static, because the overlay's
    /// directory has no IPv6.
    fn give_other_addresses(&self) -> Result<()> {
        let [first, second] = &self.plain;
        for (number, (own, other)) in [(first, second), (second, first)].into_iter().enumerate() {
            let (own_number, other_number) = (number + 1, 2 - number);
            let netns = &own.netns;
            let v6 = format!("fd00::{own_number}/64");
            netns.ip(&["addr", "add", &v6, "dev", "eth0", "nodad"])?;
            let neighbour = format!("fd00::{other_number}");
            netns.ip(&["neigh", "add", &neighbour, "lladdr", &other.mac, "dev", "eth0"])?;
        }
        Ok(())
    }

    /// Puts a container on a bridge inside of `router`, which is its gateway, as Docker in a container would.
    fn nest(&self) -> Result<()> {
        let (outer, nested) = (&self.router.netns, &self.nested);
        outer.sysctl("net.ipv4.ip_forward", "1")?;
        outer.sysctl("net.ipv4.conf.all.send_redirects", "0")?;
        outer.sysctl("net.ipv4.conf.eth0.send_redirects", "0")?;
        outer.ip(&["link", "add", "br0", "type", "bridge"])?;
        outer.ip(&["addr", "add", "192.168.77.1/24", "dev", "br0"])?;
        let veth = ["link", "add", "v0", "master", "br0", "type", "veth", "peer", "name", "eth0"];
        outer.ip(&[&veth[..], &["netns", nested.name()]].concat())?;
        outer.ip(&["link", "set", "br0", "up"])?;
        outer.ip(&["link", "set", "v0", "up"])?;
        nested.ip(&["addr", "add", &format!("{NESTED}/24"), "dev", "eth0"])?;
        // The container's MTU is larger than the overlay's, so that it must learn the path's MTU.
        nested.ip(&["link", "set", "eth0", "up"])?;
        nested.ip(&["route", "add", "default", "via", "192.168.77.1"])?;
        let via = self.router.address.to_string();
        for from in [&self.plain[1], &self.bridged] {
            from.netns.ip(&["route", "add", "192.168.77.0/24", "via", &via])?;
        }
        // Packets to `bridged` pass `router` on the other host and come back: they are decapsulated and
        // encapsulated once more.
        let around = &self.around.netns;
        around.ip(&["addr", "add", &format!("{BEHIND_AROUND}/32"), "dev", "lo"])?;
        around.ip(&["route", "add", "192.168.88.0/24", "via", &via, "src", BEHIND_AROUND])?;
        let via = self.bridged.address.to_string();
        outer.ip(&["route", "add", "192.168.88.0/24", "via", &via])?;
        Ok(())
    }

    /// Makes eth0 of `bridged` a port of a bridge, which takes its address.
    fn bridge(&self) -> Result<()> {
        let netns = &self.bridged.netns;
        let address = format!("{}/24", self.bridged.address);
        netns.ip(&["link", "add", "br0", "address", &self.bridged.mac, "type", "bridge"])?;
        netns.ip(&["addr", "del", &address, "dev", "eth0"])?;
        netns.ip(&["link", "set", "eth0", "master", "br0"])?;
        netns.ip(&["link", "set", "br0", "up"])?;
        netns.ip(&["addr", "add", &address, "dev", "br0"])?;
        netns.ip(&["addr", "add", &format!("{BEHIND_BRIDGED}/32"), "dev", "lo"])?;
        let via = self.router.address.to_string();
        netns.ip(&["route", "replace", "192.168.77.0/24", "via", &via])?;
        let via = self.around.address.to_string();
        netns.ip(&["route", "add", "192.168.99.0/24", "via", &via])?;
        Ok(())
    }

    /// The devices on the packets' path, by their place.
    fn devices(&self) -> Result<Vec<(&'static str, Vec<Device<'_>>)>> {
        let mut outside = Vec::new();
        let mut inside = Vec::new();
        let endpoints = self.plain.iter().chain([&self.router, &self.bridged, &self.around]);
        for endpoint in endpoints {
            let shown = endpoint.host.overlay_json(&["endpoint", "inspect", &endpoint.name])?;
            outside.push((&endpoint.host.netns, text(&shown, "host_interface").to_owned()));
            inside.push((&endpoint.netns, "eth0".to_owned()));
        }
        let underlay = self.hosts.iter().map(|host| (&host.netns, "eth0".to_owned())).collect();
        Ok(vec![("underlay", underlay), ("host side", outside), ("endpoint's side", inside)])
    }

    /// The share of segments that the underlay itself retransmits now, in a stream from host to host past the
    /// overlay.
    fn lost_by_the_underlay(&self) -> Result<f64> {
        let [from, to] = &self.hosts;
        sent_again(&from.netns, &to.netns, SocketAddr::new(to.address.into(), 4010))
    }

    /// Sends everything from one plain endpoint to the other, and through the endpoints that route and
    /// bridge. `mtu` is the endpoints' MTU.
    fn exchange(&self, mtu: usize) -> Result<()> {
        let [first, second] = &self.plain;
        let (from, to) = (&first.netns, &second.netns);
        let at = |ip: &str, port: u16| -> Result<SocketAddr> {
            Ok(SocketAddr::new(ip.parse::<IpAddr>()?, port))
        };
        let (v4, v6) = (second.address.to_string(), "fd00::2");
        let stream = |what: &str, from: &Netns, to: &Netns, address: SocketAddr| -> Result<()> {
            let mut lost = String::new();
            for _ in 0..3 {
                let below = self.lost_by_the_underlay().context("the underlay")?;
                let again = sent_again(from, to, address).with_context(|| what.to_owned())?;
                if again <= below + SENT_AGAIN {
                    return Ok(());
                }
                lost += &format!(
                    "; {:.0} % were sent again ({:.0} % on the underlay)",
                    100.0 * again,
                    100.0 * below
                );
                if again > below + SENT_AGAIN_BY_CHANCE {
                    break;
                }
            }
            bail!("{what}{lost}")
        };
        stream("IPv4 TCP", from, to, at(&v4, 4000)?)?;
        stream("IPv6 TCP", from, to, at(v6, 4001)?)?;
        stream("TCP of a nested container", &self.nested, to, at(&v4, 4003)?)?;
        stream("TCP to a nested container", to, &self.nested, at(NESTED, 4004)?)?;
        let (around, bridged) = (&self.around.netns, &self.bridged.netns);
        stream("TCP by a router and back", around, bridged, at(BEHIND_BRIDGED, 4005)?)?;

        let datagrams = |ip: &str, headers: usize| -> Result<()> {
            let size = mtu - headers;
            transfer::datagram(from, to, at(ip, 5001)?, 20_000).context("in fragments")?;
            transfer::datagram(from, to, at(ip, 5002)?, 1).context("of one byte")?;
            transfer::datagram(from, to, at(ip, 5003)?, size).context("of the MTU")?;
            let in_one_call = transfer::datagrams(from, to, at(ip, 5004)?, (size.min(1400), 20));
            match in_one_call {
                // Before Linux 6.11 (10154dbded6d) the kernel refuses a call that has datagrams cut if the
                // sender's device makes no checksums, whatever the route.
                Err(error) if is_refused(&error) && !from.is_offload_on("eth0", "tx")? => Ok(()),
                result => result.context("in one call"),
            }
        };
        datagrams(&v4, 20 + 8).context("IPv4 UDP")?;
        datagrams(v6, 40 + 8).context("IPv6 UDP")?;

        let [own, other] = [first, second].map(|e| Party::new(&e.mac, e.address));
        let (own, other) = (own?.mac, other?.mac);
        let listener = transfer::listen(to)?;
        for payload in [1, 46, mtu] {
            let frame = transfer::frame(own, other, payload);
            from.send_frame("eth0", &frame)?;
            transfer::heard(&listener, &frame).context("neither IPv4 nor IPv6")?;
        }
        Ok(())
    }
}

fn is_refused(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.raw_os_error() == Some(nix::libc::EIO))
}

/// The share of a stream's segments that were retransmitted.
fn sent_again(from: &Netns, to: &Netns, address: SocketAddr) -> Result<f64> {
    let before = transfer::tcp_segments(from)?;
    transfer::stream(from, to, address, stream_len())?;
    let after = transfer::tcp_segments(from)?;
    Ok((after.1 - before.1) as f64 / (after.0 - before.0) as f64)
}

/// Switches offloads of each of the devices, prints which are fixed, and returns the number of the others.
fn switch(devices: &[Device<'_>], offloads: &[&str], on: bool) -> Result<usize> {
    let mut switched = 0;
    for (netns, device) in devices {
        for offload in offloads {
            if netns.switch_offload(device, offload, on)? {
                switched += 1;
            } else {
                eprintln!("{offload} of {device} in {} is fixed", netns.name());
            }
        }
    }
    Ok(switched)
}

#[test]
fn each_offload_switched_in_turn_changes_no_byte() {
    scenario(NEEDS, |lab| {
        let world = World::build(lab)?;
        let devices = world.devices()?;
        world.exchange(1450).context("every offload on")?;
        let mut switched = BTreeSet::new();
        for (place, devices) in &devices {
            for offload in OFFLOADS {
                // The present state is read, because GRO is off on a veth by default.
                let was = devices[0].0.is_offload_on(&devices[0].1, offload)?;
                let state = if was { "off" } else { "on" };
                if switch(devices, &[offload], !was)? > 0 {
                    switched.insert(offload);
                    world.exchange(1450).with_context(|| format!("{offload} {state}, {place}"))?;
                }
                switch(devices, &[offload], was)?;
            }
        }
        // An offload that is fixed on every device was not tested.
        ensure!(switched == BTreeSet::from(OFFLOADS), "only {switched:?} can be switched");
        let all: Vec<_> = devices.into_iter().flat_map(|(_, devices)| devices).collect();
        let count = switch(&all, &WHOLE, false)?;
        ensure!(count == all.len() * WHOLE.len(), "{count} are off");
        right_on_the_wire(&world, 1500)?;

        // With jumbo frames on the underlay, the endpoints' MTU follows.
        for host in &world.hosts {
            host.netns.ip(&["link", "set", "eth0", "mtu", "9000"])?;
        }
        follow(&world, 8950)?;
        right_on_the_wire(&world, 9000)?;
        switch(&all, &WHOLE, true)?;
        world.exchange(8950).context("jumbo, every offload on")
    });
}

/// Waits until the endpoints' MTU is this one.
fn follow(world: &World, mtu: u64) -> Result<()> {
    eventually("the endpoints' MTU is the underlay's less 50", Duration::from_secs(10), || {
        for endpoint in &world.plain {
            let link = &endpoint.netns.ip_json(&["link", "show", "eth0"])?[0];
            if link["mtu"].as_u64() != Some(mtu) {
                bail!("{} has {}", endpoint.name, link["mtu"]);
            }
        }
        Ok(())
    })
}

/// Sends everything once more, and checks with tshark the packets that the second host receives.
fn right_on_the_wire(world: &World, mtu: usize) -> Result<()> {
    let capture = Capture::start(&world.hosts[1].netns, "eth0", "udp port 4789")?;
    world.exchange(mtu - 50).with_context(|| format!("no offload on, MTU {mtu}"))?;
    let packets = capture.stop()?;
    for (what, wrong) in [
        ("malformed, or no VXLAN", "_ws.malformed || !vxlan".to_owned()),
        ("longer than the MTU", format!("frame.len > {}", mtu + 14)),
        ("IPv4 checksum", "ip.checksum.status == \"Bad\"".to_owned()),
        // The kernel writes a checksum of zero as 0xffff (CSUM_MANGLED_0), which happens for one packet in
        // 65,536, and which tshark takes for an error.
        ("TCP checksum", "tcp.checksum.status == \"Bad\" && tcp.checksum != 0xffff".to_owned()),
        ("UDP checksum", "udp.checksum.status == \"Bad\"".to_owned()),
        ("an outer fragment", "ip.flags.mf == 1 && !vxlan".to_owned()),
    ] {
        let found = packets.fields(&wrong, &["frame.number", "_ws.col.Info"])?;
        ensure!(found.is_empty(), "MTU {mtu}: {what}: {:?}", &found[..found.len().min(5)]);
    }
    // Streams have segments as large as the MTU allows.
    let longest = mtu + 14;
    let count =
        |filter: &str| -> Result<usize> { Ok(packets.fields(filter, &["frame.number"])?.len()) };
    for (what, filter) in [("IPv4 TCP", "tcp && !ipv6"), ("IPv6 TCP", "tcp && ipv6")] {
        let full = count(&format!("{filter} && frame.len == {longest}"))?;
        let wanted = stream_len() / (mtu - 50 - 40) * 4 / 5;
        ensure!(full >= wanted, "MTU {mtu}: {what}: {full} full segments, not {wanted}");
    }
    for (what, filter) in [
        ("fragments", "ip.frag_offset > 0".to_owned()),
        ("IPv6 fragments", "ipv6.fraghdr".to_owned()),
        ("neither IPv4 nor IPv6", format!("eth.type == {ETHERTYPE:#x}")),
    ] {
        ensure!(count(&filter)? > 0, "MTU {mtu}: none of {what} on the wire");
    }
    Ok(())
}
