//! The verbs `overlay cluster …`.

use super::{
    client::{Client, DEADLINE, cluster, request_id},
    error::Error,
    output::Output,
    view,
};
use crate::{
    model::Voters,
    proto::v1::{SetVotersRequest, SetVotersResponse},
};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Set how many nodes are to vote: 1, 3 or 5. Agents become voters, or voters become agents, one after the other,
    /// until it is so; with fewer nodes than that, as many as there are, less one if the number would be even
    Voters {
        /// How many nodes are to vote
        voters: Voters,
    },
}

pub(super) async fn run(
    command: Command,
    client: &Client,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let Command::Voters { voters } = command;
    let request = SetVotersRequest { voters: voters.into(), request_id: request_id() };
    let rpc = async |channel, request| cluster(channel).set_voters(request).await;
    let SetVotersResponse { voters } = client.call(DEADLINE, request, rpc).await?;
    output.print(&view::Voters { voters })
}
