//! The table as nft lists it, brought into a form that can be compared with the wanted table.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    num::NonZeroU16,
};

use overlay_common::Counter;
use serde_json::Value;

use super::{
    contents::{Contents, protocol_number},
    rules::{
        BRIDGED, INPUT, ON_ALL_TO_ADDRESS, ON_ALL_TO_PORT, ON_ONE_TO_ADDRESS, ON_ONE_TO_PORT,
        OPENED,
    },
};
use crate::{
    dataplane::kernel::{HostPort, Target},
    model::Transport,
};

/// The table in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Observed {
    /// Everything but elements.
    pub(super) skeleton: Vec<Value>,
    /// `None` if the node would not make such elements: a port without an address, a time-out.
    pub(super) contents: Option<Contents>,
    /// What the chain [`INPUT`] counted.
    pub(super) unseen: Counter,
}

impl Observed {
    pub(super) fn new(objects: Vec<Value>) -> Self {
        let mut all = Some(Elements::default());
        let mut skeleton = Vec::new();
        let unseen = objects.iter().filter_map(counted).next().unwrap_or_default();
        for mut object in objects {
            if object.get("metainfo").is_some() || object.get("table").is_some_and(is_plain) {
                continue;
            }
            let (name, elements) = take_elements(&mut object);
            all = all.and_then(|all| {
                elements.into_iter().try_fold(all, |all, element| all.with(&name, &element))
            });
            skeleton.push(canonical(object));
        }
        sort(&mut skeleton);
        Self { skeleton, contents: all.and_then(Elements::joined), unseen }
    }
}

/// What the rule of the chain [`INPUT`] counted, if the object is that rule.
fn counted(object: &Value) -> Option<Counter> {
    let rule = object.get("rule").filter(|rule| rule.get("chain").is_some_and(|c| c == INPUT))?;
    let counter = rule.get("expr")?.as_array()?.iter().find_map(|part| part.get("counter"))?;
    let number = |key| counter.get(key).and_then(Value::as_u64);
    Some(Counter { packets: number("packets")?, bytes: number("bytes")? })
}

/// The form in which nft would list these objects.
pub(super) fn skeleton(objects: &[Value]) -> Vec<Value> {
    let mut skeleton: Vec<Value> = objects.iter().cloned().map(canonical).collect();
    sort(&mut skeleton);
    skeleton
}

/// Sorts the objects, because nft lists their kinds in an order of its own. The rules of a chain keep their
/// order, which matters.
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

/// Returns true if the table has no flags ("dormant") or other properties that the node does not set.
fn is_plain(table: &Value) -> bool {
    let known = ["family", "name", "handle"];
    table.as_object().is_some_and(|table| table.keys().all(|key| known.contains(&key.as_str())))
}

/// Takes the elements out of a map or set, and returns its name and the elements.
fn take_elements(object: &mut Value) -> (String, Vec<Value>) {
    let set = ["map", "set"].into_iter().find(|kind| object.get(kind).is_some());
    let Some(set) = set.and_then(|kind| object.get_mut(kind)?.as_object_mut()) else {
        return (String::new(), Vec::new());
    };
    let name = set.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let elements = match set.remove("elem") {
        Some(Value::Array(elements)) => elements,
        Some(element) => vec![element],
        None => Vec::new(),
    };
    (name, elements)
}

/// Removes the differences between versions of nft and between one reading and the next: handles, counts,
/// absent values, lists of one, and the order of sets.
fn canonical(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept =
                map.into_iter().filter(|(key, value)| key != "handle" && !is_absent(key, value));
            Value::Object(
                kept.map(|(key, value)| match (key.as_str(), value) {
                    ("counter", _) => (key, Value::Null),
                    ("set", Value::Array(mut members)) => {
                        members.sort_by_key(Value::to_string);
                        (key, canonical(Value::Array(members)))
                    }
                    (_, value) => (key, canonical(value)),
                })
                .collect(),
            )
        }
        Value::Array(mut list) if list.len() == 1 => canonical(list.remove(0)),
        Value::Array(list) => list.into_iter().map(canonical).collect(),
        value => value,
    }
}

