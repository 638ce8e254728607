//! Sends random packets through the programs and through the model ([`super::model`]), with random tables,
//! which may change between two packets. Both must agree about each packet's verdict, bytes, copies, counts
//! and events.
//!
//! OVERLAY_PACKETS gives the number of packets, and OVERLAY_SEED the first seed. If program and model differ,
//! the case is reduced as far as possible, and is printed with its seed, its packets and the tables.

mod bulk;
mod frames;
mod l3;
mod l4;
mod mutations;
mod on_devices;
mod on_veth;
mod one_by_one;
mod search;
mod worlds;

use overlay_common::Direction;
use proptest::{prelude::*, sample::select};

use super::{
    bench::Skb,
    tap::Unfinished,
    world::{A, B, LEG_A, LEG_B, PORT_A, PORT_B, UNDERLAY},
};
pub(super) use frames::{MARK, from_gateway};
use on_devices::{OnDevices, Underlay};
use on_veth::OnVeth;
use one_by_one::OneByOne;
use search::{Packet, search};

#[test]
fn from_endpoint_does_as_the_model_says() {
    check(Direction::FromEndpoint, 0.33, by_ports());
}

#[test]
fn from_underlay_does_as_the_model_says() {
    check(Direction::FromUnderlay, 0.33, by_underlay());
}

#[test]
fn segments_go_through_the_merge_pair_as_the_model_says() {
    search("from_veth", 0.03, by_underlay(), |_| OnVeth);
}

#[test]
fn from_gateway_does_as_the_model_says() {
    let packets = (skb(LEG_A, vec![LEG_B, PORT_A]), from_gateway());
    check(Direction::FromGateway, 0.15, packets.prop_map(Packet::new));
}

#[test]
fn guard_underlay_does_as_the_model_says() {
    // The device by which test_run's XDP packets come in.
    const LOOPBACK: u32 = 1;
    let skb = Skb { ifindex: LOOPBACK, gso_size: 0 };
    let packets = prop_oneof![frames::from_underlay(), frames::from_strangers()];
    let packets = packets.prop_map(move |bytes| Packet::new((skb, bytes)));
    check(Direction::GuardUnderlay, 0.05, packets);
}

/// test_run gives a redirect's verdict and not its target, so these frames come in by real devices.
#[test]
fn frames_come_out_where_the_model_says() {
    let packets = prop_oneof![3 => by_ports(), 3 => by_underlay(), 2 => unfinished(by_ports())];
    search("on devices", 0.08, packets, |bench| OnDevices::new(bench, Underlay::TakesWhole));
}

#[test]
fn super_packets_cross_whole() {
    search("bulk, whole", 0.03, bulk::bulk(), |bench| OnDevices::new(bench, Underlay::TakesWhole));
}

#[test]
fn super_packets_cross_where_the_kernel_cuts_them() {
    search("bulk, cut", 0.03, bulk::bulk(), |bench| OnDevices::new(bench, Underlay::HasThemCut));
}

/// Adds unfinished checksums to the packets, at the usual places and near them. None begins in the link
/// header, because some kernels forget such a checksum (see [`super::unfinished`]).
fn unfinished(packets: impl Strategy<Value = Packet>) -> impl Strategy<Value = Packet> {
    let start = select(vec![14u16, 15, 18, 22, 33, 34, 34, 34, 35, 38, 42, 54, 54, 62, 80]);
    let offset = select(vec![0u16, 2, 5, 6, 6, 6, 7, 8, 15, 16, 16, 16, 17, 28]);
    (packets, start, offset).prop_map(|(packet, start, offset)| Packet {
        unfinished: Some(Unfinished { start, offset }),
        ..packet
    })
}

fn check(direction: Direction, share: f64, packets: impl Strategy<Value = Packet>) {
    search(direction.name(), share, packets, |bench| OneByOne::new(direction, bench));
}

fn by_ports() -> impl Strategy<Value = Packet> {
    let at_a = skb(PORT_A, vec![PORT_B, UNDERLAY, LEG_A]);
    let packets = prop_oneof![
        4 => (at_a, frames::from_endpoint(A)),
        1 => (skb(PORT_B, vec![PORT_A]), frames::from_endpoint(B)),
    ];
    packets.prop_map(Packet::new)
}

fn by_underlay() -> impl Strategy<Value = Packet> {
    (skb(UNDERLAY, vec![UNDERLAY]), frames::from_underlay()).prop_map(Packet::new)
}

/// A packet that comes in by the usual device, and seldom by another one. It is seldom a super-packet.
fn skb(usual: u32, others: Vec<u32>) -> impl Strategy<Value = Skb> {
    let ifindex = prop_oneof![19 => Just(usual), 1 => select(others)];
    let gso_size = prop_oneof![19 => Just(0), 1 => select(vec![8u32, 500, 1400, 1422, 9000])];
    (ifindex, gso_size).prop_map(|(ifindex, gso_size)| Skb { ifindex, gso_size })
}

/// The usual value, or one time in thirty one of the others. It is used for headers with many fields, each of
/// which can spoil the header.
fn nearly_always<T: Clone + std::fmt::Debug + 'static>(
    usual: T,
    others: Vec<T>,
) -> impl Strategy<Value = T> {
    prop_oneof![29 => Just(usual), 1 => select(others)]
}

/// The usual value, or one time in nine one of the others.
fn mostly<T: Clone + std::fmt::Debug + 'static>(
    usual: T,
    others: Vec<T>,
) -> impl Strategy<Value = T> {
    prop_oneof![8 => Just(usual), 1 => select(others)]
}
