//! Runs a node that has everything it needs: joins its parts, starts its tasks, and ends them in order.

use super::{
    Home, Member,
    cluster::{self, Registration},
    error::StartError,
    folders::{NETNS_FOLDER, run_folder},
    gate::Gate,
    raft_thread::{ApiConnections, KEEPALIVE, RaftThread},
    remove,
    serve::Listeners,
    start::{Ending, OUTER_TTL},
    tasks::{nudges, reconcile, remember},
};
use crate::{
    config::NodeRunArgs,
    control::{
        consensus::{Consensus, FatalError, LogStore},
        controller::{Controller, DatapathInfo},
        peers::{Admission, carry_raft_messages},
        voter::follow_the_rows,
        watch::{self, Ended},
    },
    dataplane::{
        datapath::Datapath,
        dns::Resolvers,
        gateway::{self, Table},
        host::{EndpointCheck, HostGateway, HostKernel, Monitor, SharedDatapath, SuperPacketPlan},
        kernel::{LocalStatus, Mtus},
        netlink::{Netlink, Underlay},
        reconcile::{LocalGateway, LocalNode, LocalVtep, Nudges, Reconciler},
    },
    faces::{
        api::{self, Lists, PeersService},
        cli, metrics,
    },
    model::{EndpointId, NodeName},
    proto::internal::peers_server::PeersServer,
};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    net::{TcpStream, UnixListener},
    sync::{mpsc, watch as sync_watch},
};
use tokio_stream::{
    StreamExt as _,
    wrappers::{ReceiverStream, UnixListenerStream},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

/// A node that has everything it needs.
pub(super) struct Parts {
    pub(super) name: NodeName,
    pub(super) netlink: Netlink,
    pub(super) underlay: Underlay,
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
            underlay,
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
        let ports: Vec<EndpointId> =
            netlink.ports().await?.into_iter().map(|port| port.endpoint).collect();
        let gate = Gate::new(&datapath.reader().tables()?, &ports);
        let vtep = LocalVtep {
            address: underlay.address,
            port: args.vxlan_port,
            ttl: OUTER_TTL,
            mtu: u16::try_from(underlay.mtu).unwrap_or(u16::MAX),
        };
        let underlay_mtu = underlay.mtu;
        let datapath = SharedDatapath::new(datapath);
        let host_gateway = HostGateway::new(
            netlink.clone(),
            gateway,
            args.vxlan_port,
            table,
            check.ports(),
            Resolvers::new(&args.resolv_conf, NETNS_FOLDER, name.as_str()),
        );
        let mut kernel = HostKernel::new(
            datapath.clone(),
            netlink.clone(),
            underlay,
            super_packets,
            check.namespaces(),
            args.vxlan_port,
            host_gateway,
            args.xdp,
        );
        kernel.guard_underlay().await;
        let mtus = Mtus::new(underlay_mtu, args.mtu, &BTreeMap::new());
        let local = LocalNode {
            id: member.id,
            vtep,
            endpoint_mtu: mtus.endpoint,
            asked_mtu: args.mtu,
            gateway,
        };
        let (reconciler, status) = Reconciler::new(kernel, local);
        let (view, views) = sync_watch::channel(None);
        let (epoch, epochs) = sync_watch::channel(member.epoch);

        let raft = RaftThread::start().map_err(StartError::RaftThread)?;
        let mut voter = None;
        let mut unfit = None;
        let followed = match log {
            Some(log) => {
                let (parts, queues, ended) = cluster::start_voter(log)?;
                unfit = Some(ended);
                raft.spawn(carry_raft_messages(
                    member.id,
                    parts.consensus.clone(),
                    queues,
                    directory.clone(),
                ));
                tokio::spawn(follow_the_rows(member.id, parts.clone()));
                tokio::spawn(watch::report_to_leader(
                    member.id,
                    epochs.clone(),
                    parts.consensus.clone(),
                    directory.clone(),
                    parts.table.clone(),
                    status.clone(),
                ));
                let (quorum, consensus) = (parts.quorum.clone(), parts.consensus.clone());
                tokio::spawn(async move { quorum.prove(consensus).await });
                let state = parts.state.clone();
                voter = Some(parts);
                tokio::spawn(watch::publish_views(member.id, state, directory.clone(), view))
            }
            None => tokio::spawn(watch::follow_a_voter(
                member.id,
                epochs.clone(),
                directory.clone(),
                view,
                status.clone(),
            )),
        };
        let home = Arc::new(Mutex::new(home));
        tokio::spawn(remember(
            Arc::clone(&home),
            member.clone(),
            directory.clone(),
            views.clone(),
            epochs,
        ));
        let consensus = voter.as_ref().map(|voter| voter.consensus.clone());
        let registered = tokio::spawn(cluster::keep_registered(
            registration,
            member.clone(),
            directory.clone(),
            args.join,
            consensus.as_ref().map(Consensus::status),
            epoch,
        ));
        let nudges = Nudges { devices: nudges(&netlink)?, rules: gateway::changes()? };
        let reconciling =
            tokio::spawn(reconcile(reconciler, gate, consensus.clone(), views.clone(), nudges));
        let monitor = Monitor::new(datapath.clone());
        let events = datapath.lock().events()?;
        tokio::spawn(monitor.clone().pump(events));
        let whereabouts = datapath.lock().whereabouts()?;

        let Listeners { tcp, unix, metrics, socket } = listeners;
        let controller = Arc::new(Controller {
            cluster: member.cluster,
            id: member.id,
            name: name.clone(),
            directory,
            voter: voter.clone(),
            view: views,
            status: status.clone(),
            datapath: datapath.clone(),
            monitor,
            whereabouts,
            check: check.clone(),
            info,
            metrics: metrics.as_ref().and_then(|listener| listener.local_addr().ok()),
            lists: Lists::default(),
        });
        let stop = CancellationToken::new();
        if let Some(listener) = metrics {
            tokio::spawn(metrics::serve(listener, Arc::clone(&controller), stop.clone()));
        }
        let peers = PeersServer::new(PeersService::new(voter, check))
            .max_decoding_message_size(crate::control::peers::MESSAGE_MAX)
            .max_encoding_message_size(crate::control::peers::MESSAGE_MAX);
        // One for all connections, so that another cluster is logged once.
        let admission = Admission::new(member.cluster);
        let (tcp, mut serving_raft) =
            raft.serve(tcp, admission.clone(), peers.clone()).map_err(StartError::RaftThread)?;
        let serving = serve_api(Arc::clone(&controller), peers, admission, tcp, unix, stop.clone());
        let mut serving = tokio::spawn(serving);
        tokio::spawn(announce(controller, name.clone(), socket.path().to_owned(), status));

        let mut removed = false;
        let mut refused = None;
        tokio::select! {
            () = ending.told() => tracing::info!("told to end; the data path stays"),
            ended = &mut serving => match ended {
                Ok(ended) => ended?,
                Err(panic) => return Err(StartError::Task(panic.to_string())),
            },
            ended = &mut serving_raft => match ended {
                Ok(ended) => ended?,
                Err(panic) => return Err(StartError::Task(panic.to_string())),
            },
            ended = followed => removed = matches!(ended, Ok(Ended::Removed)),
            ended = registered => removed = matches!(ended, Ok(Ended::Removed)),
            why = no_longer_fit(unfit) => refused = Some(why),
        }
        stop.cancel();
        if let Some(consensus) = consensus {
            consensus.shutdown().await;
        }
        drop(socket);
        if removed {
            tracing::warn!(node = %name, "removed from the cluster: what it made goes");
            // A pass under way must not make a port behind the sweep.
            reconciling.abort();
            drop(reconciling.await);
            remove::all(&netlink, args, &name).await?;
            if let Err(error) = LogStore::remove_mark_beside(run_folder(args), cluster, id) {
                tracing::warn!(%error, "the mark beside the socket is left");
            }
            // Last: a node that dies in the middle finds out again at its next start, and goes on.
            home.lock().unwrap_or_else(PoisonError::into_inner).set_removed()?;
        }
        refused.map_or(Ok(()), |why| Err(StartError::Cluster(why.into())))
    }
}

