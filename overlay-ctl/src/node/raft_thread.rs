//! The thread on which Raft's messages travel, and nothing else.
//!
//! A heartbeat that waits behind a long list, a whole view or a slow disk costs the leader its lead. So Raft has
//! connections of its own, which are accepted, read and written on a thread of its own: heartbeats never wait for the
//! node's other tasks.

use crate::{
    control::{
        controller::Controller,
        peers::{Admission, part_connections},
    },
    faces::api::{ServeError, serve_raft},
};
use std::{io, thread};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, Handle},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

/// How many connections may wait to be served.
const ACCEPTED: usize = 1_024;

/// Connections over TCP that are not Raft's.
pub(super) type ApiConnections = mpsc::Receiver<std::net::TcpStream>;

/// The thread. It ends, with its tasks, when this is dropped.
pub(super) struct RaftThread {
    runtime: Handle,
    stop: CancellationToken,
    thread: Option<thread::JoinHandle<()>>,
}

impl RaftThread {
    /// Starts the thread in the network namespace of the caller.
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let run = move || runtime.block_on(stopped);
        let thread = thread::Builder::new().name("raft-io".to_owned()).spawn(run)?;
        Ok(Self { runtime: handle, stop, thread: Some(thread) })
    }

    /// Takes the listener over; one that comes by `moved` takes its place. Answers a queue of the connections that are not Raft's, which are the API's, and the
    /// task that accepts all connections and serves Raft's. That task is to run on this thread.
    ///
    /// # Errors
    /// The listener can't be taken over.
    pub(super) fn serve(
        &self,
        (tcp, moved): (TcpListener, mpsc::Receiver<std::net::TcpListener>),
        admission: Admission,
        controller: Controller,
    ) -> io::Result<(ApiConnections, impl Future<Output = Result<(), ServeError>> + Send + use<>)>
    {
        let tcp = tcp.into_std()?;
        let entered = self.runtime.enter();
        let listener = TcpListener::from_std(tcp)?;
        drop(entered);
        let (rafts, raft_connections) = mpsc::channel::<TcpStream>(ACCEPTED);
        let (apis, api_connections) = mpsc::channel(ACCEPTED);
        let serving = async move {
            tokio::select! {
                () = part_connections(listener, moved, rafts, apis) => Ok(()),
                served = serve_raft(controller, admission, raft_connections) => served,
            }
        };
        Ok((api_connections, serving))
    }

    /// The runtime of the thread.
    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

