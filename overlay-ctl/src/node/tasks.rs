//! The tasks that join the parts of a running node: they bring events and views to the reconciler, and write to the state
//! folder what the node needs after a restart.

use super::{Home, error::StartError, gate::Gate};
use crate::{
    control::{
        peers::{Directory, Peer},
        state::View,
        voter::Seat,
    },
    dataplane::{
        host::{HostKernel, SharedDatapath},
        netlink::{Change, Interest, Netlink},
        reconcile::{Nudges, Reconciler, Scope, ScopeReceiver, scopes},
    },
    model::Revision,
};
use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::watch as sync_watch;

/// How long the kernel's events are gathered before a pass reads the kernel.
const SETTLE: Duration = Duration::from_millis(5);

/// Reports of the kernel that devices, namespaces or ways to VTEPs may have changed: many of them as one; and the task that
/// gathers them. It also lets packets go to another program on the VXLAN port as soon as that makes its device, since no
/// later look may show it.
pub(super) fn looks(
    netlink: &Netlink,
    interest: Interest,
    (vxlan_port, datapath): (u16, SharedDatapath),
) -> Result<(ScopeReceiver, impl Future<Output = ()> + Send + use<>), StartError> {
    let mut changes = netlink.changes(interest)?;
    let (sender, receiver) = scopes();
    let gather = async move {
        while let Some(first) = changes.recv().await {
            // A change seldom comes alone: the changes of the next moment are handled by one pass.
            tokio::time::sleep(SETTLE).await;
            let mut gathered = BTreeSet::from([first]);
            while let Ok(change) = changes.try_recv() {
                gathered.insert(change);
            }
            for change in gathered {
                let scope = match change {
                    Change::Any => Scope::whole(),
                    Change::Device(index) => Scope::device(index),
                    Change::Link | Change::Way => Scope::ways(),
                    Change::Namespace(path) => Scope::namespace(path),
                    Change::Vxlan(port) => {
                        if port == vxlan_port {
                            share_port(&datapath);
                        }
                        continue;
                    }
                };
                if !sender.send(scope) {
                    return;
                }
            }
        }
    };
    Ok((receiver, gather))
}

fn share_port(datapath: &SharedDatapath) {
    let mut datapath = datapath.lock();
    if datapath.shares_port() {
        return;
    }
    match datapath.share_port() {
        Ok(()) => {
            tracing::info!("another program uses the VXLAN port: its packets go up the stack")
        }
        Err(error) => {
            let error = crate::error_chain(&error);
            tracing::warn!(%error, "another program uses the VXLAN port, and its packets are dropped");
        }
    }
}

/// Previews the views until a quorum confirms one, then reconciles the kernel with each.
pub(super) async fn reconcile(
    mut reconciler: Reconciler<HostKernel>,
    gate: Gate,
    seat: Seat,
    mut views: sync_watch::Receiver<Option<Arc<View>>>,
    nudges: Nudges,
) {
    let mut early = views.clone();
    early.mark_changed();
    let first = {
        let opened = gate.open(&seat, &mut views);
        tokio::pin!(opened);
        loop {
            tokio::select! {
                biased;
                first = &mut opened => break first,
                // A quorum may take long, and the data path delivers meanwhile: the endpoints that it delivers to get
                // their names already.
                Ok(()) = early.changed() => {
                    let Some(view) = early.borrow_and_update().clone() else { continue };
                    if let Err(error) = reconciler.preview(&view).await {
                        tracing::warn!(error = %crate::error_chain(&error), "names wait for a quorum");
                    }
                }
            }
        }
    };
    let Some(first) = first else { return };
    let (sender, known) = sync_watch::channel(first);
    let forward = async {
        while views.changed().await.is_ok() {
            if let Some(view) = views.borrow_and_update().clone() {
                sender.send_replace(view);
            }
        }
    };
    // A view that came between the gate and here is not lost: `changed` still reports it.
    tokio::select! {
        () = forward => {}
        () = reconciler.run(known, nudges) => {}
    }
}

/// Writes every place at which a peer may be reached, and the node's epoch, to the state folder, so that the node finds
/// the cluster again after a restart.
pub(super) async fn remember(
    home: Arc<Mutex<Home>>,
    directory: Directory,
    mut views: sync_watch::Receiver<Option<Arc<View>>>,
    mut epochs: sync_watch::Receiver<Revision>,
) {
    let mut kept: Vec<Peer> = Vec::new();
    let mut places = directory.changes();
    // What was heard before this is written, too.
    places.mark_changed();
    let mut generations = directory.generations().changes();
    loop {
        tokio::select! {
            changed = views.changed() => if changed.is_err() { return },
            changed = epochs.changed() => if changed.is_err() { return },
            // This task itself holds a directory.
            _ = places.changed() => {}
            _ = generations.changed() => {}
        }
        let peers = directory.to_keep();
        let epoch = *epochs.borrow_and_update();
        views.borrow_and_update();
        places.borrow_and_update();
        let mut home = home.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stored = home.set_generation(*generations.borrow_and_update());
        if peers != kept {
            stored = stored.and(home.set_peers(&peers));
            kept = peers;
        }
        stored = stored.and(home.set_epoch(epoch));
        if let Err(error) = stored {
            tracing::warn!(error = %crate::error_chain(&error), "the state folder can't be written");
        }
    }
}

/// Writes the host's address on the underlay to the state folder, so that a node that comes back without its underlay
/// knows where it is reached.
pub(super) async fn remember_address(
    home: Arc<Mutex<Home>>,
    mut own: sync_watch::Receiver<Ipv4Addr>,
) {
    loop {
        let now = *own.borrow_and_update();
        let stored = home.lock().unwrap_or_else(PoisonError::into_inner).set_address(now);
        if let Err(error) = stored {
            tracing::warn!(error = %crate::error_chain(&error), "the state folder can't be written");
        }
        if own.changed().await.is_err() {
            // The end of the node: its tasks end by themselves.
            return std::future::pending().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Member, *};
    use std::net::SocketAddr;
    use tokio::{task::yield_now, time::timeout};
    use uuid::Uuid;

    const BOUND: Duration = Duration::from_secs(60);

    fn at(last: u8) -> SocketAddr {
        ([10, 0, 0, last], 7400).into()
    }

    fn peer(last: u8) -> Peer {
        Peer { id: 2, listen: at(last), voter: true, raft_id: None }
    }

    /// Waits until these are the peers that a restart would read.
    async fn holds(home: &Mutex<Home>, peers: &[Peer]) {
        let written = async {
            while home.lock().unwrap().peers().unwrap() != peers {
                yield_now().await;
            }
        };
        timeout(BOUND, written).await.unwrap_or_else(|_| panic!("never {peers:?}"));
    }

    #[tokio::test]
    async fn every_place_of_a_peer_is_remembered_until_it_is_reached_at_its_row_s() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path(), &"h1".parse().unwrap()).unwrap();
        let home = Arc::new(Mutex::new(home));
        let cluster = Uuid::new_v4();
        let directory = Directory::new(cluster, [peer(2)]);
        let member = Member { cluster, id: 1, voter: true, epoch: 1, raft_id: None };
        home.lock().unwrap().set_member(member.clone()).unwrap();
        let (_view, views) = sync_watch::channel(None);
        let (_epoch, epochs) = sync_watch::channel(member.epoch);
        tokio::spawn(remember(Arc::clone(&home), directory.clone(), views, epochs));
        directory.heard_from(2, at(22));
        holds(&home, &[peer(2), peer(22)]).await;
        directory.replace([peer(22)]);
        directory.reached(2, at(22));
        holds(&home, &[peer(22)]).await;
    }
}
