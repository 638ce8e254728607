//! Starts a node: checks what it was started with, enters the cluster, and runs it.
//!
//! A node that is new opens the doors to the kernel first: the cluster must not hear of a node that the kernel refuses. A
//! member comes back the other way round: consensus and the API need no data plane, and a voter whose host is broken still
//! votes.

use super::{
    Home,
    addresses::{AddressPlan, advertised},
    cluster,
    dataplane::{DataPlanePlan, check_mtu},
    ending::Ending,
    error::{ClusterError, StartError},
    folders::{held_namespaces, run_folder},
    lives,
    registration::Registration,
    remove,
    running::Parts,
    serve,
};
use crate::{
    config::{self, Metrics, NodeRunArgs},
    dataplane::{
        datapath::Datapath,
        gateway::choose_subnet,
        host::{EndpointCheck, SharedNamespaces, SharedPorts},
        kernel::DeviceKind,
        netlink::{Netlink, UnderlayChoice},
    },
    model::{NodeName, Subnet},
};
use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// A node that ran for less than this and has to start anew waits before it does.
const BRIEF: Duration = Duration::from_secs(10);
const ANEW_PAUSE: Duration = Duration::from_secs(1);

/// Runs a node until it is told to end.
///
/// # Errors
/// It did not start; see [`StartError`].
pub async fn run(args: NodeRunArgs) -> Result<(), StartError> {
    serve::check_root()?;
    serve::raise_file_limit();
    let name: NodeName = args.node_name().map_err(StartError::HostName)?.parse()?;
    let is_member = Home::is_member(&args.state_dir)?;
    if !is_member {
        Datapath::check(&args.bpffs)?;
    }
    let netlink = Netlink::open().await?;
    let choice = underlay_choice(args.underlay.as_ref())?;
    let (own, is_awaited) = own_address(&netlink, &choice, &args, is_member).await?;
    let advertise = advertised(args.advertise, &netlink, own).await?;
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
    let gateway = gateway_subnet(&netlink, &args).await?;
    let plan = AddressPlan { advertise, listen: args.listen, gateway, metrics };
    let addresses = plan.addresses(own);
    let lock = serve::lock_netns()?;
    let listeners = serve::bind(addresses.bound(), is_awaited, args.metrics, &args.socket).await?;
    let namespaces = SharedNamespaces::new(held_namespaces(&args));
    let mut data_plane = DataPlanePlan {
        args: &args,
        name: name.clone(),
        choice,
        gateway,
        advertised: advertise.map(Into::into),
        api_port: addresses.listen.port(),
        check: EndpointCheck::new(SharedPorts::new(args.vxlan_port), namespaces),
        pins: None,
        has_pins: Arc::default(),
    };
    if !is_member {
        data_plane.lock_pins()?;
    }
    let mut home = Home::open(&args.state_dir, &name)?;
    if let Err(error) = home.set_gateway(gateway) {
        let error = crate::error_chain(&error);
        tracing::warn!(error, "a reboot may give the gateway bridge another subnet");
    }
    let mut ending = Ending::listen()?;
    if !is_member {
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
        incarnation: Uuid::new_v4(),
    };
    let voters = args.voters.unwrap_or_default();
    let entered = async {
        let opened = if is_member { None } else { Some(data_plane.open().await?) };
        let membership =
            cluster::enter(&mut home, &registration, args.join, voters, run_folder(&args)).await?;
        Ok::<_, StartError>((membership, opened))
    };
    let entered = tokio::select! {
        entered = entered => entered.map(Some),
        () = ending.told() => Ok(None),
    };
    let (membership, opened) = match entered {
        Ok(Some(entered)) => entered,
        refused => {
            // A node that never was a member leaves nothing; one that was a member keeps its pins, unless it was removed.
            let is_removed = matches!(refused, Err(StartError::Cluster(ClusterError::Removed)));
            if home.record().member.is_none() || is_removed {
                remove::all(&netlink, &args, &name, true).await?;
            }
            if is_removed {
                home.set_removed()?;
            }
            return refused.map(drop);
        }
    };
    let node = Parts { name, own, plan, home, membership, registration, data_plane, opened };
    let (mut ended_between, begun) = (Ending::listen()?, Instant::now());
    let ended = node.run(listeners, &args, ending).await;
    drop(lock);
    let Err(StartError::Cluster(error)) = ended else { return ended };
    if lives::is_over(&error) {
        // What ends it again at once, as a log of an older generation where no leader answers yet, must not keep a CPU busy.
        if begun.elapsed() < BRIEF {
            tokio::select! {
                () = sleep(ANEW_PAUSE) => {}
                () = ended_between.told() => return Ok(()),
            }
        }
        lives::run_anew(&args.state_dir, &error);
    }
    Err(error.into())
}

/// The address that the host has on the underlay. A member whose underlay is missing, or not fit, goes on with the address
/// that it had last; the second part of the answer says so.
async fn own_address(
    netlink: &Netlink,
    choice: &UnderlayChoice,
    args: &NodeRunArgs,
    is_member: bool,
) -> Result<(Ipv4Addr, bool), StartError> {
    let missing = match netlink.underlay(choice).await {
        Ok(underlay) => {
            if !is_member {
                check_mtu(&underlay, args.mtu)?;
            }
            return Ok((underlay.address, false));
        }
        Err(missing) => missing,
    };
    let last = if is_member { Home::address(&args.state_dir)? } else { None };
    last.map(|last| (last, true)).ok_or_else(|| missing.into())
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
