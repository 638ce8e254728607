//! The verb `overlay port`.

use super::{
    Format,
    client::{Client, DEADLINE, endpoints},
    error::Error,
    output::Output,
    view::{self, View as _},
};
use crate::proto::v1::InspectEndpointRequest;
use clap::Args;

#[derive(Debug, Args)]
pub(super) struct PortArgs {
    /// Name of the endpoint
    name: String,
    /// Its network; needed only if endpoints of several networks have the name
    #[arg(long, value_name = "NET")]
    network: Option<String>,
}

pub(super) async fn run(
    args: PortArgs,
    client: &Client,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let PortArgs { name, network } = args;
    let network = network.unwrap_or_default();
    let request = InspectEndpointRequest { name, network, stale: false };
    let endpoint = client
        .call(DEADLINE, request, async |channel, request| endpoints(channel).inspect(request).await)
        .await?;
    let ports: Vec<view::PublishedPort> = endpoint.published.into_iter().map(Into::into).collect();
    match output.format() {
        // Without published ports nothing is printed, as by Docker.
        Format::Table if ports.is_empty() => Ok(()),
        Format::Table => output.line(&ports.text()),
        Format::Json => output.print(&ports),
    }
}
