//! Whether a packet meets a condition of another program's rules. No I/O.

use ipnet::Ipv4Net;
use serde_json::Value;

use crate::model::Subnet;

/// The number of TCP (RFC 9293).
const TCP: u64 = 6;

/// A packet that begins a connection.
#[derive(Debug, Clone, Copy)]
pub(super) enum Packet<'a> {
    /// From an endpoint to the outside.
    Out {
        /// The gateway bridge, by which it comes in.
        bridge: &'a str,
        /// The bridge's subnet, which its source is of.
        subnet: Subnet,
    },
    /// From the outside to a published port, after the translation.
    In {
        /// The gateway bridge, by which it goes out.
        bridge: &'a str,
        /// The bridge's subnet, which its destination is of.
        subnet: Subnet,
    },
    /// From another node to this one.
    Api {
        /// The port of this node's API, over TCP.
        port: u16,
    },
}

/// Returns true if the packet meets the condition; `None` if that is not known.
pub(super) fn matches(condition: &Value, packet: Packet<'_>) -> Option<bool> {
    let equal = is_equal(&condition["left"], &condition["right"], packet);
    match condition["op"].as_str() {
        Some("==" | "in") => equal,
        Some("!=") => equal.map(|equal| !equal),
        _ => None,
    }
}

/// Returns true if a property of the packet has this value, or one of these; `None` if that is not known.
pub(super) fn is_equal(property: &Value, value: &Value, packet: Packet<'_>) -> Option<bool> {
    let any = |values: &Value| {
        let all = values.as_array()?.iter().map(|one| is_equal(property, one, packet));
        let all: Vec<Option<bool>> = all.collect();
        if all.contains(&Some(true)) {
            Some(true)
        } else {
            all.iter().all(Option::is_some).then_some(false)
        }
    };
    if value.is_array() {
        return any(value);
    }
    if let Some(members) = value.get("set") {
        return any(members);
    }
    let text = value.as_str();
    let fib = &property["fib"];
    if fib["result"] == "type" && (fib["flags"] == "daddr" || fib["flags"][0] == "daddr") {
        let of_host = matches!(packet, Packet::Api { .. });
        return Some(text? == if of_host { "local" } else { "unicast" });
    }
    match (&property["meta"]["key"], &property["ct"]["key"], &property["payload"]) {
        (Value::String(key), ..) => match (key.as_str(), packet) {
            ("iifname" | "iif", Packet::Out { bridge, .. })
            | ("oifname" | "oif", Packet::In { bridge, .. }) => is_device(bridge, text?),
            ("iifname" | "iif", Packet::Api { .. }) => (text? == "lo").then_some(false),
            ("l4proto", Packet::Api { .. }) => Some(is_tcp(value)),
            ("nfproto", _) => Some(text? == "ipv4"),
            ("protocol", _) => Some(text? == "ip"),
            _ => None,
        },
        (_, Value::String(key), _) => match key.as_str() {
            "state" => Some(text? == "new"),
            "status" => Some(matches!(packet, Packet::In { .. }) && text? == "dnat"),
            _ => None,
        },
        (.., payload) => {
            match (payload["protocol"].as_str()?, payload["field"].as_str()?, packet) {
                ("ip", "saddr", Packet::Out { subnet, .. })
                | ("ip", "daddr", Packet::In { subnet, .. }) => is_within(subnet, value),
                ("ip6", ..) => Some(false),
                ("tcp" | "th", "dport", Packet::Api { port }) => is_port(port, value),
                ("ip", "protocol", Packet::Api { .. }) => Some(is_tcp(value)),
                ("ip" | "tcp" | "th" | "ether", ..) => None,
                (_, _, Packet::Api { .. }) => Some(false),
                _ => None,
            }
        }
    }
}

fn is_tcp(protocol: &Value) -> bool {
    protocol.as_str() == Some("tcp") || protocol.as_u64() == Some(TCP)
}

/// Compares a port with a number or a range; `None` for a set by name.
fn is_port(port: u16, value: &Value) -> Option<bool> {
    let port = u64::from(port);
    match &value["range"] {
        Value::Null => Some(value.as_u64()? == port),
        range => Some((range[0].as_u64()?..=range[1].as_u64()?).contains(&port)),
    }
}

/// Compares names of devices; a name may end with `*`. `None` for a set by name.
fn is_device(device: &str, name: &str) -> Option<bool> {
    match name.strip_suffix('*') {
        Some(start) => Some(device.starts_with(start)),
        None if name.starts_with('@') => None,
        None => Some(device == name),
    }
}

/// Returns true if the prefix holds the whole subnet; `None` if only a part.
fn is_within(subnet: Subnet, value: &Value) -> Option<bool> {
    let net: Ipv4Net = match (value.as_str(), &value["prefix"]) {
        (Some(address), _) => Ipv4Net::from(address.parse::<std::net::Ipv4Addr>().ok()?),
        (None, prefix) => {
            let length = u8::try_from(prefix["len"].as_u64()?).ok()?;
            Ipv4Net::new(prefix["addr"].as_str()?.parse().ok()?, length).ok()?
        }
    };
    if net.contains(&subnet.net()) {
        Some(true)
    } else {
        (!subnet.net().contains(&net)).then_some(false)
    }
}
