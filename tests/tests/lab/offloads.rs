//! Every sort of frame, with each offload of each device switched the other way in turn: what comes out is what
//! went in, and on the wire it is right.

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

/// Of who switches offloads and reads what comes of it.
pub(crate) const NEEDS: &[Requirement] = &[
    Requirement::Root,
    Requirement::Bpffs,
    Requirement::Binary,
    Requirement::Tool("ethtool"),
    Requirement::Tool("tcpdump"),
    Requirement::Tool("tshark"),
];
/// As `ethtool -K` calls them.
const OFFLOADS: [&str; 7] =
    ["tx", "rx", "tso", "gso", "gro", "tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation"];
/// All that makes one packet of many, or leaves a checksum to others: off, every packet on the wire is as
/// a network card would send it.
const WHOLE: [&str; 4] = ["tx", "tso", "gso", "gro"];
/// A way on which only what is sent again arrives would be right, too, and no way: as many of a stream's
/// segments may be sent again beyond what the underlay itself lost just before.
const SENT_AGAIN: f64 = 0.02;
/// On a busy machine a sender believes that something was lost: so much at most, and not each time.
const SENT_AGAIN_BY_CHANCE: f64 = 0.2;

/// Bytes of a stream: three dozen super-packets; fewer where each packet is as dear to who carries it as to
/// who reads it afterwards.
fn stream_len() -> usize {
    attainable(f64::from(3 << 20)) as usize
}

/// Two hosts, an endpoint on each that is nothing but that, and beside them: on the first one that routes
/// for a container on a bridge inside it, on the second one that has an address of its own behind it and
/// whose eth0 is a port of a bridge.
struct World {
    hosts: [Arc<Host>; 2],
    plain: [Endpoint; 2],
    router: Endpoint,
    /// Behind `router`.
    nested: Netns,
    bridged: Endpoint,
}

const NESTED: &str = "192.168.77.2";
const BEHIND_BRIDGED: &str = "192.168.88.1";

/// A device, and where it is.
type Device<'a> = (&'a Netns, String);

impl World {
    fn build(lab: &mut Lab) -> Result<Self> {
        let (hosts, plain) = pair(lab)?;
        let router = attach(lab, &hosts[0], "router", &["--forwards"])?;
        let bridged = attach(lab, &hosts[1], "bridged", &["--forwards"])?;
        let nested = lab.container("nested")?;
        let world = Self { hosts, plain, router, nested, bridged };
        world.give_other_addresses()?;
        world.nest()?;
        world.bridge()?;
        Ok(world)
    }

    /// IPv6. Neighbours are told: it has no directory yet.
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

