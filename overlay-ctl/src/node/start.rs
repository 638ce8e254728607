//! Starts a node: checks what it was started with, opens the doors to the kernel, enters the cluster, and then runs it.

use super::{
    Home,
    addresses::{AddressPlan, advertised},
    cluster,
    ending::Ending,
    error::{StartError, UNDERLAY_MTU_MIN},
    folders::{held_namespaces, run_folder},
    registration::Registration,
    remove,
    running::{OUTER_TTL, Parts},
    serve,
};
use crate::{
    config::{self, Metrics, NodeRunArgs},
    dataplane::{
        datapath::{Datapath, DatapathConfig},
        gateway::{Table, choose_subnet},
        host::{EndpointCheck, SharedNamespaces, SharedPorts, SuperPacketPlan},
        kernel::{DeviceKind, LocalGateway, ObservedDevice, Station, Stations},
        netlink::{Netlink, Underlay, UnderlayChoice},
    },
    faces::DatapathInfo,
    model::{NodeName, Subnet},
};
use overlay_common::{Config, Limit, TOS_ECN, ip16_from_v4, ip16_to_v4};
use std::net::IpAddr;

/// Answers a second to one endpoint that a packet was too big: as many as the kernel sends in all
/// (net.ipv4.icmp_msgs_per_sec).
const ANSWERS: u32 = 1000;
/// IPv6 addresses that one endpoint may claim: 64 at once, and one more each second. So nobody can fill the map of the
/// claims with its own before those of others are renewed.
const CLAIMS: Limit = Limit { gap_ns: 1_000_000_000, burst: 64 };

