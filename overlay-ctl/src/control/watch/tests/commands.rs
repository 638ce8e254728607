//! The commands of the tests.

use super::*;

pub(super) fn register(id: NodeId) -> Command {
    register_at(id, listen(id))
}

pub(super) fn register_at(id: NodeId, place: SocketAddr) -> Command {
    Command::RegisterNode {
        instance: [u8::try_from(id).unwrap(); 16],
        name: format!("h{id}").parse().unwrap(),
        vtep: listen(id).ip().into(),
        listen: place,
        returning: None,
        gateway: None,
        metrics: None,
        local_listen: None,
        speaks: None,
    }
}

pub(super) fn network(name: &str, subnet: &str) -> Command {
    Command::CreateNetwork {
        name: name.parse().unwrap(),
        pool: Some(Pool::whole(subnet.parse().unwrap())),
        vni: None,
        options: NetworkOptions::default(),
    }
}

pub(super) fn create_endpoint(network: &str, name: &str, node: NodeId) -> Command {
    Command::CreateEndpoint {
        name: name.parse().unwrap(),
        network: network.parse().unwrap(),
        placement: Placement::Node {
            node: format!("h{node}").parse().unwrap(),
            netns: format!("/run/netns/{name}").into(),
            addresses: EndpointAddrs::default(),
        },
        permissions: Permissions::NONE,
        aliases: BTreeSet::new(),
        ports: PortsWanted::default(),
    }
}
