//! The verbs `overlay cluster …`: how the voters are, how many nodes vote, and the ways back for a cluster that loses its voters.

mod status;
#[cfg(test)]
mod tests;

use super::{
    OnHost, causes,
    client::{Client, DEADLINE, cluster, from_status, request_id},
    error::Error,
    output::Output,
    stale::StaleArgs,
    view::{self, View},
};
use crate::{
    config::{ClusterRecoverArgs, ClusterRestoreArgs},
    control::backup::{Check, Head},
    model::Voters,
    proto::v1::{BackupRequest, SetVotersRequest, SetVotersResponse},
};
use clap::{Args, Subcommand};
use serde::Serialize;
use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::timeout;
use tonic::Streaming;

/// Longest wait for the next piece of a backup.
const PIECE: Duration = Duration::from_secs(30);
/// Whoever reads a backup knows all names and addresses of the cluster.
const MODE: u32 = 0o600;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show how the voters are, what is wrong and what to do. Any node can be asked, also without a quorum: it asks each node
    /// that holds the log, for a few seconds at most. Fails unless all is well
    Status(StaleArgs),
    /// Set how many nodes are to vote: 1, 3 or 5. Agents become voters, or voters become agents, one after the other,
    /// until it is so; with fewer nodes than that, as many as there are, less one if the number would be even
    Voters {
        /// How many nodes are to vote
        voters: Voters,
    },
    /// Write a backup of the cluster's state, as it is now, to a file. Any node of it can be asked, while a majority of the
    /// voters lives
    Backup(BackupArgs),
    /// Make the first node of a cluster whose voters are all lost, from a backup. `overlay node run` then starts it, and the
    /// other nodes rejoin with their endpoints
    Restore(ClusterRestoreArgs),
    /// Make the node with this state folder, a voter that has ended, the only voter of its cluster, because the majority of
    /// the voters is lost for good. `overlay node run` then starts it
    Recover(ClusterRecoverArgs),
}

#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// File that is written; it is readable by its owner alone
    file: PathBuf,
    /// Replace the file if there is one
    #[arg(long)]
    force: bool,
}

/// A backup that was written.
#[derive(Debug, Serialize)]
struct Written {
    file: PathBuf,
    /// Bytes of the file.
    bytes: u64,
    #[serde(flatten)]
    head: Head,
}

impl View for Written {
    fn text(&self) -> String {
        let Self { file, bytes, head } = self;
        let Head { cluster, generation, revision, version, program: _ } = head;
        format!(
            "{}: {bytes} bytes, cluster {cluster}, generation {generation}, revision {revision}, version {version}",
            file.display()
        )
    }
}

/// The first node of a generation, as it was made on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Begun {
    /// The node's name.
    pub name: String,
    /// The cluster's id, which stays.
    pub cluster: String,
    /// The new generation.
    pub generation: u64,
    /// The revision with which it begins.
    pub revision: u64,
    /// The last revision before it that is known.
    pub known_revision: u64,
    /// The node's state folder.
    pub state_dir: PathBuf,
    /// The other nodes that the state knows.
    pub others: Vec<String>,
}

impl View for Begun {
    fn text(&self) -> String {
        let Self { name, cluster, generation, revision: _, known_revision, state_dir, others } =
            self;
        let start = format!(
            "{name} is the only voter of generation {generation} of cluster {cluster}, with the state of revision {known_revision}; start it: overlay node run --name {name} --state-dir {} …",
            state_dir.display()
        );
        if others.is_empty() {
            return start;
        }
        format!(
            "{start}\nthen start the others ({}) with --join and the address of {name}; remove those that are lost: overlay node rm",
            others.join(", ")
        )
    }
}

/// Why no backup was written.
#[derive(Debug, thiserror::Error)]
enum NotWritten {
    #[error("{} exists; give another name, or --force to replace it", .0.display())]
    Exists(PathBuf),
    #[error("can't write {}; {source}; see that its folder is there and has room", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("what the node sent is no whole backup; {0}; nothing was written")]
    NotWhole(#[from] crate::control::backup::BackupError),
}

impl From<NotWritten> for Error {
    fn from(error: NotWritten) -> Self {
        Self::OnHost(error.to_string())
    }
}

pub(super) async fn run(
    command: Command,
    client: &Client,
    host: &impl OnHost,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let failed = |error: anyhow::Error| Error::OnHost(causes(&error));
    match command {
        Command::Status(args) => status::run(args, client, output).await,
        Command::Voters { voters } => {
            let request = SetVotersRequest { voters: voters.into(), request_id: request_id() };
            let rpc = async |channel, request| cluster(channel).set_voters(request).await;
            let SetVotersResponse { voters } = client.call(DEADLINE, request, rpc).await?;
            output.print(&view::Voters { voters })
        }
        Command::Backup(args) => backup(args, client, output).await,
        Command::Restore(args) => output.print(&host.restore(args).await.map_err(failed)?),
        Command::Recover(args) => output.print(&host.recover(args).await.map_err(failed)?),
    }
}

async fn backup(
    BackupArgs { file, force }: BackupArgs,
    client: &Client,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    if !force && file.symlink_metadata().is_ok() {
        return Err(NotWritten::Exists(file).into());
    }
    let pieces = client
        .call(DEADLINE, BackupRequest {}, async |channel, request| {
            cluster(channel).backup(request).await
        })
        .await?;
    let mut name = file.clone().into_os_string();
    name.push(".new");
    let temporary = PathBuf::from(name);
    let written = receive(&temporary, pieces).await;
    let finished = written.and_then(|(head, bytes)| {
        put(&temporary, &file)?;
        Ok(Written { file, bytes, head })
    });
    if finished.is_err() {
        // Nothing half-made is left; what can't be removed is not taken for a backup either.
        drop(fs::remove_file(&temporary));
    }
    output.print(&finished?)
}

/// Writes a backup to `path`, and checks it. Answers what it says of itself, and its length.
async fn receive(
    path: &Path,
    mut pieces: Streaming<crate::proto::v1::BackupPiece>,
) -> Result<(Head, u64), Error> {
    let io = |source| NotWritten::Io { path: path.to_owned(), source };
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(MODE)
        .open(path)
        .map_err(io)?;
    let (mut check, mut bytes) = (Check::default(), 0);
    loop {
        let next = timeout(PIECE, pieces.message()).await.map_err(|_| Error::Deadline(PIECE))?;
        let Some(piece) = next.map_err(from_status)? else { break };
        file.write_all(&piece.data).map_err(io)?;
        check.push(&piece.data);
        bytes += piece.data.len() as u64;
    }
    let (head, _) = check.finish().map_err(NotWritten::NotWhole)?;
    file.sync_all().map_err(io)?;
    Ok((head, bytes))
}

/// Gives the file its name, which lasts when this returns.
fn put(temporary: &Path, file: &Path) -> Result<(), NotWritten> {
    let put = || {
        fs::rename(temporary, file)?;
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    put().map_err(|source| NotWritten::Io { path: file.to_owned(), source })
}