/// Returns true for a property without a value. The name of a statement may have none and still counts.
fn is_absent(key: &str, value: &Value) -> bool {
    value.is_null() && !["accept", "drop", "masquerade", "counter"].contains(&key)
}

/// A value and its comment.
type Commented<T> = (T, String);

/// The elements of all maps and sets.
#[derive(Default)]
struct Elements {
    addresses: BTreeMap<HostPort, Commented<Ipv4Addr>>,
    ports: BTreeMap<HostPort, Commented<NonZeroU16>>,
    opened: BTreeSet<String>,
    bridged: BTreeSet<(String, String)>,
}

impl Elements {
    fn with(mut self, map: &str, element: &Value) -> Option<Self> {
        match map {
            OPENED => {
                self.opened.insert(element.as_str()?.to_owned());
            }
            BRIDGED => {
                let [from, bridge] = element.get("concat")?.as_array()?.as_slice() else {
                    return None;
                };
                self.bridged.insert((from.as_str()?.to_owned(), bridge.as_str()?.to_owned()));
            }
            ON_ONE_TO_ADDRESS | ON_ALL_TO_ADDRESS => {
                let (port, comment, value) = mapping(map == ON_ALL_TO_ADDRESS, element)?;
                self.addresses.insert(port, (value.as_str()?.parse().ok()?, comment));
            }
            ON_ONE_TO_PORT | ON_ALL_TO_PORT => {
                let (port, comment, value) = mapping(map == ON_ALL_TO_PORT, element)?;
                self.ports.insert(port, (port_number(value)?, comment));
            }
            // A foreign map: the comparison of the skeleton finds it.
            _ => {}
        }
        Some(self)
    }

    /// `None` if a port has only one of its two elements, or two different comments.
    fn joined(mut self) -> Option<Contents> {
        let mut published = BTreeMap::new();
        for (host_port, (address, comment)) in self.addresses {
            let (port, other_comment) = self.ports.remove(&host_port)?;
            if comment != other_comment {
                return None;
            }
            published.insert(host_port, Target { address, port, comment });
        }
        let Self { opened, bridged, ports, .. } = self;
        ports.is_empty().then_some(Contents { published, opened, bridged })
    }
}

/// Parses an element `[{"elem": {"val": KEY, "comment": "web1 80/tcp"}}, VALUE]`.
fn mapping(on_all: bool, element: &Value) -> Option<(HostPort, String, &Value)> {
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
    let port = match key.get("concat")?.as_array()?.as_slice() {
        [host, protocol, port] if !on_all => {
            host_port(host.as_str()?.parse().ok()?, protocol, port)?
        }
        [protocol, port] if on_all => host_port(Ipv4Addr::UNSPECIFIED, protocol, port)?,
        _ => return None,
    };
    Some((port, comment, value))
}

fn host_port(host: Ipv4Addr, protocol: &Value, port: &Value) -> Option<HostPort> {
    let transport =
        [Transport::Tcp, Transport::Udp, Transport::Sctp].into_iter().find(|transport| {
            // A version of nft that does not print protocols as numbers prints names.
            protocol.as_u64() == Some(protocol_number(*transport).into())
                || protocol.as_str() == Some(transport.name())
        })?;
    Some((transport, host, port_number(port)?))
}

