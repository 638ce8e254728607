//! The verbs `overlay network …`.

use super::{
    Format,
    client::{Client, DEADLINE, networks, request_id},
    error::Error,
    output::Output,
    stale::{StaleArgs, show},
    view::{self, Removal},
};
use crate::proto::v1::{
    CreateNetworkRequest, InspectNetworkRequest, ListNetworksRequest, NetworkOptions,
    RemoveNetworkRequest,
};
use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a network
    Create(CreateArgs),
    /// List networks
    Ls {
        #[command(flatten)]
        stale: StaleArgs,
    },
    /// Show a network, its endpoints, and the nodes that hold them
    Inspect {
        /// Name of the network
        name: String,
        #[command(flatten)]
        stale: StaleArgs,
    },
    /// Remove networks that have no endpoints
    Rm {
        /// Names of the networks
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// Name of the network, unique in the cluster
    name: String,
    /// Prefix that its endpoints see as on-link [default: the next free /24 of the pool]
    #[arg(long, value_name = "CIDR")]
    subnet: Option<String>,
    /// Part of the subnet that addresses are allocated from [default: all of it]
    #[arg(long, value_name = "CIDR", requires = "subnet")]
    ip_range: Option<String>,
    /// VXLAN network identifier [default: the next free one]
    // The node checks the upper bound and the reserved number, with a reason in its error.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    vni: Option<u32>,
    /// Endpoints may not reach each other
    #[arg(long)]
    no_icc: bool,
    /// Endpoints have no way to the outside
    #[arg(long)]
    internal: bool,
    /// Carry broadcast and multicast
    #[arg(long)]
    multicast: bool,
    /// MTU in bytes [default: the underlay's MTU minus the encapsulation]
    #[arg(long, value_parser = clap::value_parser!(u32).range(68..=65535))]
    mtu: Option<u32>,
}

impl CreateArgs {
    fn into_request(self) -> CreateNetworkRequest {
        let Self { name, subnet, ip_range, vni, no_icc, internal, multicast, mtu } = self;
        CreateNetworkRequest {
            name,
            subnet: subnet.unwrap_or_default(),
            ip_range: ip_range.unwrap_or_default(),
            vni: vni.unwrap_or_default(),
            options: Some(NetworkOptions {
                icc: Some(!no_icc),
                internal,
                multicast,
                mtu: mtu.unwrap_or_default(),
            }),
            request_id: request_id(),
        }
    }
}

pub(super) async fn run(
    command: Command,
    client: &Client,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    match command {
        Command::Create(args) => create(args, client, output).await,
        Command::Ls { stale: StaleArgs { stale } } => {
            let request = ListNetworksRequest { stale };
            let rpc = async |channel, request| networks(channel).list(request).await;
            show(client, output, request, rpc, |list| {
                Ok(list.networks.into_iter().map(Into::into).collect::<Vec<view::Network>>())
            })
            .await
        }
        Command::Inspect { name, stale: StaleArgs { stale } } => {
            let request = InspectNetworkRequest { name, brief: false, stale };
            let rpc = async |channel, request| networks(channel).inspect(request).await;
            show(client, output, request, rpc, view::NetworkDetail::try_from).await
        }
        Command::Rm { names } => {
            view::remove_each(names, output, async |name| {
                let request = RemoveNetworkRequest {
                    name: name.clone(),
                    request_id: request_id(),
                    ..Default::default()
                };
                let removed = client
                    .call(DEADLINE, request, async |channel, request| {
                        networks(channel).remove(request).await
                    })
                    .await?;
                Ok(Removal { name, revision: removed.revision, lagging_nodes: Vec::new() })
            })
            .await
        }
    }
}

async fn create(args: CreateArgs, client: &Client, output: &mut Output<'_>) -> Result<(), Error> {
    let network: view::Network = client
        .call(DEADLINE, args.into_request(), async |channel, request| {
            networks(channel).create(request).await
        })
        .await?
        .into();
    match output.format() {
        Format::Table => output.line(&network.summary()),
        Format::Json => output.print(&network),
    }
}
