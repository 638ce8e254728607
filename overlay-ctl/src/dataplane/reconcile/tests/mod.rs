//! Tests of the reconciler against a kernel in memory, which checks the order of every write.

mod random;

use super::*;
use crate::{
    control::state::{Command, Envelope, Mutation, Placement, PortsWanted, State},
    dataplane::kernel::{FdbPart, NeighPart, NextHop, ObservedDevice, TableChange, Way},
    model::{Endpoint, Location, NetworkId, NetworkOptions, Pool},
};
use overlay_common::{FdbEntry, FdbKey, NeighEntry, NeighKey, NodeEntry, NodeKey, ip16_from_v4};
use std::{collections::BTreeSet, net::Ipv4Addr, path::PathBuf};

/// Index of the gateway bridge.
const BRIDGE: u32 = 4711;

/// A kernel in memory, which checks on every write what the data path relies on.
#[derive(Clone, Default)]
struct FakeKernel {
    tables: Tables,
    devices: BTreeMap<u32, ObservedDevice>,
    published: PublishedPorts,
    names: Arc<Names>,
    /// As wanted when the devices were last looked at.
    specs: BTreeMap<DeviceId, DeviceSpec>,
    /// The underlay device's; 1500 where nobody changed it.
    mtu: Option<u32>,
    /// Of the routes that have one of their own.
    route_mtus: BTreeMap<Ipv4Addr, u32>,
    bridge_mtu: u32,
    refuse_legs: bool,
    /// Devices of this kernel are never up.
    is_dead: bool,
    /// Somebody else wrote to the maps, and nobody has looked since.
    is_meddled: bool,
    /// Of the MAC behind which all VTEPs are.
    router: u8,
    up: BTreeSet<u32>,
    foreign: BTreeSet<String>,
    namespaces: BTreeSet<PathBuf>,
    last_ifindex: u32,
    fail_writes: usize,
    /// How often everything was read, the devices were looked at, an entry was written.
    read_whole: usize,
    looked: usize,
    written: usize,
    freed: BTreeSet<u32>,
    /// What the tables held when the programs were first swapped.
    swapped_with: Option<Tables>,
    log: Vec<String>,
}

impl FakeKernel {
    fn write_one(&mut self, change: &TableChange) -> Result<(), KernelError> {
        if self.fail_writes > 0 {
            self.fail_writes -= 1;
            return Err(KernelError::new("writing a map", "no memory"));
        }
        if let TableChange::PutFdb(key, entry) = change {
            assert!(self.tables.flood.contains_key(&key.vni), "the network is known first");
            match entry.ifindex {
                0 => {
                    let node = self.tables.nodes[&NodeKey { vtep: entry.vtep }];
                    assert_eq!(node.hop, entry.hop(), "by the hop that its VTEP has");
                    assert!(self.tables.hops.contains_key(&entry.hop()), "the hop stands first");
                }
                ifindex => {
                    assert!(self.devices.contains_key(&ifindex), "the port stands first");
                    assert_eq!(self.tables.ports[&ifindex].slot, entry.slot());
                }
            }
        }
        if let TableChange::PutHop(hop, entry) = change
            && let Some(held) = self.tables.hops.get(hop)
            && held.header[30..34] != entry.header[30..34]
        {
            let named = self.tables.fdb.values().any(|e| !e.is_here() && e.hop() == *hop);
            assert!(!named || self.is_meddled, "a hop becomes another VTEP's once nobody names it");
        }
        change.apply_to(&mut self.tables);
        Ok(())
    }
}

/// A few entries behind a place.
fn part<K: Copy + Ord, V: Copy>(
    table: &BTreeMap<K, V>,
    place: Option<usize>,
) -> (Vec<(K, V)>, Option<usize>) {
    const FEW: usize = 3;
    let place = place.unwrap_or(0);
    let entries = table.iter().skip(place).take(FEW).map(|(key, value)| (*key, *value));
    (entries.collect(), (place + FEW < table.len()).then_some(place + FEW))
}

impl Kernel for &mut FakeKernel {
    type Cursor = usize;

    async fn read_back(&mut self) -> Result<(), KernelError> {
        Ok(())
    }

    async fn tables(&mut self) -> Result<Tables, KernelError> {
        self.read_whole += 1;
        Ok(self.tables.clone())
    }

    async fn small_tables(&mut self) -> Result<Tables, KernelError> {
        Ok(Tables { fdb: BTreeMap::new(), neigh: BTreeMap::new(), ..self.tables.clone() })
    }

