//! The values behind the golden files of a forwarded request and of its answer.

use super::{
    CreateEndpoint, EndpointInfo, EndpointState, NetworkOf, NodeOf,
    verb::{decode, encode, pack},
};
use crate::{
    control::state::{
        Command, Row,
        golden::{commands, former_rows, rows},
    },
    model::Vni,
};
use std::collections::BTreeMap;

fn create() -> CreateEndpoint {
    let creations = commands().into_iter().find_map(|command| match command {
        Command::CreateEndpoint { name, network, placement, permissions, aliases, ports } => {
            Some(CreateEndpoint {
                request: [7; 16],
                name,
                network,
                placement,
                permissions,
                aliases,
                ports,
                wait: true,
            })
        }
        _ => None,
    });
    creations.unwrap()
}

fn info(rows: Vec<Row>) -> EndpointInfo {
    let endpoint = rows.into_iter().find_map(|row| match row {
        Row::Endpoint(endpoint) => Some((*endpoint).clone()),
        _ => None,
    });
    let (name, vni) = ("net".parse().unwrap(), Vni::try_from(4_097).unwrap());
    let gateway = Some("172.18.0.0/16".parse().unwrap());
    EndpointInfo {
        endpoint: endpoint.unwrap(),
        network: Some(NetworkOf { name, vni, prefix_len: 24 }),
        node: Some(NodeOf { name: "h1".parse().unwrap(), vtep: [10, 10, 10, 1].into(), gateway }),
        state: EndpointState::Down { reason: "why".to_owned() },
    }
}

pub(crate) fn request() -> Vec<u8> {
    pack(&create()).unwrap()
}

pub(crate) fn check_request(bytes: &[u8]) {
    let read: BTreeMap<String, CreateEndpoint> = decode(bytes).unwrap();
    let expected = BTreeMap::from([("CreateEndpoint".to_owned(), create())]);
    assert_eq!(format!("{read:?}"), format!("{expected:?}"));
}

pub(crate) fn answer() -> Vec<u8> {
    encode(&info(rows())).unwrap()
}

pub(crate) fn check_answer(bytes: &[u8]) {
    assert_eq!(decode::<EndpointInfo>(bytes), Ok(info(rows())));
}

/// The answer of a version whose legs had no ids of their own.
pub(crate) fn check_former_answer(bytes: &[u8]) {
    assert_eq!(decode::<EndpointInfo>(bytes), Ok(info(former_rows())));
}
