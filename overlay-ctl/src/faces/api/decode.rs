//! Turns the API's messages into the controller's requests. Nothing is looked up here; the controller checks what the
//! types of its requests do not express.

use super::error::invalid;
use crate::{
    control::{
        controller::{ALIASES_MAX, CreateEndpoint, CreateNetwork, PORTS_MAX, Register},
        peers::Incarnation,
        state::{Placement, PortsWanted, RequestId},
    },
    model::{
        EndpointAddrs, EndpointName, Invalid, Mac, NetworkName, NetworkOptions, NoVoters, NodeName,
        Permission, Permissions, Pool, Publish, Speaks, Subnet, Vni, Voters,
    },
    proto::v1,
};
use std::{collections::BTreeSet, net::Ipv4Addr, num::NonZeroU16, path::PathBuf, str::FromStr};
use tonic::Status;

/// The folder of named network namespaces.
const NETNS_FOLDER: &str = "/run/netns";

/// The request's id; a random one if the caller gave none.
pub(super) fn request_id(bytes: &[u8]) -> Result<RequestId, Status> {
    if bytes.is_empty() {
        return Ok(*uuid::Uuid::new_v4().as_bytes());
    }
    bytes.try_into().map_err(|_| Status::invalid_argument("request_id is not 16 bytes long"))
}

/// How many nodes are to vote.
pub(super) fn voters(number: u32) -> Result<Voters, Status> {
    number.try_into().map_err(|error: NoVoters| Status::invalid_argument(error.to_string()))
}

/// The id that a request names; 0 = none.
pub(super) fn only(id: u64) -> Option<u64> {
    Some(id).filter(|id| *id != 0)
}

fn optional<T>(
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, Status>,
) -> Result<Option<T>, Status> {
    if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

fn ipv4(field: &'static str, text: &str) -> Result<Ipv4Addr, Status> {
    text.parse().map_err(|_| {
        invalid(Invalid::new(field, text, "is not an IPv4 address like 172.16.16.129"))
    })
}

fn optional_subnet(field: &'static str, text: &str) -> Result<Option<Subnet>, Status> {
    optional(text, |text| text.parse().map_err(|error| invalid(Invalid { field, ..error })))
}

pub(super) fn network_name(text: &str) -> Result<NetworkName, Status> {
    text.parse().map_err(invalid)
}

pub(super) fn optional_network_name(text: &str) -> Result<Option<NetworkName>, Status> {
    optional(text, network_name)
}

pub(super) fn endpoint_name(text: &str) -> Result<EndpointName, Status> {
    text.parse().map_err(invalid)
}

pub(super) fn node_name(text: &str) -> Result<NodeName, Status> {
    text.parse().map_err(invalid)
}

pub(super) fn optional_node_name(text: &str) -> Result<Option<NodeName>, Status> {
    optional(text, node_name)
}

pub(super) fn create_network(request: &v1::CreateNetworkRequest) -> Result<CreateNetwork, Status> {
    let v1::CreateNetworkRequest { name, subnet, ip_range, vni, options, request_id } = request;
    let name = network_name(name)?;
    let range = Some(ip_range.as_str()).filter(|range| !range.is_empty());
    let pool = match (subnet.as_str(), range) {
        ("", None) => None,
        ("", Some(range)) => {
            return Err(invalid(Invalid::new("ip_range", range, "needs a subnet that it is in")));
        }
        (subnet, range) => {
            let subnet = subnet.parse().map_err(invalid)?;
            Some(Pool::new(subnet, range).map_err(invalid)?)
        }
    };
    let vni = match vni {
        0 => None,
        number => Some(Vni::try_from(*number).map_err(invalid)?),
    };
    let options = match options {
        None => NetworkOptions::default(),
        Some(v1::NetworkOptions { icc, internal, multicast, mtu }) => NetworkOptions {
            icc: icc.unwrap_or(true),
            internal: *internal,
            multicast: *multicast,
            mtu: match mtu {
                0 => None,
                mtu => Some(u16::try_from(*mtu).map_err(|_| {
                    invalid(Invalid::new("mtu", mtu.to_string(), "is more than an IPv4 packet has"))
                })?),
            },
        },
    };
    Ok(CreateNetwork { request: self::request_id(request_id)?, name, pool, vni, options })
}

/// A creation that was sent to the node `own`, which gets the endpoint if the request names neither a node nor a VTEP.
pub(super) fn create_endpoint(
    request: &v1::CreateEndpointRequest,
    own: &NodeName,
) -> Result<CreateEndpoint, Status> {
    let v1::CreateEndpointRequest {
        name,
        network,
        node,
        netns,
        ip,
        vtep,
        mac,
        forwards,
        no_wait,
        aliases,
        exposed,
        publish,
        publish_all,
        permissions,
        request_id,
    } = request;
    let request = self::request_id(request_id)?;
    let name = endpoint_name(name)?;
    let network = network_name(network)?;
    let addresses =
        optional(ip, |text| ipv4("ip", text))?.map(EndpointAddrs::from).unwrap_or_default();
    let placement = if vtep.is_empty() {
        if !mac.is_empty() {
            let why = "is given without a vtep: an endpoint on a node has the MAC of its address";
            return Err(invalid(Invalid::new("mac", mac, why)));
        }
        let node = optional_node_name(node)?.unwrap_or_else(|| own.clone());
        Placement::Node { node, netns: netns_path(&name, netns)?, addresses }
    } else {
        if !netns.is_empty() || !node.is_empty() {
            return Err(Status::invalid_argument(
                "vtep is given together with netns or node; an endpoint is either behind a VTEP that is not ours or on a node",
            ));
        }
        let missing = |field| {
            invalid(Invalid::new(field, "", "is missing: an endpoint behind a VTEP has one"))
        };
        let vtep = ipv4("vtep", vtep)?.into();
        if mac.is_empty() {
            return Err(missing("mac"));
        }
        if ip.is_empty() {
            return Err(missing("ip"));
        }
        Placement::External { vtep, mac: mac.parse::<Mac>().map_err(invalid)?, addresses }
    };
    Ok(CreateEndpoint {
        request,
        name,
        network,
        placement,
        permissions: self::permissions(*forwards, permissions)?,
        aliases: list("aliases", aliases, ALIASES_MAX)?,
        ports: PortsWanted {
            exposed: list("exposed", exposed, PORTS_MAX)?,
            publish: bounded("publish", publish, PORTS_MAX)?
                .iter()
                .map(wish)
                .collect::<Result<_, _>>()?,
            publish_all: *publish_all,
            // The endpoint's node reports it before anything is logged.
            busy: BTreeSet::new(),
        },
        wait: !*no_wait,
    })
}

/// The permissions of the list; all of them where `forwards` is set, as callers of earlier versions ask for them.
fn permissions(forwards: bool, list: &[i32]) -> Result<Permissions, Status> {
    let listed = list.iter().map(|number| match v1::Permission::try_from(*number) {
        Ok(v1::Permission::Routing) => Ok(Permission::Routing),
        Ok(v1::Permission::Bridging) => Ok(Permission::Bridging),
        Ok(v1::Permission::Advertising) => Ok(Permission::Advertising),
        Ok(v1::Permission::Unspecified) | Err(_) => {
            let why = "is none that this version knows";
            Err(invalid(Invalid::new("permissions", number.to_string(), why)))
        }
    });
    let listed = listed.collect::<Result<Permissions, Status>>()?;
    Ok(if forwards { Permissions::ALL } else { listed })
}

pub(super) fn register(request: &v1::JoinRequest) -> Result<Register, Status> {
    let v1::JoinRequest {
        name,
        vtep,
        listen,
        token: _,
        instance,
        returning,
        cluster: _,
        gateway_subnet,
        metrics,
        vxlan_port: _,
        local_listen,
        oldest_version,
        newest_version,
        log_lost,
        incarnation,
    } = request;
    let no = |field, value: &str, why| invalid(Invalid::new(field, value, why));
    let vtep = ipv4("vtep", vtep)?.into();
    let listen = listen.parse().map_err(|_| no("listen", listen, "is not an IP:PORT"))?;
    let instance = instance
        .as_slice()
        .try_into()
        .map_err(|_| Status::invalid_argument("instance is not 16 bytes long"))?;
    let log_lost = match log_lost.as_slice() {
        [] => None,
        wish => {
            let wish = wish.try_into();
            Some(wish.map_err(|_| Status::invalid_argument("log_lost is not 16 bytes long"))?)
        }
    };
    let incarnation = match incarnation.as_slice() {
        [] => None,
        run => {
            let run = Incarnation::from_slice(run);
            Some(run.map_err(|_| Status::invalid_argument("incarnation is not 16 bytes long"))?)
        }
    };
    let name = node_name(name)?;
    let gateway = optional_subnet("gateway_subnet", gateway_subnet)?;
    let address = |field, text: &str| match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| no(field, text, "is not an IP:PORT")),
    };
    let metrics = address("metrics", metrics)?;
    let local_listen = address("local_listen", local_listen)?;
    let returning = only(*returning);
    let speaks = Some(Speaks::from_wire(*oldest_version, *newest_version).map_err(invalid)?);
    Ok(Register {
        instance,
        name,
        vtep,
        listen,
        returning,
        gateway,
        metrics,
        local_listen,
        speaks,
        log_lost,
        incarnation,
    })
}

