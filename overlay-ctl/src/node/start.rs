use super::{
    Home, HomeError, HostKernel, SharedDatapath,
    cluster::{self, Addresses, ClusterError},
    gate::Gate,
    members, metrics, monitor,
    serve::{self, Listeners},
};
use crate::{
    api::{self, Controller, DatapathInfo},
    cli::{self, NodeRunArgs},
    datapath::{Datapath, DatapathConfig, DatapathError},
    model::{Invalid, NodeName},
    netlink::{GroError, Netlink, NetlinkError, Underlay, UnderlayChoice, UnderlayError},
    peers::{Directory, Peer, PeersService, VoterParts, carry_raft_messages},
    proto::internal::peers_server::PeersServer,
    reconcile::{LocalNode, LocalStatus, Reconciler},
    state::View,
    watch::{self, Ended},
};
use overlay_common::{Config, VXLAN_OVERHEAD, ip16_from_v4};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch as sync_watch},
};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

/// The port of the API where none is given.
const DEFAULT_PORT: u16 = 7400;
/// TTL of outer packets.
const OUTER_TTL: u8 = 64;
/// Smallest underlay MTU: an endpoint must be able to send the smallest packet that IPv4 asks every
/// link to carry (RFC 791, section 3.2).
const UNDERLAY_MTU_MIN: u32 = 68 + VXLAN_OVERHEAD as u32;

