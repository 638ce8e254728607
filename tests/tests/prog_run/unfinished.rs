//! Checksums that senders leave to a device, and which of them pass. Each is tested in both ways by which the
//! programs can read a checksum's place. Frames come in by real devices, because test_run makes none of this
//! kind.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use etherparse::IpNumber;
use overlay_common::{Counter, Direction, DropReason};

use super::{
    bench::{Bench, on_each_way},
    outward::{ACK, Outward, SYN, answers, tcp},
    packets::{EXPERIMENTAL, Flow, a_to_b, arp, ipv4, ipv6, other, tagged_with, who_has},
    tap::Unfinished,
    world::{A, B, FAR, FORWARDS, World},
};

/// Bytes of the link header.
const ETHERNET_LEN: usize = 14;
/// Longest time to wait for a count. Only a broken bench needs it.
const PATIENCE: Duration = Duration::from_secs(5);

/// A frame, the place of its unfinished checksum, and whether the frame passes.
struct Row {
    name: &'static str,
    frame: Vec<u8>,
    start: u16,
    offset: u16,
    passes: bool,
}

fn row(name: &'static str, frame: Vec<u8>, start: u16, offset: u16, passes: bool) -> Row {
    Row { name, frame, start, offset, passes }
}

/// A frame from [`A`] with this protocol in its IPv4 header, and long enough for every row.
fn of_protocol(protocol: u8) -> Vec<u8> {
    let mut frame = ipv4(A, FAR, Flow::default());
    frame[23] = protocol;
    frame.resize(120, 0x5a);
    let length = (frame.len() as u16 - 14).to_be_bytes();
    frame[16..18].copy_from_slice(&length);
    frame
}

/// A frame from [`A`] with this protocol in its IPv6 header, and long enough for every row.
fn of_next_header(protocol: u8) -> Vec<u8> {
    let mut frame = ipv6(A, FAR, Flow::default());
    frame[20] = protocol;
    frame.resize(140, 0x5a);
    let length = (frame.len() as u16 - 54).to_be_bytes();
    frame[18..20].copy_from_slice(&length);
    frame
}

