//! Turns what the controller answers into the API's messages.

use crate::{
    control::controller::{
        Attachment, EndpointInfo, EndpointState, Joined, NetworkInfo, NodeInfo, NodeOf, NodeRole,
        PeerInfo,
    },
    dataplane::datapath::ProgramStatus,
    model::{Endpoint, Generation, Lease, Location, Mac, Network, Permission, Published, RaftId},
    proto::v1,
};
use std::time::UNIX_EPOCH;
use uuid::Uuid;

pub(super) fn network(info: NetworkInfo) -> v1::Network {
    let NetworkInfo { network: Network { id, name, vni, pool, options }, endpoints } = info;
    v1::Network {
        id,
        name: name.to_string(),
        vni: vni.get(),
        subnet: pool.subnet.to_string(),
        ip_range: pool.range().map(|range| range.to_string()).unwrap_or_default(),
        options: Some(v1::NetworkOptions {
            icc: Some(options.icc),
            internal: options.internal,
            multicast: options.multicast,
            mtu: options.mtu.map_or(0, u32::from),
        }),
        endpoint_count: count(endpoints),
        created_revision: id,
    }
}

pub(super) fn peer(info: PeerInfo) -> v1::NetworkPeer {
    let PeerInfo { node, vtep, endpoints } = info;
    v1::NetworkPeer {
        node: node.map(|name| name.to_string()).unwrap_or_default(),
        vtep: vtep.to_string(),
        endpoint_count: endpoints,
    }
}

pub(super) fn endpoint(info: EndpointInfo) -> v1::Endpoint {
    let EndpointInfo { endpoint, network, node, state } = info;
    let prefix = network.as_ref().map_or(32, |network| network.prefix_len);
    let mut shown = v1::Endpoint {
        id: endpoint.id,
        name: endpoint.name.to_string(),
        network: network.as_ref().map(|network| network.name.to_string()).unwrap_or_default(),
        address: format!("{}/{prefix}", endpoint.addresses),
        mac: endpoint.mac.to_string(),
        vni: network.map_or(0, |network| network.vni.get()),
        created_revision: endpoint.id,
        aliases: endpoint.aliases.iter().map(ToString::to_string).collect(),
        exposed: endpoint.exposed.iter().map(ToString::to_string).collect(),
        published: published(&endpoint),
        permissions: endpoint
            .permissions
            .iter()
            .map(|one| v1::Permission::from(one).into())
            .collect(),
        ..Default::default()
    };
    match &endpoint.location {
        Location::External { vtep } => shown.vtep = vtep.to_string(),
        Location::Node { netns, .. } => {
            shown.netns = netns.display().to_string();
            if let Some(row) = node {
                shown.gateway = leg(&row, &endpoint);
                shown.vtep = row.vtep.to_string();
                shown.node = row.name.to_string();
            }
        }
    }
    show_state(state, &mut shown);
    shown
}

impl From<Permission> for v1::Permission {
    fn from(permission: Permission) -> Self {
        match permission {
            Permission::Routing => Self::Routing,
            Permission::Bridging => Self::Bridging,
            Permission::Advertising => Self::Advertising,
        }
    }
}

/// Ordered by the endpoint's own port, as a reader looks for one.
fn published(endpoint: &Endpoint) -> Vec<v1::PublishedPort> {
    let mut published: Vec<&Published> = endpoint.published.iter().collect();
    published.sort_unstable_by_key(|published| (published.port, published.host));
    let shown = |Published { host, host_port, port }: &Published| v1::PublishedPort {
        port: port.to_string(),
        host_ip: host.to_string(),
        host_port: host_port.get().into(),
    };
    published.into_iter().map(shown).collect()
}

/// The endpoint's leg on its node's gateway bridge, as far as the rows tell.
fn leg(node: &NodeOf, endpoint: &Endpoint) -> Option<v1::GatewayLeg> {
    let (address, subnet) = (endpoint.leg?.addresses.v4?, node.gateway?);
    Some(v1::GatewayLeg {
        address: format!("{address}/{}", subnet.net().prefix_len()),
        mac: Mac::of_endpoint(address).to_string(),
        gateway: subnet.gateway().to_string(),
        ..Default::default()
    })
}

