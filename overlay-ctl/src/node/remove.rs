//! Removes everything that the node made on this machine: after the cluster removed the node, after a first start that was
//! refused, and when it is reset.

use super::{
    Home,
    error::StartError,
    folders::NETNS_FOLDER,
    run_file::{Places, RunFile},
    serve,
};
use crate::{
    config::NodeRunArgs,
    control::consensus::LogStore,
    dataplane::{
        datapath::Datapath,
        dns::{Resolvers, Settings},
        gateway::{Table, end_connections},
        host,
        netlink::{GATEWAY_BRIDGE, Netlink, device_name},
    },
    model::{NodeName, Subnet},
};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// What a removal did. It goes on after a failure.
#[derive(Debug, Default)]
pub(super) struct Removal {
    /// What is gone or given back, a sentence each.
    pub(super) done: Vec<String>,
    /// What stays and does no harm, or what could not be looked for, a sentence each.
    pub(super) remarks: Vec<String>,
    /// What could not be removed.
    pub(super) failures: Vec<StartError>,
}

impl Removal {
    /// Notes the result of one step; `what` says what was done, if anything was.
    fn step<T, E: Into<StartError>>(
        &mut self,
        result: Result<T, E>,
        what: impl FnOnce(T) -> Option<String>,
    ) {
        match result {
            Ok(found) => self.done.extend(what(found)),
            Err(error) => self.failures.push(error.into()),
        }
    }
}

/// Removes everything that the node with these arguments, and its earlier runs, made. Goes on after a failure, and returns
/// the first. The folder of its pins is another node's if it does not have it locked.
///
/// # Errors
/// Something could not be removed.
pub(super) async fn all(
    netlink: &Netlink,
    args: &NodeRunArgs,
    name: &NodeName,
    has_pins: bool,
) -> Result<(), StartError> {
    let run = RunFile::of(args, name);
    let run = run.map_err(|source| StartError::Pins { path: args.bpffs.clone(), source })?;
    let Removal { done, remarks, failures } =
        everything(netlink, &args.state_dir, &run, has_pins).await;
    for remark in remarks {
        tracing::warn!("{remark}");
    }
    tracing::info!(steps = done.len(), failed = failures.len(), "what the node made is removed");
    failures.into_iter().next().map_or(Ok(()), Err)
}

/// Removes everything that a node makes outside its state folder, whose records it reads and uses up. The caller holds the
/// lock of the network namespace and, if it `has_pins`, that of the pins of the last run.
pub(super) async fn everything(
    netlink: &Netlink,
    state_dir: &Path,
    run: &RunFile,
    has_pins: bool,
) -> Removal {
    let mut removal = Removal::default();
    remove_devices(netlink, &mut removal).await;
    let table = Table::open().await;
    // Before the rules that guard it are gone.
    let opened = table.as_ref().map(Table::forwarding).unwrap_or_default();
    let closed = host::restore_forwarding(netlink, state_dir, &opened).await;
    removal.step(closed, |devices| {
        listed(&devices).map(|devices| format!("switched forwarding of {devices} off again"))
    });
    match table {
        Ok(mut table) => {
            let stood = table.stands();
            removal.step(table.remove().await, |()| {
                stood.then(|| "removed the table `ip overlay` of nftables".to_owned())
            });
        }
        Err(error) => removal.failures.push(error.into()),
    }
    if let Ok(Some(net)) = netlink.gateway_bridge_subnet().await
        && let Ok(subnet) = Subnet::try_from(net)
    {
        removal.step(end_connections(subnet).await, |_| None);
    }
    remove_names(run, &mut removal).await;
    removal.step(netlink.release_neighbours().await, |count| {
        (count > 0)
            .then(|| format!("removed {count} next hops that the kernel was to keep resolved"))
    });
    removal.step(netlink.remove_gateway_bridge().await, |stood| {
        stood.then(|| format!("removed the device {GATEWAY_BRIDGE}"))
    });
    for port in run.places.iter().map(|places| places.vxlan_port).collect::<BTreeSet<_>>() {
        removal.step(netlink.remove_gro_device(port).await, |stood| {
            stood.then(|| format!("removed the VXLAN device of port {port}"))
        });
    }
    removal.step(netlink.remove_merge_pair().await, |stood| {
        stood.then(|| "removed the veth pair that merges segments".to_owned())
    });
    removal.step(netlink.remove_barrier().await, |stood| {
        stood.then(|| "removed the barrier bridge".to_owned())
    });
    removal.step(host::big_tcp::restore(netlink, state_dir).await, |device| {
        device.map(|device| format!("gave {device} its former sizes of super-packets back"))
    });
    removal.step(host::merging::restore(netlink, state_dir).await, |devices| {
        listed(&devices).map(|devices| format!("switched offloads of {devices} on again"))
    });
    remove_beside_the_sockets(state_dir, run, &mut removal).await;
    remove_pins(run, has_pins, &mut removal);
    removal
}