    /// A container on a bridge inside of `router`, which is its way out; as Docker in a container has it.
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
        // Its own way is larger than the overlay's: it learns of that.
        nested.ip(&["link", "set", "eth0", "up"])?;
        nested.ip(&["route", "add", "default", "via", "192.168.77.1"])?;
        let via = self.router.address.to_string();
        for from in [&self.plain[1], &self.bridged] {
            from.netns.ip(&["route", "add", "192.168.77.0/24", "via", &via])?;
        }
        // By way of `router` to the other host again: what was decapsulated is encapsulated anew.
        self.plain[1].netns.ip(&["route", "add", "192.168.88.0/24", "via", &via])?;
        let via = self.bridged.address.to_string();
        outer.ip(&["route", "add", "192.168.88.0/24", "via", &via])?;
        Ok(())
    }

    /// eth0 becomes a port of a bridge, which takes its address over.
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
        Ok(())
    }

    /// The devices that packets pass, by where they are.
    fn devices(&self) -> Result<Vec<(&'static str, Vec<Device<'_>>)>> {
        let mut outside = Vec::new();
        let mut inside = Vec::new();
        let endpoints = self.plain.iter().chain([&self.router, &self.bridged]);
        for endpoint in endpoints {
            let shown = endpoint.host.overlay_json(&["endpoint", "inspect", &endpoint.name])?;
            outside.push((&endpoint.host.netns, text(&shown, "host_interface").to_owned()));
            inside.push((&endpoint.netns, "eth0".to_owned()));
        }
        let underlay = self.hosts.iter().map(|host| (&host.netns, "eth0".to_owned())).collect();
        Ok(vec![("underlay", underlay), ("host side", outside), ("endpoint's side", inside)])
    }

    /// The share of segments that a stream from host to host, past the overlay, sends again right now.
    fn lost_by_the_underlay(&self) -> Result<f64> {
        let [from, to] = &self.hosts;
        sent_again(&from.netns, &to.netns, SocketAddr::new(to.address.into(), 4010))
    }

    /// Everything from one plain endpoint to the other, and by those that route and bridge. `mtu` is the
    /// endpoints'.
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
        stream("TCP by a router and back", to, &self.bridged.netns, at(BEHIND_BRIDGED, 4005)?)?;

        let datagrams = |ip: &str, headers: usize| -> Result<()> {
            let size = mtu - headers;
            transfer::datagram(from, to, at(ip, 5001)?, 20_000).context("in fragments")?;
            transfer::datagram(from, to, at(ip, 5002)?, 1).context("of one byte")?;
            transfer::datagram(from, to, at(ip, 5003)?, size).context("of the MTU")?;
            let in_one_call = transfer::datagrams(from, to, at(ip, 5004)?, (size.min(1400), 20));
            match in_one_call {
                // Before Linux 6.11 (10154dbded6d) a sender whose device makes no checksums can't have
                // datagrams cut, by whatever way they go: the call is refused.
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

/// The share of a stream's segments that were sent again.
fn sent_again(from: &Netns, to: &Netns, address: SocketAddr) -> Result<f64> {
    let before = transfer::tcp_segments(from)?;
    transfer::stream(from, to, address, stream_len())?;
    let after = transfer::tcp_segments(from)?;
    Ok((after.1 - before.1) as f64 / (after.0 - before.0) as f64)
}

/// Switches offloads of each of the devices. Says which are fixed, and returns how many are not.
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
                // GRO is off on a veth by itself.
                let was = devices[0].0.is_offload_on(&devices[0].1, offload)?;
                let state = if was { "off" } else { "on" };
                if switch(devices, &[offload], !was)? > 0 {
                    switched.insert(offload);
                    world.exchange(1450).with_context(|| format!("{offload} {state}, {place}"))?;
                }
                switch(devices, &[offload], was)?;
            }
        }
        // One that is fixed everywhere was tested nowhere.
        ensure!(switched == BTreeSet::from(OFFLOADS), "only {switched:?} can be switched");
        let all: Vec<_> = devices.into_iter().flat_map(|(_, devices)| devices).collect();
        let count = switch(&all, &WHOLE, false)?;
        ensure!(count == all.len() * WHOLE.len(), "{count} are off");
        right_on_the_wire(&world, 1500)?;

        // Jumbo: the endpoints follow.
        for host in &world.hosts {
            host.netns.ip(&["link", "set", "eth0", "mtu", "9000"])?;
        }
        follow(&world, 8950)?;
        right_on_the_wire(&world, 9000)?;
        switch(&all, &WHOLE, true)?;
        world.exchange(8950).context("jumbo, every offload on")
    });
}

/// Waits until the endpoints have followed.
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

/// Everything once more, read by another on its way in.
fn right_on_the_wire(world: &World, mtu: usize) -> Result<()> {
    let capture = Capture::start(&world.hosts[1].netns, "eth0", "udp port 4789")?;
    world.exchange(mtu - 50).with_context(|| format!("no offload on, MTU {mtu}"))?;
    let packets = capture.stop()?;
    for (what, wrong) in [
        ("malformed, or no VXLAN", "_ws.malformed || !vxlan".to_owned()),
        ("longer than the MTU", format!("frame.len > {}", mtu + 14)),
        ("IPv4 checksum", "ip.checksum.status == \"Bad\"".to_owned()),
        // The kernel writes a sum of zero as the other zero (CSUM_MANGLED_0), for which there is one packet in
        // 65,536, and tshark takes that for a mistake.
        ("TCP checksum", "tcp.checksum.status == \"Bad\" && tcp.checksum != 0xffff".to_owned()),
        ("UDP checksum", "udp.checksum.status == \"Bad\"".to_owned()),
        ("an outer fragment", "ip.flags.mf == 1 && !vxlan".to_owned()),
    ] {
        let found = packets.fields(&wrong, &["frame.number", "_ws.col.Info"])?;
        ensure!(found.is_empty(), "MTU {mtu}: {what}: {:?}", &found[..found.len().min(5)]);
    }
    // Streams in segments as large as there is room for.
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
