//! `overlay port …`

use super::{
    Format,
    client::{Client, DEADLINE, endpoints},
    error::Error,
    output::Output,
    view,
};
use crate::proto::v1::InspectEndpointRequest;
use clap::Args;

#[derive(Debug, Args)]
pub(super) struct PortArgs {
    /// Its name
    name: String,
    /// Its network; needed only where endpoints of several networks have the name
    #[arg(long, value_name = "NET")]
    network: Option<String>,
}

pub(super) async fn run(
    args: PortArgs,
    client: &Client,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let PortArgs { name, network } = args;
    let request = InspectEndpointRequest { name, network: network.unwrap_or_default() };
    let endpoint = client
        .call(DEADLINE, request, async |channel, request| endpoints(channel).inspect(request).await)
        .await?;
    let ports = view::Ports::from(endpoint);
    // As `docker port`: of an endpoint that publishes nothing there is nothing to say.
    if ports.is_empty() && output.format() == Format::Table {
        return Ok(());
    }
    output.print(&ports)
}