/// A checksum passes at the place of the header's own checksum only, or behind the header if a tunnel may
/// follow there. The header begins at `at`.
#[rustfmt::skip]
fn endpoints_rows() -> Vec<Row> {
    let behind_options = {
        let mut frame = of_protocol(17);
        frame[14] = 0x46;
        frame.splice(34..34, [1; 4]);
        frame
    };
    let later_fragment = {
        let mut frame = of_protocol(6);
        frame[20..22].copy_from_slice(&[0, 3]);
        frame
    };
    let without_header = |protocol| {
        let mut frame = of_protocol(protocol);
        frame[14] = 0x40;
        frame
    };
    let tagged_udp = |vlan| tagged_with(&of_protocol(17), 0x8100, vlan);
    vec![
        row("UDP's own", of_protocol(17), 34, 6, true),
        row("UDP's own, to a neighbour", a_to_b(), 34, 6, true),
        row("UDP's destination port", of_protocol(17), 34, 2, false),
        row("UDP's source port", of_protocol(17), 34, 0, false),
        row("UDP's own, summed from elsewhere", of_protocol(17), 33, 7, false),
        row("the source address", of_protocol(17), 20, 6, false),
        row("the destination address", of_protocol(17), 20, 10, false),
        row("of what UDP carries", of_protocol(17), 42, 0, true),
        row("of what UDP carries, deep inside", of_protocol(17), 92, 16, true),
        row("UDP's last byte", of_protocol(17), 41, 1, false),
        row("UDP's, at TCP's place", of_protocol(17), 34, 16, false),
        row("UDP's own behind options", behind_options.clone(), 38, 6, true),
        row("UDP's own, were there no options", behind_options, 34, 6, false),
        row("the header of a packet that says to have none", without_header(47), 14, 0, false),
        row("the address of a packet that says to have no header", without_header(17), 22, 4, false),
        row("TCP's own", of_protocol(6), 34, 16, true),
        row("TCP's destination port", of_protocol(6), 34, 2, false),
        row("TCP's flags", of_protocol(6), 34, 12, false),
        row("TCP's, at UDP's place", of_protocol(6), 34, 6, false),
        row("of what TCP carries", of_protocol(6), 54, 0, false),
        row("SCTP's own", of_protocol(132), 34, 8, true),
        row("SCTP's destination port", of_protocol(132), 34, 2, false),
        row("ICMP's", of_protocol(1), 34, 2, false),
        row("of what ICMP carries", of_protocol(1), 62, 6, false),
        row("of what GRE carries", of_protocol(47), 38, 16, true),
        row("GRE's own", of_protocol(47), 34, 4, true),
        row("of what IP in IP carries", of_protocol(4), 54, 16, true),
        row("IP in IP's outer header", of_protocol(4), 33, 0, false),
        row("in a later fragment", later_fragment.clone(), 34, 2, true),
        row("before a later fragment", later_fragment, 33, 0, false),
        row("UDP's own in IPv6", of_next_header(17), 54, 6, true),
        row("UDP's destination port in IPv6", of_next_header(17), 54, 2, false),
        row("of what UDP carries in IPv6", of_next_header(17), 62, 16, true),
        row("TCP's own in IPv6", of_next_header(6), 54, 16, true),
        row("TCP's at IPv4's place", of_next_header(6), 34, 16, false),
        row("ICMPv6's", of_next_header(58), 54, 2, false),
        row("ICMPv6's kind", of_next_header(58), 54, 0, false),
        row("the next header of IPv6", of_next_header(17), 20, 0, false),
        row("behind an extension header", of_next_header(60), 62, 6, true),
        row("before an extension header", of_next_header(60), 53, 0, false),
        row("UDP's own on a VLAN", tagged_udp(7), 38, 6, true),
        row("anything on a VLAN", tagged_udp(7), 38, 2, true),
        row("UDP's own on VLAN 0", tagged_udp(0), 38, 6, true),
        row("UDP's destination port on VLAN 0", tagged_udp(0), 38, 2, false),
        row("another protocol's", other(A.mac, FAR.mac, EXPERIMENTAL, &[0x5a; 46]), 30, 2, true),
        row("another protocol's type", other(A.mac, FAR.mac, EXPERIMENTAL, &[0x5a; 46]), 12, 0, false),
        row("ARP's", who_has(B.ip), 28, 2, false),
    ]
}

/// The link header decides where the frame goes.
#[rustfmt::skip]
fn link_headers_rows() -> Vec<Row> {
    vec![
        row("the destination MAC", of_protocol(17), 0, 0, false),
        row("the source MAC", of_protocol(17), 6, 4, false),
        row("the type", of_protocol(17), 12, 0, false),
    ]
}

#[rustfmt::skip]
fn legs_rows() -> Vec<Row> {
    let udp = || Outward::default().frame();
    let of = |protocol: u8, payload: Vec<u8>| Outward { protocol: IpNumber(protocol), payload, ..Outward::default() };
    let long = || vec![0; 80];
    vec![
        row("UDP's own", udp(), 34, 6, true),
        row("UDP's destination port", udp(), 34, 2, false),
        row("UDP's source port", udp(), 34, 0, false),
        row("the source address", udp(), 20, 6, false),
        row("the destination address", udp(), 20, 10, false),
        row("the protocol", udp(), 22, 0, false),
        row("of what UDP carries", udp(), 42, 6, true),
        row("UDP's own behind options", Outward { options: vec![1; 8], ..Outward::default() }.frame(), 42, 6, true),
        row("UDP's destination port behind options", Outward { options: vec![1; 8], ..Outward::default() }.frame(), 42, 2, false),
        row("an option", Outward { options: vec![1; 8], ..Outward::default() }.frame(), 34, 6, false),
        row("TCP's own", of(6, tcp(80, SYN)).frame(), 34, 16, true),
        row("TCP's destination port", of(6, tcp(80, SYN)).frame(), 34, 2, false),
        row("TCP's flags", of(6, tcp(80, ACK)).frame(), 34, 12, false),
        row("SCTP's own", of(132, long()).frame(), 34, 8, true),
        row("ICMP's kind", of(1, long()).frame(), 34, 0, false),
        row("what ICMP quotes", of(1, long()).frame(), 42, 16, false),
        row("of what GRE carries", of(47, long()).frame(), 38, 16, true),
        row("a first fragment's port", Outward { more_fragments: true, ..Outward::default() }.frame(), 34, 2, false),
        row("in a later fragment", Outward { fragment_offset: 3, ..Outward::default() }.frame(), 34, 2, true),
        row("before a later fragment", Outward { fragment_offset: 3, ..Outward::default() }.frame(), 33, 0, false),
        row("ARP's", arp(answers()), 28, 2, false),
    ]
}

