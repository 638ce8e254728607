//! Runs a member: joins its parts, starts its tasks, and ends them in order.
//!
//! Consensus and the API come first. The data plane joins them when the host lets it be brought up; a node that is new has
//! it from the start.

use super::{
    Home, Member,
    addresses::{AddressPlan, follow_the_address},
    cluster,
    dataplane::{DataPlanePlan, Opened, RECONCILE, Reports},
    ending::Ending,
    error::{ClusterError, StartError},
    finding::find_peers,
    folders::run_folder,
    named::{TaskEnd, Tasks},
    part::{Event, Part, Wiring},
    probing::{Probing, probe_the_nodes},
    raft_thread::RaftThread,
    registration::{Registration, keep_registered},
    remove,
    serve::Listeners,
    tasks::{remember, remember_address},
};
use crate::{
    config::NodeRunArgs,
    control::{
        consensus::LogStore,
        controller::Controller,
        peers::{Admission, Newer},
    },
    dataplane::{kernel::LocalStatus, netlink::Netlink},
    faces::{ServedNode, Shared, StateDisk, api, cli, metrics},
    model::NodeName,
};
use std::{
    net::Ipv4Addr,
    path::PathBuf,
    pin::pin,
    sync::{Arc, Mutex, OnceLock, PoisonError, atomic::Ordering},
    time::Duration,
};
use tokio::sync::{mpsc, watch as sync_watch};
use tokio_util::sync::CancellationToken;

/// What a node says of its data plane until the first attempt to bring it up has ended.
const BRINGING_UP: &str = "the data plane is being brought up";

/// A member, and what its data plane is brought up from.
pub(super) struct Parts<'a> {
    pub(super) name: NodeName,
    /// The address that the host has on the underlay, or had last.
    pub(super) own: Ipv4Addr,
    pub(super) plan: AddressPlan,
    pub(super) home: Home,
    pub(super) membership: cluster::Membership,
    pub(super) registration: Registration,
    pub(super) data_plane: DataPlanePlan<'a>,
    /// What the kernel has taken in already, if the node is new.
    pub(super) opened: Option<Opened>,
}

