//! The lives of a voter's log: whether the log that the folder holds is that of the present life, and what a node does whose
//! log is not.
//!
//! A node that forgot a vote, or entries that it acknowledged, must not vote again under its Raft id. That ends this life and
//! not the node: it lets go of the log, asks the leader for another life, and comes back under its own name and id. What its
//! kernel does goes on meanwhile.

use super::{
    Home, Member,
    error::ClusterError,
    machine::Moved,
    registration::{Registration, read_answer},
};
use crate::{
    control::{
        consensus::{FatalError, Identity, LogStore, OpenError},
        peers::{Directory, Peer},
    },
    model::{Generation, RaftId},
};
use std::{
    collections::BTreeSet, net::SocketAddr, os::unix::process::CommandExt as _, path::Path,
    process::Command, time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};
use uuid::Uuid;

/// Longest wait for what the leader knows of this node, before its first vote. A cluster without a leader has none that
/// knows, and needs this vote.
const CONFIRM: Duration = Duration::from_millis(400);
/// The same of a node that had another address last: the leader asks there first, which takes it up to 600 ms.
const CONFIRM_ELSEWHERE: Duration = Duration::from_secs(1);
/// Pause after every place was asked for another life, and no leader was found.
const PAUSE: Duration = Duration::from_millis(500);

/// The log of a voter's present life, or why there is none.
pub(super) enum Held {
    /// It is whole, as far as the folder and the run folder tell.
    Log(Box<LogStore>),
    /// It is not that of the present life, or it lacks something.
    Lost(String),
}

impl Held {
    /// The generation of the cluster to which the log belongs; the first, if there is none.
    pub(super) fn generation(&self) -> Generation {
        match self {
            Self::Log(log) => Generation::from_wire(log.generation()),
            Self::Lost(_) => Generation::FIRST,
        }
    }
}

/// Opens the log of the life `life` of a member of `cluster`. The content of `run_folder` lasts until the machine is started
/// again.
///
/// # Errors
/// The log may be whole, and can't be used: see [`OpenError`].
pub(super) fn held(
    dir: &Path,
    cluster: Uuid,
    life: RaftId,
    run_folder: &Path,
) -> Result<Held, OpenError> {
    let lost = |error| match error {
        OpenError::Amnesia { detail, .. } => Ok(Held::Lost(detail)),
        error => Err(error),
    };
    let mut log = match LogStore::open(dir, Some(cluster)) {
        Ok(Some(log)) => log,
        Ok(None) => return Ok(Held::Lost("there is none".to_owned())),
        Err(error) => return lost(error),
    };
    let found = log.identity().raft_id;
    if found != life.get() {
        return Ok(Held::Lost(format!("it is that of member {found}, and this is member {life}")));
    }
    match log.mark_beside(run_folder) {
        Ok(()) => Ok(Held::Log(Box::new(log))),
        Err(error) => lost(error),
    }
}

/// The places at which another node may answer for the cluster.
pub(super) fn places(
    member: &Member,
    directory: &Directory,
    join: Option<SocketAddr>,
) -> Vec<SocketAddr> {
    let others = directory.voters().into_iter().filter(|peer| peer.id != member.id);
    let places: BTreeSet<SocketAddr> = others.map(|peer| peer.listen).chain(join).collect();
    places.into_iter().collect()
}

