//! What the rules of another program do with a packet of an endpoint, as far as its devices, addresses and connection
//! tell. No I/O.
//!
//! A rule with a condition that these do not decide (a mark, a port, a set) is taken for one that does not match. So a
//! packet that counts as dropped may pass in special cases; one that counts as passed does pass.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;
use serde_json::Value;

use crate::model::Subnet;

/// Longest path through chains that call each other. The kernel allows 16 (`NFT_JUMP_STACK_SIZE`).
const DEPTH_MAX: usize = 16;

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
}

/// The end of a packet's way through a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The chain lets it pass.
    Accept,
    /// The chain drops it, or answers with an error.
    Drop,
}

/// The end of a way through the rules of one chain.
enum End {
    Verdict(Verdict),
    /// No rule decided, or one returned to the chain that called.
    Return,
}

/// The rules of a table, by chain.
pub(super) struct Chains<'a>(BTreeMap<&'a str, Vec<&'a [Value]>>);

impl<'a> Chains<'a> {
    /// Of a table as nft lists it.
    pub(super) fn new(objects: &'a [Value]) -> Self {
        let mut chains: BTreeMap<&str, Vec<&[Value]>> = BTreeMap::new();
        for object in objects {
            if let Some(name) = object["chain"]["name"].as_str() {
                chains.entry(name).or_default();
            }
            let rule = &object["rule"];
            if let (Some(chain), Some(statements)) =
                (rule["chain"].as_str(), rule["expr"].as_array())
            {
                chains.entry(chain).or_default().push(statements);
            }
        }
        Self(chains)
    }

    /// Returns true if the table has this chain.
    pub(super) fn has(&self, chain: &str) -> bool {
        self.0.contains_key(chain)
    }

    /// The verdict of the base chain `chain` with this policy.
    pub(super) fn verdict(&self, chain: &str, policy: Verdict, packet: Packet<'_>) -> Verdict {
        match self.walk(chain, packet, DEPTH_MAX) {
            End::Verdict(verdict) => verdict,
            End::Return => policy,
        }
    }

    fn walk(&self, chain: &str, packet: Packet<'_>, depth: usize) -> End {
        let rules = self.0.get(chain).map_or(&[][..], Vec::as_slice);
        for statements in rules {
            let Some(act) = act(statements, packet) else { continue };
            let jump = |key: &str| act[key]["target"].as_str();
            if act.get("accept").is_some() {
                return End::Verdict(Verdict::Accept);
            }
            if act.get("drop").is_some() || act.get("reject").is_some() || is_reject(act) {
                return End::Verdict(Verdict::Drop);
            }
            if act.get("return").is_some() {
                return End::Return;
            }
            let (target, is_goto) = match (jump("jump"), jump("goto")) {
                (Some(target), _) => (target, false),
                (None, Some(target)) => (target, true),
                (None, None) => continue,
            };
            if depth == 0 {
                return End::Return;
            }
            match self.walk(target, packet, depth - 1) {
                End::Return if is_goto => return End::Return,
                End::Return => {}
                end @ End::Verdict(_) => return end,
            }
        }
        End::Return
    }
}

/// REJECT as `iptables-nft` writes it.
fn is_reject(statement: &Value) -> bool {
    statement["xt"]["name"] == "REJECT"
}

/// What a rule does with a packet that it matches; `None` if it does not match, or may not.
fn act<'a>(statements: &'a [Value], packet: Packet<'_>) -> Option<&'a Value> {
    for statement in statements {
        if let Some(condition) = statement.get("match") {
            if !matches(condition, packet) {
                return None;
            }
        } else if let Some(map) = statement.get("vmap") {
            return act_of_map(map, packet);
        } else if statement.get("xt").is_some() && !is_reject(statement) {
            return None;
        } else if !is_aside(statement) {
            return Some(statement);
        }
    }
    None
}

/// A statement that decides nothing.
fn is_aside(statement: &Value) -> bool {
    ["counter", "log", "mangle", "limit", "notrack"].iter().any(|key| statement.get(key).is_some())
}

fn act_of_map<'a>(map: &'a Value, packet: Packet<'_>) -> Option<&'a Value> {
    let pairs = map["data"]["set"].as_array()?;
    let is_hit = |pair: &&Value| is_equal(&map["key"], &pair[0], packet) == Some(true);
    pairs.iter().find(is_hit).map(|pair| &pair[1])
}

fn matches(condition: &Value, packet: Packet<'_>) -> bool {
    let equal = is_equal(&condition["left"], &condition["right"], packet);
    match condition["op"].as_str() {
        Some("==" | "in") => equal == Some(true),
        Some("!=") => equal == Some(false),
        _ => false,
    }
}

