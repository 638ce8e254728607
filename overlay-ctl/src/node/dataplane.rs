//! The node's data plane: what it is brought up from, in which order, and how it is tried again where the host refuses it.
//!
//! Architecture invariant: what an earlier run left in the kernel goes on until another data plane has taken it over. An
//! attempt that fails takes nothing back, and nothing is swept before the gate opens.

use super::{
    error::{StartError, UNDERLAY_MTU_MIN},
    folders::NETNS_FOLDER,
    gate::Gate,
    named::Tasks,
    retry::until_done,
    run_file::RunFile,
    serve::{PinFolder, lock_folder},
    tasks::{looks, reconcile},
};
use crate::{
    config::NodeRunArgs,
    control::{state::View, voter::Seat},
    dataplane::{
        datapath::{Datapath, DatapathConfig, Events},
        dns::{Resolvers, Settings},
        gateway::{self, Table},
        host::{
            EndpointCheck, ForwardingKeeper, HostDevices, HostGateway, HostKernel, HostMaps,
            HostOutside, HostResolve, MergeKeeper, Monitor, OwnAddress, SharedDatapath,
            SuperPacketPlan,
        },
        kernel::{DeviceKind, LocalGateway, LocalStatus, Mtus, ObservedDevice, Station, Stations},
        netlink::{Interest, Netlink, Underlay, UnderlayChoice},
        reconcile::{LocalNode, LocalVtep, Nudges, Reconciler},
    },
    faces::{DatapathInfo, ServedDataPlane},
    model::{EndpointId, NodeId, NodeName, Subnet, Vtep},
};
use futures::future::BoxFuture;
use overlay_common::{CONFIG_SHARED, Config, Limit, TOS_ECN, ip16_from_v4, ip16_to_v4};
use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::watch::{Receiver, Sender};

/// TTL of outer packets.
const OUTER_TTL: u8 = 64;
/// Answers a second to one endpoint that a packet was too big: as many as the kernel sends in all
/// (net.ipv4.icmp_msgs_per_sec).
const ANSWERS: u32 = 1000;
/// IPv6 addresses that one endpoint may claim: 64 at once, and one more each second. So nobody can fill the map of the
/// claims with its own before those of others are renewed.
const CLAIMS: Limit = Limit { gap_ns: 1_000_000_000, burst: 64 };
/// The name of the task that changes the kernel.
pub(super) const RECONCILE: &str = "reconcile";
/// What a node's data plane is brought up from. It stays the same at each attempt.
pub(super) struct DataPlanePlan<'a> {
    pub(super) args: &'a NodeRunArgs,
    pub(super) name: NodeName,
    /// How the underlay is chosen.
    pub(super) choice: UnderlayChoice,
    /// The subnet of the gateway bridge.
    pub(super) gateway: Subnet,
    /// The address to which other nodes send, if it was given one.
    pub(super) advertised: Option<Vtep>,
    /// The port of the node's API.
    pub(super) api_port: u16,
    pub(super) check: EndpointCheck,
    /// The folder of the pins, since it was first locked.
    pub(super) pins: Option<PinFolder>,
    /// Whether it is locked, for those who take away what the node made: before that it may be another node's.
    pub(super) has_pins: Arc<AtomicBool>,
}

/// Whom a member's data plane reports to.
pub(super) struct Reports {
    /// The node's id.
    pub(super) id: NodeId,
    pub(super) status: Sender<LocalStatus>,
    /// The host's address on the underlay.
    pub(super) own: Sender<Ipv4Addr>,
    /// Why there is no data plane; `None` = there is one, or the first attempt is under way.
    pub(super) absence: Sender<Option<String>>,
}

/// What the kernel has taken in: programs, and the devices that only exist.
pub(super) struct Opened {
    netlink: Netlink,
    underlay: Underlay,
    datapath: Datapath,
    gro_device: String,
    table: Table,
    super_packets: SuperPacketPlan,
}

/// A data plane that is ready to be run.
pub(super) struct DataPlane {
    reconciler: Reconciler<HostKernel>,
    gate: Gate,
    nudges: Nudges,
    /// Gathers the kernel's events for `nudges`.
    gather: BoxFuture<'static, ()>,
    events: Events,
    served: ServedDataPlane,
}

