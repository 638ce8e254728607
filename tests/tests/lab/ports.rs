//! Published ports: who reaches them, which client address the server sees, and which ports can be published.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use overlay_lab::{
    Host, MachineState, Netns,
    capture::Capture,
    mirror::{self, Connection},
    sctp,
};

use crate::support::{OUTSIDE, World, attach, leg, refused_with, scenario};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 1);
const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Longest time until a client has its answer, or its reset.
const PATIENCE: Duration = Duration::from_secs(5);

/// The lines of `overlay port`, sorted.
fn ports(host: &Host, name: &str) -> Result<Vec<String>> {
    let text = host.overlay(&["port", name])?;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    Ok(lines)
}

#[test]
fn everybody_reaches_a_published_port_and_is_seen_as_himself() {
    scenario(OUTSIDE, |lab| {
        let world = World::build(lab)?;
        let ([h1, h2], outside) = (&world.hosts, &world.outside);
        let publish = ["-p", "8080:80", "-p", "127.0.0.1:8081:80/tcp", "-p", "53:53/udp"];
        let web1 = attach(lab, h1, "web1", &publish)?;
        let near = attach(lab, h1, "near", &[])?;
        let far = attach(lab, h2, "far", &[])?;
        mirror::tcp(&web1.netns, 80)?;
        mirror::udp_at(&web1.netns, leg(&web1.netns)?.address, 53)?;
        let lines = ports(h2, "web1")?;
        ensure!(
            lines == ["53/udp -> 0.0.0.0:53", "80/tcp -> 0.0.0.0:8080", "80/tcp -> 127.0.0.1:8081"],
            "{lines:?}"
        );

        // Each row is a client, the address that it connects to, and the client's address as the server sees
        // it. The server sees the gateway for localhost, whose address means nothing elsewhere, and for
        // endpoints of the same host, whose answers must come back through the host.
        let clients: [(&Netns, Ipv4Addr, Ipv4Addr); 8] = [
            (&outside.netns, h1.address, outside.address),
            (&h2.netns, h1.address, h2.address),
            (&h1.netns, h1.address, h1.address),
            (&h1.netns, LOCALHOST, GATEWAY),
            (&far.netns, h1.address, h2.address),
            (&near.netns, h1.address, GATEWAY),
            (&near.netns, GATEWAY, GATEWAY),
            (&web1.netns, h1.address, GATEWAY),
        ];
        for (client, at, expected) in clients {
            let seen = [client.seen_over_tcp(at, 8080)?, client.seen_over_udp(at, 53)?];
            ensure!(seen == [IpAddr::V4(expected); 2], "{} at {at}: {seen:?}", client.name());
        }

        // A port that is published on one address is closed on all others.
        ensure!(h1.netns.seen_over_tcp(LOCALHOST, 8081)? == GATEWAY);
        for (client, at) in [
            (&outside.netns, h1.address),
            (&h1.netns, h1.address),
            (&near.netns, h1.address),
            (&near.netns, GATEWAY),
        ] {
            client.no_tcp(at, 8081)?;
        }
        // A port is published on no other node.
        outside.netns.no_tcp(h2.address, 8080)?;
        outside.netns.no_udp(h2.address, 53)
    });
}

#[test]
fn exposed_ports_get_free_ports_of_the_node() {
    scenario(OUTSIDE, |lab| {
        let world = World::build(lab)?;
        let ([h1, h2], outside) = (&world.hosts, &world.outside.netns);
        let expose = ["--expose", "80/tcp", "-P"];
        let web1 = attach(lab, h1, "web1", &expose)?;
        mirror::tcp(&web1.netns, 80)?;
        ensure!(ports(h1, "web1")? == ["80/tcp -> 0.0.0.0:32768"], "{:?}", ports(h1, "web1")?);
        ensure!(outside.seen_over_tcp(h1.address, 32768)? == world.outside.address);
        // Each node has its own ports, so that the same number is free on another node.
        attach(lab, h2, "web2", &expose)?;
        ensure!(ports(h1, "web2")? == ["80/tcp -> 0.0.0.0:32768"], "{:?}", ports(h1, "web2")?);
        // Neither a port that another endpoint publishes nor one that a program has bound is chosen.
        let any = Ipv4Addr::UNSPECIFIED;
        let _program = h1.netns.enter(|| Ok(TcpListener::bind((any, 32769))?))?;
        let web3 = attach(lab, h1, "web3", &[&expose[..], &["--expose", "7/udp"]].concat())?;
        mirror::udp(&web3.netns, 7)?;
        let lines = ports(h1, "web3")?;
        let port = |transport: &str| -> Result<u16> {
            let line = lines.iter().find(|line| line.contains(transport)).context("a line")?;
            Ok(line.rsplit_once(':').with_context(|| line.clone())?.1.parse()?)
        };
        ensure!(port("tcp")? == 32770 && port("udp")? >= 32768 && lines.len() == 2, "{lines:?}");
        ensure!(outside.seen_over_udp(h1.address, port("udp")?)? == world.outside.address);
        // A port that is only exposed is not published.
        attach(lab, h1, "web4", &["--expose", "80"])?;
        ensure!(ports(h1, "web4")?.is_empty(), "{:?}", ports(h1, "web4")?);
        Ok(())
    });
}

