//! Frames that an endpoint may send: to a neighbour on its network, and to the outside. Neither of them may hand
//! on what is inside, whatever it is: no host and no endpoint of another network is reached by way of a third.

use anyhow::Result;
use etherparse::IpNumber;

use super::{
    packets::{self, VXLAN_PORT, fragment, icmp, icmp_error, ipv4, tunnels, vxlan, with_options},
    scene::{GATEWAY, Outward, Scene, host_party, party},
    table::{self, Leg, PASSES, Table},
};
use crate::{
    attack::Victims,
    frames::{self, MARK, Party},
    support::{OUTSIDE, scenario},
};

const TCP: IpNumber = IpNumber::TCP;
const UDP: IpNumber = IpNumber::UDP;
const ACK: u8 = 16;

/// Packets with a packet to the victim inside, or with the victim's address as the one after the next.
fn leading_on(own: Party, through: Party, victim: Party, vni: u32) -> Vec<Vec<u8>> {
    let inside = frames::udp(own, victim, 7);
    let mut all = tunnels(own, through, vni, &inside);
    all.push(frames::udp(own, through.with(victim.ip), 7));
    all
}

/// A redirect of what it was sent, to the victim.
fn redirecting(own: Party, through: Party, victim: Party) -> Vec<u8> {
    let about = ipv4(through, own, UDP, &packets::udp(7, 40_000, b"sent"), |_| {});
    packets::redirect(own, through, victim, &about)
}

