//! The connections that the table `ip overlay` allows and translates, with real packets. The host has two
//! uplinks and a plain bridge with two endpoints, and there is somebody outside on either side.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    num::NonZeroU16,
    time::Duration,
};

use overlay_ctl::{
    dataplane::{
        gateway::{Changed, Connections, Rules, Table},
        kernel::{DeviceId, DeviceKind, HostPort, Legs, Target},
    },
    model::Transport,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::lab::{Netns, enter, skip};

/// Longest time until something happens that must happen.
pub(crate) const BOUND: Duration = Duration::from_secs(10);
/// Time for which nothing may happen that must not.
const SILENCE: Duration = Duration::from_millis(400);

pub(crate) const WEB: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 2);
pub(crate) const DB: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 3);
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 1);
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub(crate) const FAR: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);

pub(crate) fn port(port: u16) -> NonZeroU16 {
    NonZeroU16::new(port).unwrap()
}

pub(crate) fn rules() -> Rules {
    Rules {
        bridge: "ov_gwbridge".to_owned(),
        subnet: "172.18.0.0/16".parse().unwrap(),
        vxlan_port: 4789,
        forwarding: BTreeSet::from(["eth7".to_owned(), "eth8".to_owned()]),
        bridged: BTreeSet::new(),
        translates: true,
        published: BTreeMap::new(),
    }
}

pub(crate) fn published(
    transport: Transport,
    host: Ipv4Addr,
    host_port: u16,
    address: Ipv4Addr,
    target: u16,
) -> (HostPort, Target) {
    let comment = format!("web1 {target}/{transport}");
    let target = Target { address, port: port(target), comment };
    ((transport, host, port(host_port)), target)
}

