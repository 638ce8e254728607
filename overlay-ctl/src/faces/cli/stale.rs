//! The option `--stale` of commands that show something.

use super::{
    client::{Client, DEADLINE},
    error::Error,
    output::Output,
    view::{Stale, View},
};
use clap::Args;
use tonic::{Response, Status, metadata::MetadataMap, transport::Channel};

/// Metadata of an answer that may be stale: the revision that it shows.
const AS_OF: &str = "overlay-as-of";

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct StaleArgs {
    /// Do not ask the leader: the node answers by its own state if it is a voter, else a voter does. Works without a
    /// quorum; the last changes may be missing, and the answer names the revision that it shows
    #[arg(long)]
    pub(super) stale: bool,
}

/// Asks the node, and prints the answer, marked if it may be stale.
pub(super) async fn show<Req: Clone, Answer, V: View>(
    client: &Client,
    output: &mut Output<'_>,
    request: Req,
    rpc: impl AsyncFn(Channel, Req) -> Result<Response<Answer>, Status>,
    view: impl FnOnce(Answer) -> Result<V, Error>,
) -> Result<(), Error> {
    let (metadata, answer, _) = client.ask(DEADLINE, request, rpc).await?.into_parts();
    let view = view(answer)?;
    match as_of(&metadata) {
        Some(revision) => output.print(&Stale { revision, answer: view }),
        None => output.print(&view),
    }
}

/// The revision that an answer shows, if it may be stale.
pub(super) fn as_of(metadata: &MetadataMap) -> Option<u64> {
    metadata.get(AS_OF)?.to_str().ok()?.parse().ok()
}
