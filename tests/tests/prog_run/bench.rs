//! Loads the programs, makes devices in a network namespace, and runs packets through the programs.
#![expect(unsafe_code, reason = "memory of the kernel's records, and calls that no wrapper has")]

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, AsRawFd as _},
    panic::Location,
    sync::{Mutex, PoisonError},
};

use aya::{
    Ebpf, EbpfLoader, Pod, TestRun as _, TestRunOptions, include_bytes_aligned,
    maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuValues, RingBuf},
    programs::{ProgramError, SchedClassifier, TcAttachType, Xdp, tc, tc::SchedClassifierLinkId},
};
use nix::{errno::Errno, libc};
use overlay_common::{
    ApiKey, Arrivals, BridgeKey, ClaimEntry, Config, Counter, Direction, DropReason, Event,
    FdbEntry, FdbKey, FloodEntry, FloodKey, GatewayPortEntry, HopEntry, KERNEL_BTF, Limit, Limits,
    METRICS_MAX, NeighEntry, NeighKey, NodeEntry, NodeKey, PathMtu, PortEntry, Prepared,
    SKB_LAYOUT, TRAFFIC_MAX, Traffic, map, metric_index, prepare,
};
use overlay_lab::{Requirement, missing, skip};

use super::{
    devices::{Home, make_merge_pair, set_offloads},
    tap::Tap,
    world::{FORWARDS, LEG_A, LEG_B, PORT_A, PORT_B, SLOT_A, SLOT_B, UNDERLAY, World},
};

pub(crate) static OBJECT: &[u8] = include_bytes_aligned!(env!("OVERLAY_EBPF_OBJECT"));

/// The programs in each form that this kernel may accept, in the order in which they are tried.
pub(crate) fn prepared() -> Vec<Prepared> {
    let btf = std::fs::read(KERNEL_BTF).expect("the kernel tells its types");
    prepare(OBJECT, &btf).expect("its sk_buff is one that we know")
}

/// Opens the programs and their maps without loading the programs.
pub(crate) fn opened(Prepared { object, layout }: &Prepared) -> Ebpf {
    let mut loader = EbpfLoader::new();
    loader.override_global(SKB_LAYOUT, layout, true);
    loader.load(object).expect("the object holds the programs")
}

/// Additional room that the kernel needs in the output buffer: at least the headers that encapsulation adds.
const GROWTH: usize = 256;

/// The value that a program returned to TC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// TC_ACT_UNSPEC.
    Pass,
    /// TC_ACT_SHOT.
    Shot,
    /// TC_ACT_REDIRECT.
    Redirect,
}

/// The properties of a packet that are not in its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Skb {
    /// The device by which the packet comes in. From this device's MAC the kernel tells whether the packet is
    /// for this host.
    pub(crate) ifindex: u32,
    /// The segment size of a super-packet, or 0. test_run cannot tell the protocol of a super-packet.
    pub(crate) gso_size: u32,
}

/// The change of each counter, by reason and direction. Reason 0 counts forwarded packets.
pub(crate) type Counts = BTreeMap<(u32, Direction), Counter>;

/// All results of one packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    pub(crate) packet: Vec<u8>,
    pub(crate) counts: Counts,
    pub(crate) events: Vec<Event>,
}

/// The loaded programs with their maps, and the namespaces with the devices.
pub(crate) struct Bench {
    loaded: Loaded,
    home: Home,
}

/// The node at the other end of the underlay. It has its own programs and maps, in the namespace of the
/// peers, and receives everything that this node sends on the underlay.
pub(crate) struct FarNode {
    loaded: Loaded,
}

impl FarNode {
    /// Makes the far node's maps hold the world and nothing else.
    pub(crate) fn fill(&mut self, world: &World) {
        self.loaded.fill(world);
    }

    /// Notes how the TCP segments of the VTEP at this index of HOPS arrive.
    pub(crate) fn set_arrivals(&mut self, hop: u32, arrivals: Arrivals) {
        self.loaded.set_arrivals(hop, arrivals);
    }
}

