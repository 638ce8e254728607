use super::{
    Home, HomeError, HostKernel, Member, SharedDatapath,
    cluster::{self, Addresses, ClusterError, Registration},
    gate::Gate,
    members, metrics, monitor,
    serve::{self, Listeners},
};
use crate::{
    api::{self, Controller, DatapathInfo},
    cli::{self, NodeRunArgs},
    datapath::{Datapath, DatapathConfig, DatapathError},
    model::{EndpointId, Invalid, NodeName, Revision},
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
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch as sync_watch},
};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

/// The port of the API where none is given.
const DEFAULT_PORT: u16 = 7400;
/// A peer lost to power is found out after this, and its connection given up after as long again.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// How long the kernel's words are gathered before a pass looks at it.
const SETTLE: Duration = Duration::from_millis(5);
/// TTL of outer packets.
const OUTER_TTL: u8 = 64;
/// Smallest underlay MTU: an endpoint must be able to send the smallest packet that IPv4 asks every
/// link to carry (RFC 791, section 3.2).
const UNDERLAY_MTU_MIN: u32 = 68 + VXLAN_OVERHEAD as u32;

/// Why a node did not start, or ended. One that never was a member leaves nothing but its state folder.
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
    /// A node with another folder lived here, and its endpoints still work.
    #[error("{ports} endpoints of an earlier node still have their ports here, but the state folder {} is new: start with that node's --state-dir; or, to give its endpoints up, remove every device `ip link` shows as ovp…", .state_dir.display())]
    PortsStand {
        /// How many.
        ports: usize,
        /// The folder that was given.
        state_dir: PathBuf,
    },
    /// Another node is here.
    #[error("another node runs in this network namespace: stop that one first")]
    NodeRuns,
    /// Another node has the pins.
    #[error("the folder {} is another node's: give this one its own with --bpffs", .0.display())]
    PinsTaken(PathBuf),
    /// The folder of the pins.
    #[error("can't use the folder {}", .path.display())]
    Pins {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// rtnetlink.
    #[error(transparent)]
    Port(#[from] crate::netlink::PortError),
    /// A part of the node ended by itself.
    #[error("a part of the node broke: {0}")]
    Task(String),
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
    let lock = serve::lock_netns()?;
    let listeners = serve::bind(listen, args.metrics, &args.socket).await?;
    let pins = serve::lock_folder(&args.bpffs)?;
    let mut home = Home::open(&args.state_dir, &name)?;
    let mut ending = Ending::listen()?;
    let is_new = home.record().member.is_none();
    if is_new {
        // Endpoints that still work belong to a node whose folder is elsewhere: taking their ports
        // away is not for a mistyped path to do.
        let ports = netlink.ports().await?;
        if !ports.is_empty() {
            return Err(StartError::PortsStand {
                ports: ports.len(),
                state_dir: args.state_dir.clone(),
            });
        }
        // Pins without ports are what a node left that lived here before: its revisions mean nothing
        // to the cluster that this one enters.
        Datapath::remove_all(&args.bpffs)?;
    }
    let registration = Registration {
        name: name.clone(),
        instance: home.record().instance,
        addresses: Addresses { vtep: underlay.address, listen },
        token: args.token.clone(),
    };
    let entered = async {
        // The kernel first: a node that it refuses must not have been announced to anybody.
        let datapath = Datapath::open(datapath_config(&args, &underlay))?;
        // In this order nothing that comes in can reach the host's stack, at no moment.
        netlink.ensure_barrier().await?;
        let gro_device = netlink.ensure_gro_device(&underlay, args.vxlan_port).await?;
        let membership = cluster::enter(&mut home, &registration, args.join).await?;
        Ok::<_, StartError>((membership, datapath, gro_device))
    };
    let entered = tokio::select! {
        entered = entered => entered.map(Some),
        () = ending.told() => Ok(None),
    };
    let (membership, datapath, gro_device) = match entered {
        Ok(Some(entered)) => entered,
        refused => {
            // A node that never was one leaves nothing; one that was still has its pins.
            if home.record().member.is_none() {
                remove_all(&netlink, &args).await?;
            }
            return refused.map(drop);
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
    let node = Parts { name, netlink, underlay, home, membership, registration, datapath, info };
    let ended = node.run(listeners, &args, ending).await;
    drop((lock, pins));
    ended
}

/// The signals that end a node.
struct Ending {
    terminate: Signal,
    interrupt: Signal,
}

impl Ending {
    fn listen() -> Result<Self, StartError> {
        let listen = |kind| signal(kind).map_err(StartError::Signals);
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Removes all that a node makes in the kernel: it is no node (any more). Goes on past a failure, and
/// gives the first.
async fn remove_all(netlink: &Netlink, args: &NodeRunArgs) -> Result<(), StartError> {
    let mut results: Vec<Result<(), StartError>> = Vec::new();
    match netlink.ports().await {
        Ok(ports) => {
            for port in ports {
                results.push(netlink.delete_port(&port.ifname).await.map_err(Into::into));
            }
        }
        Err(error) => results.push(Err(error.into())),
    }
    results.push(netlink.remove_gro_device(args.vxlan_port).await.map_err(Into::into));
    results.push(netlink.remove_barrier().await.map_err(Into::into));
    results.push(Datapath::remove_all(&args.bpffs).map_err(Into::into));
    results.into_iter().collect()
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
    registration: Registration,
    datapath: Datapath,
    info: DatapathInfo,
}

impl Parts {
    async fn run(
        self,
        listeners: Listeners,
        args: &NodeRunArgs,
        mut ending: Ending,
    ) -> Result<(), StartError> {
        let Self { name, netlink, underlay, home, membership, registration, datapath, info } = self;
        let cluster::Membership { member, directory, log } = membership;
        let ports: Vec<EndpointId> =
            netlink.ports().await?.into_iter().map(|port| port.endpoint).collect();
        let gate = Gate::new(&datapath.tables()?, &ports);
        let datapath = SharedDatapath::new(datapath);
        let kernel = HostKernel::new(datapath.clone(), netlink.clone(), underlay, args.vxlan_port);
        let local = LocalNode { id: member.id, endpoint_mtu: info.endpoint_mtu };
        let (reconciler, status) = Reconciler::new(kernel, local);
        let (view, views) = sync_watch::channel(None);
        let (epoch, epochs) = sync_watch::channel(member.epoch);

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
                    parts.table.clone(),
                ));
                tokio::spawn(watch::report_to_leader(
                    member.id,
                    epochs.clone(),
                    parts.consensus.clone(),
                    directory.clone(),
                    parts.table.clone(),
                    status.clone(),
                ));
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
        let registered = tokio::spawn(cluster::keep_registered(
            registration,
            member.clone(),
            directory.clone(),
            args.join,
            epoch,
        ));
        let consensus = voter.as_ref().map(|voter| voter.consensus.clone());
        let nudges = nudges(&netlink)?;
        let reconciling =
            tokio::spawn(reconcile(reconciler, gate, consensus.clone(), views.clone(), nudges));
        let drops = monitor::channel();
        tokio::spawn(monitor::pump(datapath.clone(), drops.clone()));

        let controller = Arc::new(Controller {
            cluster: member.cluster,
            id: member.id,
            name: name.clone(),
            directory,
            voter: voter.clone(),
            view: views,
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
        let serving =
            serve_all(Arc::clone(&controller), voter, member.cluster, tcp, unix, stop.clone());
        let mut serving = tokio::spawn(serving);
        tokio::spawn(announce(controller, name.clone(), socket.path().to_owned(), status));

        let mut removed = false;
        tokio::select! {
            () = ending.told() => tracing::info!("told to end; the data path stays"),
            ended = &mut serving => match ended {
                Ok(ended) => ended?,
                Err(panic) => return Err(StartError::Task(panic.to_string())),
            },
            ended = followed => removed = matches!(ended, Ok(Ended::Removed)),
            ended = registered => removed = matches!(ended, Ok(Ended::Removed)),
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
            remove_all(&netlink, args).await?;
            // Last: a node that dies in the middle finds out again at its next start, and goes on.
            home.lock().unwrap_or_else(PoisonError::into_inner).set_removed()?;
        }
        Ok(())
    }
}

/// Words from the kernel that something may have changed, many of them as one.
fn nudges(netlink: &Netlink) -> Result<mpsc::Receiver<()>, StartError> {
    let mut changes = netlink.changes()?;
    let (sender, nudges) = mpsc::channel(1);
    tokio::spawn(async move {
        while changes.recv().await.is_some() {
            // A change seldom comes alone: those of the next moment are looked at together.
            tokio::time::sleep(SETTLE).await;
            while changes.try_recv().is_ok() {}
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

/// Keeps the peers' addresses and the node's epoch, so that it finds the cluster again after a
/// restart.
async fn remember(
    home: Arc<Mutex<Home>>,
    mut member: Member,
    directory: Directory,
    mut views: sync_watch::Receiver<Option<Arc<View>>>,
    mut epochs: sync_watch::Receiver<Revision>,
) {
    let mut kept: Vec<Peer> = Vec::new();
    loop {
        tokio::select! {
            changed = views.changed() => if changed.is_err() { return },
            changed = epochs.changed() => if changed.is_err() { return },
        }
        let peers = directory.peers();
        let epoch = *epochs.borrow_and_update();
        views.borrow_and_update();
        let mut home = home.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stored = Ok(());
        if peers != kept {
            stored = home.set_peers(&peers);
            kept = peers;
        }
        if epoch != member.epoch {
            member.epoch = epoch;
            stored = stored.and(home.set_member(member.clone()));
        }
        if let Err(error) = stored {
            tracing::warn!(error = %crate::error_chain(&error), "the state folder can't be written");
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
        .http2_keepalive_interval(Some(KEEPALIVE))
        .add_routes(remote)
        .serve_with_incoming_shutdown(TcpListenerStream::new(tcp), stop.cancelled_owned());
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
    let existing = api::existing(controller).await.unwrap_or_default();
    cli::print_ready(name.as_str(), &socket, &existing);
}