async fn remove_devices(netlink: &Netlink, removal: &mut Removal) {
    let devices = match netlink.devices().await {
        Ok(devices) => devices,
        Err(error) => return removal.failures.push(error.into()),
    };
    for device in devices {
        let removed = netlink.remove_device(device.id).await;
        removal.step(removed, |()| {
            Some(format!("removed the device {}", device_name(device.id).ok()?))
        });
    }
}

/// Removes the files by which names are resolved in endpoints' namespaces.
async fn remove_names(run: &RunFile, removal: &mut Removal) {
    // The host's own resolvers are asked by a running resolver alone.
    let settings = Settings::new(Path::new("/etc/resolv.conf"), NETNS_FOLDER);
    let mut resolvers = Resolvers::new(settings, run.name.as_str());
    removal.remarks.extend(resolvers.remove_files().await);
    if run.made_netns_folder {
        // It stays while it has files of others.
        drop(fs::remove_dir(NETNS_FOLDER));
    }
}

/// Removes what the node keeps beside its socket: the held namespaces, the second mark of its log, and the socket of a
/// node that was killed.
async fn remove_beside_the_sockets(state_dir: &Path, run: &RunFile, removal: &mut Removal) {
    let member = match Home::record_in(state_dir) {
        Ok(record) => record.and_then(|record| record.member),
        Err(error) => {
            let error = crate::error_chain(&error);
            removal
                .remarks
                .push(format!("a mark of the node's log may stay beside its socket: {error}"));
            None
        }
    };
    for places in &run.places {
        let Places { socket, .. } = places;
        let had_socket = socket.exists();
        // One that answers is a running node's, which has its namespaces there, or the caller's own, which removes it
        // itself and has made nothing yet.
        let dead = serve::remove_dead(socket).await;
        if matches!(dead, Err(StartError::SocketTaken(_))) {
            continue;
        }
        if dead.is_ok() && had_socket {
            removal.done.push(format!("removed the socket {}", socket.display()));
        }
        let held = socket.with_extension("netns");
        let stood = held.exists();
        match places.held_namespaces().remove_all() {
            Ok(()) if stood => {
                removal.done.push(format!("let go of the namespaces held in {}", held.display()));
            }
            Ok(()) => {}
            Err(error) => {
                removal
                    .remarks
                    .push(format!("namespaces are still held in {}: {error}", held.display()));
            }
        }
        if let Some((cluster, life)) = member.as_ref().and_then(|it| Some((it.cluster, it.life()?)))
        {
            let folder = places.run_folder();
            if let Err(error) = LogStore::remove_mark_beside(folder, cluster, life.get()) {
                removal
                    .remarks
                    .push(format!("the mark of the log stays in {}: {error}", folder.display()));
            }
        }
    }
}

fn remove_pins(run: &RunFile, has_pins: bool, removal: &mut Removal) {
    let (mut seen, mut is_locked) = (BTreeSet::<&PathBuf>::new(), has_pins);
    for Places { bpffs, .. } in &run.places {
        let is_locked = std::mem::take(&mut is_locked);
        if !seen.insert(bpffs) || !bpffs.exists() {
            continue;
        }
        // The folder of an earlier run may be another node's by now.
        let lock = if is_locked { Ok(None) } else { serve::lock_folder(bpffs).map(Some) };
        match lock {
            Ok(_lock) => removal.step(Datapath::remove_all(bpffs), |()| {
                Some(format!("removed the programs and maps in {}", bpffs.display()))
            }),
            Err(StartError::PinsTaken(_)) => {
                let folder = bpffs.display();
                removal.remarks.push(format!(
                    "{folder} was this node's once, and is used by another node now"
                ));
            }
            Err(error) => removal.failures.push(error),
        }
    }
}

/// The names with commas between them; `None` if there are none.
fn listed(names: &[String]) -> Option<String> {
    (!names.is_empty()).then(|| names.join(", "))
}