fn port_number(value: &Value) -> Option<NonZeroU16> {
    u16::try_from(value.as_u64()?).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dataplane::gateway::rules;

    /// The objects that the node writes, as nft would list them.
    fn listed() -> Vec<Value> {
        let mut objects = vec![json!({"metainfo": {"version": "1.0.6"}})];
        objects.push(json!({"table": {"family": "ip", "name": "overlay", "handle": 1}}));
        objects.extend(rules::skeleton(&rules::tests::some()));
        objects
    }

    fn wanted() -> Vec<Value> {
        skeleton(&rules::skeleton(&rules::tests::some()))
    }

    fn with_elements(name: &str, elements: Value) -> Vec<Value> {
        let mut objects = listed();
        let map = objects
            .iter_mut()
            .find_map(|object| object.get_mut("map").filter(|map| map["name"] == name));
        map.unwrap()["elem"] = elements;
        objects
    }

    #[test]
    fn what_differs_between_versions_and_readings_is_no_difference() {
        let text = serde_json::to_string(&listed()).unwrap();
        // Handles, counts, the order of a set, a single flag without a list (1.0.9), and the order of
        // objects.
        let text = text
            .replace(r#""table":"overlay","#, r#""table":"overlay","handle":7,"#)
            .replace(r#""packets":0"#, r#""packets":12"#)
            .replace(r#"["ov_gwbridge","lo"]"#, r#"["lo","ov_gwbridge"]"#)
            .replace(r#""flags":["daddr"]"#, r#""flags":"daddr""#);
        let mut objects: Vec<Value> = serde_json::from_str(&text).unwrap();
        objects.sort_by_key(|object| object.get("chain").is_none());
        assert_ne!(objects, listed());
        let observed = Observed::new(objects);
        assert_eq!(observed.skeleton, wanted());
        assert_eq!(observed.unseen, Counter { packets: 12, bytes: 0 }, "by the chain `input`");
    }

    #[test]
    fn what_somebody_changed_is_a_difference() {
        let text = serde_json::to_string(&listed()).unwrap();
        for (ours, theirs) in [
            (r#""policy":"accept""#, r#""policy":"drop""#),
            (r#""op":"!=""#, r#""op":"==""#),
            (r#""lo""#, r#""eth0""#),
            (r#""prio":-100"#, r#""prio":-99"#),
            (r#""len":16"#, r#""len":24"#),
            ("answers to endpoints", "mine"),
            (r#"{"drop":null}"#, r#"{"accept":null}"#),
            (r#""handle":1"#, r#""flags":"dormant""#),
        ] {
            assert!(text.contains(ours), "{ours}");
            let objects = serde_json::from_str(&text.replacen(ours, theirs, 1)).unwrap();
            assert_ne!(Observed::new(objects).skeleton, wanted(), "{theirs}");
        }
        let mut swapped = listed();
        let last = swapped.len() - 1;
        swapped.swap(last, last - 1);
        assert_ne!(Observed::new(swapped).skeleton, wanted(), "the order of rules counts");
    }

    #[test]
    fn elements_that_are_none_of_ours_are_seen() {
        assert_eq!(Observed::new(listed()).contents, Some(Contents::default()));
        let key = json!({"concat": [6, 80]});
        let both = || {
            let mut objects = with_elements(ON_ALL_TO_PORT, json!([[key, 80]]));
            let map = objects.iter_mut().find(|object| object["map"]["name"] == ON_ALL_TO_ADDRESS);
            map.unwrap()["map"]["elem"] = json!([[key, "172.18.0.2"]]);
            objects
        };
        let contents = Observed::new(both()).contents.unwrap();
        assert_eq!(contents.published.len(), 1);
        for (name, elements) in [
            (ON_ALL_TO_PORT, json!([[key, 80]])),
            (ON_ALL_TO_ADDRESS, json!([[key, "172.18.0.2"]])),
            (ON_ALL_TO_PORT, json!([[{"concat": [1, 80]}, 80]])),
            (ON_ALL_TO_PORT, json!([[{"elem": {"val": key, "timeout": 5}}, 80]])),
            (ON_ONE_TO_PORT, json!([[key, 80]])),
            (ON_ALL_TO_PORT, json!([[key, {"range": [80, 90]}]])),
        ] {
            assert_eq!(
                Observed::new(with_elements(name, elements.clone())).contents,
                None,
                "{elements}"
            );
        }
    }
}
