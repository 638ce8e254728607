//! A backup of the cluster's state, from any node: a voter writes its own, behind the linearizable barrier, and an agent asks a
//! voter for one.

use super::{
    Controller,
    barrier::Fresh,
    error::{Attempt, ControllerError, Effect},
    leader::LEADER_DEADLINE,
};
use crate::control::{backup, peers::CallError, state::State, voter::VoterParts};
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use std::{io, mem, sync::Arc, time::Duration};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc},
    task::spawn_blocking,
    time::{Instant, sleep_until, timeout},
};

/// Bytes of one piece.
const PIECE: usize = 32 << 10;
/// Pieces that wait for a caller, who may be slower than the disk.
const WAITING: usize = 4;
/// How many backups a node makes at once. Each has a thread for as long as its caller takes.
const AT_ONCE: usize = 2;
/// How long a caller may take for one piece.
const STALLED: Duration = Duration::from_secs(30);
/// Pause before the barrier is asked for again.
const PAUSE: Duration = Duration::from_millis(50);

/// A backup in pieces. The last one is there when the stream ends without an error.
pub type Pieces = BoxStream<'static, Result<Vec<u8>, ControllerError>>;

/// The places of the backups that are being made. Clones share them.
#[derive(Clone)]
pub(super) struct Backups(Arc<Semaphore>);

impl Default for Backups {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

/// Sends what is written to it, in pieces.
struct Sent {
    piece: Vec<u8>,
    to: mpsc::Sender<Vec<u8>>,
}

impl Sent {
    fn send(&mut self) -> io::Result<()> {
        let piece = mem::take(&mut self.piece);
        // A caller that takes nothing any more keeps its place, and a copy of the state, no longer than this.
        match Handle::current().block_on(timeout(STALLED, self.to.send(piece))) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl io::Write for Sent {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() { Ok(()) } else { self.send() }
    }
}

impl Controller {
    /// Makes a backup of the cluster's state, which has all that was acknowledged before this was called. It comes in pieces of
    /// 32 KiB: no more of it than a few of them is in memory.
    ///
    /// # Errors
    /// No voter with a quorum is found, or too many backups are being made.
    pub async fn backup(&self) -> Result<Pieces, ControllerError> {
        match self.voter() {
            Some(voter) => self.own_backup(&voter).await,
            None => self.backup_of_a_voter().await,
        }
    }

    async fn own_backup(&self, voter: &VoterParts) -> Result<Pieces, ControllerError> {
        let place = Arc::clone(&self.backups.0).try_acquire_owned();
        let place = place.map_err(|_| ControllerError::BackupsBusy { at_once: AT_ONCE })?;
        let state = fresh_state(voter).await?;
        let (to, mut pieces) = mpsc::channel(WAITING);
        let (cluster, revision) = (self.cluster(), state.revision());
        tracing::info!(revision, "a backup is made");
        let written = spawn_blocking(move || {
            let _place = place;
            backup::write(cluster, &state, Sent { piece: Vec::new(), to })
        });
        let pieces = stream::poll_fn(move |context| pieces.poll_recv(context)).map(Ok);
        let end = stream::once(async move {
            match written.await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(Err(ControllerError::defect(error))),
                Err(error) => Some(Err(ControllerError::defect(error))),
            }
        });
        // A caller that has the last piece is told of an error, too: the file would lack what comes behind it.
        Ok(pieces.chain(end.filter_map(async |end| end)).boxed())
    }

    async fn backup_of_a_voter(&self) -> Result<Pieces, ControllerError> {
        let mut why = "none is known".to_owned();
        for peer in self.directory.voters() {
            // The first piece shows that the voter has found its quorum.
            let first = async {
                let mut pieces = self.directory.backup(&peer).await?;
                let first = pieces.next().await.transpose()?;
                Ok::<_, CallError>(first.map(|first| (first, pieces)))
            };
            why = match timeout(LEADER_DEADLINE + PAUSE, first).await {
                Ok(Ok(Some((first, pieces)))) => {
                    let failed =
                        |error: CallError| ControllerError::NoVoter { why: error.to_string() };
                    let pieces = stream::once(async { Ok(first) }).chain(pieces);
                    return Ok(pieces.map(move |piece| piece.map_err(failed)).boxed());
                }
                Ok(Ok(None)) => format!("node {} answers nothing", peer.id),
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("node {} does not answer", peer.id),
            };
        }
        Err(ControllerError::NoLeader { why, effect: Effect::None })
    }
}

/// A copy of the state that has all that was acknowledged before the call.
async fn fresh_state(voter: &VoterParts) -> Result<State, ControllerError> {
    let deadline = Instant::now() + LEADER_DEADLINE;
    loop {
        match Fresh::wait(voter).await {
            Ok(fresh) => return Ok(fresh.read(voter, State::clone)),
            Err(Attempt::Failed(error)) => return Err(error),
            Err(Attempt::Again { why, effect }) => {
                let next = Instant::now() + PAUSE;
                if next >= deadline {
                    return Err(ControllerError::NoLeader { why: why.into(), effect });
                }
                sleep_until(next).await;
            }
        }
    }
}
