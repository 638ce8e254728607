//! The verbs `overlay node …`.

use super::{
    client::{Client, DEADLINE, nodes, request_id},
    error::Error,
    output::Output,
    stale::{StaleArgs, show},
    view::{self, Removal},
};
use crate::{
    config::{NodeResetArgs, NodeRunArgs},
    proto::v1::{
        DemoteNodeRequest, InspectNodeRequest, ListNodesRequest, PromoteNodeRequest,
        RemoveNodeRequest,
    },
};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a node, in the foreground
    Run(Box<NodeRunArgs>),
    /// List the cluster's nodes
    Ls {
        #[command(flatten)]
        stale: StaleArgs,
    },
    /// Show one node
    Inspect {
        /// Name of the node
        name: String,
        #[command(flatten)]
        stale: StaleArgs,
    },
    /// Remove nodes that will not come back. The endpoints of a node that is down are removed with it
    Rm {
        /// Remove the endpoints of a node that is not down, too; they lose their networks at once
        #[arg(short, long)]
        force: bool,
        /// Names of the nodes
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Give a node a seat: it holds the whole state of the cluster, and votes as soon as it has caught up
    Promote {
        /// Name of the node
        name: String,
    },
    /// Take a node's seat: it becomes an agent, and gets no other seat until it is promoted. Its endpoints do not notice
    Demote {
        /// Name of the node
        name: String,
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
        Command::Ls { stale: StaleArgs { stale } } => {
            let rpc = async |channel, request| nodes(channel).list(request).await;
            show(client, output, ListNodesRequest { stale }, rpc, |list| {
                Ok(list.nodes.into_iter().map(Into::into).collect::<Vec<view::Node>>())
            })
            .await
        }
        Command::Inspect { name, stale: StaleArgs { stale } } => {
            let rpc = async |channel, request| nodes(channel).inspect(request).await;
            let request = InspectNodeRequest { name, stale };
            show(client, output, request, rpc, |node| Ok(view::Node::from(node))).await
        }
        Command::Promote { name } => {
            let request =
                PromoteNodeRequest { name, request_id: request_id(), ..Default::default() };
            let rpc = async |channel, request| nodes(channel).promote(request).await;
            let node = client.call(DEADLINE, request, rpc).await?;
            output.print(&view::Node::from(node))
        }
        Command::Demote { name } => {
            let request =
                DemoteNodeRequest { name, request_id: request_id(), ..Default::default() };
            let rpc = async |channel, request| nodes(channel).demote(request).await;
            let node = client.call(DEADLINE, request, rpc).await?;
            output.print(&view::Node::from(node))
        }
        Command::Rm { force, names } => {
            view::remove_each(names, output, async |name| {
                let request = RemoveNodeRequest {
                    name: name.clone(),
                    force,
                    request_id: request_id(),
                    ..Default::default()
                };
                let removed = client
                    .call(DEADLINE, request, async |channel, request| {
                        nodes(channel).remove(request).await
                    })
                    .await?;
                Ok(Removal { name, revision: removed.revision, lagging_nodes: Vec::new() })
            })
            .await
        }
    }
}
