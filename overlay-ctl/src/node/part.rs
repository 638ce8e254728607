//! The node's part in consensus: that of a voter, which holds the log, or that of an agent, which follows a voter. It changes
//! while the node runs. The data plane goes on meanwhile, by the views that either part publishes.

use super::{
    Home, Member,
    cluster::{check_room, start_voter},
    error::{ClusterError, StartError},
    machine,
    named::Tasks,
    raft_thread::RaftThread,
};
use crate::{
    control::{
        consensus::{FatalError, Identity, LogStore, PeerQueues},
        peers::{Directory, carry_raft_messages},
        state::View,
        voter::{
            Seat, VoterParts, arrange_the_seats, compare_the_states, follow_the_rows,
            heed_the_comparison, keep_leases, raise_the_version, take_endpoints_back,
            watch_the_disk, watch_the_nodes,
        },
        watch,
    },
    dataplane::kernel::LocalStatus,
    model::{Generation, NodeId, RaftId, Revision},
};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch as sync_watch},
    time::{Instant, sleep_until},
};

/// Pause before a seat is taken that could not be taken, for lack of room for example.
const TAKE_AGAIN: Duration = Duration::from_secs(30);

/// What both parts read and publish, and by which they are changed.
pub(super) struct Wiring {
    pub(super) home: Arc<Mutex<Home>>,
    /// Its content lasts until the machine is started again.
    pub(super) run_folder: PathBuf,
    pub(super) directory: Directory,
    pub(super) epochs: sync_watch::Receiver<Revision>,
    pub(super) view: sync_watch::Sender<Option<Arc<View>>>,
    pub(super) status: sync_watch::Receiver<LocalStatus>,
    /// The Raft id under which the cluster wants this node to hold the log.
    pub(super) told: sync_watch::Receiver<Option<RaftId>>,
    /// For how long every node must have spoken the next version before it is raised.
    pub(super) raise_version_after: Duration,
    /// For how long a node may be silent before it counts as lost.
    pub(super) lease: Duration,
    /// For how long a voter is silent before it is replaced; `None` = it never is.
    pub(super) replace_voter_after: Option<Duration>,
}

/// The node's part, and the tasks that play it.
pub(super) struct Part {
    wiring: Wiring,
    raft: Handle,
    member: Member,
    seat: Seat,
    tasks: Tasks,
    unfit: Option<mpsc::Receiver<FatalError>>,
    /// A seat could not be taken; it is tried again then.
    again: Option<Instant>,
}

impl Part {
    /// Begins with the part that the node has in its cluster: a voter has a log.
    ///
    /// # Errors
    /// The log can't be used.
    pub(super) fn begin(
        wiring: Wiring,
        raft: &RaftThread,
        member: Member,
        log: Option<LogStore>,
    ) -> Result<Self, StartError> {
        let mut part = Self {
            wiring,
            raft: raft.runtime().clone(),
            member,
            seat: Seat::default(),
            tasks: Tasks::default(),
            unfit: None,
            again: None,
        };
        match log {
            Some(log) => part.vote(log)?,
            None => part.follow(),
        }
        Ok(part)
    }

    /// What the node has as a voter, while it is one.
    pub(super) fn seat(&self) -> &Seat {
        &self.seat
    }

    /// The Raft id of the present life of the node's log.
    pub(super) fn life(&self) -> Option<RaftId> {
        self.member.life()
    }

    /// Waits until something comes to the part. Cancel safe.
    pub(super) async fn next(&mut self) -> Event {
        let now = self.member.life();
        let Self { wiring, tasks, unfit, again, .. } = self;
        tokio::select! {
            // Checked first, since the tasks of a voter return as well when its log is no longer fit.
            biased;
            why = no_longer_fit(unfit) => Event::Ended(Err(StartError::Cluster(why.into()))),
            ended = tasks.until_removed() => Event::Ended(ended),
            told = another_part(&mut wiring.told, now, *again) => Event::Told(told),
        }
    }