/// Waits until consensus can't go on with the log as it is; for ever on an agent, which has none.
async fn no_longer_fit(unfit: Option<mpsc::Receiver<FatalError>>) -> FatalError {
    let Some(mut unfit) = unfit else { return std::future::pending().await };
    match unfit.recv().await {
        Some(why) => why,
        // It was shut down.
        None => std::future::pending().await,
    }
}

/// Serves the API, and the other nodes with all that is not Raft's.
async fn serve_api(
    controller: Arc<Controller>,
    peers: PeersServer<PeersService>,
    admission: Admission,
    tcp: ApiConnections,
    unix: UnixListener,
    stop: CancellationToken,
) -> Result<(), StartError> {
    let local = api::routes(Arc::clone(&controller)).await?;
    let remote = api::routes(controller).await?.add_service(peers);
    let unix =
        Server::builder().layer(admission.clone()).add_routes(local).serve_with_incoming_shutdown(
            UnixListenerStream::new(unix),
            stop.clone().cancelled_owned(),
        );
    let tcp = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .layer(admission)
        .add_routes(remote)
        .serve_with_incoming_shutdown(
            ReceiverStream::new(tcp).map(TcpStream::from_std),
            stop.cancelled_owned(),
        );
    tokio::try_join!(unix, tcp)?;
    Ok(())
}

/// Says that the node serves, and what to try, once its kernel holds what the cluster desires.
async fn announce(
    controller: Arc<Controller>,
    name: NodeName,
    socket: PathBuf,
    mut status: sync_watch::Receiver<LocalStatus>,
) {
    if status.wait_for(|status| status.programmed > 0).await.is_err() {
        return;
    }
    tracing::info!(node = %name, "ready");
    // Without a quorum nobody knows what there is; then the commands say what to do about that.
    let existing = api::existing(controller, cli::NETWORK, cli::ENDPOINT).await.unwrap_or_default();
    cli::print_ready(name.as_str(), &socket, existing);
}
