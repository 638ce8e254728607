//! Which events the kernel hands to the node at all: a program for the socket (classic BPF, see the kernel's
//! Documentation/networking/filter.rst).
//!
//! Each event that is handed over wakes the node, and a busy host has thousands a second. The program lets every event pass
//! that [`Interest`](super::Interest) could find to concern the node, and some more; it never decides anything else.

use std::{collections::BTreeSet, io, ops::Bound, os::fd::AsFd as _};

use netlink_packet_route::AddressFamily;
use nix::libc;
use rtnetlink::sys::Socket as NetlinkSocket;
use socket2::{SockFilter, Socket};

use super::names::{GROUP, PREFIX};

/// More ranges of addresses than this are joined to fewer, so that the program stays short.
const RANGES_MAX: usize = 32;

// linux/rtnetlink.h.
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
// Attributes of a link.
const IFLA_IFNAME: u32 = 3;
const IFLA_LINKINFO: u32 = 18;
const IFLA_GROUP: u32 = 27;
const IFLA_INFO_KIND: u32 = 1;
/// The begin of the kind of a VXLAN device.
const VXLAN: [u8; 4] = *b"vxla";
// Attributes of an address.
const IFA_ADDRESS: u32 = 1;
const IFA_LOCAL: u32 = 2;
const IFA_LABEL: u32 = 3;
/// NDA_DST of a neighbour, RTA_DST of a route.
const DESTINATION: u32 = 1;

/// `struct nlmsghdr`: length, type, flags, sequence, port.
const HEADER: u32 = 16;
const TYPE: u32 = 4;
/// The first byte of the header that follows, of each kind of message.
const FAMILY: u32 = HEADER;
/// `rtm_dst_len`.
const PREFIX_LENGTH: u32 = HEADER + 1;
/// `tcm_parent` of a queueing discipline, and the value that it has where all packets of the device pass it
/// (linux/pkt_sched.h).
const PARENT: u32 = HEADER + 12;
const TC_H_ROOT: u32 = u32::MAX;
/// The index of the device, of links, addresses, neighbours and queueing disciplines.
const INDEX: u32 = HEADER + 4;
/// The attributes, behind `struct ifinfomsg`, `ifaddrmsg`, `ndmsg` and `rtmsg`.
const LINK_ATTRIBUTES: u32 = HEADER + 16;
const ADDRESS_ATTRIBUTES: u32 = HEADER + 8;
const NEIGHBOUR_ATTRIBUTES: u32 = HEADER + 12;
const ROUTE_ATTRIBUTES: u32 = HEADER + 12;
/// `struct nlattr`, in front of the value.
const ATTRIBUTE: u32 = 4;

/// A range of IPv4 addresses, from the first to the last.
type Range = (u32, u32);

/// What the program lets pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filter {
    /// The node's own address.
    pub(super) own: Option<u32>,
    /// The underlay, and the devices by which packets leave.
    pub(super) devices: BTreeSet<u32>,
    /// The devices that next hops are behind, and the addresses of these.
    pub(super) hop_devices: BTreeSet<u32>,
    pub(super) hops: Vec<Range>,
    /// The addresses of the VTEPs.
    pub(super) vteps: Vec<Range>,
}

/// Few ranges that have all of these addresses in them.
pub(super) fn ranges(addresses: impl Iterator<Item = u32>) -> Vec<Range> {
    let sorted: BTreeSet<u32> = addresses.collect();
    let mut gaps: Vec<(u32, u32)> =
        sorted.iter().zip(sorted.iter().skip(1)).map(|(low, high)| (high - low, *high)).collect();
    gaps.sort_unstable_by_key(|gap| std::cmp::Reverse(*gap));
    let begins = gaps.iter().take(RANGES_MAX - 1).map(|(_, high)| *high);
    let begins: BTreeSet<u32> = begins.chain(sorted.first().copied()).collect();
    let end = |begin: &u32| {
        let next = begins.range((Bound::Excluded(begin), Bound::Unbounded)).next();
        let end = next.map_or(sorted.last(), |next| sorted.range(..next).next_back());
        end.copied().unwrap_or(*begin)
    };
    begins.iter().map(|begin| (*begin, end(begin))).collect()
}

/// A second descriptor of a netlink socket, by which its program can be changed while the socket is read.
pub(super) fn handle(socket: &NetlinkSocket) -> io::Result<Socket> {
    Ok(Socket::from(socket.as_fd().try_clone_to_owned()?))
}

/// Lets everything pass.
pub(super) fn pass_all(socket: &Socket) -> io::Result<()> {
    socket.attach_filter(&[ret(PASS)])
}

/// Lets messages of this type pass that lack this attribute, which comes behind a header of so many bytes, and all addresses.
pub(super) fn without(kind: u16, header: u8, unwanted: u16) -> Vec<SockFilter> {
    let addresses = [RTM_NEWADDR, RTM_DELADDR].map(|kind| equals(kind.to_be().into()));
    let mut program = vec![load(libc::BPF_H, TYPE)];
    program.extend(addresses.iter().flat_map(|passes| passes()));
    program.extend([jump(libc::BPF_JEQ, kind.to_be().into(), 1, 0), ret(DROP)]);
    program.extend(find(HEADER + u32::from(header), unwanted.into(), vec![ret(DROP)]));
    program.push(ret(PASS));
    program
}