/// What the leg that leads out lets out to nodes and to strangers, which treat it as from any host.
fn outward(scene: &Scene, ends: &Outward) -> Result<Table> {
    let Outward { own, neighbour, gateway, nodes, stranger, .. } = *ends;
    let mut table = Table::by(Leg::Gateway);
    let victims = [&scene.near, &scene.far, &scene.neighbour, &scene.web2];
    for through in nodes.into_iter().chain([gateway, stranger]) {
        for victim in victims {
            let frames = leading_on(own, through, party(victim)?, scene.other_vni);
            let name = format!("through {} to {}", through.ip, victim.name);
            table.row(&name, "icmp_from_router", redirecting(own, through, party(victim)?));
            table.rows(name, PASSES, frames);
        }
        let frames = tunnels(own, through, scene.other_vni, &frames::udp(own, neighbour, 7));
        table.rows(format!("through {} to a neighbour's leg", through.ip), PASSES, frames);
        let datagram = packets::udp(40_000, 7, MARK.as_bytes());
        for (name, options) in [
            ("record route", &[7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0][..]),
            ("time stamps", &[68, 12, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
            ("router alert", &[148, 4, 0, 0]),
            ("security", &[130, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            ("a source route behind the end", &[0, 131, 7, 4, 172, 18, 0, 3]),
        ] {
            table.row(name, PASSES, with_options(own, through, UDP, &datagram, options));
        }
        // Pieces of VXLAN whose first piece is missing, and one that begins within the UDP header.
        let inner = frames::udp(own, party(&scene.far)?, 7);
        let whole = packets::vxlan_datagram(scene.other_vni, &inner);
        let pieces = [
            fragment(own, through, UDP, &whole[8..], (8, false)),
            fragment(own, through, UDP, &whole, (8, false)),
            fragment(own, through, UDP, &whole, (65_480, true)),
            fragment(own, through, TCP, &whole, (8, true)),
        ];
        table.rows(format!("lost pieces to {}", through.ip), PASSES, pieces);
        let about_own = ipv4(through, own, UDP, &packets::udp(7, 40_000, b"sent"), |_| {});
        let messages = [
            icmp_error(own, through, 3, 3, &about_own),
            icmp_error(own, through, 11, 0, &about_own),
            icmp(
                own,
                through,
                &[&[9, 0, 0, 0, 1, 2, 7, 8][..], &[172, 18, 0, 3, 0, 0, 0, 9]].concat(),
            ),
            icmp(own, through, &[17, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0]),
            icmp(own, through, &[&[13, 0, 0, 0, 0, 1, 0, 1][..], &[0; 12]].concat()),
        ];
        table.rows(format!("ICMP to {}", through.ip), PASSES, messages);
        // Segments of no connection, among them answers; and no port at all.
        let segments = (0..0x40).map(|flags| frames::tcp(own, through, 5000, flags));
        table.rows(format!("segments of no connection to {}", through.ip), PASSES, segments);
        let none = packets::udp(0, 0, MARK.as_bytes());
        table.row("no ports", PASSES, ipv4(own, through, UDP, &none, |_| {}));
        let dying = ipv4(own, through, UDP, &datagram, |ip| ip.time_to_live = 1);
        table.row("a last hop", PASSES, dying);
    }
    let underlay = [[10, 10, 10, 255], [10, 10, 10, 0]];
    let odd = [[240, 0, 0, 1], [255, 255, 255, 254], [169, 254, 169, 254], [169, 254, 0, 1]];
    for ip in underlay.into_iter().chain(odd) {
        table.row(format!("to {ip:?}"), PASSES, frames::udp(own, gateway.with(ip), 7));
    }
    Ok(table)
}

/// Announcements of a further connection, here one to the neighbour. A helper of the host's connection tracking
/// would let it in.
fn announced(ends: &Outward) -> Table {
    let Outward { own, neighbour, stranger, .. } = *ends;
    let [a, b, c, d] = neighbour.ip.octets();
    let ip = neighbour.ip;
    let sip = format!(
        "INVITE sip:a@b SIP/2.0\r\nContact: <sip:a@{ip}:6001>\r\nContent-Type: application/sdp\r\n\r\n\
         c=IN IP4 {ip}\r\nm=audio 6001 RTP/AVP 0\r\n"
    );
    let number = u32::from_be_bytes([a, b, c, d]);
    let mut table = Table::by(Leg::Gateway);
    for (name, port, text) in [
        ("FTP", 21, format!("PORT {a},{b},{c},{d},23,113\r\n")),
        ("FTP's longer form", 21, format!("EPRT |1|{ip}|6001|\r\n")),
        ("IRC", 6667, format!("PRIVMSG a :\u{1}DCC SEND a {number} 6001\u{1}\r\n")),
        ("SIP", 5060, sip.clone()),
    ] {
        let segment = frames::tcp(own, stranger, port, ACK)[34..54].to_vec();
        let segment = [&segment[..], text.as_bytes()].concat();
        table.row(name, PASSES, ipv4(own, stranger, TCP, &segment, |_| {}));
    }
    for (name, port, text) in
        [("TFTP", 69, "\0\u{1}file\0octet\0".to_owned()), ("SIP by UDP", 5060, sip)]
    {
        let datagram = packets::udp(6001, port, text.as_bytes());
        table.row(name, PASSES, ipv4(own, stranger, UDP, &datagram, |_| {}));
    }
    table
}

#[test]
fn the_outside_hands_nothing_on() {
    scenario(OUTSIDE, |lab| {
        let scene = Scene::build(lab)?;
        let ends = scene.outward()?;
        let [h1, h2, h3] = &scene.hosts;
        let mut victims = scene.victims()?;
        scene.outward_victims(&mut victims)?;
        victims.listen("web1", &scene.web1.netns, "eth0")?;
        for host in [h1, h2, h3] {
            let filter = format!("icmp[0] == 8 or udp port {VXLAN_PORT} or tcp port 7400");
            victims.listen_for(&host.name, &host.netns, "eth0", &filter)?;
        }
        // No broadcast is handed on.
        let filter = "icmp[0] == 8 or ether broadcast";
        victims.listen_for("stranger", &scene.stranger.netns, "eth0", filter)?;
        let tables = [outward(&scene, &ends)?, announced(&ends)];
        table::try_all(&scene, &tables, Victims::default())?;
        // What was announced would be let in now.
        let (stranger, node) = (host_party(&scene.stranger)?, host_party(h1)?);
        let called = [frames::syn(stranger, node, 6001), frames::udp(stranger, node, 6001)];
        scene.stranger.netns.send_frames("eth0", called.iter())?;
        scene.everything_works()?;
        victims.heard_nothing()
    });
}

/// A frame that an endpoint may send within its network does not lead out of the network, whatever is inside
/// it.
#[test]
fn a_neighbour_hands_nothing_on() {
    scenario(OUTSIDE, |lab| {
        let scene = Scene::build(lab)?;
        let own = party(&scene.web1)?;
        let mut victims = scene.others()?;
        scene.outward_victims(&mut victims)?;
        for endpoint in [&scene.neighbour, &scene.web2] {
            victims.listen(&endpoint.name, &endpoint.netns, "eth0")?;
        }
        scene.works()?;
        scene.leads_out()?;
        let mut all = Vec::new();
        let gateway = own.with(GATEWAY);
        for through in [&scene.neighbour, &scene.web2] {
            let through = party(through)?;
            for victim in [party(&scene.near)?, party(&scene.far)?, gateway] {
                // A loose source route (RFC 791): option 131, with one hop to go.
                let route = [&[131, 7, 4][..], &victim.ip.octets()].concat();
                let datagram = packets::udp(40_000, 7, MARK.as_bytes());
                all.push(with_options(own, through, UDP, &datagram, &route));
                let inside = frames::udp(own, victim, 7);
                all.push(vxlan(own, through, scene.other_vni, &inside));
                all.extend(leading_on(own, through, victim, scene.other_vni));
                all.push(redirecting(own, through, victim));
            }
        }
        scene.web1.netns.send_frames("eth0", all.iter())?;
        for heard in ["neighbour's eth0", "web2's eth0"] {
            victims.hears(heard)?;
        }
        scene.works()?;
        scene.leads_out()?;
        victims.without(&["neighbour's eth0", "web2's eth0"]).heard_nothing()
    });
}