/// Runs `work` on a thread inside the namespace. Sockets that it opens stay there.
pub(crate) fn inside<T: Send>(netns: &Netns, work: impl FnOnce() -> T + Send) -> T {
    let work = || {
        enter(&netns.path());
        work()
    };
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

pub(crate) struct Lab {
    pub(crate) host: Netns,
    pub(crate) outside: Netns,
    pub(crate) far: Netns,
    pub(crate) web: Netns,
    pub(crate) db: Netns,
    pub(crate) table: Table,
    pub(crate) connections: Connections,
    pub(crate) legs: Legs,
}

/// The leg that has this address.
pub(crate) fn leg(address: Ipv4Addr) -> DeviceId {
    DeviceId { kind: DeviceKind::Leg, number: u32::from(address).into() }
}

impl Lab {
    pub(crate) fn new(rules: &Rules) -> Self {
        let host = Netns::new("host");
        let [outside, far, web, db] = ["out", "far", "web", "db"].map(Netns::new);
        host.sh("echo 0 > /proc/sys/net/ipv4/ip_forward");
        host.sh("ip link add ov_gwbridge type bridge; ip link set ov_gwbridge up");
        host.sh(&format!("ip addr add {GATEWAY}/16 dev ov_gwbridge"));
        for (netns, device, address) in [(&web, "leg2", WEB), (&db, "leg3", DB)] {
            host.join(device, netns, "eth1");
            host.sh(&format!("ip link set {device} master ov_gwbridge"));
            netns.sh(&format!("ip addr add {address}/16 dev eth1"));
            netns.sh(&format!("ip route add default via {GATEWAY}"));
        }
        for (netns, device, net) in [(&outside, "eth7", "10.0.0"), (&far, "eth8", "10.1.0")] {
            host.join(device, netns, "eth0");
            host.sh(&format!("ip addr add {net}.1/24 dev {device}"));
            netns.sh(&format!("ip addr add {net}.2/24 dev eth0"));
        }
        for device in ["ov_gwbridge", "eth7", "eth8"] {
            host.sh(&format!("echo 1 > /proc/sys/net/ipv4/conf/{device}/forwarding"));
        }
        host.sh("echo 1 > /proc/sys/net/ipv4/conf/ov_gwbridge/route_localnet");
        let legs = [WEB, DB].map(|address| (leg(address), address)).into();
        let (table, connections) = (Table::default(), Connections::default());
        let mut lab = Self { host, outside, far, web, db, table, connections, legs };
        lab.filter_bridged(false);
        assert_eq!(lab.sync(rules), Changed::Table);
        lab
    }

    /// Switches whether br_netfilter shows bridged frames to nftables, as it does by default. If it does,
    /// published ports are rewritten within the bridge, which then sends a hairpin to its port itself. The
    /// bridge sends a frame back to the port that it came from only if that port's `hairpin` is on.
    fn filter_bridged(&self, on: bool) {
        let file = "/proc/sys/net/bridge/bridge-nf-call-iptables";
        self.host.sh(&format!("test ! -e {file} || echo {} > {file}", u8::from(on)));
        let hairpin = if on { "on" } else { "off" };
        self.host.sh(&format!("ip link set leg2 type bridge_slave hairpin {hairpin}"));
    }

    /// Does what a node does to publish ports.
    pub(crate) fn sync(&mut self, rules: &Rules) -> Changed {
        let Self { table, connections, legs, .. } = self;
        let changed = self.host.block_on(|| async {
            let changed = table.sync(rules).await.unwrap();
            connections.settle(table, rules, legs).await;
            changed
        });
        assert_eq!(self.connections.trouble(), None);
        changed
    }

    /// The output of `nft list table ip overlay`.
    fn listed(&self) -> String {
        self.host.sh("nft list table ip overlay")
    }

    /// The packets that the rule with this comment counted.
    fn counted(&self, comment: &str) -> u64 {
        let listed = self.listed();
        let rule = listed.lines().find(|line| line.contains(comment)).unwrap();
        let (_, count) = rule.split_once("counter packets ").unwrap();
        count.split(' ').next().unwrap().parse().unwrap()
    }
}

pub(crate) fn rules_with(all: impl IntoIterator<Item = (HostPort, Target)>) -> Rules {
    Rules { published: all.into_iter().collect(), ..rules() }
}

pub(crate) fn listen(netns: &Netns, port: u16) -> TcpListener {
    inside(netns, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap())
}

pub(crate) fn udp(netns: &Netns, port: u16) -> UdpSocket {
    let socket = inside(netns, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
    socket.set_read_timeout(Some(BOUND)).unwrap();
    socket
}

fn connect(from: &Netns, to: Ipv4Addr, port: u16, bound: Duration) -> Option<TcpStream> {
    let to = SocketAddr::from((to, port));
    inside(from, || TcpStream::connect_timeout(&to, bound).ok())
}

/// The client's address that `listener` sees when `from` connects to `to`. Bytes are exchanged in both
/// directions.
fn seen(from: &Netns, to: Ipv4Addr, port: u16, listener: &TcpListener) -> IpAddr {
    let mut client =
        connect(from, to, port, BOUND).unwrap_or_else(|| panic!("{} to {to}:{port}", from.name));
    let (mut server, peer) = listener.accept().unwrap();
    echo(&mut client, &mut server);
    peer.ip()
}

pub(crate) fn echo(client: &mut TcpStream, server: &mut TcpStream) {
    for stream in [&*client, &*server] {
        stream.set_read_timeout(Some(BOUND)).unwrap();
    }
    let mut buffer = [0; 4];
    client.write_all(b"ping").unwrap();
    server.read_exact(&mut buffer).unwrap();
    server.write_all(b"pong").unwrap();
    client.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"pong");
}

#[test]
fn a_published_port_is_reached_from_everywhere() {
    if skip() {
        return;
    }
    let rules = rules_with([published(Transport::Tcp, Ipv4Addr::UNSPECIFIED, 8080, WEB, 80)]);
    let lab = Lab::new(&rules);
    let server = listen(&lab.web, 80);
    assert_eq!(seen(&lab.outside, HOST, 8080, &server), OUTSIDE, "the client's own address");
    assert_eq!(seen(&lab.far, Ipv4Addr::new(10, 1, 0, 1), 8080, &server), FAR);
    assert_eq!(seen(&lab.host, Ipv4Addr::LOCALHOST, 8080, &server), GATEWAY);
    assert_eq!(seen(&lab.host, HOST, 8080, &server), HOST);
    for filter_bridged in [false, true] {
        lab.filter_bridged(filter_bridged);
        assert_eq!(seen(&lab.db, HOST, 8080, &server), GATEWAY, "hairpin");
        assert_eq!(seen(&lab.db, GATEWAY, 8080, &server), GATEWAY, "hairpin");
        assert_eq!(seen(&lab.web, HOST, 8080, &server), GATEWAY, "hairpin to itself");
    }
    // The endpoint's gateway address is reachable for the host alone.
    assert_eq!(seen(&lab.host, WEB, 80, &server), GATEWAY);
    assert!(connect(&lab.outside, HOST, 8081, BOUND).is_none(), "not published");
}

#[test]
fn published_on_one_address_is_published_nowhere_else() {
    if skip() {
        return;
    }
    let rules = rules_with([
        published(Transport::Tcp, Ipv4Addr::LOCALHOST, 8080, WEB, 80),
        published(Transport::Tcp, HOST, 8081, WEB, 80),
    ]);
    let lab = Lab::new(&rules);
    let server = listen(&lab.web, 80);
    assert_eq!(seen(&lab.host, Ipv4Addr::LOCALHOST, 8080, &server), GATEWAY);
    assert_eq!(seen(&lab.outside, HOST, 8081, &server), OUTSIDE);
    for (from, to, port) in [
        (&lab.outside, HOST, 8080),
        (&lab.host, HOST, 8080),
        (&lab.db, GATEWAY, 8080),
        (&lab.host, Ipv4Addr::LOCALHOST, 8081),
        (&lab.far, Ipv4Addr::new(10, 1, 0, 1), 8081),
    ] {
        assert!(connect(from, to, port, SILENCE).is_none(), "{} {to}:{port}", from.name);
    }
}

#[test]
fn a_neighbour_does_not_reach_what_is_published_on_localhost() {
    if skip() {
        return;
    }
    let rules = rules_with([published(Transport::Udp, Ipv4Addr::LOCALHOST, 8080, WEB, 80)]);
    let lab = Lab::new(&rules);
    let server = udp(&lab.web, 80);
    // A neighbour on the wire can send a packet to 127.0.0.1 if it wants to.
    lab.outside.sh("ip addr del 127.0.0.1/8 dev lo");
    lab.outside.sh("echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet");
    lab.outside.sh(&format!("ip route add 127.0.0.1 via {HOST} src {OUTSIDE}"));
    lab.host.sh("nft add table ip watch");
    lab.host.sh("nft add chain ip watch in { type filter hook prerouting priority -300 \\; }");
    lab.host.sh("nft add rule ip watch in iifname eth7 ip daddr 127.0.0.1 counter");
    let neighbour = udp(&lab.outside, 0);
    neighbour.send_to(b"secret", (Ipv4Addr::LOCALHOST, 8080)).unwrap();
    assert!(
        lab.host.sh("nft list table ip watch").contains("packets 1 "),
        "it arrived at the host"
    );

    let local = udp(&lab.host, 0);
    local.send_to(b"mine", (Ipv4Addr::LOCALHOST, 8080)).unwrap();
    let mut buffer = [0; 16];
    let (length, _) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"mine", "and no further: the later one is the first here");
}