/// Runs a node until it is told to end.
///
/// # Errors
/// It did not start; see [`StartError`].
pub async fn run(args: NodeRunArgs) -> Result<(), StartError> {
    serve::check_root()?;
    serve::raise_file_limit();
    let name: NodeName = args.node_name().map_err(StartError::HostName)?.parse()?;
    Datapath::check(&args.bpffs)?;
    let netlink = Netlink::open().await?;
    let choice = underlay_choice(args.underlay.as_ref())?;
    let underlay = netlink.underlay(&choice).await?;
    if underlay.mtu < UNDERLAY_MTU_MIN {
        return Err(StartError::UnderlayMtu { device: underlay.name, mtu: underlay.mtu });
    }
    if let Some(asked) = args.mtu
        && u32::from(asked) > underlay.mtu
    {
        return Err(StartError::MtuTooLarge { asked, device: underlay.name, mtu: underlay.mtu });
    }
    let advertise = advertised(args.advertise, &netlink, &underlay).await?;
    if let Some(listen) = args.listen.filter(|listen| listen.ip().is_unspecified()) {
        return Err(StartError::Unspecified(listen));
    }
    let metrics = match args.metrics {
        Some(Metrics::At(address)) if address.ip().is_unspecified() => {
            return Err(StartError::MetricsUnspecified(address));
        }
        Some(Metrics::At(address)) if !address.ip().is_loopback() => Some(address),
        Some(Metrics::At(_) | Metrics::Off) | None => None,
    };
    let gateway =
        LocalGateway { subnet: gateway_subnet(&netlink, &args).await?, mtu: underlay.mtu };
    let plan = AddressPlan { advertise, listen: args.listen, gateway: gateway.subnet, metrics };
    let addresses = plan.addresses(underlay.address);
    let lock = serve::lock_netns()?;
    let listeners = serve::bind(addresses.bound(), args.metrics, &args.socket).await?;
    let pins = serve::lock_folder(&args.bpffs)?;
    let mut home = Home::open(&args.state_dir, &name)?;
    if let Err(error) = home.set_gateway(gateway.subnet) {
        let error = crate::error_chain(&error);
        tracing::warn!(error, "a reboot may give the gateway bridge another subnet");
    }
    let mut ending = Ending::listen()?;
    let is_new = home.record().member.is_none();
    if is_new {
        // The endpoints still work, and belong to a node with another state folder: a mistyped path must not remove
        // their ports.
        let mut ports = netlink.devices().await?;
        ports.retain(|device| device.id.kind == DeviceKind::Port);
        if !ports.is_empty() {
            return Err(StartError::PortsStand {
                ports: ports.len(),
                state_dir: args.state_dir.clone(),
            });
        }
        // Pins without ports are those of an earlier node: its revisions mean nothing in the cluster that this node
        // enters.
        Datapath::remove_all(&args.bpffs)?;
    }
    let registration = Registration {
        name: name.clone(),
        instance: home.record().instance,
        addresses,
        vxlan_port: args.vxlan_port,
        token: args.token.clone(),
    };
    let entered = async {
        // The kernel first: the cluster must not hear of a node that the kernel refuses.
        let is_shared = netlink.shares_vxlan_port(args.vxlan_port).await?;
        let mut datapath = Datapath::open(datapath_config(&args, &underlay, gateway.subnet))?;
        // In this order no packet that comes in reaches the host's own stack at any moment.
        netlink.ensure_barrier().await?;
        let gro_device = netlink.ensure_gro_device(&underlay, args.vxlan_port).await?;
        if is_shared {
            // The GRO device shares the socket with it, so it is another VXLAN device's.
            datapath.share_port()?;
        }
        let device = (underlay.ifindex, underlay.name.as_str());
        let super_packets =
            SuperPacketPlan::start(&netlink, device, args.big_tcp, &args.state_dir).await?;
        let stations = stations(&netlink, &datapath).await?;
        netlink.ensure_gateway_bridge(gateway.subnet, gateway.mtu, &stations).await?;
        let table = Table::open().await?;
        let membership =
            cluster::enter(&mut home, &registration, args.join, run_folder(&args)).await?;
        Ok::<_, StartError>((membership, datapath, gro_device, table, super_packets))
    };
    let entered = tokio::select! {
        entered = entered => entered.map(Some),
        () = ending.told() => Ok(None),
    };
    let (membership, datapath, gro_device, table, super_packets) = match entered {
        Ok(Some(entered)) => entered,
        refused => {
            // A node that never was a member leaves nothing; one that was a member keeps its pins.
            if home.record().member.is_none() {
                remove::all(&netlink, &args, &name).await?;
            }
            return refused.map(drop);
        }
    };
    let info = DatapathInfo {
        underlay: underlay.name.clone(),
        vtep: underlay.address.into(),
        advertised: advertise.map(Into::into),
        vxlan_port: args.vxlan_port,
        gro_device,
        bpffs: args.bpffs.display().to_string(),
        gateway: gateway.subnet,
    };
    let namespaces = SharedNamespaces::new(held_namespaces(&args));
    let check = EndpointCheck::new(SharedPorts::new(args.vxlan_port), namespaces);
    let node = Parts {
        name,
        netlink,
        underlay: (underlay, choice),
        plan,
        super_packets,
        gateway,
        home,
        membership,
        registration,
        datapath,
        table,
        check,
        info,
    };
    let ended = node.run(listeners, &args, ending).await;
    drop((lock, pins));
    ended
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

/// The subnet of the node's gateway bridge: the one that was asked for, the one that the bridge has, the one that it had
/// last, or a free one.
async fn gateway_subnet(netlink: &Netlink, args: &NodeRunArgs) -> Result<Subnet, StartError> {
    let standing = netlink.gateway_bridge_subnet().await?;
    let last = Home::gateway(&args.state_dir).unwrap_or_else(|error| {
        let error = crate::error_chain(&error);
        tracing::warn!(error, "the gateway bridge's last subnet is not known");
        None
    });
    let taken = netlink.taken_prefixes().await?;
    let (subnet, said) = choose_subnet(args.gateway_subnet, standing, last, &taken)?;
    if let Some(said) = said {
        tracing::warn!(%subnet, "{said}");
    }
    Ok(subnet)
}

fn underlay_choice(asked: Option<&config::Underlay>) -> Result<UnderlayChoice, StartError> {
    match asked {
        None => Ok(UnderlayChoice::Auto),
        Some(config::Underlay::Device(name)) => Ok(UnderlayChoice::Device(name.clone())),
        Some(config::Underlay::Address(IpAddr::V4(address))) => {
            Ok(UnderlayChoice::Address(*address))
        }
        Some(config::Underlay::Address(address)) => Err(StartError::Ipv6Underlay(*address)),
    }
}

fn datapath_config(args: &NodeRunArgs, underlay: &Underlay, gateway: Subnet) -> DatapathConfig {
    DatapathConfig {
        bpffs: args.bpffs.clone(),
        underlay: underlay.uplink(),
        config: Config {
            vtep: ip16_from_v4(underlay.address.octets()),
            underlay_ifindex: underlay.ifindex,
            vxlan_port: args.vxlan_port,
            ttl: OUTER_TTL,
            tos_mask: if args.copy_dscp { u8::MAX } else { TOS_ECN },
            flags: 0,
            sample: 0,
            storm: Limit::per_second(args.storm_limit),
            answers: Limit::per_second(ANSWERS),
            claims: CLAIMS,
            gateway: gateway.net().network().octets(),
            gateway_mask: gateway.net().netmask().octets(),
        },
    }
}
