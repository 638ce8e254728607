//! Tracked connections that are out of date, with real packets: which of them end, and what their clients see.

use std::{
    collections::BTreeSet,
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
};

use overlay_ctl::{
    dataplane::gateway::{Changed, Connections},
    model::Transport,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    gateway::{
        BOUND, DB, GATEWAY, HOST, Lab, OUTSIDE, WEB, echo, inside, leg, listen, published, rules,
        rules_with, sctp_init, udp,
    },
    lab::{Netns, skip},
};

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
/// Another program that keeps connections tracked while the node's rules are away.
const TRACKER: &str = "nft add table ip track; nft add chain ip track f \\{ type filter hook forward priority 0 \\; \\}; \
    nft add rule ip track f ct state established counter";

/// Connects from this port of a client.
fn connect_from(netns: &Netns, source: u16, to: Ipv4Addr, port: u16) -> TcpStream {
    let stream = inside(netns, || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&SocketAddrV4::new(ANY, source).into()).unwrap();
        socket.connect_timeout(&SocketAddr::from((to, port)).into(), BOUND).unwrap();
        socket
    });
    let stream = TcpStream::from(stream);
    stream.set_read_timeout(Some(BOUND)).unwrap();
    stream
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    stream
}

/// Fails unless the other side resets the connection.
fn assert_reset(mut stream: TcpStream) {
    let outcome = stream.write_all(b"hello").and_then(|()| stream.read(&mut [0; 8]));
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

fn raw(netns: &Netns, protocol: i32) -> Socket {
    inside(netns, || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(protocol))).unwrap())
}

fn send_raw(netns: &Netns, protocol: i32, to: Ipv4Addr, bytes: &[u8]) {
    raw(netns, protocol).send_to(bytes, &SocketAddrV4::new(to, 0).into()).unwrap();
}