impl Filter {
    /// Lets only this pass from now on.
    pub(super) fn attach(&self, socket: &Socket) -> io::Result<()> {
        socket.attach_filter(&self.program())
    }

    fn program(&self) -> Vec<SockFilter> {
        let sections = [
            ([RTM_NEWLINK, RTM_DELLINK], self.link()),
            ([RTM_NEWADDR, RTM_DELADDR], self.address()),
            ([RTM_NEWNEIGH, RTM_DELNEIGH], self.neighbour()),
            ([RTM_NEWROUTE, RTM_DELROUTE], self.route()),
            ([RTM_NEWQDISC, RTM_DELQDISC], queue()),
        ];
        let mut program = vec![load(libc::BPF_H, TYPE)];
        for ([new, gone], section) in sections {
            // Over the jump where it is one of the two.
            program.push(jump(libc::BPF_JEQ, u32::from(new.to_be()), 2, 0));
            program.push(jump(libc::BPF_JEQ, u32::from(gone.to_be()), 1, 0));
            program.push(op(libc::BPF_JMP | libc::BPF_JA, length(&section)));
            program.extend(section);
        }
        // The group of queueing disciplines tells of much else: classes, filters, actions, chains.
        program.push(jump(libc::BPF_JEQ, u32::from(RTM_NEWRULE.to_be()), 1, 0));
        program.push(jump(libc::BPF_JEQ, u32::from(RTM_DELRULE.to_be()), 0, 1));
        program.extend([ret(PASS), ret(DROP)]);
        program
    }

    fn link(&self) -> Vec<SockFilter> {
        let mut code = self.devices();
        let name = u32::from(u16::from_be_bytes(start_of(PREFIX.as_bytes())));
        code.extend(attribute(LINK_ATTRIBUTES, IFLA_IFNAME, libc::BPF_H, &equals(name)));
        code.extend(attribute(LINK_ATTRIBUTES, IFLA_GROUP, libc::BPF_W, &equals(GROUP.to_be())));
        let kind = equals(u32::from_be_bytes(VXLAN));
        let inside = nested(IFLA_INFO_KIND, libc::BPF_W, &kind);
        code.extend(find(LINK_ATTRIBUTES, IFLA_LINKINFO, inside));
        code.push(ret(DROP));
        code
    }

    fn address(&self) -> Vec<SockFilter> {
        let mut code = self.devices();
        if let Some(own) = self.own {
            for kind in [IFA_ADDRESS, IFA_LOCAL] {
                code.extend(attribute(ADDRESS_ATTRIBUTES, kind, libc::BPF_W, &equals(own)));
            }
        }
        let name = u32::from(u16::from_be_bytes(start_of(PREFIX.as_bytes())));
        code.extend(attribute(ADDRESS_ATTRIBUTES, IFA_LABEL, libc::BPF_H, &equals(name)));
        code.push(ret(DROP));
        code
    }

    fn neighbour(&self) -> Vec<SockFilter> {
        let mut code = ipv4();
        code.push(load(libc::BPF_W, INDEX));
        // Each match jumps over the rest of the comparisons and the refusal.
        let mut among = vec![ret(DROP)];
        for index in &self.hop_devices {
            let over = length(&among);
            among.splice(
                0..0,
                [jump(libc::BPF_JEQ, index.to_be(), 0, 1), op(libc::BPF_JMP | libc::BPF_JA, over)],
            );
        }
        code.extend(among);
        let within = || {
            let ranges = self.hops.iter().flat_map(|(low, high)| {
                [jump(libc::BPF_JGE, *low, 0, 2), jump(libc::BPF_JGT, *high, 1, 0), ret(PASS)]
            });
            ranges.collect()
        };
        code.extend(attribute(NEIGHBOUR_ATTRIBUTES, DESTINATION, libc::BPF_W, &within));
        code.push(ret(DROP));
        code
    }

    fn route(&self) -> Vec<SockFilter> {
        let (first, last) = (0, 1);
        let mut code = ipv4();
        // The first address is that of the route, the last has all bits behind the prefix.
        let mut inside = vec![
            op(libc::BPF_LD | libc::BPF_W | libc::BPF_IND, ATTRIBUTE),
            op(libc::BPF_ST, first),
            op(libc::BPF_ST, last),
            load(libc::BPF_B, PREFIX_LENGTH),
            jump(libc::BPF_JGE, u32::BITS, 6, 0),
            op(libc::BPF_MISC | libc::BPF_TAX, 0),
            op(libc::BPF_LD | libc::BPF_IMM, u32::MAX),
            op(libc::BPF_ALU | libc::BPF_RSH | libc::BPF_X, 0),
            op(libc::BPF_LDX | libc::BPF_MEM, first),
            op(libc::BPF_ALU | libc::BPF_OR | libc::BPF_X, 0),
            op(libc::BPF_ST, last),
        ];
        for (low, high) in &self.vteps {
            inside.extend([
                op(libc::BPF_LD | libc::BPF_MEM, first),
                jump(libc::BPF_JGT, *high, 3, 0),
                op(libc::BPF_LD | libc::BPF_MEM, last),
                jump(libc::BPF_JGE, *low, 0, 1),
                ret(PASS),
            ]);
        }
        inside.push(ret(DROP));
        code.extend(find(ROUTE_ATTRIBUTES, DESTINATION, inside));
        // Without a destination it is a default route.
        code.push(ret(PASS));
        code
    }

