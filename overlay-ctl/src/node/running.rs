//! Runs a node that has everything it needs: joins its parts, starts its tasks, and ends them in order.

use super::{
    Home, Member,
    addresses::{AddressPlan, follow_the_address},
    cluster,
    ending::Ending,
    error::StartError,
    folders::{NETNS_FOLDER, run_folder},
    gate::Gate,
    named::{TaskEnd, Tasks},
    raft_thread::RaftThread,
    registration::{Registration, keep_registered},
    remove,
    serve::Listeners,
    tasks::{nudges, reconcile, remember},
};
use crate::{
    config::NodeRunArgs,
    control::{
        consensus::{Consensus, FatalError, LogStore, PeerQueues},
        controller::Controller,
        peers::{Admission, Directory, carry_raft_messages},
        voter::{VoterParts, follow_the_rows},
        watch,
    },
    dataplane::{
        datapath::Datapath,
        dns::{Resolvers, Settings},
        gateway::{self, Table},
        host::{
            EndpointCheck, ForwardingKeeper, HostDevices, HostGateway, HostKernel, HostMaps,
            HostOutside, HostResolve, MergeKeeper, Monitor, OwnAddress, SharedDatapath,
            SuperPacketPlan,
        },
        kernel::{DeviceKind, LocalGateway, LocalStatus, Mtus},
        netlink::{Interest, Netlink, Underlay, UnderlayChoice},
        reconcile::{LocalNode, LocalVtep, Nudges, Reconciler},
    },
    faces::{DatapathInfo, ServedNode, api, cli, metrics},
    model::{EndpointId, NodeName},
};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::{mpsc, watch as sync_watch};
use tokio_util::sync::CancellationToken;

/// TTL of outer packets.
pub(super) const OUTER_TTL: u8 = 64;
/// The name of the task that changes the kernel.
const RECONCILE: &str = "reconcile";

/// A node that has everything it needs.
pub(super) struct Parts {
    pub(super) name: NodeName,
    pub(super) netlink: Netlink,
    /// The underlay, and how it was chosen.
    pub(super) underlay: (Underlay, UnderlayChoice),
    pub(super) plan: AddressPlan,
    pub(super) super_packets: SuperPacketPlan,
    pub(super) gateway: LocalGateway,
    pub(super) home: Home,
    pub(super) membership: cluster::Membership,
    pub(super) registration: Registration,
    pub(super) datapath: Datapath,
    pub(super) table: Table,
    pub(super) check: EndpointCheck,
    pub(super) info: DatapathInfo,
}