/// The programs and their maps, which depend on no namespace.
struct Loaded {
    programs: Ebpf,
    config: Array<MapData, Config>,
    fdb: HashMap<MapData, FdbKey, FdbEntry>,
    neigh: HashMap<MapData, NeighKey, NeighEntry>,
    ports: HashMap<MapData, u32, PortEntry>,
    nodes: HashMap<MapData, NodeKey, NodeEntry>,
    hops: Array<MapData, HopEntry>,
    paths: Array<MapData, PathMtu>,
    traffic: PerCpuArray<MapData, Traffic>,
    limits: Array<MapData, Limits>,
    claims: HashMap<MapData, NeighKey, ClaimEntry>,
    flood: HashMap<MapData, FloodKey, FloodEntry>,
    bridges: HashMap<MapData, BridgeKey, FdbEntry>,
    gateway_ports: HashMap<MapData, u32, GatewayPortEntry>,
    apis: HashMap<MapData, ApiKey, u64>,
    metrics: PerCpuArray<MapData, Counter>,
    events: RingBuf<MapData>,
    filled: World,
    counted: Counts,
    attached: Vec<(Direction, SchedClassifierLinkId)>,
}

/// The slots of TRAFFIC that are read: those of the endpoints, the one that is shared by all others, and the
/// last one. Reading all of them would take most of a run's time.
const WATCHED_SLOTS: [u32; 4] = [0, SLOT_A, SLOT_B, TRAFFIC_MAX - 1];

/// Directions whose programs are attached to TC. The guard's program is for XDP, and is loaded by the tests
/// that need it.
pub(crate) const AT_TC: [Direction; 3] =
    [Direction::FromEndpoint, Direction::FromUnderlay, Direction::FromGateway];

/// The guard's programs: the one for a driver, and the one for the stack.
pub(crate) const GUARDS: [&str; 2] = ["guard_underlay", "guard_generic"];

/// The programs of the last test, which the next test uses again, because the verifier takes longer than most
/// tests.
static SPARE: Mutex<Option<Loaded>> = Mutex::new(None);

/// Runs a test on a bench of its own, or skips the test if the machine lacks something.
#[track_caller]
pub(crate) fn on_bench(body: impl FnOnce(&mut Bench)) {
    if let Some(reason) = missing(&[Requirement::Root, Requirement::Tool("ip")]) {
        return skip(&reason, Location::caller()).expect("a line for the count");
    }
    let spare = || SPARE.lock().unwrap_or_else(PoisonError::into_inner);
    // The lock is not held while the programs are loaded.
    let taken = spare().take();
    let mut bench = Bench::new(taken.unwrap_or_else(Loaded::new));
    // The bench of a failed test is not used again.
    body(&mut bench);
    *spare() = Some(bench.clear());
}

/// Runs a test once for each way in which this kernel lets the programs read its own struct of a packet.
#[track_caller]
pub(crate) fn on_each_way(body: impl Fn(&mut Bench)) {
    if let Some(reason) = missing(&[Requirement::Root, Requirement::Tool("ip")]) {
        return skip(&reason, Location::caller()).expect("a line for the count");
    }
    for prepared in prepared() {
        println!("{:?}", prepared.layout);
        body(&mut Bench::new(Loaded::of(&prepared)));
    }
}

impl Loaded {
    fn new() -> Self {
        Self::of(&prepared()[0])
    }

    fn of(prepared: &Prepared) -> Self {
        let mut programs = opened(prepared);
        let mut loaded = Self {
            config: Array::try_from(map(&mut programs, map::CONFIG::NAME)).expect("CONFIG"),
            fdb: table(&mut programs, map::FDB::NAME),
            neigh: table(&mut programs, map::NEIGH::NAME),
            ports: table(&mut programs, map::PORTS::NAME),
            nodes: table(&mut programs, map::NODES::NAME),
            hops: Array::try_from(map(&mut programs, map::HOPS::NAME)).expect("HOPS"),
            paths: Array::try_from(map(&mut programs, map::PATHS::NAME)).expect("PATHS"),
            traffic: PerCpuArray::try_from(map(&mut programs, map::TRAFFIC::NAME))
                .expect("TRAFFIC"),
            limits: Array::try_from(map(&mut programs, map::LIMITS::NAME)).expect("LIMITS"),
            claims: table(&mut programs, map::CLAIMS::NAME),
            flood: table(&mut programs, map::FLOOD::NAME),
            bridges: table(&mut programs, map::BRIDGES::NAME),
            gateway_ports: table(&mut programs, map::GATEWAY_PORTS::NAME),
            apis: table(&mut programs, map::APIS::NAME),
            metrics: PerCpuArray::try_from(map(&mut programs, map::METRICS::NAME))
                .expect("METRICS"),
            events: RingBuf::try_from(map(&mut programs, map::EVENTS::NAME)).expect("EVENTS"),
            programs,
            filled: World::empty(),
            counted: Counts::new(),
            attached: Vec::new(),
        };
        for direction in AT_TC {
            loaded.program(direction).load().expect("the verifier takes the program");
        }
        loaded
    }

