//! The verb `overlay cluster status`.

use super::super::{
    client::{Client, DEADLINE, cluster},
    error::Error,
    output::Output,
    stale::{StaleArgs, as_of},
    view::{self, Stale},
};
use crate::proto::v1::MembersRequest;

/// Prints how the voters are. Fails unless they are healthy, so that a script can tell without reading it.
pub(super) async fn run(
    StaleArgs { stale }: StaleArgs,
    client: &Client,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let rpc = async |channel, request| cluster(channel).members(request).await;
    let answer = client.ask(DEADLINE, MembersRequest { stale }, rpc).await?;
    let (metadata, answer, _) = answer.into_parts();
    let view = view::ClusterStatus::from(answer);
    let (is_healthy, verdict) = (view.is_healthy(), view.verdict.clone());
    match as_of(&metadata) {
        Some(revision) => output.print(&Stale { revision, answer: view })?,
        None => output.print(&view)?,
    }
    if is_healthy { Ok(()) } else { Err(Error::NotHealthy(verdict)) }
}