impl Parts {
    pub(super) async fn run(
        self,
        listeners: Listeners,
        args: &NodeRunArgs,
        mut ending: Ending,
    ) -> Result<(), StartError> {
        let Self {
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
        } = self;
        let cluster::Membership { member, directory, log } = membership;
        let Member { cluster, id, .. } = member;
        let mut devices = netlink.devices().await?;
        devices.retain(|device| device.id.kind == DeviceKind::Port);
        let ports: Vec<EndpointId> = devices.iter().map(|port| port.id.number).collect();
        let other = datapath.newest_of_other_layouts()?;
        let gate = Gate::new(&datapath.reader().tables()?, &ports, other);
        let vtep = LocalVtep {
            address: underlay.address.into(),
            port: args.vxlan_port,
            ttl: OUTER_TTL,
            mtu: u16::try_from(underlay.mtu).unwrap_or(u16::MAX),
        };
        let underlay_mtu = underlay.mtu;
        let (own, own_address) = OwnAddress::new(choice, underlay.address);
        let datapath = SharedDatapath::new(datapath);
        let forwarding =
            ForwardingKeeper::open(netlink.clone(), &args.state_dir, &table.forwarding())?;
        let host_gateway = HostGateway::new(
            netlink.clone(),
            gateway.subnet,
            (args.vxlan_port, registration.addresses.listen.port()),
            (table, forwarding),
            check.ports(),
        );
        let large_packets = *super_packets.devices();
        let super_packet_health = super_packets.health().clone();
        let settings = Settings::new(&args.resolv_conf, NETNS_FOLDER);
        let resolve = HostResolve::new(Resolvers::new(settings, name.as_str()));
        let questions = resolve.questions();
        let interest = Interest::default();
        let mut kernel = HostKernel {
            maps: HostMaps::new(datapath.clone()),
            devices: HostDevices::new(datapath.clone(), netlink.clone(), check.namespaces()),
            outside: HostOutside::new(
                datapath.clone(),
                netlink.clone(),
                (underlay, own, args.vxlan_port),
                (super_packets, MergeKeeper::new(&args.state_dir)),
                host_gateway,
                args.xdp,
                interest.clone(),
            ),
            resolve,
        };
        kernel.guard_underlay().await;
        let mtus = Mtus::new(underlay_mtu, args.mtu, &BTreeMap::new());
        let local = LocalNode {
            id: member.id,
            vtep,
            endpoint_mtu: mtus.endpoint,
            asked_mtu: args.mtu,
            gateway,
            large_packets,
            super_packets: super_packet_health,
        };
        let (reconciler, status) = Reconciler::new(kernel, local);
        let (view, views) = sync_watch::channel(None);
        let (epoch, epochs) = sync_watch::channel(member.epoch);
        // Kept until the end: the task that learns of the node's removal drops its sender before it has ended, and a task
        // that would return for that could be taken for a failure.
        let _senders = (view.clone(), epoch.clone());

        let raft = RaftThread::start().map_err(StartError::RaftThread)?;
        let mut tasks = Tasks::default();
        let mut voter = None;
        let mut unfit = None;
        if let Some(log) = log {
            let (parts, queues, ended) = cluster::start_voter(log)?;
            unfit = Some(ended);
            start_voter_tasks(&mut tasks, &raft, &parts, queues, &member, &directory);
            let report = watch::report_to_leader(
                member.id,
                epochs.clone(),
                parts.consensus.status(),
                directory.clone(),
                parts.table.clone(),
                status.clone(),
            );
            tasks.spawn("report to the leader", report);
            let state = parts.state.clone();
            let publish = watch::publish_views(member.id, state, directory.clone(), view);
            tasks.spawn("publish views", publish);
            voter = Some(parts);
        } else {
            let follow = watch::follow_a_voter(
                member.id,
                epochs.clone(),
                directory.clone(),
                view,
                status.clone(),
            );
            tasks.spawn("follow a voter", follow);
        }
        let home = Arc::new(Mutex::new(home));
        let keep =
            remember(Arc::clone(&home), member.clone(), directory.clone(), views.clone(), epochs);
        tasks.spawn("remember peers and epoch", keep);
        let consensus = voter.as_ref().map(|voter| voter.consensus.clone());
        let (addresses, told) = sync_watch::channel(registration.addresses);
        let (moves, moved) = mpsc::channel(1);
        let follow =
            follow_the_address(plan, own_address, directory.clone(), moves, addresses.clone());
        tasks.spawn("follow the address", follow);
        let registered = keep_registered(
            registration,
            told,
            member.clone(),
            directory.clone(),
            args.join,
            consensus.as_ref().map(Consensus::status),
            epoch,
        );
        tasks.spawn("keep registered", registered);
        let shared = (args.vxlan_port, datapath.clone());
        let (devices, ways, gather) = nudges(&netlink, interest, shared)?;
        tasks.spawn("gather changes of devices", gather);
        let (rules, forwarding) = (gateway::changes()?, Netlink::forwarding_changes()?);
        let nudges = Nudges { devices, ways, rules, forwarding };
        let reconcile = reconcile(reconciler, gate, consensus.clone(), views.clone(), nudges);
        tasks.spawn(RECONCILE, reconcile);
        let monitor = Monitor::new(datapath.clone());
        let events = datapath.lock().events()?;
        tasks.spawn("read events", monitor.clone().pump(events));
        let whereabouts = datapath.lock().whereabouts()?;

        let Listeners { tcp, unix, metrics, socket } = listeners;
        let controller = Controller::new(member.id, directory, voter, check);
        let served = Arc::new(ServedNode {
            controller: controller.clone(),
            name: name.clone(),
            view: views,
            status: status.clone(),
            datapath: datapath.clone(),
            questions,
            monitor,
            whereabouts,
            info,
            state_dir: args.state_dir.clone(),
            metrics: metrics.as_ref().and_then(|listener| listener.local_addr().ok()),
        });
        let stop = CancellationToken::new();
        if let Some(listener) = metrics {
            let serve = metrics::serve(listener, Arc::clone(&served), stop.clone());
            tasks.spawn("serve metrics", serve);
        }
        // One for all connections, so that another cluster is logged once.
        let admission = Admission::new(member.cluster);
        let (tcp, serve) = raft
            .serve((tcp, moved), admission.clone(), controller.clone())
            .map_err(StartError::RaftThread)?;
        tasks.spawn_on("serve Raft", serve, raft.runtime());
        tasks.spawn("serve the API", api::serve(served, admission, tcp, unix, stop.clone()));
        let announce = announce(controller, name.clone(), socket.path().to_owned(), status);
        tasks.spawn("announce", announce);

        let mut removed = false;
        let mut outcome = Ok(());
        tokio::select! {
            // Checked first, since the tasks of a voter return as well when its log is no longer fit.
            biased;
            why = no_longer_fit(unfit) => outcome = Err(StartError::Cluster(why.into())),
            () = ending.told() => tracing::info!("told to end; the data path stays"),
            ended = tasks.until_removed() => match ended {
                Ok(()) => removed = true,
                // The other parts end in order all the same.
                Err(error) => outcome = Err(error),
            },
        }
        stop.cancel();
        if let Some(consensus) = consensus {
            consensus.shutdown().await;
        }
        drop(socket);
        if removed {
            tracing::warn!(node = %name, "removed from the cluster: what it made goes");
            // A pass that is under way must not make a port after all ports were removed.
            tasks.end(RECONCILE).await;
            // By a connection of its own: on the other one a list may be under way that the pass asked for.
            remove::all(&Netlink::open().await?, args, &name).await?;
            if let Err(error) = LogStore::remove_mark_beside(run_folder(args), cluster, id) {
                tracing::warn!(%error, "the mark beside the socket is left");
            }
            // Last: a node that dies before this learns at its next start that it was removed, and goes on here.
            home.lock().unwrap_or_else(PoisonError::into_inner).set_removed()?;
        }
        outcome
    }
}

