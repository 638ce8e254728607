//! Rows of the state, and what is known of them, into words of the API.

use crate::{
    control::{consensus, state::State, voter::StatusTable},
    dataplane::datapath::ProgramStatus,
    model::{Endpoint, Location, Mac, Network, Node, NodeId, Published},
    proto::v1,
};
use std::time::UNIX_EPOCH;

pub(super) fn network(state: &State, network: &Network) -> v1::Network {
    let Network { id, name, vni, pool, options } = network;
    v1::Network {
        id: *id,
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
        endpoint_count: count(state.endpoints_of(*id).count()),
        created_revision: *id,
    }
}

pub(super) fn endpoint(state: &State, table: &StatusTable, endpoint: &Endpoint) -> v1::Endpoint {
    let network = state.network(endpoint.network);
    let prefix = network.map_or(32, |network| network.pool.subnet.net().prefix_len());
    let mut shown = v1::Endpoint {
        id: endpoint.id,
        name: endpoint.name.to_string(),
        network: network.map(|network| network.name.to_string()).unwrap_or_default(),
        address: format!("{}/{prefix}", endpoint.address),
        mac: endpoint.mac.to_string(),
        vni: network.map_or(0, |network| network.vni.get()),
        created_revision: endpoint.id,
        aliases: endpoint.aliases.iter().map(ToString::to_string).collect(),
        exposed: endpoint.exposed.iter().map(ToString::to_string).collect(),
        published: published(endpoint),
        ..Default::default()
    };
    match &endpoint.location {
        Location::External { vtep } => {
            shown.vtep = vtep.to_string();
            shown.set_state(v1::EndpointState::External);
        }
        Location::Node { node, netns } => {
            shown.netns = netns.display().to_string();
            if let Some(row) = state.node(*node) {
                shown.node = row.name.to_string();
                shown.vtep = row.vtep.to_string();
                shown.gateway = leg(row, endpoint);
            }
            health(table, *node, &mut shown);
        }
    }
    shown
}

/// Ordered by the endpoint's own port, as who looks for one does.
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
fn leg(node: &Node, endpoint: &Endpoint) -> Option<v1::GatewayLeg> {
    let (address, subnet) = (endpoint.gateway?, node.gateway?);
    Some(v1::GatewayLeg {
        address: format!("{address}/{}", subnet.net().prefix_len()),
        mac: Mac::of_endpoint(address).to_string(),
        gateway: subnet.gateway().to_string(),
        ..Default::default()
    })
}

/// What the endpoint's node says of it.
fn health(table: &StatusTable, node: NodeId, shown: &mut v1::Endpoint) {
    match table.health(node, shown.id) {
        None if table.is_down(node) => {
            shown.set_state(v1::EndpointState::Down);
            shown.state_reason = format!("node {} is down", shown.node);
        }
        None | Some(None) => shown.set_state(v1::EndpointState::Pending),
        Some(Some(health)) if health.up => {
            shown.set_state(v1::EndpointState::Up);
            shown.host_interface = health.host_interface;
            shown.host_ifindex = health.host_ifindex;
            shown.mtu = health.mtu;
            shown.interface = health.interface;
            if let (Some(leg), Some(health)) = (&mut shown.gateway, health.gateway) {
                leg.interface = health.interface;
                leg.host_interface = health.host_interface;
                leg.host_ifindex = health.host_ifindex;
                leg.mtu = health.mtu;
            }
        }
        Some(Some(health)) => {
            shown.set_state(v1::EndpointState::Down);
            shown.state_reason = health.reason;
        }
    }
}

pub(super) fn node(
    state: &State,
    table: &StatusTable,
    members: &consensus::Status,
    node: &Node,
) -> v1::Node {
    let role = if members.leader == Some(node.id) {
        v1::NodeRole::Leader
    } else if members.voters.contains(&node.id) {
        v1::NodeRole::Voter
    } else if node.voter {
        v1::NodeRole::Learner
    } else {
        v1::NodeRole::Agent
    };
    let ready = if table.is_down(node.id) { v1::NodeState::Down } else { v1::NodeState::Ready };
    v1::Node {
        id: node.id,
        name: node.name.to_string(),
        role: role.into(),
        state: ready.into(),
        vtep: node.vtep.to_string(),
        listen: node.listen.to_string(),
        epoch: node.epoch,
        programmed_revision: table.programmed(node.id).unwrap_or(0),
        endpoint_count: count(state.endpoints_on(node.id).count()),
        gateway_subnet: node.gateway.map(|subnet| subnet.to_string()).unwrap_or_default(),
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