#[test]
fn udp_is_published_and_answers_come_from_the_port_that_was_asked() {
    if skip() {
        return;
    }
    let rules = rules_with([published(Transport::Udp, Ipv4Addr::UNSPECIFIED, 5353, WEB, 53)]);
    let lab = Lab::new(&rules);
    let server = udp(&lab.web, 53);
    for (client, host, sees) in [
        (&lab.outside, HOST, OUTSIDE),
        (&lab.host, Ipv4Addr::LOCALHOST, GATEWAY),
        (&lab.host, HOST, HOST),
        (&lab.db, HOST, GATEWAY),
    ] {
        let client = udp(client, 0);
        client.connect((host, 5353)).unwrap();
        client.send(b"ask").unwrap();
        let mut buffer = [0; 16];
        let (_, peer) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(peer.ip(), sees, "via {host}");
        server.send_to(b"answer", peer).unwrap();
        // A connected socket only receives answers from this address.
        assert_eq!(client.recv(&mut buffer).unwrap(), 6, "via {host}");
    }
}

#[test]
fn a_client_that_keeps_talking_udp_is_heard_where_the_port_leads_now() {
    if skip() {
        return;
    }
    let mut lab = Lab::new(&rules());
    let [on_host, on_web, on_db] =
        [(&lab.host, 5353), (&lab.web, 53), (&lab.db, 53)].map(|(netns, port)| udp(netns, port));
    let client = udp(&lab.outside, 40000);
    // An endpoint's own query, to the same port of another host.
    let query = udp(&lab.web, 40001);
    let resolver = udp(&lab.far, 5353);
    let mut buffer = [0; 16];
    query.send_to(b"query", (FAR, 5353)).unwrap();
    let (_, asker) = resolver.recv_from(&mut buffer).unwrap();

    let talk = |server: &UdpSocket, to: &str| {
        client.send_to(to.as_bytes(), (HOST, 5353)).unwrap();
        let mut buffer = [0; 16];
        let (length, peer) = server.recv_from(&mut buffer).unwrap_or_else(|_| panic!("to {to}"));
        assert_eq!((&buffer[..length], peer.ip()), (to.as_bytes(), OUTSIDE.into()));
    };
    talk(&on_host, "host");
    let udp_to =
        |address| rules_with([published(Transport::Udp, Ipv4Addr::UNSPECIFIED, 5353, address, 53)]);
    assert_eq!(lab.sync(&udp_to(WEB)), Changed::Elements { added: 1, removed: 0 });
    talk(&on_web, "web");
    assert_eq!(lab.sync(&udp_to(DB)), Changed::Elements { added: 1, removed: 1 });
    talk(&on_db, "db");
    assert_eq!(lab.sync(&rules()), Changed::Elements { added: 0, removed: 1 });
    talk(&on_host, "host");

    resolver.send_to(b"answer", asker).unwrap();
    assert_eq!(query.recv(&mut buffer).unwrap(), 6, "others' flows stay");
}