#[test]
fn what_is_not_published_is_closed_even_to_who_has_a_route() {
    scenario(OUTSIDE, |lab| {
        let (world, left) = World::bare(lab)?;
        world.start(lab)?;
        let h1 = &world.hosts[0];
        let web1 = attach(lab, h1, "web1", &["-p", "8080:80"])?;
        for port in [80, 81] {
            mirror::tcp(&web1.netns, port)?;
            mirror::udp(&web1.netns, port)?;
        }
        // The intruder is on h1's own segment, and routes everything through h1.
        let near = lab.host(&left, "intruder", "10.10.10.200")?;
        let (h1_address, intruder) = (h1.address.to_string(), &near.netns);
        for to in ["172.18.0.0/16", "203.0.113.0/24", "172.16.16.0/24"] {
            intruder.ip(&["route", "add", to, "via", &h1_address])?;
        }
        ensure!(intruder.seen_over_tcp(h1.address, 8080)? == near.address);
        let leg = leg(&web1.netns)?.address;
        for address in [leg, web1.address] {
            for port in [80, 81] {
                intruder.no_tcp(address, port)?;
                intruder.no_udp(address, port)?;
            }
            ensure!(intruder.ping(address, 2)?.received == 0, "{address} answers");
        }
        // The host does not forward packets for others.
        ensure!(intruder.ping(world.outside.address, 2)?.received == 0, "h1 is a router");
        intruder.no_tcp(world.outside.address, 80)?;
        // The host itself still reaches the outside.
        h1.netns.reaches(world.outside.address)
    });
}

#[test]
fn sctp_is_published_too() {
    scenario(OUTSIDE, |lab| {
        let world = World::build(lab)?;
        let ([h1, _], outside) = (&world.hosts, &world.outside);
        let web1 = attach(lab, h1, "web1", &["-p", "9999:9998/sctp"])?;
        ensure!(ports(h1, "web1")? == ["9998/sctp -> 0.0.0.0:9999"], "{:?}", ports(h1, "web1")?);
        let capture = Capture::start(&web1.netns, "eth1", "sctp")?;
        sctp::send_init(&outside.netns, 40_000, SocketAddrV4::new(h1.address, 9999))?;
        let fields = ["ip.src", "ip.dst", "sctp.srcport", "sctp.dstport", "sctp.checksum.status"];
        let rows = capture.wait_for("sctp.chunk_type == 1")?.fields("sctp", &fields)?;
        let to = leg(&web1.netns)?.address.to_string();
        let good = ["Good", "1"];
        let expected = [outside.address.to_string(), to, "40000".into(), "9998".into()];
        ensure!(rows[0][..4] == expected && good.contains(&rows[0][4].as_str()), "{rows:?}");
        Ok(())
    });
}