impl DataPlanePlan<'_> {
    /// Locks the folder of the pins, unless it is locked, and writes down what this run is started with.
    ///
    /// # Errors
    /// [`StartError::PinsTaken`], or it can't be made.
    pub(super) fn lock_pins(&mut self) -> Result<(), StartError> {
        if self.pins.is_none() {
            self.pins = Some(lock_folder(&self.args.bpffs)?);
            self.has_pins.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Gives the kernel what every member needs in it. What fails first is what is looked at first: reading comes before
    /// writing.
    ///
    /// # Errors
    /// The host refuses a part. What an earlier run left in the kernel works as before.
    pub(super) async fn open(&mut self) -> Result<Opened, StartError> {
        let args = self.args;
        Datapath::check(&args.bpffs)?;
        // One of its own: the socket of an earlier attempt may be broken.
        let netlink = Netlink::open().await?;
        let underlay = netlink.underlay(&self.choice).await?;
        check_mtu(&underlay, args.mtu)?;
        self.lock_pins()?;
        // Before anything is made, and not before the folder is known to be no other node's.
        RunFile::note(&args.state_dir, args, &self.name);
        let table = Table::open().await?;
        let is_shared = netlink.shares_vxlan_port(args.vxlan_port).await?;
        let datapath = Datapath::open(self.datapath_config(&underlay, is_shared))?;
        // In this order no packet that comes in reaches the host's own stack at any moment.
        netlink.ensure_barrier().await?;
        let gro_device = netlink.ensure_gro_device(&underlay, args.vxlan_port).await?;
        let device = (underlay.ifindex, underlay.name.as_str());
        let super_packets =
            SuperPacketPlan::start(&netlink, device, args.big_tcp, &args.state_dir).await?;
        let stations = stations(&netlink, &datapath).await?;
        netlink.ensure_gateway_bridge(self.gateway, underlay.mtu, &stations).await?;
        Ok(Opened { netlink, underlay, datapath, gro_device, table, super_packets })
    }

    /// Brings the data plane of a member up, and tries again for as long as the host refuses it. Meanwhile the node's
    /// status says why, and no endpoint is made here.
    pub(super) async fn until_up(&mut self, reports: &Reports) -> DataPlane {
        let name = self.name.clone();
        let tell = |why: &str| {
            tracing::error!(why, "the data plane is not up; it is tried again and again");
            let why = format!(
                "the data plane of node {name} is not up, and is tried again by itself: {why}"
            );
            reports.status.send_modify(|status| {
                status.error = Some(why.clone());
                status.lacks_data_plane = true;
            });
            reports.absence.send_replace(Some(why));
        };
        let attempt = async || self.open().await?.assemble(self, reports).await;
        let plane = until_done(attempt, tell).await;
        if reports.absence.send_replace(None).is_some() {
            reports.status.send_modify(|status| status.lacks_data_plane = false);
            tracing::info!("the data plane is up");
        }
        plane
    }

    /// The configuration of the programs. Where the port `is_shared` with another program, what is not of this overlay goes up
    /// the stack from the first packet on.
    fn datapath_config(&self, underlay: &Underlay, is_shared: bool) -> DatapathConfig {
        let Self { args, gateway, .. } = self;
        DatapathConfig {
            bpffs: args.bpffs.clone(),
            underlay: underlay.uplink(),
            config: Config {
                vtep: ip16_from_v4(underlay.address.octets()),
                underlay_ifindex: underlay.ifindex,
                vxlan_port: args.vxlan_port,
                ttl: OUTER_TTL,
                tos_mask: if args.copy_dscp { u8::MAX } else { TOS_ECN },
                flags: if is_shared { CONFIG_SHARED } else { 0 },
                sample: 0,
                storm: Limit::per_second(args.storm_limit),
                answers: Limit::per_second(ANSWERS),
                claims: CLAIMS,
                gateway: gateway.net().network().octets(),
                gateway_mask: gateway.net().netmask().octets(),
                merge_ifindex: 0,
            },
        }
    }
}

impl Opened {
    /// Puts the parts together that act on the kernel. The address of the underlay is told, and the status says from here on
    /// what the reconciler knows.
    ///
    /// # Errors
    /// A map, a file of the state folder or a netlink socket fails.
    pub(super) async fn assemble(
        self,
        plan: &DataPlanePlan<'_>,
        reports: &Reports,
    ) -> Result<DataPlane, StartError> {
        let Self { netlink, underlay, datapath, gro_device, table, super_packets } = self;
        let DataPlanePlan { args, name, choice, gateway, advertised, api_port, check, .. } = plan;
        let mut devices = netlink.devices().await?;
        devices.retain(|device| device.id.kind == DeviceKind::Port);
        let ports: Vec<EndpointId> = devices.iter().map(|port| port.id.number).collect();
        let other = datapath.newest_of_other_layouts()?;
        let gate = Gate::new(&datapath.reader().tables()?, &ports, other);
        let vtep = underlay.address.into();
        let info = DatapathInfo {
            underlay: underlay.name.clone(),
            vtep,
            advertised: *advertised,
            vxlan_port: args.vxlan_port,
            gro_device,
            bpffs: args.bpffs.display().to_string(),
            gateway: *gateway,
        };
        let underlay_mtu = underlay.mtu;
        let mtu = u16::try_from(underlay_mtu).unwrap_or(u16::MAX);
        let vtep = LocalVtep { address: vtep, port: args.vxlan_port, ttl: OUTER_TTL, mtu };
        let datapath = SharedDatapath::new(datapath);
        let forwarding =
            ForwardingKeeper::open(netlink.clone(), &args.state_dir, &table.forwarding())?;
        let host_gateway = HostGateway::new(
            netlink.clone(),
            *gateway,
            (args.vxlan_port, *api_port),
            (table, forwarding),
            check.ports(),
        );
        let large_packets = *super_packets.devices();
        let super_packet_health = super_packets.health().clone();
        let settings = Settings::new(&args.resolv_conf, NETNS_FOLDER);
        let resolve = HostResolve::new(Resolvers::new(settings, name.as_str()));
        let questions = resolve.questions();
        let interest = Interest::default();
        let (looks, gather) =
            looks(&netlink, interest.clone(), (args.vxlan_port, datapath.clone()))?;
        let (rules, forwarding) = (gateway::changes()?, Netlink::forwarding_changes()?);
        let nudges = Nudges { looks, rules, forwarding };
        let events = datapath.lock().events()?;
        let whereabouts = datapath.lock().whereabouts()?;
        // Nothing fails from here on.
        let own = OwnAddress::new(choice.clone(), underlay.address, reports.own.clone());
        let mut kernel = HostKernel {
            maps: HostMaps::new(datapath.clone()),
            devices: HostDevices::new(
                datapath.clone(),
                netlink.clone(),
                check.namespaces(),
                interest.clone(),
            ),
            outside: HostOutside::new(
                datapath.clone(),
                netlink,
                (underlay, own, args.vxlan_port),
                (super_packets, MergeKeeper::new(&args.state_dir)),
                host_gateway,
                args.xdp,
                interest,
            ),
            resolve,
        };
        kernel.guard_underlay().await;
        let local = LocalNode {
            id: reports.id,
            vtep,
            endpoint_mtu: Mtus::new(underlay_mtu, args.mtu, &BTreeMap::new()).endpoint,
            asked_mtu: args.mtu,
            gateway: LocalGateway { subnet: *gateway, mtu: underlay_mtu },
            large_packets,
            super_packets: super_packet_health,
        };
        let monitor = Monitor::new(datapath.clone());
        Ok(DataPlane {
            reconciler: Reconciler::reporting(kernel, local, reports.status.clone()),
            gate,
            nudges,
            gather: Box::pin(gather),
            events,
            served: ServedDataPlane { datapath, questions, monitor, whereabouts, info },
        })
    }
}

impl DataPlane {
    /// Runs it, by tasks of these, and shows it to the node's faces.
    pub(super) fn start(
        self,
        tasks: &mut Tasks,
        seat: Seat,
        views: Receiver<Option<Arc<View>>>,
        shown: &OnceLock<ServedDataPlane>,
    ) {
        let Self { reconciler, gate, nudges, gather, events, served } = self;
        tasks.spawn("gather changes of devices", gather);
        tasks.spawn(RECONCILE, reconcile(reconciler, gate, seat, views, nudges));
        tasks.spawn("read events", served.monitor.clone().pump(events));
        if shown.set(served).is_err() {
            unreachable!("a data plane comes up once in the life of a node");
        }
    }
}

/// Fails if the underlay can't carry the packets of endpoints, or those of the MTU that was asked for.
pub(super) fn check_mtu(underlay: &Underlay, asked: Option<u16>) -> Result<(), StartError> {
    let (device, mtu) = (underlay.name.clone(), underlay.mtu);
    match asked {
        _ if mtu < UNDERLAY_MTU_MIN => Err(StartError::UnderlayMtu { device, mtu }),
        Some(asked) if u32::from(asked) > mtu => {
            Err(StartError::MtuTooLarge { asked, device, mtu })
        }
        _ => Ok(()),
    }
}

/// Where the legs that stand are reached, as the data path knows them: a node that finds no voter takes them back into the
/// bridge, too.
async fn stations(netlink: &Netlink, datapath: &Datapath) -> Result<Stations, StartError> {
    let legs = datapath.reader().small()?.gateway_ports;
    let devices = netlink.devices().await?;
    let station = |device: &ObservedDevice| {
        let leg = legs.get(&device.ifindex)?;
        let address = ip16_to_v4(&leg.ip)?.into();
        Some((device.id, Station { mac: leg.mac, address }))
    };
    Ok(devices.iter().filter_map(station).collect())
}

#[cfg(test)]
mod tests;