fn bounded<'a, T>(field: &'static str, given: &'a [T], max: usize) -> Result<&'a [T], Status> {
    if given.len() <= max {
        return Ok(given);
    }
    let why = format!("are too many: one endpoint has up to {max}");
    Err(invalid(Invalid::new(field, given.len().to_string(), why)))
}

fn list<T: FromStr<Err = Invalid> + Ord>(
    field: &'static str,
    texts: &[String],
    max: usize,
) -> Result<BTreeSet<T>, Status> {
    let parse = |text: &String| text.parse().map_err(|error| invalid(Invalid { field, ..error }));
    bounded(field, texts, max)?.iter().map(parse).collect()
}

fn wish(request: &v1::PublishRequest) -> Result<Publish, Status> {
    let v1::PublishRequest { host_ip, host_port, port } = request;
    let host = optional(host_ip, |text| ipv4("publish.host_ip", text))?;
    let host_port = match u16::try_from(*host_port) {
        Ok(port) => NonZeroU16::new(port),
        Err(_) => {
            let why = "is not a port from 1 to 65535, or 0 for a free one";
            return Err(invalid(Invalid::new("publish.host_port", host_port.to_string(), why)));
        }
    };
    let named = |field| move |error| invalid(Invalid { field, ..error });
    let port = port.parse().map_err(named("publish.port"))?;
    Publish::new(host.unwrap_or(Ipv4Addr::UNSPECIFIED), host_port, port)
        .map_err(named("publish.host_ip"))
}

/// Absolute path of a namespace. A bare name is below /run/netns; without one it is the endpoint's name.
fn netns_path(name: &EndpointName, text: &str) -> Result<PathBuf, Status> {
    let text = if text.is_empty() { name.as_str() } else { text };
    if text.starts_with('/') {
        return Ok(PathBuf::from(text));
    }
    if text.contains('/') || text == "." || text == ".." {
        let why = "is neither a name below /run/netns nor an absolute path";
        return Err(invalid(Invalid::new("netns", text, why)));
    }
    Ok(PathBuf::from(NETNS_FOLDER).join(text))
}
