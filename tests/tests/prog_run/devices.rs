//! The devices. Their host sides are in a network namespace of this thread, and their peers in another one.
//! The far node's devices are in the namespace of the peers, and its endpoint is in the first one.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::fd::AsRawFd as _,
    process::{Command, Stdio},
};

use nix::{
    sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, setns, unshare},
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
    unistd::Pid,
};

use overlay_common::{MERGE_MAC, VNI_RESERVED, VXLAN_PORT};

use super::{
    tap::{self, Tap},
    world::{
        DEVICES, FAR_PORT, LEG_A, LEG_B, PEER, PORT_A, PORT_B, ROUTER_MAC, UNDERLAY, UNDERLAY_MAC,
    },
};

/// The namespace and CPUs of the thread before it entered a namespace of its own, on one CPU. When the thread
/// goes back, nothing refers to that namespace and the one of the peers any more, so that they and their
/// devices are removed.
pub(crate) struct Home {
    netns: File,
    cpus: CpuSet,
    /// The namespace of the peers, because redirect_peer only leads into another namespace.
    peers: File,
    /// The namespace of the programs.
    host: File,
}

impl Home {
    pub(crate) fn leave() -> Self {
        let netns = current_netns();
        let cpus = sched_getaffinity(Pid::from_raw(0)).expect("a thread has CPUs");
        let first = (0..CpuSet::count()).find(|cpu| cpus.is_set(*cpu) == Ok(true));
        let mut one = CpuSet::new();
        one.set(first.expect("a thread has a CPU")).expect("a CPU's number");
        sched_setaffinity(Pid::from_raw(0), &one).expect("it may run there");
        let [peers, host] = [(), ()].map(|()| {
            unshare(CloneFlags::CLONE_NEWNET).expect("root makes namespaces");
            // Without IPv6, a device sends nothing by itself when it comes up.
            disable_ipv6();
            current_netns()
        });
        Self { netns, cpus, peers, host }
    }

    /// Calls a function in the namespace of the peers, which is also the far node's.
    pub(crate) fn among_peers<T>(&self, body: impl FnOnce() -> T) -> T {
        setns(&self.peers, CloneFlags::CLONE_NEWNET).expect("the namespace is ours");
        let result = body();
        setns(&self.host, CloneFlags::CLONE_NEWNET).expect("the namespace is ours");
        result
    }

    /// Makes all devices, and lets each carry super-packets above 64 KiB.
    pub(crate) fn make_devices(&self) {
        let address = |mac: [u8; 6]| {
            let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
            format!("address {mac}")
        };
        let [peers, host] = [&self.peers, &self.host]
            .map(|netns| format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd()));
        let mut here = String::from("link set lo up\n");
        let mut there = format!(
            "link add far index {FAR_PORT} type veth peer name far_peer index {} netns {host}\n\
             link set far up\n",
            FAR_PORT + PEER
        );
        for (name, index, own, of_peer) in [
            ("port_a", PORT_A, String::new(), String::new()),
            ("port_b", PORT_B, String::new(), String::new()),
            ("underlay", UNDERLAY, address(UNDERLAY_MAC), address(ROUTER_MAC)),
            ("leg_a", LEG_A, String::new(), String::new()),
            ("leg_b", LEG_B, String::new(), String::new()),
        ] {
            let peer = index + PEER;
            here += &format!(
                "link add {name} index {index} {own} type veth \
                 peer name {name}_peer index {peer} {of_peer} netns {peers}\n\
                 link set {name} up\n"
            );
            there += &format!("link set {name}_peer up\n");
        }
        ip_batch(&here);
        self.among_peers(|| ip_batch(&there));
        ip_batch("link set far_peer up\n");
        let here = DEVICES.into_iter().chain([FAR_PORT + PEER]);
        here.for_each(take_large_super_packets);
        self.among_peers(|| {
            let there = DEVICES.into_iter().map(|index| index + PEER).chain([FAR_PORT]);
            there.for_each(take_large_super_packets);
        });
    }

    /// Both ends of the veth whose host side has this index.
    pub(crate) fn tap(&self, host: u32) -> Tap {
        let peer = self.among_peers(|| tap::open(host + PEER));
        Tap::new(tap::open(host), peer)
    }

    /// Both ends of the veth of the far node's endpoint.
    pub(crate) fn far_tap(&self) -> Tap {
        let host = self.among_peers(|| tap::open(FAR_PORT));
        Tap::new(host, tap::open(FAR_PORT + PEER))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // A failure is only printed, because a second panic would hide the reason of a failed test, and the
        // thread ends soon anyway.
        if let Err(error) = setns(&self.netns, CloneFlags::CLONE_NEWNET) {
            eprintln!("the thread stays in its namespace: {error}");
        }
        if let Err(error) = sched_setaffinity(Pid::from_raw(0), &self.cpus) {
            eprintln!("the thread stays on its CPU: {error}");
        }
    }
}