    /// Makes the maps hold the world and nothing else.
    fn fill(&mut self, world: &World) {
        let empty = Config {
            vtep: [0; 16],
            underlay_ifindex: 0,
            vxlan_port: 0,
            ttl: 0,
            tos_mask: 0,
            flags: 0,
            sample: 0,
            storm: Limit::NONE,
            answers: Limit::NONE,
            claims: Limit::NONE,
            gateway: [0; 4],
            gateway_mask: [0; 4],
            merge_ifindex: 0,
        };
        self.config.set(0, world.config.unwrap_or(empty), 0).expect("CONFIG takes it");
        replace(&mut self.fdb, &self.filled.fdb, &world.fdb);
        replace(&mut self.neigh, &self.filled.neigh, &world.neigh);
        replace(&mut self.ports, &self.filled.ports, &world.ports);
        replace(&mut self.nodes, &self.filled.nodes, &world.nodes);
        for index in self.filled.hops.keys().filter(|index| !world.hops.contains_key(index)) {
            let none = HopEntry { header: [0; 50], mtu: 0, csum: 0, ifindex: 0, via: 0 };
            self.hops.set(*index, none, 0).expect("HOPS takes it");
        }
        for (index, hop) in &world.hops {
            self.hops.set(*index, hop, 0).expect("HOPS takes it");
            self.paths.set(*index, PathMtu::default(), 0).expect("PATHS takes it");
        }
        for slot in WATCHED_SLOTS {
            self.limits.set(slot, Limits::default(), 0).expect("LIMITS takes it");
        }
        let claims: Vec<NeighKey> = self.claims.keys().flatten().collect();
        for key in claims {
            self.claims.remove(&key).expect("nobody else removes it");
        }
        replace(&mut self.flood, &self.filled.flood_pages(), &world.flood_pages());
        replace(&mut self.bridges, &self.filled.bridges, &world.bridges);
        replace(&mut self.gateway_ports, &self.filled.gateway_ports, &world.gateway_ports);
        replace(&mut self.apis, &self.filled.apis, &world.apis);
        self.filled = world.clone();
    }

    fn attach(&mut self, direction: Direction, device: &str) {
        // Only kernels before 6.6 need a clsact qdisc.
        tc::qdisc_add_clsact(device).expect("the device has no qdisc of ours yet");
        let program = self.program(direction);
        let link = program.attach(device, TcAttachType::Ingress).expect("TC takes the program");
        self.attached.push((direction, link));
    }

    fn program(&mut self, direction: Direction) -> &mut SchedClassifier {
        let program = self.programs.program_mut(direction.name()).expect("named after it");
        program.try_into().expect("a classifier")
    }

    /// `from_veth`, loaded.
    fn veth(&mut self) -> &mut SchedClassifier {
        let program = self.programs.program_mut("from_veth").expect("a program of that name");
        let program: &mut SchedClassifier = program.try_into().expect("a classifier");
        if program.fd().is_err() {
            program.load().expect("the verifier takes the program");
        }
        program
    }

    fn set_arrivals(&mut self, hop: u32, arrivals: Arrivals) {
        for (index, arrivals) in [(hop, arrivals), (Arrivals::OF_ALL, of_all(arrivals))] {
            let path = PathMtu { arrivals, ..PathMtu::default() };
            self.paths.set(index, path, 0).expect("PATHS takes it");
        }
    }
}

/// What is noted of all VTEPs, where only one's segments came alone.
fn of_all(arrivals: Arrivals) -> Arrivals {
    Arrivals { tick: arrivals.tick, ..Arrivals::default() }
}

impl Bench {
    fn new(loaded: Loaded) -> Self {
        let home = Home::leave();
        home.make_devices();
        let mut bench = Self { loaded, home };
        bench.fill(&World::default());
        bench
    }

