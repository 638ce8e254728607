//! The verbs `overlay endpoint …`.

use super::{
    Format,
    client::{Client, DEADLINE, WAIT_DEADLINE, endpoints, request_id},
    error::Error,
    output::Output,
    view::{self, Removal},
};
use crate::{
    model::{EndpointPort, Publish},
    proto::v1::{
        CreateEndpointRequest, InspectEndpointRequest, ListEndpointsRequest, PublishRequest,
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
    },
    /// Show one endpoint
    Inspect {
        /// Name of the endpoint
        name: String,
        /// Its network; needed only if endpoints of several networks have the name
        #[arg(long, value_name = "NET")]
        network: Option<String>,
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
    /// The endpoint routes or bridges for others: it may send from addresses that are not its own
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
        Command::Ls { network, node } => {
            let request = ListEndpointsRequest {
                network: network.unwrap_or_default(),
                node: node.unwrap_or_default(),
            };
            let list = client
                .call(DEADLINE, request, async |channel, request| {
                    endpoints(channel).list(request).await
                })
                .await?;
            let rows: Vec<view::Endpoint> = list.endpoints.into_iter().map(Into::into).collect();
            output.print(&rows)
        }
        Command::Inspect { name, network } => {
            let request = InspectEndpointRequest { name, network: network.unwrap_or_default() };
            let endpoint = client
                .call(DEADLINE, request, async |channel, request| {
                    endpoints(channel).inspect(request).await
                })
                .await?;
            output.print(&view::Endpoint::from(endpoint))
        }
        Command::Rm { names, network, wait } => {
            let network = network.unwrap_or_default();
            view::remove_each(names, output, async |name| {
                let request = RemoveEndpointRequest {
                    name: name.clone(),
                    network: network.clone(),
                    no_wait: wait.no_wait,
                    request_id: request_id(),
                };
                let removed = client
                    .call(wait.deadline(), request, async |channel, request| {
                        endpoints(channel).remove(request).await
                    })
                    .await?;
                Ok(Removal { name, revision: removed.revision })
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
mod tests {
    use super::*;
    use crate::faces::cli::{Cli, Command as Verb};
    use clap::{Parser as _, error::ErrorKind};

    fn request(args: &str) -> CreateEndpointRequest {
        match Cli::try_parse_from(args.split(' ')).unwrap().command {
            Verb::Endpoint(Command::Create(args)) => args.into_request().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn refusal(args: &str) -> ErrorKind {
        Cli::try_parse_from(args.split(' ')).unwrap_err().kind()
    }

    #[test]
    fn namespace_defaults_to_the_endpoints_name() {
        let request = request("overlay endpoint create web1 --network myoverlay");
        assert_eq!(request.netns, "web1");
        assert_eq!((request.node.as_str(), request.ip.as_str()), ("", ""));
        assert_eq!(request.request_id.len(), 16);
        assert!(!request.no_wait);
    }

    #[test]
    fn namespace_name_is_left_to_the_node_and_a_path_is_made_absolute() {
        let name = request("overlay endpoint create web1 --network n --netns other");
        assert_eq!(name.netns, "other");
        let path = request("overlay endpoint create web1 --network n --netns ./ns/web1");
        let folder = std::env::current_dir().unwrap();
        assert_eq!(path.netns, folder.join("ns/web1").to_str().unwrap());
        let absolute = request("overlay endpoint create web1 --network n --netns /proc/7/ns/net");
        assert_eq!(absolute.netns, "/proc/7/ns/net");
    }

    #[test]
    fn foreign_vtep_takes_mac_and_ip_and_no_namespace() {
        let all = "overlay endpoint create sw1 --network n --vtep 10.0.0.9 --mac 02:AA:00:00:00:09 --ip 172.16.16.9";
        let made = request(all);
        assert_eq!(made.vtep, "10.0.0.9");
        assert_eq!(made.mac, "02:aa:00:00:00:09");
        assert_eq!(made.ip, "172.16.16.9");
        assert_eq!(made.netns, "", "nor a namespace with its name");

        for (args, kind) in [
            ("--vtep 10.0.0.9", ErrorKind::MissingRequiredArgument),
            ("--vtep 10.0.0.9 --ip 172.16.16.9", ErrorKind::MissingRequiredArgument),
            ("--vtep 10.0.0.9 --mac 02:aa:00:00:00:09", ErrorKind::MissingRequiredArgument),
            ("--mac 02:aa:00:00:00:09", ErrorKind::MissingRequiredArgument),
        ] {
            let args = format!("overlay endpoint create sw1 --network n {args}");
            assert_eq!(refusal(&args), kind, "{args}");
        }
        assert_eq!(request(&format!("{all} --alias s")).aliases, ["s"], "it has names, too");
        for extra in ["--netns sw1", "--node host1", "-p 80", "-P", "--expose 80"] {
            assert_eq!(refusal(&format!("{all} {extra}")), ErrorKind::ArgumentConflict, "{extra}");
        }
    }

    #[test]
    fn names_and_ports_are_asked_for_as_written() {
        let asked = request(
            "overlay endpoint create web1 --network n --alias www --alias db --expose 80 \
             --expose 53/udp -p 8080:80 -p 127.0.0.1::443 --publish 53:53/udp -P",
        );
        assert_eq!(asked.aliases, ["www", "db"]);
        assert_eq!(asked.exposed, ["80/tcp", "53/udp"]);
        let publish = |host_ip: &str, host_port, port: &str| PublishRequest {
            host_ip: host_ip.to_owned(),
            host_port,
            port: port.to_owned(),
        };
        assert_eq!(
            asked.publish,
            [
                publish("0.0.0.0", 8080, "80/tcp"),
                publish("127.0.0.1", 0, "443/tcp"),
                publish("0.0.0.0", 53, "53/udp"),
            ]
        );
        assert!(asked.publish_all);
        let plain = request("overlay endpoint create web1 --network n");
        assert!(plain.publish.is_empty() && plain.exposed.is_empty() && !plain.publish_all);
    }

    #[test]
    fn malformed_ports_are_usage_errors_that_say_what_is_wrong() {
        for (args, words) in [
            ("-p 80:", "port \"\" is not a port from 1 to 65535"),
            ("-p x:80", "host port \"x\" is not a port"),
            ("-p 1.2.3:80:80", "host address \"1.2.3\" is not an IPv4 address"),
            ("-p 80/icmp", "protocol \"icmp\" is none of tcp, udp, sctp"),
            ("--expose 0", "port \"0\" is not a port"),
        ] {
            let line = format!("overlay endpoint create web1 --network n {args}");
            let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ValueValidation, "{args}");
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn malformed_addresses_are_usage_errors() {
        for args in ["--ip 172.16.16", "--ip fd00::1"] {
            let args = format!("overlay endpoint create web1 --network n {args}");
            assert_eq!(refusal(&args), ErrorKind::ValueValidation, "{args}");
        }
        for mac in
            ["02:aa:00:00:00", "02:aa:00:00:00:0g", "02:aa:00:00:00:009", "02-aa-00-00-00-09"]
        {
            assert!(mac.parse::<Mac>().is_err(), "{mac}");
        }
    }

    #[test]
    fn last_of_wait_and_no_wait_counts() {
        let create = "overlay endpoint create web1 --network n";
        assert!(!request(&format!("{create} --wait")).no_wait);
        assert!(request(&format!("{create} --no-wait")).no_wait);
        assert!(request(&format!("{create} --wait --no-wait")).no_wait);
        assert!(!request(&format!("{create} --no-wait --wait")).no_wait);
    }

    #[test]
    fn each_request_has_an_id_of_its_own() {
        let create = "overlay endpoint create web1 --network n";
        assert_ne!(request(create).request_id, request(create).request_id);
    }
}
