//! Loads, pins, takes over and attaches the programs.

mod clsact;
mod maps;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Once,
    time::{Duration, Instant},
};

use overlay_common::{
    ApiKey, BridgeKey, Config, Direction, DropReason, FdbEntry, FdbKey, FloodEntry, FloodKey,
    GatewayPortEntry, HopEntry, Limit, NeighEntry, NeighKey, NodeEntry, NodeKey, PortEntry,
    TOS_ECN, ip16_from_v4,
};
use overlay_ctl::dataplane::{
    datapath::{Datapath, DatapathConfig, DatapathError, Hook, Listening, maps_folder},
    kernel::{LinkLayer, Program, TableChange, Tables, Uplink},
};

use crate::lab::{Netns, sh, skip};

static BPFFS: Once = Once::new();
pub(crate) const BOUND: Duration = Duration::from_secs(10);

/// A host with an underlay `eth7` towards a peer, an endpoint's port `port0`, its gateway leg `leg0`, and a
/// folder on bpffs.
pub(crate) struct Host {
    pub(crate) netns: Netns,
    pub(crate) peer: Netns,
    pub(crate) bpffs: PathBuf,
}

pub(crate) fn uplink(name: &str, ifindex: u32) -> Uplink {
    Uplink { ifindex, name: name.to_owned(), ..Uplink::default() }
}

impl Host {
    pub(crate) fn new() -> Self {
        BPFFS.call_once(|| {
            if !sh("mount -t bpf").contains("/sys/fs/bpf") {
                sh("mount -t bpf bpf /sys/fs/bpf");
            }
        });
        let (netns, peer) = (Netns::new("host"), Netns::new("peer"));
        netns.join("eth7", &peer, "eth7");
        netns.join("port0", &peer, "port0");
        netns.join("leg0", &peer, "leg0");
        netns.sh("ip addr add 10.0.0.1/24 dev eth7");
        peer.sh("ip addr add 10.0.0.2/24 dev eth7");
        let bpffs = Path::new("/sys/fs/bpf").join(&netns.name);
        Self { netns, peer, bpffs }
    }

    pub(crate) fn ifindex(&self, ifname: &str) -> u32 {
        let text = self.netns.sh(&format!("ip -o link show {ifname} | cut -d: -f1"));
        text.trim().parse().unwrap()
    }

    pub(crate) fn config_for(&self, underlay: &str) -> DatapathConfig {
        DatapathConfig {
            bpffs: self.bpffs.clone(),
            underlay: uplink(underlay, self.ifindex(underlay)),
            config: Config {
                vtep: ip16_from_v4([10, 0, 0, 1]),
                underlay_ifindex: self.ifindex(underlay),
                vxlan_port: 4789,
                ttl: 64,
                tos_mask: TOS_ECN,
                flags: 0,
                sample: 0,
                storm: Limit::NONE,
                answers: Limit::NONE,
                claims: Limit::NONE,
                gateway: [172, 18, 0, 0],
                gateway_mask: [255, 255, 0, 0],
                merge_ifindex: 0,
            },
        }
    }