#[test]
fn endpoints_reach_the_outside_by_the_hosts_address() {
    if skip() {
        return;
    }
    let lab = Lab::new(&rules());
    let server = listen(&lab.outside, 9000);
    assert_eq!(seen(&lab.web, OUTSIDE, 9000, &server), HOST);
    assert!(lab.db.succeeds(&format!("ping -c 1 -W 5 {FAR}")));
    // Between the host and its address on the bridge nothing is rewritten.
    let server = listen(&lab.host, 9000);
    assert_eq!(seen(&lab.host, GATEWAY, 9000, &server), GATEWAY);
    assert_eq!(seen(&lab.web, GATEWAY, 9000, &server), WEB);
}

/// Two endpoints use the same source port to the same server, so that the second one gets a different port.
/// The range leaves only one other port below VXLAN's, and only one above it.
#[test]
fn no_flow_gets_the_port_of_vxlan() {
    if skip() {
        return;
    }
    for (vxlan_port, source, other) in [(1026, 1024, 1025), (65_533, 65_534, 65_535)] {
        let lab = Lab::new(&Rules { vxlan_port, ..rules() });
        let server = udp(&lab.outside, 9000);
        let source_of = |netns: &Netns| {
            let client = udp(netns, source);
            client.send_to(b"ping", (OUTSIDE, 9000)).unwrap();
            let (_, from) = server.recv_from(&mut [0; 4]).unwrap();
            assert_eq!(from.ip(), HOST);
            from.port()
        };
        assert_eq!(source_of(&lab.web), source, "it is free");
        assert_eq!(source_of(&lab.db), other, "beside {vxlan_port}");
    }
}

#[test]
fn a_route_to_the_subnet_opens_nothing() {
    if skip() {
        return;
    }
    let rules = rules_with([published(Transport::Tcp, Ipv4Addr::UNSPECIFIED, 8080, WEB, 80)]);
    let mut lab = Lab::new(&rules);
    let servers = [80, 81].map(|port| listen(&lab.web, port));
    lab.outside.sh(&format!("ip route add 172.18.0.0/16 via {HOST}"));
    for port in [80, 81] {
        assert!(connect(&lab.outside, WEB, port, SILENCE).is_none(), "port {port}");
    }
    assert!(lab.counted("endpoints are reached at published ports alone") >= 2);
    assert_eq!(seen(&lab.outside, HOST, 8080, &servers[0]), OUTSIDE);

    let table = &mut lab.table;
    lab.host.block_on(|| async { table.remove().await.unwrap() });
    assert_eq!(seen(&lab.outside, WEB, 81, &servers[1]), OUTSIDE, "what the rule is for");
}

#[test]
fn the_host_becomes_no_router() {
    if skip() {
        return;
    }
    let mut lab = Lab::new(&rules());
    lab.outside.sh(&format!("ip route add 10.1.0.0/24 via {HOST}"));
    lab.far.sh("ip route add 10.0.0.0/24 via 10.1.0.1");
    let ping = format!("ping -c 1 -W 1 {FAR}");
    assert!(!lab.outside.succeeds(&ping));
    assert!(lab.counted("no router") >= 1);
    // When another program needs forwarding on these devices, the node does not restrict it.
    let changed = lab.sync(&Rules { forwarding: BTreeSet::new(), ..rules() });
    assert_eq!(changed, Changed::Elements { added: 0, removed: 2 });
    assert!(lab.outside.succeeds(&ping), "what the rule is for");
}

