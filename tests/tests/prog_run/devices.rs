//! The devices: host sides in one namespace of the thread's own, their peers in another.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::fd::AsRawFd as _,
    process::{Command, Stdio},
};

use nix::{
    sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, setns, unshare},
    unistd::Pid,
};

use super::{
    tap::{self, Tap},
    world::{LEG_A, LEG_B, PORT_A, PORT_B, UNDERLAY, UNDERLAY_MAC},
};

/// Where the thread was before it went into a namespace of its own, on one CPU. Going back takes the
/// last hold off that namespace and the one of the peers, and their devices go with them.
pub(crate) struct Home {
    netns: File,
    cpus: CpuSet,
    /// Where the peers are: redirect_peer leads into another namespace only.
    peers: File,
    /// Where the programs are.
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
            // A device that comes up must not speak of itself.
            disable_ipv6();
            current_netns()
        });
        Self { netns, cpus, peers, host }
    }

    fn among_peers<T>(&self, body: impl FnOnce() -> T) -> T {
        setns(&self.peers, CloneFlags::CLONE_NEWNET).expect("the namespace is ours");
        let result = body();
        setns(&self.host, CloneFlags::CLONE_NEWNET).expect("the namespace is ours");
        result
    }

    pub(crate) fn make_devices(&self) {
        let mac = UNDERLAY_MAC.map(|byte| format!("{byte:02x}")).join(":");
        let peers = format!("/proc/{}/fd/{}", std::process::id(), self.peers.as_raw_fd());
        let mut host = String::from("link set lo up\n");
        let mut up = String::new();
        for (name, index, address) in [
            ("port_a", PORT_A, String::new()),
            ("port_b", PORT_B, String::new()),
            ("underlay", UNDERLAY, format!("address {mac}")),
            ("leg_a", LEG_A, String::new()),
            ("leg_b", LEG_B, String::new()),
        ] {
            let peer = index + PEER;
            host += &format!(
                "link add {name} index {index} {address} type veth \
                 peer name {name}_peer index {peer} netns {peers}\n\
                 link set {name} up\n"
            );
            up += &format!("link set {name}_peer up\n");
        }
        ip_batch(&host);
        self.among_peers(|| ip_batch(&up));
    }

    /// Both ends of the veth whose host side has this index.
    pub(crate) fn tap(&self, host: u32) -> Tap {
        let peer = self.among_peers(|| tap::open(host + PEER));
        Tap::new(tap::open(host), peer)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // While a test panics another panic would hide why; the thread ends soon in any case.
        if let Err(error) = setns(&self.netns, CloneFlags::CLONE_NEWNET) {
            eprintln!("the thread stays in its namespace: {error}");
        }
        if let Err(error) = sched_setaffinity(Pid::from_raw(0), &self.cpus) {
            eprintln!("the thread stays on its CPU: {error}");
        }
    }
}

/// What a peer's index has over its host-side device's.
const PEER: u32 = 100;

fn current_netns() -> File {
    File::open("/proc/thread-self/ns/net").expect("/proc is mounted")
}

fn disable_ipv6() {
    match fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1") {
        // A kernel without IPv6.
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