    /// Takes the part that the cluster wants the node to have: it holds the log under the Raft id `to`, or none.
    ///
    /// # Errors
    /// The node can't have it: see [`ClusterError`].
    pub(super) async fn change(&mut self, to: Option<RaftId>) -> Result<(), StartError> {
        match (self.member.life(), to) {
            (Some(life), None) => self.leave_the_seat(life).await,
            (None, Some(life)) => {
                self.again = None;
                match self.take_the_seat(life) {
                    Ok(log) => {
                        self.tasks.end_all().await;
                        tracing::info!(
                            life = life.get(),
                            "this node has a seat: it fetches the log from the leader, and votes when it has caught up"
                        );
                        self.vote(log)?;
                    }
                    Err(error) => {
                        let error = crate::error_chain(&error);
                        let seconds = TAKE_AGAIN.as_secs();
                        tracing::warn!(%error, life = life.get(), "this node is to vote, and can't: it stays an agent, and tries again in {seconds} s");
                        self.again = Some(Instant::now() + TAKE_AGAIN);
                    }
                }
            }
            (Some(life), Some(now)) if life != now => {
                return Err(ClusterError::LifeOver { life, now }.into());
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
        Ok(())
    }

    /// Ends the voter's part in order. The tasks go on until this is dropped.
    pub(super) async fn shut_down(&self) {
        if let Some(voter) = self.seat.get() {
            voter.consensus.shutdown().await;
        }
    }

    /// Begins the log of an agent's new life, and keeps that it has one. If that fails it goes on as it is.
    fn take_the_seat(&mut self, life: RaftId) -> Result<LogStore, StartError> {
        let Member { cluster, id, raft_id: last, .. } = self.member;
        if last >= Some(life) {
            return Err(ClusterError::LifeUsed { life }.into());
        }
        let dir = self.home().dir().to_owned();
        // What an earlier life left is of no use. That of this one was never used: the folder would say so.
        LogStore::discard(&dir).map_err(ClusterError::from)?;
        check_room(&dir)?;
        let name = self.home().record().name.to_string();
        let identity = Identity { cluster, name, raft_id: life.get() };
        let generation = {
            let home = self.home();
            // Once the folder is this task's, so that it keeps no older one than it has.
            let generation = self.wiring.directory.generations().ours();
            home.set_generation(generation)?;
            generation
        };
        let mut log = LogStore::join_generation(&dir, identity, generation.number())
            .map_err(ClusterError::from)?;
        log.mark_beside(&self.wiring.run_folder).map_err(ClusterError::from)?;
        // Its file is another one than that of the life before.
        machine::bind(&dir);
        self.keep(Member { voter: true, raft_id: Some(life), ..self.member.clone() })?;
        self.wiring.directory.note_life(id, life);
        Ok(log)
    }

    /// A voter ends its life in consensus, and follows another voter.
    async fn leave_the_seat(&mut self, life: RaftId) {
        let Member { cluster, .. } = self.member;
        let voter = self.seat.get();
        self.seat.set(None);
        self.unfit = None;
        if let Some(voter) = voter {
            voter.consensus.shutdown().await;
        }
        self.tasks.end_all().await;
        tracing::info!(life = life.get(), "this node has no seat any more: it is an agent");
        let agent = Member { voter: false, raft_id: Some(life), ..self.member.clone() };
        // Only a node whose folder says that it is an agent may have no log.
        let forgotten = match self.keep(agent.clone()) {
            Ok(()) => {
                let dir = self.home().dir().to_owned();
                let beside = &self.wiring.run_folder;
                if let Err(error) = LogStore::remove_mark_beside(beside, cluster, life.get()) {
                    tracing::warn!(%error, "the mark of the log stays beside the socket");
                }
                LogStore::discard(&dir).map_err(|error| ClusterError::from(error).into())
            }
            Err(error) => {
                self.member = agent;
                Err(error)
            }
        };
        if let Err(error) = forgotten {
            let error = crate::error_chain(&error);
            tracing::warn!(%error, "the log of the life that is over stays in the state folder");
        }
        self.follow();
    }

    fn home(&self) -> MutexGuard<'_, Home> {
        self.wiring.home.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what the node is from now on. Its epoch is the one that the folder has.
    fn keep(&mut self, member: Member) -> Result<(), StartError> {
        let mut home = self.home();
        let epoch = home.record().member.as_ref().map_or(member.epoch, |member| member.epoch);
        let member = Member { epoch, ..member };
        home.set_member(member.clone())?;
        drop(home);
        self.member = member;
        Ok(())
    }

    /// Starts what an agent does.
    fn follow(&mut self) {
        let Wiring { directory, epochs, view, status, told, .. } = &self.wiring;
        let id = self.member.id;
        let follow = watch::follow_a_voter(
            id,
            epochs.clone(),
            directory.clone(),
            view.clone(),
            status.clone(),
        );
        self.tasks.spawn("follow a voter", follow);
        let ask = ask_for_the_seat(id, view.subscribe(), told.clone(), directory.clone());
        self.tasks.spawn("ask for the seat", ask);
    }

    /// Starts what a voter does.
    ///
    /// # Errors
    /// The log can't be used; or it is of an older generation than the node, which went on while its seat was taken.
    fn vote(&mut self, log: LogStore) -> Result<(), StartError> {
        let ours = Generation::from_wire(log.generation());
        let (parts, queues, ended) = start_voter(log)?;
        self.unfit = Some(ended);
        // From here on the node goes on into no newer generation: see `registration::adopt`.
        self.seat.set(Some(parts.clone()));
        let theirs = self.wiring.directory.generations().ours();
        if theirs > ours {
            return Err(ClusterError::OlderGeneration { ours, theirs, at: None }.into());
        }
        self.start_duties(&parts, queues);
        let Wiring { directory, epochs, view, status, .. } = &self.wiring;
        let id = self.member.id;
        let report = watch::report_to_leader(
            id,
            epochs.clone(),
            parts.consensus.status(),
            directory.clone(),
            parts.table.clone(),
            status.clone(),
            parts.state.hashes().clone(),
        );
        self.tasks.spawn("report to the leader", report);
        self.tasks.spawn("compare the states", compare_the_states(id, parts.clone()));
        let publish =
            watch::publish_views(id, parts.state.clone(), directory.clone(), view.clone());
        self.tasks.spawn("publish views", publish);
        Ok(())
    }

    /// Starts what a voter does besides reporting and publishing.
    fn start_duties(&mut self, parts: &VoterParts, queues: PeerQueues) {
        let Self { wiring, raft, tasks, .. } = self;
        let carry = carry_raft_messages(parts.consensus.clone(), queues, wiring.directory.clone());
        tasks.spawn_on("carry Raft's messages", carry, raft);
        tasks.spawn("follow the rows", follow_the_rows(parts.clone()));
        tasks.spawn("watch the disk", watch_the_disk(parts.clone()));
        tasks.spawn("watch the nodes", watch_the_nodes(parts.clone()));
        tasks.spawn("take endpoints back", take_endpoints_back(parts.clone()));
        tasks.spawn(
            "raise the version",
            raise_the_version(parts.clone(), wiring.raise_version_after),
        );
        tasks.spawn("keep the leases", keep_leases(parts.clone(), wiring.lease));
        let heed = heed_the_comparison(parts.state.hashes().clone(), parts.consensus.clone());
        tasks.spawn("heed the comparison", heed);
        let patience = wiring.replace_voter_after;
        tasks.spawn("arrange the seats", arrange_the_seats(parts.clone(), patience));
        let (quorum, consensus) = (parts.quorum.clone(), parts.consensus.clone());
        tasks.spawn("prove a quorum", async move { quorum.prove(consensus).await });
    }
}

/// What comes to a node's part in consensus.
pub(super) enum Event {
    /// The cluster has removed the node, or the part can't go on.
    Ended(Result<(), StartError>),
    /// The cluster wants the node to hold the log under this Raft id, or to hold none.
    Told(Option<RaftId>),
}

/// Waits until the cluster wants this node to hold the log under another Raft id than `now`, but not before `again`.
async fn another_part(
    told: &mut sync_watch::Receiver<Option<RaftId>>,
    now: Option<RaftId>,
    again: Option<Instant>,
) -> Option<RaftId> {
    if let Some(again) = again {
        sleep_until(again).await;
    }
    match told.wait_for(|told| *told != now).await {
        Ok(told) => *told,
        // The end of the node.
        Err(_) => std::future::pending().await,
    }
}

/// Waits until consensus can't go on with its log. On an agent, which has no log, it never returns. Cancel safe.
async fn no_longer_fit(unfit: &mut Option<mpsc::Receiver<FatalError>>) -> FatalError {
    let Some(unfit) = unfit else { return std::future::pending().await };
    match unfit.recv().await {
        Some(why) => why,
        // It was shut down.
        None => std::future::pending().await,
    }
}

/// Has this agent registered anew when its own row says that it has a seat, or another one than it was told: only the leader's
/// answer to a registration is sure to be the latest.
async fn ask_for_the_seat(
    id: NodeId,
    mut views: sync_watch::Receiver<Option<Arc<View>>>,
    told: sync_watch::Receiver<Option<RaftId>>,
    directory: Directory,
) {
    while views.changed().await.is_ok() {
        let life = views
            .borrow_and_update()
            .as_ref()
            .and_then(|view| view.nodes.get(&id).and_then(|node| node.life()));
        if life != *told.borrow() {
            directory.ask_to_register();
        }
    }
    // The end of the node: its tasks end by themselves.
    std::future::pending().await
}

#[cfg(test)]
mod tests;