    async fn fdb_behind(&mut self, place: Option<usize>) -> Result<FdbPart<usize>, KernelError> {
        Ok(part(&self.tables.fdb, place))
    }

    async fn neigh_behind(
        &mut self,
        place: Option<usize>,
    ) -> Result<NeighPart<usize>, KernelError> {
        Ok(part(&self.tables.neigh, place))
    }

    async fn fdb(&mut self, keys: Vec<FdbKey>) -> Result<Vec<Option<FdbEntry>>, KernelError> {
        Ok(keys.iter().map(|key| self.tables.fdb.get(key).copied()).collect())
    }

    async fn neigh(&mut self, keys: Vec<NeighKey>) -> Result<Vec<Option<NeighEntry>>, KernelError> {
        Ok(keys.iter().map(|key| self.tables.neigh.get(key).copied()).collect())
    }

    async fn swap_programs(&mut self) -> Result<(), KernelError> {
        let now = self.tables.clone();
        self.swapped_with.get_or_insert(now);
        Ok(())
    }

    async fn free_slots(&mut self, slots: BTreeSet<u32>) -> Result<(), KernelError> {
        for port in self.tables.ports.values() {
            assert!(!slots.contains(&port.slot), "nobody counts in it any more");
        }
        self.freed.extend(slots);
        Ok(())
    }

    async fn write(&mut self, changes: &[TableChange]) -> Result<(), KernelError> {
        for change in changes {
            self.written += 1;
            self.write_one(change)?;
        }
        Ok(())
    }

    async fn devices(
        &mut self,
        wanted: &BTreeMap<DeviceId, DeviceSpec>,
    ) -> Result<Vec<ObservedDevice>, KernelError> {
        self.specs.clone_from(wanted);
        self.looked += 1;
        Ok(self.devices.values().cloned().collect())
    }

    async fn create(
        &mut self,
        id: DeviceId,
        spec: &DeviceSpec,
    ) -> Result<ObservedDevice, DeviceFailure> {
        if !self.namespaces.contains(&spec.netns) {
            return Err(DeviceFailure::Endpoint("its namespace is gone".into()));
        }
        if self.refuse_legs && matches!(id, DeviceId::Leg(_)) {
            return Err(DeviceFailure::Endpoint("eth1 exists".into()));
        }
        self.last_ifindex += 1;
        let device = ObservedDevice {
            id,
            ifname: format!("device{}", self.last_ifindex),
            ifindex: self.last_ifindex,
            interface: "eth0".to_owned(),
            mtu: spec.mtu,
            bridge: if matches!(id, DeviceId::Leg(_)) { BRIDGE } else { 0 },
            up: false,
            fault: None,
        };
        self.devices.insert(device.ifindex, device.clone());
        self.log.push(format!("create {id:?}"));
        Ok(device)
    }

    async fn raise(&mut self, device: &ObservedDevice) -> Result<(), DeviceFailure> {
        let tables = &self.tables;
        let programmed = match device.id {
            DeviceId::Port(_) => tables.ports.contains_key(&device.ifindex),
            DeviceId::Leg(_) => {
                let leg = tables.gateway_ports.get(&device.ifindex);
                leg.is_some_and(|leg| leg.bridge == BRIDGE)
            }
        };
        assert!(programmed, "programmed before it is up");
        if self.is_dead {
            return Err(DeviceFailure::Endpoint("it does not run".into()));
        }
        self.up.insert(device.ifindex);
        self.devices.entry(device.ifindex).and_modify(|device| device.up = true);
        Ok(())
    }

    async fn ensure_attached(&mut self, device: &ObservedDevice) -> Result<(), KernelError> {
        assert!(self.devices.contains_key(&device.ifindex));
        Ok(())
    }

    async fn delete(&mut self, device: &ObservedDevice) -> Result<(), KernelError> {
        let named = self.tables.fdb.values().any(|entry| entry.ifindex == device.ifindex);
        assert!(!named || self.is_meddled, "the tables forget a port before it goes");
        if let DeviceId::Leg(address) = device.id {
            assert!(
                !self.published.values().any(|to| to.address == address),
                "nothing leads there"
            );
        }
        self.devices.remove(&device.ifindex);
        self.up.remove(&device.ifindex);
        self.log.push(format!("delete {:?}", device.id));
        Ok(())
    }

