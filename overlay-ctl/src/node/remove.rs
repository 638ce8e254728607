//! Removes everything that the node made on this machine, after the cluster removed the node.

use super::{
    error::StartError,
    folders::{NETNS_FOLDER, held_namespaces},
};
use crate::{
    config::NodeRunArgs,
    dataplane::{
        datapath::Datapath,
        dns::{Resolvers, Settings},
        gateway::{Table, end_connections},
        host,
        netlink::Netlink,
    },
    model::{NodeName, Subnet},
};

/// Removes everything that a node makes in the kernel. Goes on after a failure, and returns the first.
pub(super) async fn all(
    netlink: &Netlink,
    args: &NodeRunArgs,
    name: &NodeName,
) -> Result<(), StartError> {
    let mut results: Vec<Result<(), StartError>> = Vec::new();
    match netlink.devices().await {
        Ok(devices) => {
            for device in devices {
                results.push(netlink.remove_device(device.id).await.map_err(Into::into));
            }
        }
        Err(error) => results.push(Err(error.into())),
    }
    let table = Table::open().await;
    // Before the rules that guard it are gone.
    let opened = table.as_ref().map(Table::forwarding).unwrap_or_default();
    let closed = host::restore_forwarding(netlink, &args.state_dir, &opened).await;
    results.push(closed.map_err(Into::into));
    match table {
        Ok(mut table) => results.push(table.remove().await.map_err(Into::into)),
        Err(error) => results.push(Err(error.into())),
    }
    if let Ok(Some(net)) = netlink.gateway_bridge_subnet().await
        && let Ok(subnet) = Subnet::try_from(net)
    {
        results.push(end_connections(subnet).await.map_err(Into::into));
    }
    let settings = Settings::new(&args.resolv_conf, NETNS_FOLDER);
    let left = Resolvers::new(settings, name.as_str()).remove_files().await;
    for trouble in left {
        tracing::warn!("{trouble}");
    }
    results.push(netlink.release_neighbours().await.map_err(Into::into));
    results.push(netlink.remove_gateway_bridge().await.map_err(Into::into));
    results.push(netlink.remove_gro_device(args.vxlan_port).await.map_err(Into::into));
    results.push(netlink.remove_barrier().await.map_err(Into::into));
    results.push(host::big_tcp::restore(netlink, &args.state_dir).await.map_err(Into::into));
    results.push(host::merging::restore(netlink, &args.state_dir).await.map_err(Into::into));
    if let Err(error) = held_namespaces(args).remove_all() {
        tracing::warn!(%error, "namespaces are still held");
    }
    results.push(Datapath::remove_all(&args.bpffs).map_err(Into::into));
    results.into_iter().collect()
}
