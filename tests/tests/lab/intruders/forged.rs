//! Packets by which an endpoint would pass as somebody else: as a node, or as a neighbour on the gateway
//! bridge. It sends them over the leg that leads out.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use etherparse::IpNumber;
use overlay_lab::{Netns, Requirement, capture::Capture, eventually};

use super::{
    packets::{self, VXLAN_PORT, checksum, port_unreachable, vxlan_datagram},
    scene::{GATEWAY, Scene, party},
};
use crate::{
    attack::{Attack, Victims},
    frames::{self, MARK, Party},
    support::{OUTSIDE, leg, mac_of, scenario},
};

const LEG: &[&str] = &["from_gateway"];
const API_PORT: u16 = 7400;
const PATIENCE: Duration = Duration::from_secs(10);
/// The requirements of a scenario in which a host computes checksums in software, as a network card does in
/// hardware.
const WITHOUT_OFFLOAD: &[Requirement] = &[
    Requirement::Root,
    Requirement::Bpffs,
    Requirement::Binary,
    Requirement::Tool("ping"),
    Requirement::Tool("nft"),
    Requirement::Tool("tcpdump"),
    Requirement::Tool("tshark"),
    Requirement::Tool("ethtool"),
];

/// The two ends of a frame on web1's leg that leads out: web1, and the gateway's MAC. Callers replace the
/// gateway's address.
fn parties(scene: &Scene) -> Result<(Party, Party)> {
    let out = leg(&scene.web1.netns)?;
    Ok((Party::new(&out.mac, out.address)?, Party::new(&mac_of(GATEWAY), GATEWAY)?))
}

/// A datagram to `port` whose last two bytes are chosen so that its checksum is `wanted`. Written over the
/// port, the checksum becomes another port.
pub(super) fn summing_to(
    from: Party,
    to: Party,
    port: u16,
    payload: &[u8],
    wanted: u16,
) -> Vec<u8> {
    const L4: usize = 14 + 20;
    let even = if payload.len().is_multiple_of(2) { &[][..] } else { &[0] };
    let datagram = packets::udp(50_000, port, &[payload, even, &[0, 0]].concat());
    let mut frame = packets::ipv4(from, to, IpNumber::UDP, &datagram, |_| {});
    let sum = !checksum(&frame[L4..]);
    // The difference, in ones' complement, between the present sum and the sum whose complement is `wanted`.
    let missing = (u32::from(!wanted) + u32::from(!sum)) % 0xffff;
    let end = frame.len();
    frame[end - 2..].copy_from_slice(&(missing as u16).to_be_bytes());
    frame
}

/// Datagrams to port 5000. If the host writes the checksum over the port, the port becomes VXLAN's.
#[test]
fn an_unfinished_checksum_makes_no_vxlan() {
    scenario(WITHOUT_OFFLOAD, |lab| {
        let scene = Scene::build(lab)?;
        let [h1, h2, _] = &scene.hosts;
        h1.netns.run(&["ethtool", "-K", "eth0", "tx", "off"])?;
        let (own, gateway) = parties(&scene)?;
        let inner = frames::udp(party(&scene.near)?, party(&scene.far)?, 7);
        let payload = &vxlan_datagram(scene.other_vni, &inner)[8..];
        let to = gateway.with(h2.address);
        let frame = summing_to(own, to, 5000, payload, VXLAN_PORT);
        let victims = scene.others()?;
        let wire = Capture::start(&h2.netns, "eth0", "udp")?;
        scene.works()?;
        // An endpoint may leave the UDP checksum to the host, as long as it is written where it belongs.
        scene.web1.netns.send_unfinished("eth1", &frame, 34, 6)?;
        wire.wait_for("udp.dstport == 5000")?;

        let before = h1.counter("unfinished_checksum")?;
        scene.web1.netns.send_unfinished("eth1", &frame, 34, 2)?;
        eventually("it is counted", PATIENCE, || {
            let counted = h1.counter("unfinished_checksum")? - before;
            ensure!(counted == 1, "{counted}");
            Ok(())
        })?;
        scene.works()?;
        victims.heard_nothing()?;
        let forged = format!("udp.dstport == {VXLAN_PORT} && frame contains \"{MARK}\"");
        let forged = wire.stop()?.fields(&forged, &["ip.src", "_ws.col.Info"])?;
        ensure!(forged.is_empty(), "left the host: {forged:?}");
        Ok(())
    });
}

/// Runs a server at a node's address that sends each datagram back, until `body` has ended. An empty datagram
/// ends the server.
fn with_echo<T>(
    netns: &Netns,
    address: Ipv4Addr,
    body: impl FnOnce(u16) -> Result<T>,
) -> Result<T> {
    let server = netns.enter(|| Ok(UdpSocket::bind((address, 0))?))?;
    let (port, end) = (server.local_addr()?.port(), server.try_clone()?);
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut buffer = [0; 2000];
            while let Ok((len @ 1.., from)) = server.recv_from(&mut buffer) {
                // An error is ignored, because the client may have ended.
                drop(server.send_to(&buffer[..len], from));
            }
        });
        let result = body(port);
        end.send_to(&[], (address, port))?;
        result
    })
}

