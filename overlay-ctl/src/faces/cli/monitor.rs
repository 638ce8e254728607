//! The verb `overlay monitor`.

use super::{
    client::{Client, DEADLINE, from_status, watch},
    error::Error,
    output::Output,
    view,
};
use crate::proto::v1::EventsRequest;
use clap::Args;

/// Default of --sample. With it a busy link makes some thousand lines a second.
const SAMPLE: u32 = 100;

#[derive(Debug, Args)]
pub(super) struct MonitorArgs {
    /// Also print forwarded packets: one in --sample
    #[arg(long)]
    flows: bool,
    /// Print one in N forwarded packets, chosen at random; 1 = each [default: 100]
    #[arg(long, value_name = "N", requires = "flows", value_parser = clap::value_parser!(u32).range(1..))]
    sample: Option<u32>,
    /// Only packets from or to this endpoint
    #[arg(long, value_name = "NAME[.NET]")]
    endpoint: Option<String>,
    /// Only packets of this network
    #[arg(long, value_name = "NET")]
    network: Option<String>,
    /// Only packets dropped for this reason (`forwarded` = only forwarded ones). Repeatable
    #[arg(long = "reason", value_name = "REASON")]
    reasons: Vec<String>,
}

/// Prints packets until the stream breaks or the process is interrupted.
pub(super) async fn run(
    args: MonitorArgs,
    client: &Client,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let MonitorArgs { flows, sample, endpoint, network, reasons } = args;
    let request = EventsRequest {
        sample: if flows { sample.unwrap_or(SAMPLE) } else { 0 },
        endpoint: endpoint.unwrap_or_default(),
        network: network.unwrap_or_default(),
        reasons,
    };
    let mut events = client
        .call(DEADLINE, request, async |channel, request| watch(channel).events(request).await)
        .await?;
    while let Some(event) = events.message().await.map_err(from_status)? {
        output.print_line(&view::Event::from(event))?;
    }
    Err(Error::StreamEnded)
}