#[test]
fn a_bridge_carries_frames_between_its_ports_as_before() {
    if skip() {
        return;
    }
    let mut lab = Lab::new(&rules());
    let [one, two] = ["one", "two"].map(Netns::new);
    lab.host.sh("ip link add br7 type bridge; ip link set br7 up; ip addr add 10.7.0.1/24 dev br7");
    for (netns, device, address) in [(&one, "port1", "10.7.0.2"), (&two, "port2", "10.7.0.3")] {
        lab.host.join(device, netns, "eth0");
        lab.host.sh(&format!("ip link set {device} master br7"));
        netns.sh(&format!("ip addr add {address}/24 dev eth0; ip route add default via 10.7.0.1"));
    }
    lab.host.sh("echo 2 > /proc/sys/net/ipv4/conf/br7/forwarding");
    lab.filter_bridged(true);
    let with = |bridged: &[&str]| {
        let bridged = bridged.iter().map(|&bridge| (bridge.to_owned(), bridge.to_owned()));
        let bridged: BTreeSet<(String, String)> = bridged.collect();
        Rules { forwarding: BTreeSet::from(["br7".to_owned()]), bridged, ..rules() }
    };
    lab.sync(&with(&["br7"]));
    let ping = |to: &str| format!("ping -c 1 -W 1 {to}");
    assert!(one.succeeds(&ping("10.7.0.3")), "carried, not routed");
    lab.outside.sh(&format!("ip route add 10.7.0.0/24 via {HOST}"));
    assert!(!one.succeeds(&ping("10.0.0.2")), "routed to another network");
    assert!(lab.counted("no router") >= 1);
    if lab.host.succeeds("test -e /proc/sys/net/bridge/bridge-nf-call-iptables") {
        lab.sync(&with(&[]));
        assert!(!one.succeeds(&ping("10.7.0.3")), "what the rule is for");
    }
}

#[test]
fn connections_live_through_a_replacement() {
    if skip() {
        return;
    }
    let rules = rules_with([published(Transport::Tcp, Ipv4Addr::UNSPECIFIED, 8080, WEB, 80)]);
    let mut lab = Lab::new(&rules);
    let (server, outside) = (listen(&lab.web, 80), listen(&lab.outside, 9000));
    let mut client = connect(&lab.outside, HOST, 8080, BOUND).unwrap();
    let (mut accepted, _) = server.accept().unwrap();
    let mut out = connect(&lab.db, OUTSIDE, 9000, BOUND).unwrap();
    let (mut out_accepted, _) = outside.accept().unwrap();
    for edit in [
        "nft flush chain ip overlay publish",
        "nft add rule ip overlay forward counter",
        "nft delete chain ip overlay postrouting",
        "nft add element ip overlay opened { leg2 }",
        "nft flush ruleset",
    ] {
        lab.host.sh(edit);
        lab.table.doubt();
        assert_ne!(lab.sync(&rules), Changed::Nothing, "{edit}");
        echo(&mut client, &mut accepted);
        echo(&mut out, &mut out_accepted);
    }
}

/// CRC32c (RFC 9260, appendix A), bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    })
}

/// An SCTP packet with one INIT chunk (RFC 9260, section 3.3.2).
pub(crate) fn sctp_init(source: u16, destination: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    packet.extend(source.to_be_bytes());
    packet.extend(destination.to_be_bytes());
    packet.extend([0; 8]); // verification tag of an INIT, checksum
    packet.extend([1, 0, 0, 20]); // INIT, flags, length
    packet.extend(0x1234_5678u32.to_be_bytes()); // initiate tag
    packet.extend(65536u32.to_be_bytes()); // receiver's window
    packet.extend([0, 1, 0, 1]); // streams out and in
    packet.extend(1u32.to_be_bytes()); // initial TSN
    let sum = crc32c(&packet);
    packet[8..12].copy_from_slice(&sum.to_le_bytes());
    packet
}

#[test]
fn sctp_arrives_with_its_checksum_right() {
    if skip() {
        return;
    }
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    let rules = rules_with([published(Transport::Sctp, Ipv4Addr::UNSPECIFIED, 9899, WEB, 99)]);
    let lab = Lab::new(&rules);
    // Raw sockets are used, because the kernel may lack SCTP.
    let raw = |netns: &Netns| {
        let protocol = Protocol::from(nix::libc::IPPROTO_SCTP);
        inside(netns, || Socket::new(Domain::IPV4, Type::RAW, Some(protocol)).unwrap())
    };
    let (client, mut server) = (raw(&lab.outside), raw(&lab.web));
    server.set_read_timeout(Some(BOUND)).unwrap();
    client.send_to(&sctp_init(40000, 9899), &SocketAddrV4::new(HOST, 0).into()).unwrap();
    let mut buffer = [0; 256];
    let length = server.read(&mut buffer).unwrap();
    let (header, sctp) = buffer[..length].split_at(usize::from(buffer[0] & 15) * 4);
    assert_eq!((&header[12..16], &header[16..20]), (&OUTSIDE.octets()[..], &WEB.octets()[..]));
    assert_eq!(sctp, sctp_init(40000, 99));
}
