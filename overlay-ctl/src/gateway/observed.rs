//! The table as nft tells of it, brought into a form that can be compared with what is wanted.

use std::net::Ipv4Addr;

use nftables::schema::NfListObject;
use serde_json::Value;

use super::{
    HostPort, Target,
    rules::{Contents, OPENED, PUBLISHED_ON_ALL, PUBLISHED_ON_ONE, protocol_number},
};
use crate::model::Transport;

/// What stands in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Observed {
    /// Everything but elements.
    pub(super) skeleton: Vec<Value>,
    /// `None` where an element is none that we make.
    pub(super) contents: Option<Contents>,
}

impl Observed {
    pub(super) fn new(objects: Vec<Value>) -> Self {
        let mut contents = Some(Contents::default());
        let mut skeleton = Vec::new();
        for mut object in objects {
            if object.get("metainfo").is_some() || object.get("table").is_some_and(is_plain) {
                continue;
            }
            let elements = elements(&mut object);
            let all_ours = contents.as_mut().is_some_and(|contents| {
                elements.into_iter().all(|(name, element)| add(contents, &name, &element).is_some())
            });
            if !all_ours {
                contents = None;
            }
            skeleton.push(canonical(object));
        }
        sort(&mut skeleton);
        Self { skeleton, contents }
    }
}

/// What nft would tell of these objects.
pub(super) fn skeleton(objects: &[NfListObject<'_>]) -> Vec<Value> {
    let values = objects.iter().map(|object| match serde_json::to_value(object) {
        Ok(value) => canonical(value),
        Err(error) => unreachable!("these objects are made of strings and numbers: {error}"),
    });
    let mut skeleton: Vec<Value> = values.collect();
    sort(&mut skeleton);
    skeleton
}

/// Kinds of objects come in another order from nft than we give them; rules of a chain keep theirs.
fn sort(skeleton: &mut [Value]) {
    skeleton.sort_by_key(|object| {
        let of = |kind: &str, key: &str| {
            object.get(kind).and_then(|object| object.get(key)).and_then(Value::as_str)
        };
        let name = ["map", "set", "chain"].iter().find_map(|kind| of(kind, "name"));
        let place = name.map(|name| (0, name.to_owned()));
        place.or_else(|| of("rule", "chain").map(|chain| (1, chain.to_owned())))
    });
}

/// A table without flags ("dormant") or anything else that we would not give it.
fn is_plain(table: &Value) -> bool {
    let known = ["family", "name", "handle"];
    table.as_object().is_some_and(|table| table.keys().all(|key| known.contains(&key.as_str())))
}

/// Takes the elements out of a map or set.
fn elements(object: &mut Value) -> Vec<(String, Value)> {
    let Some(set) =
        ["map", "set"].into_iter().find_map(|kind| object.get(kind).is_some().then_some(kind))
    else {
        return Vec::new();
    };
    let set = &mut object[set];
    let name = set["name"].as_str().unwrap_or_default().to_owned();
    let taken = set.as_object_mut().and_then(|set| set.remove("elem"));
    match taken {
        Some(Value::Array(elements)) => {
            elements.into_iter().map(|element| (name.clone(), element)).collect()
        }
        Some(element) => vec![(name, element)],
        None => Vec::new(),
    }
}

/// Without what differs between versions of nft and from one reading to the next: handles, counts,
/// absent values, lists of one, and types written as one string.
fn canonical(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept =
                map.into_iter().filter(|(key, value)| key != "handle" && !is_absent(key, value));
            Value::Object(
                kept.map(|(key, value)| match value {
                    _ if key == "counter" => (key, Value::Null),
                    Value::String(types) if key == "map" => {
                        let types = types.split(" . ").map(|name| Value::String(name.to_owned()));
                        (key, canonical(types.collect()))
                    }
                    value => (key, canonical(value)),
                })
                .collect(),
            )
        }
        Value::Array(mut list) if list.len() == 1 => canonical(list.remove(0)),
        Value::Array(list) => list.into_iter().map(canonical).collect(),
        value => value,
    }
}

/// A statement's name may have no value; a property without one is none.
fn is_absent(key: &str, value: &Value) -> bool {
    value.is_null() && !["accept", "drop", "masquerade", "counter"].contains(&key)
}

fn add(contents: &mut Contents, name: &str, element: &Value) -> Option<()> {
    if name == OPENED {
        contents.opened.insert(element.as_str()?.to_owned());
        return Some(());
    }
    let [key, value] = element.as_array()?.as_slice() else { return None };
    let (key, comment) = match key.get("elem") {
        Some(element) => {
            let known = |key: &String| key == "val" || key == "comment";
            if !element.as_object()?.keys().all(known) {
                return None;
            }
            let comment = element.get("comment").and_then(Value::as_str).unwrap_or_default();
            (element.get("val")?, comment.to_owned())
        }
        None => (key, String::new()),
    };
    let port = match (name, concatenated(key)?.as_slice()) {
        (PUBLISHED_ON_ONE, [host, protocol, port]) => host_port(Some(host), protocol, port)?,
        (PUBLISHED_ON_ALL, [protocol, port]) => host_port(None, protocol, port)?,
        _ => return None,
    };
    let values = concatenated(value)?;
    let [address, target_port] = values.as_slice() else { return None };
    let target = Target {
        address: address.as_str()?.parse().ok()?,
        port: u16::try_from(target_port.as_u64()?).ok()?.try_into().ok()?,
        comment,
    };
    contents.published.insert(port, target);
    Some(())
}

fn concatenated(value: &Value) -> Option<Vec<Value>> {
    value.get("concat")?.as_array().cloned()
}

fn host_port(host: Option<&Value>, protocol: &Value, port: &Value) -> Option<HostPort> {
    let host = match host {
        None => Ipv4Addr::UNSPECIFIED,
        Some(host) => host.as_str()?.parse().ok()?,
    };
    let transport =
        [Transport::Tcp, Transport::Udp, Transport::Sctp].into_iter().find(|transport| {
            // An nft that knows no numbers for them says names.
            protocol.as_u64() == Some(protocol_number(*transport).into())
                || protocol.as_str() == Some(transport.name())
        })?;
    Some((transport, host, u16::try_from(port.as_u64()?).ok()?.try_into().ok()?))
}
