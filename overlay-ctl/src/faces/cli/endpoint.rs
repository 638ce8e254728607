//! The verbs `overlay endpoint …`.

use super::{
    Format,
    client::{Client, DEADLINE, WAIT_DEADLINE, endpoints, request_id},
    error::Error,
    output::Output,
    stale::{StaleArgs, show},
    view::{self, Removal},
};
use crate::{
    model::{EndpointPort, Permission, Publish},
    proto::v1::{
        self, CreateEndpointRequest, InspectEndpointRequest, ListEndpointsRequest, PublishRequest,
        RemoveEndpointRequest,
    },
};
use clap::{Args, Subcommand};
use std::{net::Ipv4Addr, str::FromStr, time::Duration};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Attach a network namespace to a network, or register an endpoint behind an external VTEP
    Create(CreateArgs),
    /// List endpoints
    Ls {
        /// Only endpoints of this network
        #[arg(long, value_name = "NET")]
        network: Option<String>,
        /// Only endpoints on this node
        #[arg(long)]
        node: Option<String>,
        #[command(flatten)]
        stale: StaleArgs,
    },
    /// Show one endpoint
    Inspect {
        /// Name of the endpoint
        name: String,
        /// Its network; needed only if endpoints of several networks have the name
        #[arg(long, value_name = "NET")]
        network: Option<String>,
        #[command(flatten)]
        stale: StaleArgs,
    },
    /// Detach endpoints and release their addresses
    Rm {
        /// Names of the endpoints
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Their network; needed only if endpoints of several networks have a name
        #[arg(long, value_name = "NET")]
        network: Option<String>,
        #[command(flatten)]
        wait: WaitArgs,
    },
}

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct WaitArgs {
    /// Return when every node concerned has programmed the change (the default)
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,
    /// Return as soon as the cluster has decided the change
    #[arg(long, overrides_with = "wait")]
    no_wait: bool,
}

impl WaitArgs {
    fn deadline(self) -> Duration {
        if self.no_wait { DEADLINE } else { WAIT_DEADLINE }
    }
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// Name of the endpoint, unique in its network
    name: String,
    /// Network to attach the endpoint to
    #[arg(long, value_name = "NET")]
    network: String,
    /// Node that has the namespace [default: the node that is asked]
    #[arg(long)]
    node: Option<String>,
    /// Namespace that gets the interfaces: a name below /run/netns, or a path, on that node
    /// [default: the namespace with the endpoint's name]
    #[arg(long, value_name = "NAME|PATH")]
    netns: Option<String>,
    /// Address of the endpoint [default: the next free one of the network]
    #[arg(long)]
    ip: Option<Ipv4Addr>,
    /// Further name of the endpoint on its network; several endpoints may share one. Repeatable
    #[arg(long = "alias", value_name = "NAME")]
    aliases: Vec<String>,
    /// Port that the endpoint serves, as 80/tcp: a note, and the ports that --publish-all publishes. Repeatable
    #[arg(long, value_name = "PORT[/PROTO]", conflicts_with = "vtep")]
    expose: Vec<EndpointPort>,
    /// Publish a port of the endpoint at a port of its node: 8080:80, 127.0.0.1:8080:80/tcp, 53:53/udp, or
    /// 80 for a free port from 32768 up. PROTO is tcp, udp or sctp [default: tcp]. Repeatable
    #[arg(short, long, value_name = "[[IP:]PORT:]PORT[/PROTO]", conflicts_with = "vtep")]
    publish: Vec<Publish>,
    /// Publish each exposed port that no --publish names at a free port of its node
    #[arg(short = 'P', long, conflicts_with = "vtep")]
    publish_all: bool,
    /// Permission to send what an endpoint may not send otherwise. Repeatable, or with commas.
    /// routing: from IP addresses that no endpoint has. bridging: from MACs that no endpoint has, and to get what is
    /// for such MACs. advertising: router advertisements, redirects, and a DHCP server's messages
    #[arg(long = "allow", value_name = "PERMISSION", value_delimiter = ',')]
    allowed: Vec<Permission>,
    /// Short for --allow routing,bridging,advertising
    #[arg(long)]
    forwards: bool,
    /// The endpoint is behind this external VTEP, which is not a node of the cluster: a switch, or a
    /// VXLAN device of the kernel. Needs --mac and --ip
    #[arg(long, value_name = "IP", requires_all = ["mac", "ip"], conflicts_with_all = ["netns", "node"])]
    vtep: Option<Ipv4Addr>,
    /// MAC of an endpoint behind an external VTEP; that of all others is 02:42 and their address
    #[arg(long, requires = "vtep")]
    mac: Option<Mac>,
    #[command(flatten)]
    wait: WaitArgs,
}