/// Returns true if a property of the packet has this value, or one of these; `None` if that is not known.
fn is_equal(property: &Value, value: &Value, packet: Packet<'_>) -> Option<bool> {
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
    let is_out = matches!(packet, Packet::Out { .. });
    let (Packet::Out { bridge, subnet } | Packet::In { bridge, subnet }) = packet;
    let text = value.as_str();
    match (&property["meta"]["key"], &property["ct"]["key"], &property["payload"]) {
        (Value::String(key), ..) => match key.as_str() {
            "iifname" | "iif" if is_out => is_device(bridge, text?),
            "oifname" | "oif" if !is_out => is_device(bridge, text?),
            "nfproto" => Some(text? == "ipv4"),
            "protocol" => Some(text? == "ip"),
            _ => None,
        },
        (_, Value::String(key), _) => match key.as_str() {
            "state" => Some(text? == "new"),
            "status" => Some(!is_out && text? == "dnat"),
            _ => None,
        },
        (.., payload) => match (payload["protocol"].as_str()?, payload["field"].as_str()?) {
            ("ip", "saddr") if is_out => is_within(subnet, value),
            ("ip", "daddr") if !is_out => is_within(subnet, value),
            ("ip6", _) => Some(false),
            _ => None,
        },
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const BRIDGE: &str = "ov_gwbridge";

    fn subnet() -> Subnet {
        "172.18.0.0/16".parse().unwrap()
    }

    fn rule(chain: &str, statements: Value) -> Value {
        json!({"rule": {"chain": chain, "expr": statements}})
    }

    fn iif(name: &str) -> Value {
        json!({"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": name}})
    }

    fn state(states: Value) -> Value {
        json!({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": states}})
    }

    fn address(field: &str, addr: &str, len: u8) -> Value {
        let left = json!({"payload": {"protocol": "ip", "field": field}});
        json!({"match": {"op": "==", "left": left, "right": {"prefix": {"addr": addr, "len": len}}}})
    }

    /// The verdicts on packets out and in, in a chain that drops by its policy.
    fn verdicts(rules: &[Value]) -> [Verdict; 2] {
        let (bridge, subnet) = (BRIDGE, subnet());
        let chains = Chains::new(rules);
        [Packet::Out { bridge, subnet }, Packet::In { bridge, subnet }]
            .map(|packet| chains.verdict("f", Verdict::Drop, packet))
    }

    const BOTH: [Verdict; 2] = [Verdict::Accept, Verdict::Accept];
    const OUT: [Verdict; 2] = [Verdict::Accept, Verdict::Drop];
    const IN: [Verdict; 2] = [Verdict::Drop, Verdict::Accept];
    const NONE: [Verdict; 2] = [Verdict::Drop, Verdict::Drop];

    #[test]
    fn what_devices_addresses_and_connections_tell_decides() {
        let accept = json!({"accept": null});
        let counter = json!({"counter": {"packets": 3, "bytes": 252}});
        let dnat =
            json!({"match": {"op": "in", "left": {"ct": {"key": "status"}}, "right": "dnat"}});
        let not_eth0 =
            json!({"match": {"op": "!=", "left": {"meta": {"key": "iifname"}}, "right": "eth0"}});
        let named =
            json!({"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "@lan"}});
        let ports = json!({"match": {"op": "==",
            "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 443}});
        for (statements, expected) in [
            (json!([accept]), BOTH),
            (json!([counter, accept]), BOTH),
            (json!([counter]), NONE),
            (json!([iif(BRIDGE), accept]), OUT),
            (json!([iif("ov_*"), accept]), OUT),
            (json!([iif("eth0"), accept]), NONE),
            (json!([not_eth0, accept]), OUT),
            (json!([named, accept]), NONE),
            (json!([ports, accept]), NONE),
            (json!([dnat, accept]), IN),
            (json!([state(json!("new")), accept]), BOTH),
            (json!([state(json!(["established", "related"])), accept]), NONE),
            (json!([state(json!(["new", "related"])), accept]), BOTH),
            (json!([address("saddr", "172.16.0.0", 12), accept]), OUT),
            (json!([address("daddr", "172.16.0.0", 12), accept]), IN),
            (json!([address("saddr", "172.18.5.0", 24), accept]), NONE),
            (json!([address("saddr", "10.0.0.0", 8), accept]), NONE),
            (json!([{"xt": {"type": "match", "name": "physdev"}}, accept]), NONE),
        ] {
            assert_eq!(verdicts(&[rule("f", statements.clone())]), expected, "{statements}");
        }
    }

    #[test]
    fn the_first_rule_that_decides_counts() {
        let accept = || json!([{"accept": null}]);
        for end in [
            json!({"drop": null}),
            json!({"reject": {"type": "icmpx"}}),
            json!({"xt": {"type": "target", "name": "REJECT"}}),
        ] {
            assert_eq!(verdicts(&[rule("f", json!([end])), rule("f", accept())]), NONE, "{end}");
        }
        let ends = |way: &str, inner: Value| {
            let call = rule("f", json!([{way: {"target": "zone"}}]));
            verdicts(&[call, rule("f", accept()), rule("zone", inner)])
        };
        assert_eq!(ends("jump", json!([{"drop": null}])), NONE);
        assert_eq!(ends("jump", json!([iif("eth0"), {"drop": null}])), BOTH, "it comes back");
        assert_eq!(ends("jump", json!([{"return": null}])), BOTH);
        assert_eq!(ends("goto", json!([{"return": null}])), NONE, "it does not come back");
        let of_state = json!({"vmap": {"key": {"ct": {"key": "state"}},
            "data": {"set": [["established", {"accept": null}], ["new", {"accept": null}]]}}});
        assert_eq!(verdicts(&[rule("f", json!([of_state]))]), BOTH);
        let endless = [rule("f", json!([{"jump": {"target": "f"}}]))];
        assert_eq!(verdicts(&endless), NONE);
    }
}