/// A server's answer to the VXLAN port comes from a VTEP's address, so it would pass as a node's packet.
#[test]
fn what_answers_to_the_vxlan_port_is_no_vxlan() {
    scenario(OUTSIDE, |lab| {
        let scene = Scene::build(lab)?;
        let [h1, h2, _] = &scene.hosts;
        let out = leg(&scene.web1.netns)?;
        let inner = frames::udp(party(&scene.far)?, party(&scene.near)?, 7);
        let payload = vxlan_datagram(scene.other_vni, &inner)[8..].to_vec();
        let victims = scene.others()?;
        scene.works()?;
        with_echo(&h2.netns, h2.address, |port| {
            let ask = |from: u16| -> Result<UdpSocket> {
                let socket =
                    scene.web1.netns.enter(|| Ok(UdpSocket::bind((out.address, from))?))?;
                socket.set_read_timeout(Some(PATIENCE))?;
                socket.send_to(&payload, (h2.address, port)).context("to send")?;
                Ok(socket)
            };
            let (len, _) = ask(5000)?.recv_from(&mut [0; 2000]).context("no echo")?;
            ensure!(len == payload.len(), "{len}");
            let before = h1.counter("vxlan_from_endpoint")?;
            let _socket = ask(VXLAN_PORT)?;
            eventually("it is counted", PATIENCE, || {
                let counted = h1.counter("vxlan_from_endpoint")? - before;
                ensure!(counted == 1, "{counted}");
                Ok(())
            })
        })?;
        scene.works()?;
        victims.heard_nothing()
    });
}

/// Without this check, a segment that opens no connection would create a flow in the host's connection table,
/// and the API's answers would come back along it.
#[test]
fn an_api_hears_no_segment_of_an_endpoint() {
    scenario(OUTSIDE, |lab| {
        let scene = Scene::build(lab)?;
        let [h1, h2, _] = &scene.hosts;
        let (own, gateway) = parties(&scene)?;
        let wire = Capture::start(&h2.netns, "eth0", "icmp or tcp")?;
        let mut attack = Attack::default();
        const FIN: u8 = 1;
        const SYN: u8 = 2;
        const RST: u8 = 4;
        const ACK: u8 = 16;
        for node in [h1, h2] {
            for flags in [SYN, ACK, SYN | ACK, RST, FIN | ACK, 0] {
                let to = gateway.with(node.address);
                attack.add("controller_port", frames::tcp(own, to, API_PORT, flags));
            }
        }
        attack.is_counted((&scene.web1.netns, "eth1"), h1, LEG)?;
        scene.web1.netns.reaches(h2.address)?;
        let packets = wire.stop()?;
        ensure!(packets.count("icmp")? > 0, "nothing was captured");
        ensure!(!packets.have(MARK.as_bytes())?, "{}", packets.describe("tcp")?);
        Ok(())
    });
}

/// Both sockets of a UDP flow between a neighbour and a host outside.
fn flow(scene: &Scene, from: &Netns, port: u16) -> Result<(UdpSocket, UdpSocket)> {
    let outside =
        scene.stranger.netns.enter(|| Ok(UdpSocket::bind((scene.stranger.address, 0))?))?;
    let inside = from.enter(|| Ok(UdpSocket::bind((leg(from)?.address, port))?))?;
    for socket in [&outside, &inside] {
        socket.set_read_timeout(Some(PATIENCE))?;
    }
    inside.connect(outside.local_addr()?)?;
    inside.send(b"ping")?;
    let (_, client) = outside.recv_from(&mut [0; 8]).context("the server hears nothing")?;
    ensure!(client.port() == port, "masqueraded as {client}");
    outside.connect(client)?;
    outside.send(b"pong")?;
    inside.recv(&mut [0; 8]).context("the client hears nothing")?;
    Ok((inside, outside))
}

/// Without this check the host would take such an error as part of the flow that it quotes, and would deliver
/// it to that flow's owner.
#[test]
fn an_icmp_error_about_a_neighbour_goes_nowhere() {
    scenario(OUTSIDE, |lab| {
        let scene = Scene::build(lab)?;
        let h1 = &scene.hosts[0];
        let (own, gateway) = parties(&scene)?;
        let (inside, outside) = flow(&scene, &scene.neighbour.netns, 6000)?;
        let mut victims = Victims::default();
        victims.listen("neighbour", &scene.neighbour.netns, "eth1")?;
        victims.listen("stranger", &scene.stranger.netns, "eth0")?;
        scene.neighbour.netns.reaches(scene.stranger.address)?;

        let port = outside.local_addr()?.port();
        let node = gateway.with(h1.address);
        let server = gateway.with(scene.stranger.address);
        let neighbour = gateway.with(leg(&scene.neighbour.netns)?.address);
        let sent = |from: Party, to: Party, ports: [u16; 2]| {
            let datagram = packets::udp(ports[0], ports[1], b"what was sent");
            packets::ipv4(from, to, IpNumber::UDP, &datagram, |_| {})
        };
        let mut attack = Attack::default();
        for (to, lost) in [
            (node, sent(node, server, [6000, port])),
            (node, sent(neighbour, server, [6000, port])),
            (server, sent(server, neighbour, [port, 6000])),
            (server, sent(server, node, [port, 6000])),
        ] {
            attack.add("icmp_about_others", port_unreachable(own, to, &lost));
        }
        attack.is_counted((&scene.web1.netns, "eth1"), h1, LEG)?;
        // A frame that passed has arrived by then.
        scene.web1.netns.reaches(scene.stranger.address)?;
        scene.neighbour.netns.reaches(scene.stranger.address)?;
        for (who, socket) in [("the neighbour", &inside), ("the server", &outside)] {
            let error = socket.take_error()?;
            ensure!(error.is_none(), "{who}'s flow has ended: {error:?}");
        }
        victims.heard_nothing()?;

        // An endpoint may send such an error about a packet that it received itself. Here its kernel does so.
        let (client, server) = flow(&scene, &scene.web1.netns, 6001)?;
        drop(client);
        server.send(b"is somebody there?")?;
        let answer = server.recv(&mut [0; 8]);
        let kind = answer.as_ref().err().map(std::io::Error::kind);
        ensure!(kind == Some(ErrorKind::ConnectionRefused), "{answer:?}");
        Ok(())
    });
}