    async fn publish(&mut self, ports: &PublishedPorts) -> Result<(), KernelError> {
        for target in ports.values() {
            let stands = |device: &ObservedDevice| device.id == DeviceId::Leg(target.address);
            assert!(self.devices.values().any(stands), "the leg stands before a port leads there");
        }
        self.published.clone_from(ports);
        Ok(())
    }

    async fn resolve(&mut self, names: &Arc<Names>, _is_whole: bool) -> Result<(), KernelError> {
        for network in names.networks.values() {
            for address in network.pointers.keys() {
                let ip = ip16_from_v4(address.octets());
                let held = self.tables.fdb.values().any(|entry| entry.ip == ip);
                assert!(
                    held || self.is_meddled,
                    "a name is there only while the data path has the endpoint"
                );
            }
        }
        self.names = Arc::clone(names);
        Ok(())
    }

    async fn ways(
        &mut self,
        vteps: &BTreeSet<Ipv4Addr>,
    ) -> Result<BTreeMap<Ipv4Addr, Way>, KernelError> {
        let mac = [2, 0, 0, 0, 0, self.router];
        let hop = NextHop { ifindex: 1, mac, source_mac: [4; 6] };
        let way = |vtep: &Ipv4Addr| {
            let device = self.mtu.unwrap_or(1500);
            let mtu = self.route_mtus.get(vtep).map_or(device, |mtu| device.min(*mtu));
            (*vtep, Way { mtu, hop: Some(hop) })
        };
        Ok(vteps.iter().map(way).collect())
    }

    async fn underlay_mtu(&mut self) -> Result<u32, KernelError> {
        Ok(self.mtu.unwrap_or(1500))
    }