#[test]
fn clients_of_an_endpoint_that_goes_are_told_at_once() {
    scenario(OUTSIDE, |lab| {
        let world = World::build(lab)?;
        let ([h1, h2], outside) = (&world.hosts, &world.outside);
        let port = SocketAddrV4::new(h1.address, 8080);
        let open = |client: &Netns| -> Result<Connection> {
            let mut connection = client.enter(|| Connection::open(port, PATIENCE))?;
            connection.ask()?;
            Ok(connection)
        };
        let reset = |mut connection: Connection| -> Result<()> {
            let Err(error) = connection.ask() else { bail!("it was answered") };
            let io = error.downcast_ref::<io::Error>().context("no error of the socket")?;
            ensure!(io.kind() == io::ErrorKind::ConnectionReset, "{error:#}");
            Ok(())
        };
        let web1 = attach(lab, h1, "web1", &["-p", "8080:80"])?;
        mirror::tcp(&web1.netns, 80)?;
        let near = attach(lab, h1, "near", &[])?;
        let far = attach(lab, h2, "far", &[])?;
        let clients = [&outside.netns, &h1.netns, &near.netns, &far.netns];
        let first = clients.iter().map(|netns| open(netns)).collect::<Result<Vec<_>>>()?;
        let server = SocketAddrV4::new(outside.address, 80);
        let mut others = near.netns.enter(|| Connection::open(server, PATIENCE))?;
        others.ask()?;
        h1.overlay(&["endpoint", "rm", "web1"])?;
        first.into_iter().try_for_each(reset)?;

        // A client that asks only later is told by the port's next owner.
        let web2 = attach(lab, h1, "web2", &["-p", "8080:80"])?;
        mirror::tcp(&web2.netns, 80)?;
        let second = clients.iter().map(|netns| open(netns)).collect::<Result<Vec<_>>>()?;
        h1.overlay(&["endpoint", "rm", "web2"])?;
        let web3 = attach(lab, h1, "web3", &["-p", "8080:80"])?;
        mirror::tcp(&web3.netns, 80)?;
        second.into_iter().try_for_each(reset)?;
        open(&outside.netns)?;
        others.ask()?;
        Ok(())
    });
}

#[test]
fn a_port_has_one_owner() {
    scenario(OUTSIDE, |lab| {
        let world = World::build(lab)?;
        let [h1, h2] = &world.hosts;
        let web1 = attach(lab, h1, "web1", &["-p", "8080:80"])?;
        let any = Ipv4Addr::UNSPECIFIED;
        let listen = |host: &Arc<Host>, port| {
            host.netns.enter(|| Ok(TcpListener::bind((any, port)).map_err(|error| error.kind())))
        };
        let _tcp = listen(h1, 8090)?.map_err(|kind| anyhow::anyhow!("{kind}"))?;
        let _udp = h1.netns.enter(|| Ok(UdpSocket::bind((h1.address, 8091))?))?;

        let free = lab.container("free")?;
        let before = MachineState::of(h1)?;
        let rows = h1.overlay_json(&["endpoint", "ls"])?;
        for (publish, words) in [
            (&["8080:80"][..], "8080"),
            (&["127.0.0.1:8080:80"], "8080"),
            (&["8090:80"], "8090"),
            (&["8091:80/udp"], "8091"),
            (&["8092:80", "8090:80"], "8090"),
            (&["8092:80", "8092:81"], "8092"),
            (&["192.0.2.1:8092:80"], "192.0.2.1"),
        ] {
            let create = ["endpoint", "create", "late", "--network", "myoverlay", "--netns"];
            let publish: Vec<&str> = publish.iter().flat_map(|port| ["-p", port]).collect();
            // Whichever node is asked, the node that has the namespace decides.
            let place = [free.name(), "--node", "h1"];
            for asked in [h1, h2] {
                let refused = asked.overlay_fails(&[&create[..], &place, &publish].concat())?;
                refused_with(&refused, words).with_context(|| format!("{publish:?}"))?;
            }
            ensure!(free.links()? == ["lo"], "{publish:?}: {:?}", free.links()?);
            MachineState::of(h1)?.same_as(&before).with_context(|| format!("{publish:?}"))?;
            ensure!(h1.overlay_json(&["endpoint", "ls"])? == rows, "{publish:?}");
        }
        // The refused commands have released their ports again.
        drop(listen(h1, 8092)?.map_err(|kind| anyhow::anyhow!("{kind}"))?);
        // The same number with another protocol, or on another node, is a different port.
        attach(lab, h1, "udp", &["-p", "8080:80/udp"])?;
        attach(lab, h2, "web2", &["-p", "8080:80"])?;

        // Nobody else can bind the port while it is published, and everybody can afterwards.
        let taken = listen(h1, 8080)?.err();
        ensure!(taken == Some(io::ErrorKind::AddrInUse), "{taken:?}");
        drop(web1);
        h1.overlay(&["endpoint", "rm", "web1"])?;
        drop(listen(h1, 8080)?.map_err(|kind| anyhow::anyhow!("{kind}"))?);
        world.outside.netns.no_tcp(h1.address, 8080)?;
        let again = attach(lab, h1, "again", &["-p", "8080:80"])?;
        mirror::tcp(&again.netns, 80)?;
        ensure!(world.outside.netns.seen_over_tcp(h1.address, 8080)? == world.outside.address);
        Ok(())
    });
}