    /// Lets a message about one of the devices pass.
    fn devices(&self) -> Vec<SockFilter> {
        let mut code = vec![load(libc::BPF_W, INDEX)];
        code.extend(self.devices.iter().flat_map(|index| equals(index.to_be())()));
        code
    }
}

const PASS: u32 = u32::MAX;
const DROP: u32 = 0;

fn op(code: u32, k: u32) -> SockFilter {
    jump_op(code, k, 0, 0)
}

fn jump_op(code: u32, k: u32, if_true: u8, if_false: u8) -> SockFilter {
    // All codes fit.
    SockFilter::new(u16::try_from(code).unwrap_or_default(), if_true, if_false, k)
}

/// Compares the accumulator with a constant, and skips so many instructions.
fn jump(condition: u32, k: u32, if_true: u8, if_false: u8) -> SockFilter {
    jump_op(libc::BPF_JMP | condition | libc::BPF_K, k, if_true, if_false)
}

fn ret(verdict: u32) -> SockFilter {
    op(libc::BPF_RET | libc::BPF_K, verdict)
}

/// Loads a number of that size, in network order, which all comparisons are made in.
fn load(size: u32, offset: u32) -> SockFilter {
    op(libc::BPF_LD | size | libc::BPF_ABS, offset)
}

fn length(code: &[SockFilter]) -> u32 {
    u32::try_from(code.len()).unwrap_or(u32::MAX)
}

fn start_of(bytes: &[u8]) -> [u8; 2] {
    bytes.first_chunk().copied().unwrap_or_default()
}

/// Refuses what is not IPv4.
fn ipv4() -> Vec<SockFilter> {
    let inet = u32::from(u8::from(AddressFamily::Inet));
    vec![load(libc::BPF_B, FAMILY), jump(libc::BPF_JEQ, inet, 1, 0), ret(DROP)]
}

/// Lets a queueing discipline pass that is the device's outermost.
fn queue() -> Vec<SockFilter> {
    let mut code = vec![load(libc::BPF_W, PARENT)];
    code.extend(equals(TC_H_ROOT)());
    code.push(ret(DROP));
    code
}

/// Lets the message pass if the accumulator has this value.
fn equals(value: u32) -> impl Fn() -> Vec<SockFilter> {
    move || vec![jump(libc::BPF_JEQ, value, 0, 1), ret(PASS)]
}

/// Looks for an attribute, and makes `then` with its place in both registers where it is there.
fn find(attributes: u32, kind: u32, then: Vec<SockFilter>) -> Vec<SockFilter> {
    let mut code = vec![op(libc::BPF_LD | libc::BPF_IMM, attributes)];
    code.extend(found(kind, libc::SKF_AD_NLATTR, then));
    code
}

/// Looks for an attribute of that kind from the place in the accumulator on.
fn found(kind: u32, how: i32, then: Vec<SockFilter>) -> Vec<SockFilter> {
    let extension = (libc::SKF_AD_OFF + how).cast_unsigned();
    let mut code = vec![
        op(libc::BPF_LDX | libc::BPF_IMM, kind),
        load(libc::BPF_W, extension),
        jump(libc::BPF_JEQ, 0, 0, 1),
        op(libc::BPF_JMP | libc::BPF_JA, length(&then) + 1),
        op(libc::BPF_MISC | libc::BPF_TAX, 0),
    ];
    code.extend(then);
    code
}

/// Makes `then` with the begin of an attribute's value in the accumulator, where the attribute is there.
fn attribute(
    attributes: u32,
    kind: u32,
    size: u32,
    then: &dyn Fn() -> Vec<SockFilter>,
) -> Vec<SockFilter> {
    find(attributes, kind, value(size, then))
}

/// The same of an attribute inside of the one whose place is in the accumulator.
fn nested(kind: u32, size: u32, then: &dyn Fn() -> Vec<SockFilter>) -> Vec<SockFilter> {
    found(kind, libc::SKF_AD_NLATTR_NEST, value(size, then))
}

fn value(size: u32, then: &dyn Fn() -> Vec<SockFilter>) -> Vec<SockFilter> {
    let mut code = vec![op(libc::BPF_LD | size | libc::BPF_IND, ATTRIBUTE)];
    code.extend(then());
    code
}