impl Drop for RaftThread {
    fn drop(&mut self) {
        self.stop.cancel();
        // Its tasks never block, so that this takes a moment only. Afterwards the port is free.
        let ended = self.thread.take().map(thread::JoinHandle::join);
        if let Some(Err(_)) = ended {
            tracing::error!("the thread of Raft's messages panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        control::{
            consensus::{Consensus, Identity, LogStore, Role},
            peers::{Directory, Peer, carry_raft_messages},
            state::{Command, Envelope, Mutation, State},
            voter::{Machine, VoterParts},
        },
        dataplane::{
            host::{EndpointCheck, SharedNamespaces, SharedPorts},
            netlink::HeldNamespaces,
        },
        model::{NetworkOptions, NodeId},
        node::cluster::start_voter,
    };
    use std::{
        sync::{Arc, Barrier},
        time::Duration,
    };
    use tokio::time::timeout;
    use uuid::Uuid;

    const BOUND: Duration = Duration::from_secs(60);
    const WORKERS: usize = 2;

    struct Voter {
        parts: VoterParts,
        _api: ApiConnections,
        _thread: RaftThread,
    }

    fn start(
        id: NodeId,
        dir: &std::path::Path,
        listener: TcpListener,
        directory: Directory,
    ) -> Voter {
        let identity =
            Identity { cluster: directory.cluster(), name: format!("h{id}"), raft_id: id };
        let log = match (LogStore::open(dir, None).unwrap(), id) {
            (Some(log), _) => log,
            (None, 1) => LogStore::bootstrap(dir, identity, &State::default().snapshot()).unwrap(),
            (None, _) => LogStore::join(dir, identity).unwrap(),
        };
        let (parts, queues, _) = start_voter(log).unwrap();
        let thread = RaftThread::start().unwrap();
        let consensus = parts.consensus.clone();
        thread.runtime().spawn(carry_raft_messages(consensus, queues, directory.clone()));
        let held = SharedNamespaces::new(HeldNamespaces::new(dir.join("netns")));
        let check = EndpointCheck::new(SharedPorts::default(), held);
        let controller = Controller::new(id, directory.clone(), Some(parts.clone()), check);
        let admission = Admission::new(directory.cluster(), directory.generations().clone());
        let (_, moved) = mpsc::channel(1);
        let (api, serving) = thread.serve((listener, moved), admission, controller).unwrap();
        thread.runtime().spawn(serving);
        Voter { parts, _api: api, _thread: thread }
    }

    /// The voters that listen there, the first one with id 1.
    fn peers(listeners: &[TcpListener]) -> Vec<Peer> {
        let listen = |listener: &TcpListener| listener.local_addr().unwrap();
        let peer =
            |(id, listener)| Peer { id, listen: listen(listener), voter: true, raft_id: None };
        (1..).zip(listeners).map(peer).collect()
    }

    /// Makes the second and the third node voters, together: then the first needs one of them for each write.
    async fn all_vote(first: &Consensus<Machine>, second: &Consensus<Machine>) {
        for id in [2, 3] {
            timeout(BOUND, first.add_learner(id)).await.unwrap().unwrap();
        }
        let mut status = second.status();
        let all = status.wait_for(|status| status.voters == [1, 2, 3]);
        timeout(BOUND, all).await.unwrap().unwrap();
    }

    async fn three_listeners() -> Vec<TcpListener> {
        let mut listeners = Vec::new();
        for _ in 0..3 {
            listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        listeners
    }

    fn create(n: usize) -> Vec<u8> {
        let command = Command::CreateNetwork {
            name: format!("net{n}").parse().unwrap(),
            pool: None,
            vni: None,
            options: NetworkOptions::default(),
        };
        let request = Mutation::new(Uuid::new_v4().into_bytes(), &command);
        Envelope::new(request, command).encode().unwrap()
    }

    /// The node's other tasks may take all the workers that there are, for as long as they like.
    #[test]
    fn raft_does_not_wait_for_the_nodes_other_tasks() {
        let node =
            Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build().unwrap();
        let outside = Builder::new_current_thread().enable_all().build().unwrap();
        let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
        // Started where a node is started.
        let started: Vec<Voter> = node.block_on(async {
            let listeners = three_listeners().await;
            let directory = Directory::new(Uuid::new_v4(), peers(&listeners));
            let voters = (1..)
                .zip(&dirs)
                .zip(listeners)
                .map(|((id, dir), listener)| start(id, dir.path(), listener, directory.clone()));
            voters.collect()
        });
        let (first, second) = (&started[0].parts.consensus, &started[1].parts.consensus);
        outside.block_on(all_vote(first, second));
        let term = first.status().borrow().term;

        let (busy, release) =
            (Arc::new(Barrier::new(WORKERS + 1)), Arc::new(Barrier::new(WORKERS + 1)));
        for _ in 0..WORKERS {
            let (busy, release) = (Arc::clone(&busy), Arc::clone(&release));
            node.spawn(async move {
                busy.wait();
                release.wait();
            });
        }
        busy.wait();
        // Nothing panics before the workers are released: the runtime waits for them when it is dropped.
        let outcome = outside.block_on(async {
            // One after the other: each is acknowledged by another voter.
            for n in 0..100 {
                let proposed = timeout(BOUND, first.propose(create(n))).await;
                let proposed = proposed.map_err(|_| format!("proposal {n} is not acknowledged"))?;
                let (_, outcome) = proposed.map_err(|error| error.to_string())?;
                outcome.map_err(|refusal| refusal.to_string())?;
            }
            let read = timeout(BOUND, second.read_index()).await;
            read.map_err(|_| "the read is not confirmed".to_owned())?.map_err(|e| e.to_string())
        });
        let now = first.status().borrow().clone();
        release.wait();
        outcome.expect("Raft goes on while the workers are busy");
        assert_eq!((now.role, now.term), (Role::Leader, term));
    }

    /// All three have new addresses, and their rows say the old ones. The second and the third are told where the first one
    /// is, as by `--join`; the first knows nobody.
    #[test]
    fn voters_that_all_have_new_addresses_find_each_other() {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let start_all = |listeners: Vec<TcpListener>, directories: &[Directory]| -> Vec<Voter> {
            let parts = (1..).zip(&dirs).zip(listeners).zip(directories);
            let voter = |(((id, dir), listener), directory): (_, &Directory)| {
                let (id, dir): (NodeId, &tempfile::TempDir) = (id, dir);
                start(id, dir.path(), listener, directory.clone())
            };
            parts.map(voter).collect()
        };
        let cluster = Uuid::new_v4();
        let (old, new) =
            runtime.block_on(async { (three_listeners().await, three_listeners().await) });
        let (old_peers, new_peers) = (peers(&old), peers(&new));

        let entered = runtime.enter();
        let directory = Directory::new(cluster, old_peers.clone());
        let voters = start_all(old, &[(); 3].map(|()| directory.clone()));
        runtime.block_on(async {
            all_vote(&voters[0].parts.consensus, &voters[1].parts.consensus).await;
            for voter in &voters {
                voter.parts.consensus.shutdown().await;
            }
        });
        drop(voters);

        let know = |own: &Peer| {
            let directory = Directory::new(cluster, old_peers.clone());
            directory.introduce(own.id, own.listen);
            // Of itself a node takes nothing.
            directory.heard_from(1, new_peers[0].listen);
            directory
        };
        let directories: Vec<Directory> = new_peers.iter().map(know).collect();
        let voters = start_all(new, &directories);
        runtime.block_on(async {
            for voter in &voters {
                let mut status = voter.parts.consensus.status();
                let led = status.wait_for(|status| status.leader.is_some());
                timeout(BOUND, led).await.expect("a leader").unwrap();
            }
            // The second and the third know each other by the first alone.
            for (here, other) in [(1, 2), (2, 1)] {
                let Peer { id, listen, .. } = new_peers[other];
                let mut changes = directories[here].changes();
                let known = async {
                    while !directories[here].places(id).contains(&listen) {
                        changes.changed().await.unwrap();
                    }
                };
                timeout(BOUND, known).await.expect("they hear of each other");
            }
        });
        drop(entered);
    }
}