    /// Runs `work` inside the host, as the node would.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.netns.block_on(|| async { work() })
    }

    pub(crate) fn open(&self) -> Datapath {
        Datapath::open(self.config_for("eth7")).unwrap()
    }

    /// Attaches the programs of an endpoint to its port and its gateway leg.
    pub(crate) fn attach_endpoint(&self, datapath: &mut Datapath) {
        datapath.attach(Program::FromEndpoint, "port0", self.ifindex("port0")).unwrap();
        datapath.attach(Program::FromGateway, "leg0", self.ifindex("leg0")).unwrap();
    }

    /// Returns true if the data path knows the endpoint's port and gateway leg as attached.
    pub(crate) fn is_attached(&self, datapath: &Datapath) -> bool {
        datapath.attached(Program::FromEndpoint) == [self.ifindex("port0")].into()
            && datapath.attached(Program::FromGateway) == [self.ifindex("leg0")].into()
    }

    pub(crate) fn link_id(&self, entry: &str) -> String {
        let path = self.bpffs.join("links").join(entry);
        let text = sh(&format!("bpftool link show pinned {}", path.display()));
        text.split(':').next().unwrap().to_owned()
    }

    pub(crate) fn entries(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.bpffs.join("links")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Sends a VXLAN packet to the underlay device, and a frame into port and leg. Each program drops and
    /// counts one, because the VTEP, the port and the leg are unknown.
    pub(crate) fn make_traffic(&self) {
        let vxlan = "udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
            udp.sendto(bytes([8, 0, 0, 0, 0, 16, 1, 0]) + bytes(60), (\"10.0.0.1\", 4789))\n";
        self.peer.sh(&self.python(&format!("{vxlan}port.send(frame); leg.send(frame)\n")));
    }

    /// Sends frames into port and leg until the file `stop` exists. Returns how many were sent into each.
    pub(crate) fn send_until(&self, stop: &Path) -> u64 {
        let send = format!(
            "sent = 0\n\
             while not os.path.exists(\"{}\"):\n  port.send(frame); leg.send(frame); sent += 1\n\
             print(sent)\n",
            stop.display()
        );
        self.peer.sh(&self.python(&send)).trim().parse().unwrap()
    }

    /// The command that runs a script of Python. The script can use `port` and `leg`, which are sockets at
    /// the far ends, and `frame`.
    fn python(&self, script: &str) -> String {
        let prelude = "import os, socket\n\
            port, leg = [socket.socket(socket.AF_PACKET, socket.SOCK_RAW) for _ in range(2)]\n\
            port.bind((\"port0\", 0)); leg.bind((\"leg0\", 0))\n\
            frame = bytes([255] * 6 + [2, 0, 0, 0, 0, 1, 0x88, 0xb5]) + bytes(46)\n";
        std::fs::write(self.script(), format!("{prelude}{script}")).unwrap();
        format!("python3 {}", self.script().display())
    }

    fn script(&self) -> PathBuf {
        std::env::temp_dir().join(format!("{}.py", self.netns.name))
    }

    pub(crate) fn filters(&self, device: &str) -> String {
        self.netns.sh(&format!("tc filter show dev {device} ingress"))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let bpffs = self.bpffs.clone();
        let removed = self.run(move || Datapath::remove_all(&bpffs));
        if !std::thread::panicking() {
            removed.unwrap();
        }
        drop(std::fs::remove_file(self.script()));
    }
}

/// Number of programs at TC, whose directions come first.
pub(crate) const AT_TC: usize = 3;

/// The packets that each program at TC counted.
pub(crate) fn seen(datapath: &Datapath) -> [u64; AT_TC] {
    let mut seen = [0; AT_TC];
    for (_, direction, counter) in datapath.counters().unwrap() {
        if direction != Direction::GuardUnderlay {
            seen[direction as usize] += counter.packets;
        }
    }
    seen
}

/// Waits until each program has counted more packets than `before`. Returns the counts.
pub(crate) fn seen_more(datapath: &Datapath, before: [u64; AT_TC]) -> [u64; AT_TC] {
    let start = Instant::now();
    loop {
        let now = seen(datapath);
        if now.iter().zip(before).all(|(now, before)| *now > before) {
            return now;
        }
        assert!(start.elapsed() < BOUND, "each program runs: {before:?}, {now:?}");
        std::thread::yield_now();
    }
}

pub(crate) fn some_of_everything() -> (Vec<TableChange>, Tables) {
    let ip = ip16_from_v4([172, 16, 16, 129]);
    let mac = [2, 0x42, 172, 16, 16, 129];
    let vtep = ip16_from_v4([10, 0, 0, 2]);
    let fdb_key = FdbKey { vni: 4097, mac, pad: [0; 2] };
    let fdb = FdbEntry::behind(7, ip, 0, vtep, 1);
    let neigh_key = NeighKey { vni: 4097, ip };
    let neigh = NeighEntry { mac, pad: [0; 2] };
    let port = PortEntry { ip, vni: 4097, flags: 0, mac, pad: [0; 2], slot: 1, pad2: 0 };
    let node_key = NodeKey { vtep };
    let node = NodeEntry { node: 2, hop: 1, pad: 0 };
    let hop = HopEntry { header: [7; 50], mtu: 1500, csum: 9, ifindex: 3, via: 3 };
    let flood_key = FloodKey { vni: 4097, page: 1 };
    let mut flood = FloodEntry { hop_count: 1, ..FloodEntry::EMPTY };
    flood.hops[0] = 1;
    let leg = GatewayPortEntry {
        ip: ip16_from_v4([172, 18, 0, 3]),
        gateway: ip16_from_v4([172, 18, 0, 1]),
        bridge: 3,
        mask: [255, 255, 0, 0],
        mac: [2, 0x42, 172, 18, 0, 3],
        gateway_mac: [2, 0x42, 172, 18, 0, 1],
        flags: 0,
    };
    let api = ApiKey { ip: vtep, port: 7400 };
    let bridge_key = BridgeKey::behind(4097, vtep);
    let changes = vec![
        TableChange::PutFdb(fdb_key, fdb),
        TableChange::PutNeigh(neigh_key, neigh),
        TableChange::PutPort(9, port),
        TableChange::PutHop(1, hop),
        TableChange::PutNode(node_key, node),
        TableChange::PutFlood(flood_key, Box::new(flood)),
        TableChange::PutBridge(bridge_key, fdb),
        TableChange::PutGatewayPort(10, leg),
        TableChange::PutApi(api, 2),
    ];
    let tables = Tables {
        fdb: [(fdb_key, fdb)].into(),
        neigh: [(neigh_key, neigh)].into(),
        ports: [(9, port)].into(),
        hops: [(1, hop)].into(),
        nodes: [(node_key, node)].into(),
        flood: [(flood_key, flood)].into(),
        bridges: [(bridge_key, fdb)].into(),
        gateway_ports: [(10, leg)].into(),
        apis: [(api, 2)].into(),
    };
    (changes, tables)
}

#[test]
fn the_next_process_takes_everything_over() {
    if skip() {
        return;
    }
    let host = Host::new();
    let [port, leg, eth] = ["port0", "leg0", "eth7"].map(|device| host.ifindex(device));
    let names =
        || [format!("endpoint-{port}"), format!("gateway-{leg}"), format!("underlay-{eth}")];
    let (links, programs, packets) = host.run(|| {
        let mut datapath = host.open();
        assert_eq!(datapath.hook(), Hook::Tcx);
        assert_eq!(datapath.attached(Program::FromEndpoint), BTreeSet::new());
        assert_eq!(datapath.attached(Program::FromGateway), BTreeSet::new());
        host.attach_endpoint(&mut datapath);
        host.attach_endpoint(&mut datapath);
        assert!(host.is_attached(&datapath), "{datapath:?}");
        datapath.write(&some_of_everything().0).unwrap();
        assert_eq!(host.entries(), names().into());
        host.make_traffic();
        let links = names().map(|entry| host.link_id(&entry));
        (links, program_ids(&host), seen_more(&datapath, [0; 3]))
    });

    // No process has the programs open, and packets are still counted.
    host.make_traffic();
    host.run(|| {
        let mut datapath = host.open();
        let before = seen_more(&datapath, packets);
        assert_eq!(datapath.reader().tables().unwrap(), some_of_everything().1);
        assert!(host.is_attached(&datapath), "{datapath:?}");
        assert_eq!(names().map(|entry| host.link_id(&entry)), links, "the links are the same");
        let now = program_ids(&host);
        assert!(now.is_disjoint(&programs), "the programs are new: {programs:?}, {now:?}");
        host.attach_endpoint(&mut datapath);
        host.make_traffic();
        seen_more(&datapath, before);

        datapath.detach(Program::FromEndpoint, leg).unwrap();
        datapath.detach(Program::FromGateway, port).unwrap();
        assert!(host.is_attached(&datapath), "each by its own role");
        for _ in 0..2 {
            datapath.detach(Program::FromGateway, leg).unwrap();
            assert_eq!(datapath.attached(Program::FromGateway), BTreeSet::new());
            assert_eq!(datapath.attached(Program::FromEndpoint), [port].into());
        }
        for _ in 0..2 {
            datapath.detach(Program::FromEndpoint, port).unwrap();
        }
        assert_eq!(datapath.attached(Program::FromEndpoint), BTreeSet::new());
        assert_eq!(host.entries(), [format!("underlay-{eth}")].into());
    });
}

/// Ids of the programs of the pinned links.
pub(crate) fn program_ids(host: &Host) -> BTreeSet<String> {
    let id = |entry: String| {
        let path = host.bpffs.join("links").join(entry);
        let text = sh(&format!("bpftool link show pinned {}", path.display()));
        let mut words = text.split_whitespace().skip_while(|word| *word != "prog");
        words.nth(1).unwrap().to_owned()
    };
    host.entries().into_iter().map(id).collect()
}

#[test]
fn no_packet_passes_by_while_programs_are_replaced() {
    if skip() {
        return;
    }
    for hook in [Hook::Tcx, Hook::Clsact] {
        let host = Host::new();
        // Without IPv6, only the test's own frames come out of port and leg.
        host.peer.sh("echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6");
        let open = || Datapath::open_on(host.config_for("eth7"), hook).unwrap();
        let [port_before, _, leg_before] = host.run(|| {
            let mut datapath = open();
            host.attach_endpoint(&mut datapath);
            seen(&datapath)
        });
        let folder = tempfile::tempdir().unwrap();
        let stop = folder.path().join("stop");
        let sent = std::thread::scope(|scope| {
            let sender = scope.spawn(|| host.send_until(&stop));
            let first = host.run(|| {
                let datapath = open();
                let start = Instant::now();
                while seen(&datapath)[0] == port_before && start.elapsed() < BOUND {
                    std::thread::yield_now();
                }
                seen(&datapath)[0]
            });
            for _ in 0..5 {
                host.run(|| drop(open()));
            }
            std::fs::write(&stop, "").unwrap();
            let sent = sender.join().unwrap();
            assert!(
                sent > first - port_before,
                "{hook:?}: frames came while programs were replaced"
            );
            sent
        });
        let [port_after, _, leg_after] = host.run(|| seen(&open()));
        let passed = [port_after - port_before, leg_after - leg_before];
        assert_eq!(passed, [sent; 2], "{hook:?}");
    }
}

#[test]
fn attachments_whose_device_went_are_forgotten() {
    if skip() {
        return;
    }
    for hook in [Hook::Tcx, Hook::Clsact] {
        let host = Host::new();
        let [port, leg, eth] = ["port0", "leg0", "eth7"].map(|device| host.ifindex(device));
        host.run(|| {
            let mut datapath = Datapath::open_on(host.config_for("eth7"), hook).unwrap();
            host.attach_endpoint(&mut datapath);
        });
        // One device was removed, and another one has its index.
        host.netns.sh("ip link del leg0");
        host.netns.sh("ip link del port0");
        host.netns.sh(&format!("ip link add port0 index {port} type veth peer name port1"));
        host.run(|| {
            let mut datapath = Datapath::open_on(host.config_for("eth7"), hook).unwrap();
            assert_eq!(datapath.attached(Program::FromEndpoint), BTreeSet::new(), "{hook:?}");
            assert_eq!(datapath.attached(Program::FromGateway), BTreeSet::new(), "{hook:?}");
            datapath.detach(Program::FromGateway, leg).unwrap();
            let error = datapath.attach(Program::FromGateway, "leg0", leg).unwrap_err();
            assert!(matches!(error, DatapathError::NoDevice { .. }), "{error:?}");
            assert_eq!(host.entries(), [format!("underlay-{eth}")].into(), "{hook:?}");
            datapath.attach(Program::FromEndpoint, "port0", port).unwrap();
            host.netns.sh("ip link del port0");
            datapath.detach(Program::FromEndpoint, port).unwrap();
            let error = datapath.attach(Program::FromEndpoint, "port0", port).unwrap_err();
            assert!(matches!(error, DatapathError::NoDevice { .. }), "{error:?}");
            assert_eq!(host.entries(), [format!("underlay-{eth}")].into(), "{hook:?}");
        });
    }
}

#[test]
fn the_underlay_can_be_another_device() {
    if skip() {
        return;
    }
    for hook in [Hook::Tcx, Hook::Clsact] {
        let host = Host::new();
        host.netns.join("eth8", &host.peer, "eth8");
        let new = host.ifindex("eth8");
        host.run(|| {
            drop(Datapath::open_on(host.config_for("eth7"), hook).unwrap());
            let mut datapath = Datapath::open_on(host.config_for("eth8"), hook).unwrap();
            let old = host.ifindex("eth7");
            let both = [format!("underlay-{old}"), format!("underlay-{new}")];
            assert_eq!(host.entries(), both.into(), "it may be an uplink still");
            let deaf = datapath.set_uplinks(vec![uplink("eth8", new)]);
            assert!(deaf.is_empty(), "{deaf:?}");
            assert_eq!(host.entries(), [format!("underlay-{new}")].into());
            drop(datapath);
            assert!(!host.filters("eth7").contains("direct-action"));
        });
    }
}

#[test]
fn each_uplink_has_a_program_and_no_other_device() {
    if skip() {
        return;
    }
    for hook in [Hook::Tcx, Hook::Clsact] {
        let host = Host::new();
        host.netns.join("eth8", &host.peer, "eth8");
        host.netns.sh("ip tuntap add mode tun name tun0");
        let [eth7, eth8, tun] = ["eth7", "eth8", "tun0"].map(|device| host.ifindex(device));
        host.run(|| {
            let mut datapath = Datapath::open_on(host.config_for("eth7"), hook).unwrap();
            let bare = Uplink { link_layer: LinkLayer::Bare, ..uplink("tun0", tun) };
            let gone = uplink("eth9", 4711);
            let veth = Uplink { is_veth: true, ..uplink("eth8", eth8) };
            let all = vec![uplink("eth7", eth7), gone.clone(), bare, veth];
            let deaf = datapath.set_uplinks(all.clone());
            assert!(
                matches!(&deaf[..], [(uplink, DatapathError::NoDevice { .. })] if *uplink == gone),
                "{hook:?}: {deaf:?}"
            );
            let entries =
                [format!("underlay-{eth7}"), format!("veth-{eth8}"), format!("bare-link-{tun}")];
            assert_eq!(host.entries(), entries.clone().into(), "the others have theirs");
            let mut datapath = Datapath::open_on(host.config_for("eth7"), hook).unwrap();
            assert_eq!(host.entries(), entries.into(), "{hook:?}: also after a restart");
            let deaf = datapath.set_uplinks(vec![uplink("eth7", eth7)]);
            assert!(deaf.is_empty(), "{deaf:?}");
            assert_eq!(host.entries(), [format!("underlay-{eth7}")].into(), "{hook:?}");
        });
    }
}

#[test]
fn a_folder_that_is_not_on_bpffs_is_refused() {
    if skip() {
        return;
    }
    let host = Host::new();
    let folder = tempfile::tempdir().unwrap();
    host.run(|| {
        let bpffs = folder.path().join("overlay");
        let config = DatapathConfig { bpffs, ..host.config_for("eth7") };
        let error = Datapath::open(config).unwrap_err();
        assert!(matches!(error, DatapathError::NoBpffs(_)), "{error:?}");
    });
}

#[test]
fn a_stranger_in_the_folder_survives_its_removal() {
    if skip() {
        return;
    }
    let host = Host::new();
    host.run(|| {
        drop(host.open());
        let foreign = maps_folder(&host.bpffs).join("THEIRS");
        sh(&format!(
            "bpftool map create {} type array key 4 value 4 entries 1 name THEIRS",
            foreign.display()
        ));
        Datapath::remove_all(&host.bpffs).unwrap();
        assert!(foreign.exists());
        assert!(
            !maps_folder(&host.bpffs).join("FDB").exists() && !host.bpffs.join("links").exists()
        );
        std::fs::remove_file(foreign).unwrap();
        Datapath::remove_all(&host.bpffs).unwrap();
        assert!(!host.bpffs.exists());
        Datapath::remove_all(&host.bpffs).unwrap();
    });
}

#[test]
fn drops_are_told_while_the_monitor_is_on() {
    if skip() {
        return;
    }
    let host = Host::new();
    let devices = ["port0", "leg0"].map(|device| host.ifindex(device));
    host.netns.block_on(|| async {
        let mut datapath = host.open();
        host.attach_endpoint(&mut datapath);
        let mut events = datapath.events().unwrap();
        assert!(matches!(datapath.events(), Err(DatapathError::EventsTaken)));
        datapath.listen(Listening::Drops).unwrap();
        host.make_traffic();
        let told = async {
            let mut told = BTreeSet::new();
            while told.len() < devices.len() {
                let event = events.next().await.unwrap();
                if devices.contains(&event.ifindex) {
                    assert_eq!(event.reason, DropReason::UnknownPort as u32, "{event:?}");
                    told.insert((event.ifindex, event.direction));
                }
            }
            told
        };
        let told = tokio::time::timeout(BOUND, told).await.expect("the drops are told");
        let directions = [Direction::FromEndpoint, Direction::FromGateway].map(|way| way as u32);
        assert_eq!(told, devices.into_iter().zip(directions).collect());

        datapath.listen(Listening::None).unwrap();
        drop(events);
        let mut events = datapath.events().expect("the reader's place is free again");
        let before = seen(&datapath);
        host.make_traffic();
        seen_more(&datapath, before);
        let silence = tokio::time::timeout(Duration::from_millis(50), events.next()).await;
        assert!(silence.is_err(), "{silence:?}");
    });
}