fn show_state(state: EndpointState, shown: &mut v1::Endpoint) {
    match state {
        EndpointState::External => shown.set_state(v1::EndpointState::External),
        EndpointState::Pending => shown.set_state(v1::EndpointState::Pending),
        EndpointState::NodeDown => {
            shown.set_state(v1::EndpointState::Down);
            shown.state_reason = format!("node {} is down", shown.node);
        }
        EndpointState::Down { reason } => {
            shown.set_state(v1::EndpointState::Down);
            shown.state_reason = reason;
        }
        EndpointState::Up { attachment, gateway } => {
            shown.set_state(v1::EndpointState::Up);
            let Attachment { interface, host_interface, host_ifindex, mtu } = attachment;
            (shown.interface, shown.host_interface) = (interface, host_interface);
            (shown.host_ifindex, shown.mtu) = (host_ifindex, mtu);
            if let (Some(leg), Some(attachment)) = (&mut shown.gateway, gateway) {
                let Attachment { interface, host_interface, host_ifindex, mtu } = attachment;
                (leg.interface, leg.host_interface) = (interface, host_interface);
                (leg.host_ifindex, leg.mtu) = (host_ifindex, mtu);
            }
        }
    }
}

pub(super) fn node(info: NodeInfo) -> v1::Node {
    let NodeInfo { node, role, is_down, programmed, endpoints, is_unknown, answered_ms } = info;
    let state = match node.lease {
        Lease::Lost => v1::NodeState::Lost,
        Lease::Held | Lease::Doubted if is_down => v1::NodeState::Down,
        Lease::Held | Lease::Doubted if is_unknown => v1::NodeState::Unspecified,
        Lease::Held | Lease::Doubted => v1::NodeState::Ready,
    };
    v1::Node {
        id: node.id,
        name: node.name.to_string(),
        role: self::role(role).into(),
        state: state.into(),
        vtep: node.vtep.to_string(),
        listen: node.listen.to_string(),
        epoch: node.epoch,
        programmed_revision: programmed,
        endpoint_count: count(endpoints),
        gateway_subnet: node.gateway.map(|subnet| subnet.to_string()).unwrap_or_default(),
        raft_id: node.life().map_or(0, RaftId::get),
        answered_ms_ago: answered_ms,
    }
}

fn role(role: NodeRole) -> v1::NodeRole {
    match role {
        NodeRole::Leader => v1::NodeRole::Leader,
        NodeRole::Voter => v1::NodeRole::Voter,
        NodeRole::Learner => v1::NodeRole::Learner,
        NodeRole::Agent => v1::NodeRole::Agent,
    }
}

pub(super) fn joined(cluster: Uuid, generation: Generation, joined: Joined) -> v1::JoinResponse {
    let Joined { node, peers, acknowledged, copy_at, life_used } = joined;
    let role = if node.voter { v1::NodeRole::Voter } else { v1::NodeRole::Agent };
    v1::JoinResponse {
        cluster: cluster.to_string(),
        node_id: node.id,
        epoch: node.epoch,
        role: role.into(),
        raft_id: node.life().map_or(0, RaftId::get),
        acknowledged,
        life_used,
        copy_at: copy_at.map(|at| at.to_string()).unwrap_or_default(),
        peers: peers.into_iter().map(self::node).collect(),
        generation: generation.number(),
    }
}

pub(super) fn program(program: ProgramStatus) -> v1::ProgramStatus {
    let ProgramStatus {
        name,
        id,
        tag,
        loaded_at,
        verified_instructions,
        jited_bytes,
        devices,
        other_devices,
        run_time,
        run_count,
    } = program;
    let since_1970 = loaded_at.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    v1::ProgramStatus {
        name: name.to_owned(),
        id,
        tag: format!("{tag:016x}"),
        loaded_at: since_1970.map_or(0, |time| time.as_secs()),
        verified_instructions: verified_instructions.unwrap_or(0),
        jited: jited_bytes > 0,
        devices,
        other_devices,
        run_time_ns: u64::try_from(run_time.as_nanos()).unwrap_or(u64::MAX),
        run_count,
    }
}

pub(super) fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