/// Asks the leader, before the first vote, whether this is the present life of the node, and how much of its log was
/// acknowledged: a folder that was put back from an older copy says nothing of that. Returns why the log must not be used
/// any more; `None` also if no leader answers. An agent, which has no log, hears only whether another process runs as it.
///
/// Where the node had another address last, that is asked, too. It counts if no leader answers: a process of this node may be
/// seen there.
///
/// # Errors
/// Another process runs as this node: the folder is a copy, or has one.
pub(super) async fn doubt(
    log: Option<(&LogStore, RaftId)>,
    registration: &Registration,
    member: &Member,
    directory: &Directory,
    places: &[SocketAddr],
) -> Result<Option<String>, ClusterError> {
    let (mut asked, mut own) = (JoinSet::new(), JoinSet::new());
    let last = directory.places(member.id).into_iter();
    for place in last.filter(|place| *place != registration.addresses.listen) {
        let (registration, member) = (registration.clone(), member.clone());
        let directory = directory.clone();
        own.spawn(async move { registration.meets_another(place, &member, &directory).await });
    }
    for place in places.iter().copied() {
        let (registration, member) = (registration.clone(), member.clone());
        let directory = directory.clone();
        asked.spawn(async move { registration.renew(place, &member, &directory).await });
    }
    let until = Instant::now() + if own.is_empty() { CONFIRM } else { CONFIRM_ELSEWHERE };
    while let Ok(Some(answered)) = timeout_at(until, asked.join_next()).await {
        let answer = match answered {
            Ok(Ok(answer)) => answer,
            Ok(Err(error @ ClusterError::RunsElsewhere(_))) => return Err(error),
            Ok(Err(_)) | Err(_) => continue,
        };
        let Some((log, life)) = log else { return Ok(None) };
        // A node of an earlier program says nothing of lives.
        let Some(now) = RaftId::new(answer.raft_id) else { continue };
        if now != life {
            return Ok(Some(format!(
                "it is that of member {life}, and the node is member {now} by now"
            )));
        }
        let (last, acknowledged) = (log.last(), answer.acknowledged);
        return Ok((acknowledged > last).then(|| {
            format!("it ends at revision {last}, and the leader has this node's word for revision {acknowledged}")
        }));
    }
    // Only without a leader: the process that was first hears from it of the second one.
    while let Ok(Some(met)) = timeout_at(until, own.join_next()).await {
        if let Ok(Err(error)) = met {
            return Err(error);
        }
    }
    Ok(None)
}

/// Why the log of a folder that has `moved` must not be used, if it must not: it votes only if its own node decides alone, by
/// what it knows of the members. Nobody else could give that one another life, or know of a second process.
///
/// # Errors
/// The log can't be read.
pub(crate) fn distrust(
    log: &LogStore,
    life: RaftId,
    moved: Option<Moved>,
) -> Result<Option<String>, FatalError> {
    let Some(moved) = moved else { return Ok(None) };
    let rest = log.rest().map_err(FatalError::Store)?;
    let alone = BTreeSet::from([life.get()]);
    if rest.latest.is_quorum(&alone) && rest.committed.is_quorum(&alone) {
        tracing::warn!(
            %moved,
            "this node is the only voter, so that it goes on: if the original runs still, there are two clusters with one id, and none of them can tell; end one of the two"
        );
        return Ok(None);
    }
    Ok(Some(moved.to_string()))
}

/// Asks for another life until a leader gives one, and begins its log; of a node that lost its seat meanwhile, there is none.
/// `why` says what is wrong with the log that the folder holds.
///
/// # Errors
/// No other node is known, the cluster refuses, or the folder can't be written.
pub(super) async fn begin_anew(
    home: &mut Home,
    registration: &Registration,
    (member, directory): (&Member, &Directory),
    places: &[SocketAddr],
    run_folder: &Path,
    why: String,
) -> Result<(Member, Option<LogStore>), ClusterError> {
    if places.is_empty() {
        return Err(ClusterError::LogLost { path: home.dir().to_owned(), why });
    }
    tracing::warn!(
        why,
        "the log of this node is lost: it is let go of, and the node comes back as another member, under its own name"
    );
    let (now, peers, generation) =
        another_life(registration, member, directory, places, &why).await?;
    let dir = home.dir().to_owned();
    LogStore::discard(&dir)?;
    if let Some(ended) = member.life()
        && let Err(error) = LogStore::remove_mark_beside(run_folder, member.cluster, ended.get())
    {
        tracing::warn!(%error, "the mark of the log that is lost stays beside the socket");
    }
    // A node that dies in between finds a log that is not there, and asks again.
    home.set_peers(&peers)?;
    home.set_generation(generation)?;
    let Some(life) = now.life() else {
        // Its last life is kept, so that it is not begun again.
        let agent = Member { raft_id: member.life(), ..now };
        home.set_member(agent.clone())?;
        tracing::info!(
            id = agent.id,
            "the node comes back as an agent: others hold the log by now"
        );
        return Ok((agent, None));
    };
    home.set_member(now.clone())?;
    let name = home.record().name.to_string();
    let identity = Identity { cluster: now.cluster, name, raft_id: life.get() };
    let mut log = LogStore::join_generation(&dir, identity, generation.number())?;
    log.mark_beside(run_folder)?;
    tracing::info!(id = now.id, member = %life, "the node begins another log, which the leader fills");
    Ok((now, Some(log)))
}