    async fn fit(
        &mut self,
        gateway_mtu: u32,
        devices: &mut BTreeMap<DeviceId, ObservedDevice>,
    ) -> Result<(), KernelError> {
        self.bridge_mtu = gateway_mtu;
        for (id, spec) in &self.specs {
            if let Some(device) = devices.get_mut(id)
                && device.mtu != spec.mtu
            {
                device.mtu = spec.mtu;
                self.devices.entry(device.ifindex).and_modify(|device| device.mtu = spec.mtu);
                self.log.push(format!("fit {id:?} {}", spec.mtu));
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Cluster {
    state: State,
    index: u64,
}

impl Cluster {
    /// Three nodes and a network.
    fn new() -> Self {
        let mut cluster = Self::default();
        for n in 1..=3u8 {
            cluster.apply(Command::RegisterNode {
                instance: [n; 16],
                name: format!("h{n}").parse().unwrap(),
                vtep: Ipv4Addr::new(10, 0, 0, n),
                listen: (Ipv4Addr::new(10, 0, 0, n), 7400).into(),
                returning: None,
                gateway: None,
                metrics: None,
            });
        }
        cluster.network("net");
        cluster
    }

    fn apply(&mut self, command: Command) {
        self.try_apply(command).unwrap();
    }

    /// The command may be refused.
    fn attempt(&mut self, command: Command) {
        drop(self.try_apply(command));
    }

    fn try_apply(&mut self, command: Command) -> crate::control::state::Outcome {
        self.index += 1;
        let mut request = [0; 16];
        request[..8].copy_from_slice(&self.index.to_be_bytes());
        let request = Mutation::new(request, &command);
        let entry = Envelope::new(request, command).encode().unwrap();
        self.state.apply(self.index, &entry)
    }

    fn network(&mut self, name: &str) {
        self.apply(Command::CreateNetwork {
            name: name.parse().unwrap(),
            pool: Some(Pool::whole("172.16.16.0/24".parse().unwrap())),
            vni: None,
            options: NetworkOptions::default(),
        });
    }

    fn endpoint(&mut self, name: &str, network: &str, node: u8) {
        self.apply(Command::CreateEndpoint {
            name: name.parse().unwrap(),
            network: network.parse().unwrap(),
            placement: Placement::Node {
                node: format!("h{node}").parse().unwrap(),
                netns: format!("/run/netns/{name}").into(),
                address: None,
            },
            forwards: false,
            aliases: BTreeSet::default(),
            ports: PortsWanted::default(),
        });
    }

    fn remove(&mut self, name: &str) {
        let name = name.parse().unwrap();
        self.apply(Command::RemoveEndpoint { name, network: None, only: None });
    }

    fn view(&self) -> View {
        let mut view = View::default();
        view.apply(self.state.view_of(1));
        view
    }
}

fn node() -> LocalNode {
    LocalNode {
        id: 1,
        vtep: LocalVtep { address: [10, 0, 0, 1].into(), port: 4789, ttl: 64, mtu: 1500 },
        endpoint_mtu: 1450,
        asked_mtu: None,
        gateway: LocalGateway { subnet: "172.18.0.0/16".parse().unwrap(), mtu: 1500 },
    }
}

async fn pass(kernel: &mut FakeKernel, view: &View) -> LocalStatus {
    let (mut reconciler, status) = Reconciler::new(kernel, node());
    reconciler.pass(view).await.unwrap();
    status.borrow().clone()
}

fn fdb_key(cluster: &Cluster, name: &str) -> FdbKey {
    let endpoint = cluster.state.endpoint_named(&name.parse().unwrap(), None).unwrap();
    let network = cluster.state.network(endpoint.network).unwrap();
    FdbKey { vni: network.vni.get(), mac: endpoint.mac.octets(), pad: [0; 2] }
}

#[tokio::test]
async fn endpoints_come_and_go() {
    let mut cluster = Cluster::new();
    cluster.endpoint("web1", "net", 1);
    cluster.endpoint("web2", "net", 2);
    let mut kernel = FakeKernel::default();
    kernel.namespaces.insert("/run/netns/web1".into());
    kernel.foreign.insert("docker0".into());

    let status = pass(&mut kernel, &cluster.view()).await;
    assert_eq!(status.programmed, cluster.index);
    assert_eq!(kernel.up.len(), 1);
    assert_eq!(kernel.tables.fdb[&fdb_key(&cluster, "web1")].ifindex, 1);
    let remote = kernel.tables.fdb[&fdb_key(&cluster, "web2")];
    assert_eq!(remote.vtep, ip16_from_v4([10, 0, 0, 2]));
    assert_eq!(kernel.tables.nodes.len(), 2, "all other nodes are known VTEPs");
    let hop = |node| {
        let node = kernel.tables.nodes[&NodeKey { vtep: ip16_from_v4([10, 0, 0, node]) }];
        kernel.tables.hops[&node.hop]
    };
    assert_eq!((hop(2).ifindex, hop(2).header[..6].to_vec()), (1, vec![2, 0, 0, 0, 0, 0]));
    assert_eq!(remote.hop(), kernel.tables.nodes[&NodeKey { vtep: remote.vtep }].hop);
    assert_eq!(hop(3).ifindex, 0, "no next hop for a node that nothing goes to");

    pass(&mut kernel, &cluster.view()).await;
    assert_eq!(kernel.log, ["create Port(5)"], "a second pass has nothing to do");

    cluster.remove("web1");
    pass(&mut kernel, &cluster.view()).await;
    assert_eq!(kernel.log, ["create Port(5)", "delete Port(5)"]);
    assert_eq!(kernel.tables.fdb.len(), 0, "no endpoint here: nothing of the network is held");
    assert_eq!(kernel.tables.flood.len(), 0);
}

#[tokio::test]
async fn an_endpoint_is_up_when_its_device_runs_and_not_before() {
    let mut cluster = Cluster::new();
    cluster.endpoint("web1", "net", 1);
    let mut kernel = FakeKernel { is_dead: true, ..FakeKernel::default() };
    kernel.namespaces.insert("/run/netns/web1".into());
    let status = pass(&mut kernel, &cluster.view()).await;
    let down = |status: &LocalStatus| status.endpoints.values().next().unwrap().down.clone();
    assert_eq!(down(&status).unwrap(), "it does not run");
    assert_eq!(status.programmed, cluster.index, "the others need not wait for it");
    kernel.is_dead = false;
    assert_eq!(down(&pass(&mut kernel, &cluster.view()).await), None);
    assert_eq!(kernel.log, ["create Port(5)"], "it is raised again, not made again");
}

#[tokio::test]
async fn a_missing_namespace_takes_only_its_own_endpoint_down() {
    let mut cluster = Cluster::new();
    cluster.endpoint("web1", "net", 1);
    cluster.endpoint("web2", "net", 1);
    let mut kernel = FakeKernel::default();
    kernel.namespaces.insert("/run/netns/web2".into());
    let status = pass(&mut kernel, &cluster.view()).await;
    let down: Vec<_> = status.endpoints.values().map(|health| health.down.clone()).collect();
    assert_eq!(down, [Some("its namespace is gone".into()), None]);
    assert!(!kernel.tables.fdb.contains_key(&fdb_key(&cluster, "web1")));

    kernel.namespaces.insert("/run/netns/web1".into());
    let status = pass(&mut kernel, &cluster.view()).await;
    assert!(status.endpoints.values().all(|health| health.down.is_none()));
}

#[tokio::test]
async fn a_namespace_made_anew_gets_its_leg_again() {
    let mut cluster = Cluster::new();
    cluster.endpoint("web1", "net", 1);
    let mut kernel = FakeKernel::default();
    kernel.namespaces.insert("/run/netns/web1".into());
    pass(&mut kernel, &cluster.view()).await;
    kernel.devices.get_mut(&1).unwrap().fault = Some("another namespace".into());
    pass(&mut kernel, &cluster.view()).await;
    assert_eq!(kernel.log, ["create Port(5)", "delete Port(5)", "create Port(5)"]);
    assert_eq!(kernel.tables.fdb[&fdb_key(&cluster, "web1")].ifindex, 2);
    assert_eq!(kernel.tables.ports.keys().copied().collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn names_come_before_the_view_is_acted_on_and_change_nothing() {
    let mut cluster = Cluster::new();
    cluster.endpoint("web1", "net", 1);
    cluster.endpoint("web2", "net", 2);
    let mut kernel = FakeKernel::default();
    kernel.namespaces.insert("/run/netns/web1".into());
    pass(&mut kernel, &cluster.view()).await;
    let (tables, log) = (kernel.tables.clone(), kernel.log.clone());
    kernel.names = Arc::default();
    // The kernel holds web2; of web3 it has not heard.
    let old = cluster.view();
    cluster.endpoint("web3", "net", 2);
    let (mut reconciler, _) = Reconciler::new(&mut kernel, node());
    reconciler.preview(&cluster.view()).await.unwrap();
    let known = |kernel: &FakeKernel| -> Vec<String> {
        kernel.names.networks.values().flat_map(|n| n.records.keys().cloned()).collect()
    };
    assert_eq!(known(&kernel), ["web1", "web2"]);
    assert_eq!(kernel.names.namespaces.len(), 1);
    // A view that is older than the kernel: of what it does not know it could only say that it is not.
    kernel.names = Arc::default();
    kernel.tables.fdb.values_mut().for_each(|entry| entry.endpoint += 100);
    let (mut reconciler, _) = Reconciler::new(&mut kernel, node());
    reconciler.preview(&old).await.unwrap();
    assert_eq!(*kernel.names, Names::default());
    kernel.tables.fdb.values_mut().for_each(|entry| entry.endpoint -= 100);
    assert_eq!((&kernel.tables, &kernel.log), (&tables, &log));
}

#[tokio::test]
async fn a_failed_pass_is_made_up_for() {
    let mut cluster = Cluster::new();
    cluster.endpoint("web1", "net", 1);
    cluster.endpoint("web2", "net", 2);
    for failing in 1..6 {
        let mut kernel = FakeKernel { fail_writes: 1, ..FakeKernel::default() };
        kernel.namespaces.insert("/run/netns/web1".into());
        let (mut reconciler, status) = Reconciler::new(&mut kernel, node());
        for _ in 0..failing {
            reconciler.kernel.fail_writes = 1;
            reconciler.pass(&cluster.view()).await.unwrap_err();
            assert_eq!(status.borrow().programmed, 0, "nothing is claimed");
            assert_eq!(reconciler.kernel.swapped_with, None, "no program takes half of the tables");
        }
        reconciler.kernel.fail_writes = 0;
        reconciler.pass(&cluster.view()).await.unwrap();
        assert_eq!(status.borrow().programmed, cluster.index);
        assert_eq!(kernel.tables.fdb.len(), 2);
        assert_eq!(kernel.swapped_with.as_ref(), Some(&kernel.tables), "by all of the tables");
    }
}

#[tokio::test]
async fn what_others_wrote_into_the_maps_is_put_right() {
    let mut cluster = Cluster::new();
    cluster.endpoint("web1", "net", 1);
    let mut kernel = FakeKernel::default();
    kernel.namespaces.insert("/run/netns/web1".into());
    pass(&mut kernel, &cluster.view()).await;
    let right = kernel.tables.clone();
    kernel.tables.fdb.clear();
    let stray = NodeEntry { node: 9, hop: 99, pad: 0 };
    kernel.tables.nodes.insert(NodeKey { vtep: [9; 16] }, stray);
    pass(&mut kernel, &cluster.view()).await;
    assert_eq!(kernel.tables, right);
}

#[tokio::test]
async fn an_endpoint_elsewhere_costs_its_own_entries_and_no_look_at_anything() {
    let mut cluster = Cluster::new();
    cluster.endpoint("web1", "net", 1);
    cluster.endpoint("web2", "net", 2);
    cluster.endpoint("web3", "net", 3);
    let mut kernel = FakeKernel::default();
    kernel.namespaces.insert("/run/netns/web1".into());
    let (mut reconciler, status) = Reconciler::new(&mut kernel, node());
    reconciler.work(&cluster.view(), Due::Pass).await.unwrap();
    let mut view = cluster.view();
    let counts =
        |r: &Reconciler<&mut FakeKernel>| (r.kernel.read_whole, r.kernel.looked, r.kernel.written);
    let (whole, looked, written) = counts(&reconciler);

    let network: NetworkId = *view.networks.keys().next().unwrap();
    let endpoints = view.endpoints.get_mut(&network).unwrap();
    let web2 = endpoints.values().find(|e| e.name.as_str() == "web2").unwrap();
    let mut moved = Endpoint::clone(web2);
    moved.location = Location::Node { node: 3, netns: "/run/netns/web2".into() };
    endpoints.insert(moved.id, Arc::new(moved));
    reconciler.work(&view, Due::View).await.unwrap();
    // Node 2 lost its last endpoint, and so the network lost a VTEP.
    assert_eq!(counts(&reconciler), (whole, looked + 1, written + 2), "the FDB and the next hop");

    cluster.endpoint("web4", "net", 3);
    let mut view = cluster.view();
    reconciler.work(&view, Due::Pass).await.unwrap();
    let (_, looked, written) = counts(&reconciler);
    view.revision += 1;
    let endpoints = view.endpoints.get_mut(&network).unwrap();
    let web4 = endpoints.values().find(|e| e.name.as_str() == "web4").unwrap();
    let mut renamed = Endpoint::clone(web4);
    renamed.forwards = true;
    renamed.aliases.insert("db".parse().unwrap());
    endpoints.insert(renamed.id, Arc::new(renamed));
    reconciler.work(&view, Due::View).await.unwrap();
    assert_eq!(counts(&reconciler), (whole, looked, written + 1), "its FDB entry alone");
    assert_eq!(status.borrow().programmed, view.revision);
    assert!(reconciler.kernel.names.networks[&network].records.contains_key("db"));

    let id = view.endpoints[&network].values().find(|e| e.name.as_str() == "web4").unwrap().id;
    view.endpoints.get_mut(&network).unwrap().remove(&id);
    reconciler.work(&view, Due::View).await.unwrap();
    assert_eq!(counts(&reconciler), (whole, looked, written + 3), "FDB and neighbour");
    assert!(!reconciler.kernel.names.networks[&network].records.contains_key("db"));
}

#[tokio::test]
async fn the_mtu_is_followed() {
    let mut cluster = Cluster::new();
    cluster.endpoint("web1", "net", 1);
    cluster.endpoint("web2", "net", 2);
    let mut kernel = FakeKernel::default();
    kernel.namespaces.insert("/run/netns/web1".into());
    let mtus = async |kernel: &mut FakeKernel| {
        let status = pass(kernel, &cluster.view()).await;
        let devices: Vec<u32> = kernel.devices.values().map(|device| device.mtu).collect();
        let hop = kernel.tables.nodes[&NodeKey { vtep: ip16_from_v4([10, 0, 0, 2]) }].hop;
        let health = status.endpoints.values().next().unwrap();
        assert_eq!(devices, [health.mtu]);
        let Mtus { underlay, device, endpoint, .. } = status.mtus;
        assert_eq!((endpoint, kernel.bridge_mtu), (health.mtu, device));
        (underlay, kernel.tables.hops[&hop].mtu, endpoint)
    };
    assert_eq!(mtus(&mut kernel).await, (1500, 1500, 1450));
    kernel.mtu = Some(9000);
    assert_eq!(mtus(&mut kernel).await, (9000, 9000, 8950));
    kernel.route_mtus.insert([10, 0, 0, 2].into(), 1400);
    assert_eq!(mtus(&mut kernel).await, (1400, 1400, 1350));
    kernel.route_mtus.clear();
    kernel.route_mtus.insert([10, 0, 0, 3].into(), 1300);
    assert_eq!(mtus(&mut kernel).await, (9000, 9000, 8950), "nothing goes to that one");
    assert_eq!(
        kernel.log,
        ["create Port(5)", "fit Port(5) 8950", "fit Port(5) 1350", "fit Port(5) 8950"]
    );
}