/// Waits until consensus can't go on with its log. On an agent, which has no log, it never returns.
async fn no_longer_fit(unfit: Option<mpsc::Receiver<FatalError>>) -> FatalError {
    let Some(mut unfit) = unfit else { return std::future::pending().await };
    match unfit.recv().await {
        Some(why) => why,
        // It was shut down.
        None => std::future::pending().await,
    }
}

/// Starts what a voter does besides serving and reporting.
fn start_voter_tasks(
    tasks: &mut Tasks,
    raft: &RaftThread,
    parts: &VoterParts,
    queues: PeerQueues,
    member: &Member,
    directory: &Directory,
) {
    let consensus = parts.consensus.clone();
    let carry = carry_raft_messages(member.id, consensus, queues, directory.clone());
    tasks.spawn_on("carry Raft's messages", carry, raft.runtime());
    tasks.spawn("follow the rows", follow_the_rows(member.id, parts.clone()));
    let (quorum, consensus) = (parts.quorum.clone(), parts.consensus.clone());
    tasks.spawn("prove a quorum", async move { quorum.prove(consensus).await });
}

/// Prints that the node serves, and what to try next, once its kernel holds what the cluster desires.
async fn announce(
    controller: Controller,
    name: NodeName,
    socket: PathBuf,
    mut status: sync_watch::Receiver<LocalStatus>,
) -> TaskEnd {
    if status.wait_for(|status| status.programmed > 0).await.is_err() {
        return TaskEnd::Returned;
    }
    tracing::info!(node = %name, "ready");
    // Without a quorum this can't be known: the examples then create what may be there, and the commands say so.
    let existing = match (cli::NETWORK.parse(), cli::ENDPOINT.parse()) {
        (Ok(network), Ok(endpoint)) => controller.existing(network, endpoint).await,
        _ => unreachable!("the names of the examples are valid"),
    };
    let existing = existing.unwrap_or_default();
    cli::print_ready(name.as_str(), &socket, existing);
    TaskEnd::Done
}