    /// Removes everything that a test has left in the maps, on the devices and in the ring.
    fn clear(mut self) -> Loaded {
        self.fill(&World::empty());
        for (direction, link) in std::mem::take(&mut self.loaded.attached) {
            self.program(direction).detach(link).expect("its device is there");
        }
        for guard in GUARDS {
            if self.guard(guard).fd().is_ok() {
                self.guard(guard).unload().expect("it is loaded");
            }
        }
        for slot in WATCHED_SLOTS {
            let cpus = self.loaded.traffic.get(&slot, 0).expect("TRAFFIC has the slot").len();
            let none =
                PerCpuValues::try_from(vec![Traffic::default(); cpus]).expect("a value a CPU");
            self.loaded.traffic.set(slot, none, 0).expect("TRAFFIC has the slot");
        }
        self.loaded.counted = self.read_metrics();
        self.events();
        self.loaded
    }

    /// The program for packets of this direction.
    pub(crate) fn program(&mut self, direction: Direction) -> &mut SchedClassifier {
        self.loaded.program(direction)
    }

    /// One of [`GUARDS`], which is not loaded yet.
    pub(crate) fn guard(&mut self, name: &str) -> &mut Xdp {
        let program = self.loaded.programs.program_mut(name);
        program.expect("a program of that name").try_into().expect("an XDP program")
    }

    /// Fills the maps with a world whose endpoints have all permissions.
    pub(crate) fn fill_with_routers(&mut self) {
        let mut world = World::default();
        world.flag(FORWARDS);
        self.fill(&world);
    }

    /// Makes the maps hold the world and nothing else.
    pub(crate) fn fill(&mut self, world: &World) {
        self.loaded.fill(world);
    }

    /// Loads the programs of the node at the other end of the underlay: see [`FarNode`].
    pub(crate) fn far_node(&self) -> FarNode {
        let mut loaded = Loaded::new();
        self.home.among_peers(|| loaded.attach(Direction::FromUnderlay, "underlay_peer"));
        FarNode { loaded }
    }

    /// Loads the programs of a node at the other end of the underlay whose uplink is a veth, and makes its merge pair.
    pub(crate) fn far_node_with_pair(&self) -> FarNode {
        let mut loaded = Loaded::new();
        self.home.among_peers(|| {
            make_merge_pair();
            loaded.attach(Direction::FromUnderlay, "ovm-in");
            tc::qdisc_add_clsact("underlay_peer").expect("the device has no qdisc of ours yet");
            let program = loaded.veth();
            program.attach("underlay_peer", TcAttachType::Ingress).expect("TC takes the program");
        });
        FarNode { loaded }
    }

    /// Calls a function in the namespace of the peers, where the endpoints' sides of their devices are.
    pub(crate) fn among_peers<T>(&self, body: impl FnOnce() -> T) -> T {
        self.home.among_peers(body)
    }

    /// Both ends of the veth of the far node's endpoint.
    pub(crate) fn tap_far(&self) -> Tap {
        self.home.far_tap()
    }

    /// Removes an endpoint from FDB, and changes nothing else.
    pub(crate) fn remove_endpoint(&mut self, key: FdbKey) {
        self.loaded.fdb.remove(&key).expect("it was put in");
        self.loaded.filled.fdb.remove(&key);
    }

    /// Lets the underlay's device take super-packets whole, or has the kernel cut them before the device.
    pub(crate) fn set_offloads_of_underlay(&self, whole: bool) {
        set_offloads("underlay", whole);
    }

    /// Does the same as [`Self::set_offloads_of_underlay`] for the device of the far node's endpoint.
    pub(crate) fn set_offloads_of_far(&self, whole: bool) {
        self.home.among_peers(|| set_offloads("far", whole));
    }

    /// Runs one packet through the direction's program, as if it came in by the usual device.
    pub(crate) fn run(&mut self, direction: Direction, packet: &[u8]) -> Outcome {
        self.run_skb(direction, packet, Skb::usual(direction))
    }

    /// Runs one packet with the given properties.
    pub(crate) fn run_skb(&mut self, direction: Direction, packet: &[u8], skb: Skb) -> Outcome {
        let ran = self.try_run(direction, packet, skb, 1);
        ran.unwrap_or_else(|error| panic!("{packet:02x?} is not run: {error:?}"))
    }

    /// Runs the same packet many times. The verdict and the bytes are those of the last run.
    pub(crate) fn repeat(&mut self, direction: Direction, packet: &[u8], times: u32) -> Outcome {
        let ran = self.try_run(direction, packet, Skb::usual(direction), times);
        ran.unwrap_or_else(|error| panic!("{packet:02x?} is not run: {error:?}"))
    }