/// Why a node did not start. Nothing was made.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Not root.
    #[error(
        "a node must run as root: it loads BPF programs and moves devices into namespaces; try again with sudo"
    )]
    NotRoot,
    /// The name.
    #[error(transparent)]
    Name(#[from] Invalid),
    /// The host has no name.
    #[error("the host's name can't be read: give one with --name")]
    HostName(#[source] io::Error),
    /// A port.
    #[error(
        "the address {address} is in use by another program, or another node: choose another with {flag}"
    )]
    PortTaken {
        /// The address.
        address: SocketAddr,
        /// What names it.
        flag: &'static str,
    },
    /// An address.
    #[error("can't listen on {address}: give an address of this host with {flag}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What names it.
        flag: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Peers can't reach a wildcard.
    #[error("--listen {0} is no address that other nodes reach: give one of this host")]
    Unspecified(SocketAddr),
    /// The socket.
    #[error("another node answers on the socket {}: give this one its own with --socket", .0.display())]
    SocketTaken(PathBuf),
    /// Something else is there.
    #[error("{} exists and is not a socket: choose another path with --socket", .0.display())]
    NotASocket(PathBuf),
    /// The socket.
    #[error("can't make the socket {}", .path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The underlay is IPv6.
    #[error("the underlay address {0} is IPv6: only IPv4 underlays are carried yet")]
    Ipv6Underlay(IpAddr),
    /// The underlay's MTU.
    #[error(
        "the underlay device {device} has an MTU of {mtu}: at least {UNDERLAY_MTU_MIN} is needed"
    )]
    UnderlayMtu {
        /// The device.
        device: String,
        /// Bytes.
        mtu: u32,
    },
    /// rtnetlink.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The underlay device.
    #[error(transparent)]
    Underlay(#[from] UnderlayError),
    /// The VXLAN port.
    #[error(transparent)]
    Gro(#[from] GroError),
    /// BPF.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// The state folder.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The API can't be put together.
    #[error("the API's descriptors can't be read")]
    Descriptors(#[from] tonic_reflection::server::Error),
    /// Signals.
    #[error("signals can't be received")]
    Signals(#[source] io::Error),
    /// The server ended by itself.
    #[error("the API ended")]
    Serve(#[from] tonic::transport::Error),
}

/// Runs a node until it is told to end.
///
/// # Errors
/// It did not start; see [`StartError`].
pub async fn run(args: NodeRunArgs) -> Result<(), StartError> {
    serve::check_root()?;
    let name: NodeName = args.node_name().map_err(StartError::HostName)?.parse()?;
    Datapath::check(&args.bpffs)?;
    let netlink = Netlink::open().await?;
    let underlay = netlink.underlay(&underlay_choice(args.underlay.as_ref())?).await?;
    if underlay.mtu < UNDERLAY_MTU_MIN {
        return Err(StartError::UnderlayMtu { device: underlay.name, mtu: underlay.mtu });
    }
    let listen = args.listen.unwrap_or((underlay.address, DEFAULT_PORT).into());
    if listen.ip().is_unspecified() {
        return Err(StartError::Unspecified(listen));
    }
    let listeners = serve::bind(listen, args.metrics, &args.socket).await?;
    let mut home = Home::open(&args.state_dir, &name)?;
    let gro_device = netlink.ensure_gro_device(&underlay, args.vxlan_port).await?;
    let addresses = Addresses { vtep: underlay.address, listen };
    let entered = async {
        let membership =
            cluster::enter(&mut home, addresses, args.join, args.token.clone()).await?;
        let datapath = Datapath::open(datapath_config(&args, &underlay))?;
        Ok::<_, StartError>((membership, datapath))
    };
    let (membership, datapath) = match entered.await {
        Ok(entered) => entered,
        Err(error) => {
            // A node that never was leaves no device; one that was still has its pins.
            if home.record().member.is_none() {
                netlink.remove_gro_device(args.vxlan_port).await?;
            }
            return Err(error);
        }
    };
    let info = DatapathInfo {
        underlay: underlay.name.clone(),
        underlay_mtu: underlay.mtu,
        vtep: underlay.address,
        vxlan_port: args.vxlan_port,
        gro_device,
        bpffs: args.bpffs.display().to_string(),
        endpoint_mtu: underlay.mtu - u32::from(VXLAN_OVERHEAD),
    };
    let node = Parts { name, netlink, underlay, home, membership, datapath, info };
    node.run(listeners, &args).await
}

fn underlay_choice(asked: Option<&cli::Underlay>) -> Result<UnderlayChoice, StartError> {
    match asked {
        None => Ok(UnderlayChoice::Auto),
        Some(cli::Underlay::Device(name)) => Ok(UnderlayChoice::Device(name.clone())),
        Some(cli::Underlay::Address(IpAddr::V4(address))) => Ok(UnderlayChoice::Address(*address)),
        Some(cli::Underlay::Address(address)) => Err(StartError::Ipv6Underlay(*address)),
    }
}

fn datapath_config(args: &NodeRunArgs, underlay: &Underlay) -> DatapathConfig {
    DatapathConfig {
        bpffs: args.bpffs.clone(),
        underlay: underlay.name.clone(),
        config: Config {
            vtep: ip16_from_v4(underlay.address.octets()),
            underlay_ifindex: underlay.ifindex,
            vxlan_port: args.vxlan_port,
            ttl: OUTER_TTL,
            pad: 0,
            flags: 0,
        },
    }
}

/// A node that has everything it needs.
struct Parts {
    name: NodeName,
    netlink: Netlink,
    underlay: Underlay,
    home: Home,
    membership: cluster::Membership,
    datapath: Datapath,
    info: DatapathInfo,
}

impl Parts {
    async fn run(self, listeners: Listeners, args: &NodeRunArgs) -> Result<(), StartError> {
        let Self { name, netlink, underlay, home, membership, datapath, info } = self;
        let cluster::Membership { member, directory, log } = membership;
        let gate = Gate::new(&datapath.tables()?);
        let datapath = SharedDatapath::new(datapath);
        let kernel = HostKernel::new(datapath.clone(), netlink.clone(), underlay);
        let local = LocalNode { id: member.id, endpoint_mtu: info.endpoint_mtu };
        let (reconciler, status) = Reconciler::new(kernel, local);
        let (view, views) = sync_watch::channel(None);

        let mut voter = None;
        let followed = match log {
            Some(log) => {
                let (parts, queues) = cluster::start_voter(log)?;
                tokio::spawn(carry_raft_messages(
                    member.id,
                    parts.consensus.clone(),
                    queues,
                    directory.clone(),
                ));
                tokio::spawn(members::follow_the_rows(
                    member.id,
                    parts.consensus.clone(),
                    parts.state.clone(),
                ));
                tokio::spawn(watch::report_to_leader(
                    member.id,
                    member.epoch,
                    parts.consensus.clone(),
                    directory.clone(),
                    parts.table.clone(),
                    status.clone(),
                ));
                let views =
                    watch::publish_views(member.id, parts.state.clone(), directory.clone(), view);
                voter = Some(parts);
                tokio::spawn(views)
            }
            None => tokio::spawn(watch::follow_a_voter(
                member.id,
                member.epoch,
                directory.clone(),
                view,
                status.clone(),
            )),
        };
        tokio::spawn(remember_peers(home, directory.clone(), views.clone()));
        let consensus = voter.as_ref().map(|voter| voter.consensus.clone());
        let nudges = nudges(&netlink)?;
        tokio::spawn(reconcile(reconciler, gate, consensus.clone(), views.clone(), nudges));
        let drops = monitor::channel();
        tokio::spawn(monitor::pump(datapath.clone(), drops.clone()));

        let controller = Arc::new(Controller {
            cluster: member.cluster,
            id: member.id,
            name: name.clone(),
            directory,
            voter: voter.clone(),
            view: views.clone(),
            status: status.clone(),
            datapath: datapath.clone(),
            drops,
            info,
        });
        let stop = CancellationToken::new();
        let Listeners { tcp, unix, metrics, socket } = listeners;
        if let Some(listener) = metrics {
            tokio::spawn(metrics::serve(listener, Arc::clone(&controller), stop.clone()));
        }
        let serving = serve_all(controller, voter, member.cluster, tcp, unix, stop.clone());
        let mut serving = tokio::spawn(serving);
        tokio::spawn(announce(name.clone(), socket.path().to_owned(), status, views));

        let mut terminate = signal(SignalKind::terminate()).map_err(StartError::Signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Signals)?;
        let mut removed = false;
        tokio::select! {
            _ = terminate.recv() => tracing::info!("told to end; the data path stays"),
            _ = interrupt.recv() => tracing::info!("told to end; the data path stays"),
            ended = &mut serving => {
                if let Ok(ended) = ended {
                    ended?;
                }
            }
            ended = followed => removed = matches!(ended, Ok(Ended::Removed)),
        }
        stop.cancel();
        if let Some(consensus) = consensus {
            consensus.shutdown().await;
        }
        drop(socket);
        if removed {
            tracing::warn!(node = %name, "removed from the cluster: what it made goes");
            clean_up(&netlink, args, datapath).await?;
        }
        Ok(())
    }
}

/// Removes all that a node made: it is no node any more.
async fn clean_up(
    netlink: &Netlink,
    args: &NodeRunArgs,
    datapath: SharedDatapath,
) -> Result<(), StartError> {
    for port in netlink.ports().await.unwrap_or_default() {
        if let Err(error) = netlink.delete_port(&port.ifname).await {
            tracing::warn!(device = %port.ifname, %error, "port not removed");
        }
    }
    drop(datapath);
    Datapath::remove_all(&args.bpffs)?;
    netlink.remove_gro_device(args.vxlan_port).await?;
    Ok(())
}

/// Words from the kernel that something may have changed, many of them as one.
fn nudges(netlink: &Netlink) -> Result<mpsc::Receiver<()>, StartError> {
    let mut changes = netlink.changes()?;
    let (sender, nudges) = mpsc::channel(1);
    tokio::spawn(async move {
        while changes.recv().await.is_some() {
            // One that waits stands for all that come before it is taken.
            if let Err(mpsc::error::TrySendError::Closed(())) = sender.try_send(()) {
                return;
            }
        }
    });
    Ok(nudges)
}

async fn reconcile(
    reconciler: Reconciler<HostKernel>,
    gate: Gate,
    consensus: Option<crate::consensus::Consensus<crate::state::Machine>>,
    mut views: sync_watch::Receiver<Option<Arc<View>>>,
    nudges: mpsc::Receiver<()>,
) {
    let Some(first) = gate.open(consensus.as_ref(), &mut views).await else { return };
    let (sender, known) = sync_watch::channel(first);
    let forward = async {
        while views.changed().await.is_ok() {
            if let Some(view) = views.borrow_and_update().clone() {
                sender.send_replace(view);
            }
        }
    };
    // What came between the gate and here is not lost: `changed` has not been asked yet.
    tokio::select! {
        () = forward => {}
        () = reconciler.run(known, nudges) => {}
    }
}

/// Keeps the peers' addresses, so that the node finds the cluster again after a restart.
async fn remember_peers(
    home: Home,
    directory: Directory,
    mut views: sync_watch::Receiver<Option<Arc<View>>>,
) {
    let mut kept: Vec<Peer> = Vec::new();
    while views.changed().await.is_ok() {
        views.borrow_and_update();
        let peers = directory.peers();
        if peers != kept {
            if let Err(error) = home.set_peers(&peers) {
                tracing::warn!(error = %crate::error_chain(&error), "peers not kept");
            }
            kept = peers;
        }
    }
}

async fn serve_all(
    controller: Arc<Controller>,
    voter: Option<VoterParts>,
    cluster: uuid::Uuid,
    tcp: TcpListener,
    unix: UnixListener,
    stop: CancellationToken,
) -> Result<(), StartError> {
    let local = api::routes(Arc::clone(&controller)).await?;
    let peers = PeersServer::new(PeersService::new(cluster, voter))
        .max_decoding_message_size(crate::peers::MESSAGE_MAX)
        .max_encoding_message_size(crate::peers::MESSAGE_MAX);
    let remote = api::routes(controller).await?.add_service(peers);
    let unix = Server::builder().add_routes(local).serve_with_incoming_shutdown(
        UnixListenerStream::new(unix),
        stop.clone().cancelled_owned(),
    );
    let tcp = Server::builder()
        .tcp_nodelay(true)
        .add_routes(remote)
        .serve_with_incoming_shutdown(TcpListenerStream::new(tcp), stop.cancelled_owned());
    tokio::try_join!(unix, tcp)?;
    Ok(())
}

/// Says that the node serves, and what to try, once its kernel holds what the cluster desires.
async fn announce(
    name: NodeName,
    socket: PathBuf,
    mut status: sync_watch::Receiver<LocalStatus>,
    views: sync_watch::Receiver<Option<Arc<View>>>,
) {
    if status.wait_for(|status| status.programmed > 0).await.is_err() {
        return;
    }
    tracing::info!(node = %name, "ready");
    let view = views.borrow().clone().unwrap_or_default();
    cli::print_ready(name.as_str(), &socket, &view);
}
