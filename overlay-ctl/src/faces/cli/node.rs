//! The verbs `overlay node …`.

use super::{
    client::{Client, DEADLINE, nodes, request_id},
    error::Error,
    output::Output,
    view::{self, Removal},
};
use crate::{
    config::{NodeResetArgs, NodeRunArgs},
    proto::v1::{InspectNodeRequest, ListNodesRequest, RemoveNodeRequest},
};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a node, in the foreground
    Run(Box<NodeRunArgs>),
    /// List the cluster's nodes
    Ls,
    /// Show one node
    Inspect {
        /// Name of the node
        name: String,
    },
    /// Remove nodes that will not come back and have no endpoints
    Rm {
        /// Names of the nodes
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Remove the asked node from its cluster, and wait until all that it made on its host is gone. It must have no
    /// endpoints, and not be the last node
    Leave,
    /// Take everything away that a node made on this host, its state folder included. The node must have ended; what it
    /// made for endpoints goes, too
    Reset(NodeResetArgs),
}

pub(super) async fn run(
    command: Command,
    client: &Client,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    match command {
        Command::Run(_) | Command::Leave | Command::Reset(_) => {
            unreachable!("cli::run and cli::carry_out handle what is done on the host")
        }
        Command::Ls => {
            let list = client
                .call(DEADLINE, ListNodesRequest {}, async |channel, request| {
                    nodes(channel).list(request).await
                })
                .await?;
            let rows: Vec<view::Node> = list.nodes.into_iter().map(Into::into).collect();
            output.print(&rows)
        }
        Command::Inspect { name } => {
            let node = client
                .call(DEADLINE, InspectNodeRequest { name }, async |channel, request| {
                    nodes(channel).inspect(request).await
                })
                .await?;
            output.print(&view::Node::from(node))
        }
        Command::Rm { names } => {
            view::remove_each(names, output, async |name| {
                let request = RemoveNodeRequest {
                    name: name.clone(),
                    request_id: request_id(),
                    ..Default::default()
                };
                let removed = client
                    .call(DEADLINE, request, async |channel, request| {
                        nodes(channel).remove(request).await
                    })
                    .await?;
                Ok(Removal { name, revision: removed.revision })
            })
            .await
        }
    }
}