impl Parts<'_> {
    pub(super) async fn run(
        self,
        listeners: Listeners,
        args: &NodeRunArgs,
        mut ending: Ending,
    ) -> Result<(), StartError> {
        let Self { name, own, plan, home, membership, registration, mut data_plane, opened } = self;
        let cluster::Membership { member, directory, log } = membership;
        let Member { cluster, id, .. } = member;
        let generations = directory.generations().clone();
        let bringing_up = LocalStatus { error: Some(BRINGING_UP.into()), ..LocalStatus::default() };
        let (status_sender, status) = sync_watch::channel(bringing_up);
        let (own_sender, own_address) = sync_watch::channel(own);
        let probes = status_sender.clone();
        let (absence_sender, absence) = sync_watch::channel(None);
        let reports =
            Reports { id, status: status_sender, own: own_sender, absence: absence_sender };
        let opened = match opened {
            Some(opened) => Some(opened.assemble(&data_plane, &reports).await?),
            None => None,
        };
        let (view, views) = sync_watch::channel(None);
        let (epoch, epochs) = sync_watch::channel(member.epoch);
        // Kept until the end: the task that learns of the node's removal drops its sender before it has ended, and a task
        // that would return for that could be taken for a failure.
        let _senders = (view.clone(), epoch.clone());

        let raft = RaftThread::start().map_err(StartError::RaftThread)?;
        let mut tasks = Tasks::default();
        let lease = Duration::from_secs(args.lease.into());
        let home = Arc::new(Mutex::new(home));
        let (life, told) = sync_watch::channel(member.life());
        let wiring = Wiring {
            home: Arc::clone(&home),
            run_folder: run_folder(args).to_owned(),
            directory: directory.clone(),
            epochs: epochs.clone(),
            view,
            status: status.clone(),
            told,
            raise_version_after: Duration::from_secs(args.raise_version_after.into()),
            lease,
            replace_voter_after: Some(Duration::from_secs(args.replace_voter_after.into()))
                .filter(|after| !after.is_zero()),
        };
        let mut part = Part::begin(wiring, &raft, member.clone(), log)?;
        let seat = part.seat().clone();
        let keep = remember(Arc::clone(&home), directory.clone(), views.clone(), epochs);
        tasks.spawn("remember peers and epoch", keep);
        let keep = remember_address(Arc::clone(&home), own_address.clone());
        tasks.spawn("remember the address", keep);
        let probing = Probing {
            id,
            lease,
            vxlan_port: args.vxlan_port,
            views: views.clone(),
            own: own_address.clone(),
            status: probes,
        };
        tasks.spawn("probe the nodes", probe_the_nodes(probing));
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
            seat.clone(),
            (epoch, life),
        );
        tasks.spawn("keep registered", registered);
        let shown = Arc::new(OnceLock::new());
        let mut is_up = opened.is_some();
        if let Some(plane) = opened {
            plane.start(&mut tasks, seat.clone(), views.clone(), &shown);
        }
        let Listeners { tcp, unix, metrics, socket } = listeners;
        let check = data_plane.check.clone().unless(absence);
        let controller = Controller::new(member.id, directory, seat.clone(), check);
        tasks.spawn("find the peers", find_peers(controller.clone(), args.join));
        let served = Arc::new(ServedNode {
            controller: controller.clone(),
            name: name.clone(),
            view: views.clone(),
            status: status.clone(),
            data_plane: Arc::clone(&shown),
            vxlan_port: args.vxlan_port,
            state_dir: args.state_dir.clone(),
            disk: StateDisk::new(&args.state_dir),
            surveys: Shared::default(),
            metrics: metrics.as_ref().and_then(|listener| listener.local_addr().ok()),
        });
        let stop = CancellationToken::new();
        if let Some(listener) = metrics {
            let serve = metrics::serve(listener, Arc::clone(&served), stop.clone());
            tasks.spawn("serve metrics", serve);
        }
        // One for all connections, so that another cluster is logged once.
        let admission = Admission::new(member.cluster, generations.clone());
        let (tcp, serve) = raft
            .serve((tcp, moved), admission.clone(), controller.clone())
            .map_err(StartError::RaftThread)?;
        tasks.spawn_on("serve Raft", serve, raft.runtime());
        tasks.spawn("serve the API", api::serve(served, admission, tcp, unix, stop.clone()));
        let announce = announce(controller, name.clone(), socket.path().to_owned(), status);
        tasks.spawn("announce", announce);

        let has_pins = Arc::clone(&data_plane.has_pins);
        let mut bring_up = pin!(data_plane.until_up(&reports));
        let mut removed = false;
        let outcome = loop {
            let holds_log = part.life().is_some();
            tokio::select! {
                biased;
                event = part.next() => match event {
                    Event::Ended(ended) => {
                        removed = ended.is_ok();
                        break ended;
                    }
                    // Not a branch of the choice above: it is carried out to its end.
                    Event::Told(to) => if let Err(error) = part.change(to).await {
                        break Err(error);
                    },
                },
                () = ending.told() => {
                    tracing::info!("told to end; the data path stays");
                    break Ok(());
                }
                ended = tasks.until_removed() => {
                    // After a failure the other parts end in order all the same.
                    removed = ended.is_ok();
                    break ended;
                }
                // An agent goes on: it has no log.
                Newer { generation: theirs, at } = generations.newer(), if holds_log => {
                    let ours = generations.ours();
                    break Err(ClusterError::OlderGeneration { ours, theirs, at }.into());
                }
                plane = &mut bring_up, if !is_up => {
                    is_up = true;
                    plane.start(&mut tasks, seat.clone(), views.clone(), &shown);
                }
            }
        };
        stop.cancel();
        part.shut_down().await;
        drop(socket);
        if removed {
            tracing::warn!(node = %name, "removed from the cluster: what it made goes");
            // A pass that is under way must not make a port after all ports were removed.
            tasks.end(RECONCILE).await;
            // By a connection of its own: on the other one a list may be under way that the pass asked for.
            let has_pins = has_pins.load(Ordering::Relaxed);
            remove::all(&Netlink::open().await?, args, &name, has_pins).await?;
            let unmarked = part
                .life()
                .map(|life| LogStore::remove_mark_beside(run_folder(args), cluster, life.get()));
            if let Some(Err(error)) = unmarked {
                tracing::warn!(%error, "the mark beside the socket is left");
            }
            // Last: a node that dies before this learns at its next start that it was removed, and goes on here.
            home.lock().unwrap_or_else(PoisonError::into_inner).set_removed()?;
        }
        outcome
    }
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