    /// Runs a packet that test_run may refuse, because it is shorter than its IP header.
    pub(crate) fn try_run(
        &mut self,
        direction: Direction,
        packet: &[u8],
        skb: Skb,
        repeat: u32,
    ) -> Result<Outcome, ProgramError> {
        let (verdict, packet) = self.test_run(direction, packet, skb, repeat)?;
        Ok(Outcome { verdict, packet, counts: self.counts(), events: self.events() })
    }

    /// Runs one packet without reading counts and events, so that those of many packets can be read at once.
    pub(crate) fn run_bare(
        &mut self,
        direction: Direction,
        packet: &[u8],
        skb: Skb,
    ) -> Result<(Verdict, Vec<u8>), ProgramError> {
        match direction {
            Direction::GuardUnderlay => self.test_run_guard(packet),
            _ => self.test_run(direction, packet, skb, 1),
        }
    }

    /// Runs a packet through one of the guard's programs, chosen by the packet's length, so that both get
    /// their share. Both must be loaded. The kernel chooses the device.
    fn test_run_guard(&mut self, packet: &[u8]) -> Result<(Verdict, Vec<u8>), ProgramError> {
        let mut out = vec![0; packet.len() + GROWTH];
        let ran = self.guard(GUARDS[packet.len() % 2]).test_run(TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut out),
            ..TestRunOptions::new()
        })?;
        out.truncate(ran.data_size_out as usize);
        // Return values of XDP programs (linux/bpf.h).
        let verdict = match ran.return_value {
            1 => Verdict::Shot,
            2 => Verdict::Pass,
            other => panic!("the guard never returns {other}"),
        };
        Ok((verdict, out))
    }

    fn test_run(
        &mut self,
        direction: Direction,
        packet: &[u8],
        skb: Skb,
        repeat: u32,
    ) -> Result<(Verdict, Vec<u8>), ProgramError> {
        let mut out = vec![0; packet.len() + GROWTH];
        let context = skb.context();
        let ran = self.program(direction).test_run(TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            repeat,
            ..TestRunOptions::new()
        })?;
        out.truncate(ran.data_size_out as usize);
        Ok((Verdict::from_action(ran.return_value), out))
    }

    /// Runs one packet through `from_veth`, as if it came in by the underlay's device.
    pub(crate) fn run_veth(&mut self, packet: &[u8], gso_size: u32) -> Outcome {
        let skb = Skb { gso_size, ..Skb::usual(Direction::FromUnderlay) };
        let mut out = vec![0; packet.len() + GROWTH];
        let context = skb.context();
        let ran = self.loaded.veth().test_run(TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        });
        let ran = ran.unwrap_or_else(|error| panic!("{packet:02x?} is not run: {error:?}"));
        out.truncate(ran.data_size_out as usize);
        let verdict = Verdict::from_action(ran.return_value);
        Outcome { verdict, packet: out, counts: self.counts(), events: self.events() }
    }

    /// Runs one packet with a mark and a priority of the host, and returns those that it has afterwards.
    pub(crate) fn run_marked(
        &mut self,
        direction: Direction,
        packet: &[u8],
        [mark, priority]: [u32; 2],
    ) -> (Verdict, [u32; 2]) {
        // Of `struct __sk_buff` (linux/bpf.h).
        const MARK: usize = 8;
        const PRIORITY: usize = 32;
        let mut context = Skb::usual(direction).context();
        context[MARK..][..4].copy_from_slice(&mark.to_ne_bytes());
        context[PRIORITY..][..4].copy_from_slice(&priority.to_ne_bytes());
        let mut after = context;
        let mut out = vec![0; packet.len() + GROWTH];
        let ran = self.program(direction).test_run(TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ctx_out: Some(&mut after),
            ..TestRunOptions::new()
        });
        let ran = ran.expect("the packet is run");
        let word = |at: usize| u32::from_ne_bytes(after[at..][..4].try_into().expect("four bytes"));
        (Verdict::from_action(ran.return_value), [MARK, PRIORITY].map(word))
    }

    /// Runs one packet as if a device had computed the sum of the whole packet. The kernel compares the sum
    /// with the packet's bytes afterwards, and returns EBADMSG if they differ. The system call is made
    /// directly, because aya does not know this flag.
    pub(crate) fn run_summed(
        &mut self,
        direction: Direction,
        packet: &[u8],
    ) -> nix::Result<Verdict> {
        /// The first fields of `union bpf_attr` for BPF_PROG_TEST_RUN (linux/bpf.h).
        #[repr(C)]
        struct TestRun {
            prog_fd: u32,
            retval: u32,
            data_size_in: u32,
            data_size_out: u32,
            data_in: u64,
            data_out: u64,
            repeat: u32,
            duration: u32,
            ctx_size_in: u32,
            ctx_size_out: u32,
            ctx_in: u64,
            ctx_out: u64,
            flags: u32,
            cpu: u32,
            batch_size: u32,
            pad: u32,
        }
        const BPF_PROG_TEST_RUN: libc::c_int = 10;
        const BPF_F_TEST_SKB_CHECKSUM_COMPLETE: u32 = 1 << 2;
        let context = Skb::usual(direction).context();
        let program = self.program(direction).fd().expect("it is loaded").as_fd();
        let mut run = TestRun {
            prog_fd: program.as_raw_fd() as u32,
            retval: 0,
            data_size_in: packet.len() as u32,
            data_size_out: 0,
            data_in: packet.as_ptr() as u64,
            data_out: 0,
            repeat: 1,
            duration: 0,
            ctx_size_in: context.len() as u32,
            ctx_size_out: 0,
            ctx_in: context.as_ptr() as u64,
            ctx_out: 0,
            flags: BPF_F_TEST_SKB_CHECKSUM_COMPLETE,
            cpu: 0,
            batch_size: 0,
            pad: 0,
        };
        // SAFETY: the struct begins like the kernel's and has the length that is given; its two pointers are
        // to buffers that outlive the call, and are only read.
        let ran = unsafe {
            libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, &raw mut run, size_of::<TestRun>())
        };
        Errno::result(ran).map(|_| Verdict::from_action(run.retval))
    }

    /// The counts since the last call.
    pub(crate) fn counts(&mut self) -> Counts {
        let now = self.read_metrics();
        let before = std::mem::replace(&mut self.loaded.counted, now);
        let moved = self.loaded.counted.iter().filter_map(|(at, now)| {
            let before = before.get(at).copied().unwrap_or_default();
            let moved =
                Counter { packets: now.packets - before.packets, bytes: now.bytes - before.bytes };
            (moved != Counter::default()).then_some((*at, moved))
        });
        moved.collect()
    }

    fn read_metrics(&self) -> Counts {
        let mut counts = Counts::new();
        let traffic = self.read_traffic();
        // The numbers behind the last reason are read as well, because none of them may be counted.
        for reason in 0..=DropReason::COUNT {
            for direction in Direction::ALL {
                let index = metric_index(reason, direction);
                assert!(index < METRICS_MAX);
                let cpus = self.loaded.metrics.get(&index, 0).expect("METRICS has the index");
                let sum = cpus.iter().fold(Counter::default(), |sum, cpu| Counter {
                    packets: sum.packets + cpu.packets,
                    bytes: sum.bytes + cpu.bytes,
                });
                // Forwarded packets of endpoints are counted in the endpoints' slots.
                let sum = match (reason, direction) {
                    (0, Direction::FromEndpoint) => {
                        traffic.values().fold(sum, |sum, of| add(sum, of.sent))
                    }
                    (0, Direction::FromUnderlay) => {
                        traffic.values().fold(sum, |sum, of| add(sum, of.received))
                    }
                    _ => sum,
                };
                counts.insert((reason, direction), sum);
            }
        }
        counts
    }

    /// The packets and bytes that each endpoint sent and received since the test began, by slot.
    pub(crate) fn read_traffic(&self) -> BTreeMap<u32, Traffic> {
        let mut all = BTreeMap::new();
        for slot in WATCHED_SLOTS {
            let cpus = self.loaded.traffic.get(&slot, 0).expect("TRAFFIC has the slot");
            let sum = cpus.iter().fold(Traffic::default(), |sum, cpu| Traffic {
                sent: add(sum.sent, cpu.sent),
                received: add(sum.received, cpu.received),
                from_neighbours: add(sum.from_neighbours, cpu.from_neighbours),
                dropped: add(sum.dropped, cpu.dropped),
            });
            if sum != Traffic::default() {
                all.insert(slot, sum);
            }
        }
        all
    }

    /// Notes how the TCP segments of the VTEP at this index of HOPS arrive.
    pub(crate) fn set_arrivals(&mut self, hop: u32, arrivals: Arrivals) {
        self.loaded.set_arrivals(hop, arrivals);
    }

    /// The values that the programs learnt about the path at an index of HOPS.
    pub(crate) fn path(&self, hop: u32) -> PathMtu {
        self.loaded.paths.get(&hop, 0).expect("PATHS has the index")
    }

    /// The events since the last call.
    pub(crate) fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(item) = self.loaded.events.next() {
            assert_eq!(item.len(), size_of::<Event>());
            // SAFETY: the item is as long as the type, for which any bytes are a valid value; an unaligned
            // read needs no alignment.
            events.push(unsafe { item.as_ptr().cast::<Event>().read_unaligned() });
        }
        events
    }

    /// Attaches the direction's program to a device, for packets that come in by the device. The program is
    /// detached with the bench.
    pub(crate) fn attach(&mut self, direction: Direction, device: &str) {
        self.loaded.attach(direction, device);
    }

    /// Both ends of the veth whose host side has this index.
    pub(crate) fn tap(&self, host: u32) -> Tap {
        self.home.tap(host)
    }

    /// Both ends of endpoint A's veth.
    pub(crate) fn tap_a(&self) -> Tap {
        self.home.tap(PORT_A)
    }

    /// Both ends of endpoint B's veth.
    pub(crate) fn tap_b(&self) -> Tap {
        self.home.tap(PORT_B)
    }

    /// Both ends of A's gateway leg.
    pub(crate) fn tap_leg_a(&self) -> Tap {
        self.home.tap(LEG_A)
    }

    /// Both ends of B's gateway leg.
    pub(crate) fn tap_leg_b(&self) -> Tap {
        self.home.tap(LEG_B)
    }

    /// Both ends of the underlay.
    pub(crate) fn tap_underlay(&self) -> Tap {
        self.home.tap(UNDERLAY)
    }
}