#[test]
fn what_an_endpoint_says_of_itself_is_not_overwritten() {
    on_each_way(|bench| {
        bench.attach(Direction::FromEndpoint, "port_a");
        check(bench, Direction::FromEndpoint, &endpoints_rows());
    });
}

/// What is checked of an endpoint with all permissions is not overwritten either.
#[test]
fn with_all_permissions_nothing_is_overwritten_either() {
    on_each_way(|bench| {
        let mut world = World::default();
        world.flag(FORWARDS);
        bench.fill(&world);
        bench.attach(Direction::FromEndpoint, "port_a");
        let rows: Vec<Row> = endpoints_rows().into_iter().chain(link_headers_rows()).collect();
        check(bench, Direction::FromEndpoint, &rows);
    });
}

#[test]
fn what_goes_out_by_a_leg_is_not_overwritten() {
    on_each_way(|bench| {
        bench.attach(Direction::FromGateway, "leg_a");
        check(bench, Direction::FromGateway, &legs_rows());
    });
}

/// Checks each row, and checks that the same frame with a finished checksum passes.
fn check(bench: &mut Bench, direction: Direction, rows: &[Row]) {
    let tap = match direction {
        Direction::FromGateway => bench.tap_leg_a(),
        _ => bench.tap_a(),
    };
    let (mut tried, mut forgotten, mut in_link_header) = (BTreeSet::new(), 0, 0);
    for Row { name, frame, start, offset, passes } in rows {
        tap.send(frame);
        assert_eq!(counted(bench, direction), [0], "{name}, finished");
        let sum = Unfinished { start: *start, offset: *offset };
        if !tap.send_unfinished(frame, sum) {
            println!("the kernel takes no checksum there: {name}");
            continue;
        }
        let expected = if *passes { 0 } else { DropReason::UnfinishedChecksum as u32 };
        let counted = counted(bench, direction);
        if usize::from(*start) < ETHERNET_LEN {
            in_link_header += 1;
            // A kernel that removes the link header by `skb_pull_rcsum` (6.1) forgets a sum that begins in
            // it. Then nothing is overwritten, and the frame is like any other.
            if counted == [0] {
                println!("the kernel forgets a checksum that begins there: {name}");
                forgotten += 1;
                continue;
            }
        }
        assert_eq!(counted, [expected], "{name}");
        tried.insert(*passes);
    }
    assert!(forgotten == 0 || forgotten == in_link_header, "a kernel forgets all of them or none");
    assert_eq!(tried.len(), 2, "the kernel took rows of one sort alone: {tried:?}");
}

/// The numbers of the counters that the last frame changed. A busy kernel may handle the frame a little
/// later.
fn counted(bench: &mut Bench, direction: Direction) -> Vec<u32> {
    let since = Instant::now();
    let mut counts = bench.counts();
    while counts.is_empty() && since.elapsed() < PATIENCE {
        thread::yield_now();
        counts = bench.counts();
    }
    let of_one = |counter: &Counter| counter.packets == 1;
    assert!(counts.iter().all(|((_, way), counter)| *way == direction && of_one(counter)));
    counts.into_keys().map(|(reason, _)| reason).collect()
}