fn current_netns() -> File {
    File::open("/proc/thread-self/ns/net").expect("/proc is mounted")
}

fn disable_ipv6() {
    match fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1") {
        // The kernel has no IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        written => written.expect("root sets it"),
    }
}

/// Runs lines of `ip` in the thread's namespace.
pub(crate) fn ip_batch(script: &str) {
    let mut ip = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("ip is on PATH");
    ip.stdin.take().expect("piped").write_all(script.as_bytes()).expect("ip reads");
    assert!(ip.wait().expect("ip ends").success(), "ip failed at:\n{script}");
}

/// Lets a device of the thread's namespace take super-packets of 256 KiB, also for IPv4 if the kernel has a
/// size for that (6.3). Debian 12's `ip` does not know that size.
fn take_large_super_packets(ifindex: u32) {
    const SIZE: u32 = 256 << 10;
    // Constants of linux/rtnetlink.h, linux/if_link.h and linux/netlink.h.
    const RTM_NEWLINK: u16 = 16;
    const REQUEST_AND_ACK: u16 = 1 | 4;
    const IFLA_GSO_MAX_SIZE: u16 = 41;
    const IFLA_GSO_IPV4_MAX_SIZE: u16 = 63;
    let attribute = |kind: u16| [&[8, 0], &kind.to_ne_bytes()[..], &SIZE.to_ne_bytes()].concat();
    let link = [&[0; 4], &ifindex.to_ne_bytes()[..], &[0; 8]].concat();
    let sizes = [IFLA_GSO_MAX_SIZE, IFLA_GSO_IPV4_MAX_SIZE].map(attribute).concat();
    let len = (16 + link.len() + sizes.len()) as u32;
    let [kind, flags] = [RTM_NEWLINK, REQUEST_AND_ACK].map(u16::to_ne_bytes);
    let header = [&len.to_ne_bytes()[..], &kind, &flags, &[0; 8]].concat();
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    );
    let netlink = netlink.expect("the kernel has netlink");
    let message = [header, link, sizes].concat();
    send(netlink.as_raw_fd(), &message, MsgFlags::empty()).expect("the kernel takes it");
    let mut answer = [0; 512];
    let len = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty()).expect("an answer");
    // The error code behind the header is 0.
    assert!(len >= 20 && answer[16..20] == [0; 4], "device {ifindex}: {:?}", &answer[..len]);
}

/// Makes a merge pair in the thread's namespace as a node does, and a device that has the kernel know VXLAN's port.
pub(crate) fn make_merge_pair() {
    let mac = MERGE_MAC.map(|byte| format!("{byte:02x}")).join(":");
    ip_batch(&format!(
        "link add ovm-out mtu 65535 numtxqueues 4 numrxqueues 4 type veth \
         peer name ovm-in address {mac} mtu 65535 numtxqueues 4 numrxqueues 4\n\
         link set ovm-in up\n\
         link set ovm-out up\n\
         link add ovg type vxlan id {VNI_RESERVED} dstport {VXLAN_PORT} nolearning\n\
         link set ovg up\n"
    ));
    ethtool("ovm-out", &["tso", "off"]);
    ethtool("ovm-in", &["gro", "on"]);
}

/// Lets a device of the thread's namespace take super-packets whole, or has the kernel cut them before the
/// device.
pub(crate) fn set_offloads(device: &str, whole: bool) {
    let value = if whole { "on" } else { "off" };
    ethtool(device, &["tso", value, "tx-udp-segmentation", value]);
}

fn ethtool(device: &str, switches: &[&str]) {
    let mut ethtool = Command::new("ethtool");
    ethtool.args(["-K", device]).args(switches);
    assert!(ethtool.status().expect("ethtool is on PATH").success(), "{device}: {ethtool:?}");
}