impl Verdict {
    fn from_action(action: u32) -> Self {
        match action as i32 {
            -1 => Self::Pass,
            2 => Self::Shot,
            7 => Self::Redirect,
            other => panic!("no program returns {other}"),
        }
    }
}

impl Skb {
    /// A packet that comes in by one of endpoint A's devices, or by the underlay's.
    pub(crate) fn usual(direction: Direction) -> Self {
        let ifindex = match direction {
            Direction::FromEndpoint => PORT_A,
            Direction::FromUnderlay | Direction::GuardUnderlay => UNDERLAY,
            Direction::FromGateway => LEG_A,
        };
        Self { ifindex, gso_size: 0 }
    }

    /// The packet's properties as a `struct __sk_buff` (linux/bpf.h). The kernel refuses any other field that
    /// is not 0, the stripped VLAN tag included.
    fn context(self) -> [u8; 192] {
        const IFINDEX: usize = 40;
        const GSO_SIZE: usize = 176;
        let mut context = [0; 192];
        context[IFINDEX..][..4].copy_from_slice(&self.ifindex.to_ne_bytes());
        context[GSO_SIZE..][..4].copy_from_slice(&self.gso_size.to_ne_bytes());
        context
    }
}

/// The time by `bpf_ktime_get_coarse_ns`.
pub(crate) fn coarse_time_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a whole timespec, which outlives the call.
    let read = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut now) };
    Errno::result(read).expect("every kernel has the clock");
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn add(a: Counter, b: Counter) -> Counter {
    Counter { packets: a.packets + b.packets, bytes: a.bytes + b.bytes }
}

fn map(programs: &mut Ebpf, name: &str) -> Map {
    programs.take_map(name).unwrap_or_else(|| panic!("the object has a map {name}"))
}

fn table<K: Pod, V: Pod>(programs: &mut Ebpf, name: &str) -> HashMap<MapData, K, V> {
    HashMap::try_from(map(programs, name)).expect("a hash map of the shared types")
}

fn replace<K: Pod + Ord, V: Pod>(
    map: &mut HashMap<MapData, K, V>,
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
) {
    for key in old.keys().filter(|key| !new.contains_key(key)) {
        map.remove(key).expect("it was put in");
    }
    for (key, value) in new {
        map.insert(key, value, 0).expect("there is room");
    }
}