/// What the node is in its next life, who the voters are, and of which generation all of them are.
async fn another_life(
    registration: &Registration,
    member: &Member,
    directory: &Directory,
    places: &[SocketAddr],
    why: &str,
) -> Result<(Member, Vec<Peer>, Generation), ClusterError> {
    // Of this wish, however often it is told: each gets one life.
    let mut wish = Uuid::new_v4();
    let mut said = false;
    loop {
        let mut last = String::new();
        for place in places.iter().copied() {
            match registration.begin_life(place, member, wish, directory).await {
                Ok(answer) => {
                    let (now, peers) = read_answer(place, &answer)?;
                    let is_another = now.raft_id.is_some() && now.life() != member.life();
                    if now.voter && !is_another {
                        let why = format!(
                            "{why}; and the node at {place} runs a program that gives no other life"
                        );
                        return Err(ClusterError::NoOtherLife { why });
                    }
                    return Ok((now, peers, Generation::from_wire(answer.generation)));
                }
                // What refuses now (no room, a wish that another leader has begun to carry out) may not do so later.
                Err(ClusterError::Refused { join, why }) => {
                    last = format!("{join}: {why}");
                    wish = Uuid::new_v4();
                }
                Err(ClusterError::NobodyThere { join, why }) => last = format!("{join}: {why}"),
                Err(error) => return Err(error),
            }
        }
        if !std::mem::replace(&mut said, true) {
            tracing::warn!(
                last,
                "no leader takes the node back yet: it is asked again and again; if there is none because the others wait like this one, or are lost for good, see `overlay cluster recover`"
            );
        }
        sleep(PAUSE).await;
    }
}

/// Whether a node that ended for this reason can come back as another member.
pub(super) fn is_over(error: &ClusterError) -> bool {
    matches!(
        error,
        ClusterError::Log(OpenError::Amnesia { .. })
            | ClusterError::LifeOver { .. }
            | ClusterError::Differs(_)
            | ClusterError::OlderGeneration { .. }
    )
}

/// Runs the program anew in the place of this process, because the life of its log ended while it ran: the start that follows
/// begins another one. What the kernel does goes on meanwhile. Returns only if that fails.
pub(super) fn run_anew(dir: &Path, over: &ClusterError) {
    let why = crate::error_chain(over);
    tracing::warn!(why, "this node starts anew, to come back as another member");
    // At the next start no leader may be there to ask. A log of an older generation votes nowhere in the newer one, and is the
    // last that is left of it if the newer one is lost before this node has its log.
    if !matches!(over, ClusterError::OlderGeneration { .. })
        && let Err(error) = LogStore::note_unfit(dir, &over.to_string())
    {
        tracing::error!(%error, "can't note that the log is unfit");
    }
    let mut args = std::env::args_os();
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = args.next() {
        command.arg0(name);
    }
    let error = command.args(args).exec();
    tracing::error!(%error, "it can't start anew by itself: start it again");
}

#[cfg(test)]
mod tests;