impl CreateArgs {
    fn into_request(self) -> Result<CreateEndpointRequest, Error> {
        let Self {
            name,
            network,
            node,
            netns,
            ip,
            aliases,
            expose,
            publish,
            publish_all,
            allowed,
            forwards,
            vtep,
            mac,
            wait,
        } = self;
        let netns = match (vtep, netns) {
            (Some(_), _) => String::new(),
            (None, Some(netns)) => netns_for_node(netns)?,
            (None, None) => name.clone(),
        };
        Ok(CreateEndpointRequest {
            name,
            network,
            node: node.unwrap_or_default(),
            netns,
            ip: ip.map(|ip| ip.to_string()).unwrap_or_default(),
            vtep: vtep.map(|vtep| vtep.to_string()).unwrap_or_default(),
            mac: mac.map(|mac| mac.0).unwrap_or_default(),
            forwards,
            no_wait: wait.no_wait,
            aliases,
            exposed: expose.iter().map(ToString::to_string).collect(),
            publish: publish.into_iter().map(publish_request).collect(),
            publish_all,
            permissions: allowed.into_iter().map(|one| v1::Permission::from(one).into()).collect(),
            request_id: request_id(),
        })
    }
}

fn publish_request(publish: Publish) -> PublishRequest {
    let Publish { host, host_port, port } = publish;
    PublishRequest {
        host_ip: host.to_string(),
        host_port: host_port.map_or(0, |port| port.get().into()),
        port: port.to_string(),
    }
}

/// The namespace as the node needs it. A name stays a name, which the node resolves. A path is made absolute
/// here, because the node has a different working folder.
fn netns_for_node(netns: String) -> Result<String, Error> {
    if !netns.contains('/') {
        return Ok(netns);
    }
    match std::path::absolute(&netns) {
        Ok(path) => Ok(path.to_string_lossy().into_owned()),
        Err(source) => Err(Error::Path { path: netns, source }),
    }
}

/// An Ethernet address in its usual form, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mac(String);

impl FromStr for Mac {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let octet = |o: &str| o.len() == 2 && o.bytes().all(|b| b.is_ascii_hexdigit());
        if text.split(':').count() == 6 && text.split(':').all(octet) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err("not a MAC: six pairs of hexadecimal digits with colons between, 02:42:ac:10:10:81")
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
        Command::Ls { network, node, stale: StaleArgs { stale } } => {
            let request = ListEndpointsRequest {
                network: network.unwrap_or_default(),
                node: node.unwrap_or_default(),
                stale,
            };
            let rpc = async |channel, request| endpoints(channel).list(request).await;
            show(client, output, request, rpc, |list| {
                Ok(list.endpoints.into_iter().map(Into::into).collect::<Vec<view::Endpoint>>())
            })
            .await
        }
        Command::Inspect { name, network, stale: StaleArgs { stale } } => {
            let network = network.unwrap_or_default();
            let request = InspectEndpointRequest { name, network, stale };
            let rpc = async |channel, request| endpoints(channel).inspect(request).await;
            show(client, output, request, rpc, |found| Ok(view::Endpoint::from(found))).await
        }
        Command::Rm { names, network, wait } => {
            let network = network.unwrap_or_default();
            view::remove_each(names, output, async |name| {
                let request = RemoveEndpointRequest {
                    name: name.clone(),
                    network: network.clone(),
                    no_wait: wait.no_wait,
                    request_id: request_id(),
                    ..Default::default()
                };
                let removed = client
                    .call(wait.deadline(), request, async |channel, request| {
                        endpoints(channel).remove(request).await
                    })
                    .await?;
                let v1::RemoveEndpointResponse { revision, lagging_nodes } = removed;
                Ok(Removal { name, revision, lagging_nodes })
            })
            .await
        }
    }
}

async fn create(args: CreateArgs, client: &Client, output: &mut Output<'_>) -> Result<(), Error> {
    let wait = args.wait;
    let response = client
        .call(wait.deadline(), args.into_request()?, async |channel, request| {
            endpoints(channel).create(request).await
        })
        .await?;
    let created = view::CreatedEndpoint::try_from(response)?;
    match output.format() {
        Format::Table => output.line(&created.endpoint.summary())?,
        Format::Json => output.print_json(&created)?,
    }
    if !wait.no_wait && !created.lagging_nodes.is_empty() {
        output.warn(&format!(
            "{} not programmed yet on {}; first packets from there may be lost; see: overlay node ls",
            created.endpoint.name,
            created.lagging_nodes.join(", ")
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