/// The host's connections that name the address, each by its addresses alone.
fn tracked(host: &Netns, address: Ipv4Addr) -> BTreeSet<String> {
    let all =
        inside(host, || std::fs::read_to_string("/proc/thread-self/net/nf_conntrack").unwrap());
    let names = |word: &str| {
        let value = word.strip_prefix("src=").or_else(|| word.strip_prefix("dst="));
        value == Some(address.to_string().as_str())
    };
    let named = all.lines().filter(|line| line.split_whitespace().any(names));
    let changing = ["use=", "packets=", "bytes="];
    let kept =
        |word: &&str| word.contains('=') && !changing.iter().any(|key| word.starts_with(key));
    named.map(|line| line.split_whitespace().filter(kept).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn clients_of_a_leg_that_goes_are_reset_and_reach_the_ports_next_owner() {
    if skip() {
        return;
    }
    let port_to = |address| rules_with([published(Transport::Tcp, ANY, 8080, address, 80)]);
    let mut lab = Lab::new(&port_to(WEB));
    let servers = [listen(&lab.web, 80), listen(&lab.db, 80)];
    let far_server = listen(&lab.outside, 9000);
    let mut client = connect_from(&lab.outside, 40000, HOST, 8080);
    let mut neighbour = connect_from(&lab.db, 40000, HOST, 8080);
    let mut held: Vec<TcpStream> = Vec::new();
    for stream in [&mut client, &mut neighbour] {
        let mut served = accept(&servers[0]);
        echo(stream, &mut served);
        held.push(served);
    }
    let mut own = connect_from(&lab.web, 40001, OUTSIDE, 9000);
    let mut of_own = accept(&far_server);
    echo(&mut own, &mut of_own);
    let mut of_db = connect_from(&lab.db, 40001, OUTSIDE, 9000);
    let mut db_served = accept(&far_server);
    echo(&mut of_db, &mut db_served);

    lab.legs.remove(&leg(WEB));
    lab.host.sh("ip link set leg2 down");
    assert_eq!(lab.sync(&rules()), Changed::Elements { added: 0, removed: 1 });
    // The clients, and the server that the endpoint was a client of, are answered by the host itself.
    for stream in [client, neighbour, of_own] {
        assert_reset(stream);
    }
    echo(&mut of_db, &mut db_served);

    // The port is another endpoint's now. A client of the former one finds that out at once, also where it asks only
    // now; and a connection from the same port of the client is a new one.
    lab.sync(&port_to(DB));
    let mut again = connect_from(&lab.outside, 40000, HOST, 8080);
    echo(&mut again, &mut accept(&servers[1]));
}

#[test]
fn a_client_whose_last_word_was_lost_reaches_the_ports_next_owner() {
    if skip() {
        return;
    }
    let port_to = |address| rules_with([published(Transport::Tcp, ANY, 8080, address, 80)]);
    let mut lab = Lab::new(&port_to(WEB));
    let servers = [listen(&lab.web, 80), listen(&lab.db, 80)];
    let mut client = connect_from(&lab.outside, 40000, HOST, 8080);
    echo(&mut client, &mut accept(&servers[0]));
    // The client is gone without a word, as after a crash.
    lab.outside.sh("nft add table ip x; nft add chain ip x o \\{ type filter hook output priority 0 \\; \\}; nft add rule ip x o drop");
    socket2::SockRef::from(&client).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(client);
    lab.outside.sh("nft delete table ip x");
    lab.sync(&port_to(DB));
    let mut again = connect_from(&lab.outside, 40000, HOST, 8080);
    echo(&mut again, &mut accept(&servers[1]));
}

#[test]
fn no_connection_of_a_leg_that_is_gone_is_left_whatever_its_protocol() {
    if skip() {
        return;
    }
    let ports = |address| {
        rules_with([
            published(Transport::Tcp, ANY, 8080, address, 80),
            published(Transport::Udp, ANY, 5353, address, 53),
            published(Transport::Sctp, ANY, 9899, address, 99),
        ])
    };
    let mut lab = Lab::new(&ports(WEB));
    let far = listen(&lab.outside, 9000);
    let _servers = [&lab.web, &lab.db].map(|netns| (listen(netns, 80), udp(netns, 53)));
    for netns in [&lab.web, &lab.db] {
        connect_from(netns, 40001, OUTSIDE, 9000);
        drop(accept(&far));
        udp(netns, 40002).send_to(b"x", (OUTSIDE, 9)).unwrap();
        assert!(netns.succeeds(&format!("ping -c 1 -W 5 {OUTSIDE}")));
        send_raw(netns, 132, OUTSIDE, &sctp_init(40003, 9));
        // A protocol for experiments, that the kernel knows nothing of.
        send_raw(netns, 253, OUTSIDE, b"experiment");
        udp(netns, 40004).send_to(b"x", (GATEWAY, 9)).unwrap();
    }
    let client = connect_from(&lab.outside, 40005, HOST, 8080);
    udp(&lab.outside, 40006).send_to(b"x", (HOST, 5353)).unwrap();
    send_raw(&lab.outside, 132, HOST, &sctp_init(40007, 9899));
    let direct = connect_from(&lab.host, 40008, WEB, 80);
    let of_web = tracked(&lab.host, WEB);
    for protocol in ["sport=40001", "sport=40002", "type=8", "sport=40003", "sport=40004"]
        .into_iter()
        .chain(["sport=40005", "sport=40006", "sport=40007", "sport=40008"])
    {
        assert!(of_web.iter().any(|line| line.contains(protocol)), "{protocol}: {of_web:#?}");
    }
    assert!(of_web.len() >= 10, "{of_web:#?}");
    let of_db = tracked(&lab.host, DB);

    lab.legs.remove(&leg(WEB));
    lab.sync(&rules());
    assert_eq!(tracked(&lab.host, WEB), BTreeSet::new());
    assert_eq!(tracked(&lab.host, DB), of_db, "its neighbour's stay");
    drop((client, direct));
}

#[test]
fn a_port_takes_its_clients_along_over_udp_and_sctp() {
    if skip() {
        return;
    }
    let ports = |address| {
        rules_with([
            published(Transport::Udp, ANY, 5353, address, 53),
            published(Transport::Sctp, HOST, 9899, address, 99),
        ])
    };
    let mut lab = Lab::new(&rules());
    let client = udp(&lab.outside, 40000);
    let served = [&lab.web, &lab.db].map(|netns| (udp(netns, 53), raw(netns, 132)));
    client.send_to(b"too early", (HOST, 5353)).unwrap();
    for (address, (on_udp, on_sctp)) in [WEB, DB].into_iter().zip(&served) {
        lab.sync(&ports(address));
        client.send_to(b"x", (HOST, 5353)).unwrap();
        on_udp.recv_from(&mut [0; 16]).unwrap_or_else(|error| panic!("UDP to {address}: {error}"));
        send_raw(&lab.outside, 132, HOST, &sctp_init(40000, 9899));
        on_sctp.set_read_timeout(Some(BOUND)).unwrap();
        let read = (&*on_sctp).read(&mut [0; 256]);
        read.unwrap_or_else(|error| panic!("SCTP to {address}: {error}"));
    }
}

#[test]
fn connections_of_others_are_left_alone() {
    if skip() {
        return;
    }
    let port_to = |address| rules_with([published(Transport::Udp, HOST, 5353, address, 53)]);
    let mut lab = Lab::new(&port_to(WEB));
    // Another program publishes the same port of another address, and another one has zones of its own, in which our
    // addresses may be anybody's.
    lab.host.sh("ip addr add 10.0.0.5/24 dev eth7; ip addr add 172.17.0.1/16 dev lo");
    lab.host.sh("nft add table ip others; \
        nft add chain ip others d \\{ type nat hook prerouting priority -110 \\; \\}; \
        nft add rule ip others d ip daddr 10.0.0.5 udp dport 5353 dnat to 172.17.0.1:53; \
        nft add chain ip others z \\{ type filter hook output priority -300 \\; \\}; \
        nft add rule ip others z ip daddr 172.18.0.2 udp dport 9 ct zone set 7");
    let container = udp(&lab.host, 53);
    let client = udp(&lab.outside, 40000);
    client.send_to(b"x", (Ipv4Addr::new(10, 0, 0, 5), 5353)).unwrap();
    container.recv_from(&mut [0; 8]).unwrap();
    for port in [9, 10] {
        udp(&lab.host, 40000).send_to(b"x", (WEB, port)).unwrap();
    }
    let own = listen(&lab.host, 9000);
    let mut ssh = connect_from(&lab.outside, 40001, HOST, 9000);
    let mut of_ssh = accept(&own);
    echo(&mut ssh, &mut of_ssh);
    let named = |host: &Netns| {
        let all = [Ipv4Addr::new(172, 17, 0, 1), HOST].map(|address| tracked(host, address));
        all.into_iter().flatten().filter(|line| !line.contains("172.18.")).collect::<BTreeSet<_>>()
    };
    let zoned = |host: &Netns| -> Vec<String> {
        tracked(host, WEB).into_iter().filter(|line| line.contains("dport=9 ")).collect()
    };
    let before = (named(&lab.host), zoned(&lab.host));
    assert!(before.0.len() >= 2 && before.1.len() == 1, "{before:#?}");
    let check = |lab: &Lab| assert_eq!((named(&lab.host), zoned(&lab.host)), before);

    lab.sync(&port_to(DB));
    check(&lab);
    lab.legs.remove(&leg(WEB));
    lab.sync(&port_to(DB));
    assert_eq!(tracked(&lab.host, WEB).len(), 1, "the other connection was the leg's");
    check(&lab);
    lab.host.sh("nft delete table ip overlay");
    lab.table.doubt();
    assert_eq!(lab.sync(&port_to(DB)), Changed::Table);
    check(&lab);
    lab.connections = Connections::default();
    lab.sync(&port_to(DB));
    check(&lab);
    echo(&mut ssh, &mut of_ssh);
}

#[test]
fn what_began_while_the_rules_were_away_is_masqueraded_when_they_are_back() {
    if skip() {
        return;
    }
    let mut lab = Lab::new(&rules());
    lab.host.sh(TRACKER);
    lab.outside.sh(&format!("ip route add {WEB} via {HOST}"));
    let server = udp(&lab.outside, 9999);
    let source_of = |client: &UdpSocket| {
        client.send_to(b"x", (OUTSIDE, 9999)).unwrap();
        server.recv_from(&mut [0; 8]).unwrap().1.ip()
    };
    let [early, late] = [5555, 5556].map(|port| udp(&lab.web, port));
    assert_eq!(source_of(&early), HOST);
    // The node may be there or not when the rules are lost.
    for connections in [None, Some(Connections::default())] {
        lab.host.sh("nft delete table ip overlay");
        lab.connections = connections.unwrap_or(lab.connections);
        assert_eq!(source_of(&late), WEB, "nobody masquerades it");
        lab.table.doubt();
        assert_eq!(lab.sync(&rules()), Changed::Table);
        assert_eq!(source_of(&late), HOST);
        assert_eq!(source_of(&early), HOST);
        // For the next round.
        lab.legs.remove(&leg(WEB));
        lab.sync(&rules());
        lab.legs.insert(leg(WEB), WEB);
        lab.sync(&rules());
        assert_eq!(source_of(&early), HOST);
    }
}
