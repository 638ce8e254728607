//! What the rules of another program do with a packet, as far as its devices, addresses and connection tell. No I/O.
//!
//! Conditions that these do not decide (a mark, a set by name) are taken for ones that an endpoint's packet does not meet: so
//! one that counts as dropped may pass in special cases, and one that counts as passed does pass. Another node's packet to the
//! API may meet them, or not, since an administrator opens a port for some addresses only: it counts as dropped only where
//! no way leads past.

use std::collections::BTreeMap;

use serde_json::Value;

use super::condition::{Packet, is_equal, matches};

/// Longest path through chains that call each other. The kernel allows 16 (`NFT_JUMP_STACK_SIZE`).
const DEPTH_MAX: usize = 16;
/// The end of a packet's way through a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The chain lets it pass, or may.
    Accept,
    /// The chain drops it, or answers with an error.
    Drop,
}

/// The ends to which a packet may come in one chain.
#[derive(Debug, Clone, Copy, Default)]
struct Ends {
    accept: bool,
    drop: bool,
    /// No rule decides, or one returns to the chain that called.
    back: bool,
}

/// What a rule does.
#[derive(Debug, Clone, Copy)]
enum Act<'a> {
    Accept,
    Drop,
    Return,
    Jump(&'a str),
    Goto(&'a str),
    /// It looks into a map that is not known.
    Unknown,
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
        let ends = self.walk(chain, packet, DEPTH_MAX);
        let may_pass = ends.accept || (ends.back && policy == Verdict::Accept);
        if may_pass { Verdict::Accept } else { Verdict::Drop }
    }

    fn walk(&self, chain: &str, packet: Packet<'_>, depth: usize) -> Ends {
        let mut ends = Ends::default();
        for statements in self.0.get(chain).map_or(&[][..], Vec::as_slice) {
            for (act, is_certain) in acts(statements, packet) {
                let mut comes_back = false;
                match act {
                    Act::Accept | Act::Unknown => ends.accept = true,
                    Act::Drop => ends.drop = true,
                    Act::Return => ends.back = true,
                    Act::Jump(_) | Act::Goto(_) if depth == 0 => ends.back = true,
                    Act::Jump(target) | Act::Goto(target) => {
                        let inner = self.walk(target, packet, depth - 1);
                        ends.accept |= inner.accept;
                        ends.drop |= inner.drop;
                        comes_back = inner.back && matches!(act, Act::Jump(_));
                        ends.back |= inner.back && !comes_back;
                    }
                }
                if is_certain && !comes_back {
                    return ends;
                }
            }
        }
        ends.back = true;
        ends
    }
}

impl<'a> Act<'a> {
    /// `None` for a statement that decides nothing.
    fn of(statement: &'a Value) -> Option<Self> {
        let target = |key: &str| statement[key]["target"].as_str();
        if statement.get("accept").is_some() {
            Some(Self::Accept)
        } else if statement.get("drop").is_some()
            || statement.get("reject").is_some()
            || is_reject(statement)
        {
            Some(Self::Drop)
        } else if statement.get("return").is_some() {
            Some(Self::Return)
        } else {
            target("jump").map(Self::Jump).or_else(|| target("goto").map(Self::Goto))
        }
    }
}

/// REJECT as `iptables-nft` writes it.
fn is_reject(statement: &Value) -> bool {
    statement["xt"]["name"] == "REJECT"
}

/// What a rule does with a packet that it matches, each with whether that is certain; empty if it does not match, or is
/// taken not to.
fn acts<'a>(statements: &'a [Value], packet: Packet<'_>) -> Vec<(Act<'a>, bool)> {
    let may_meet = matches!(packet, Packet::Api { .. });
    let mut is_certain = true;
    for statement in statements {
        let meets = if let Some(condition) = statement.get("match") {
            matches(condition, packet)
        } else if let Some(map) = statement.get("vmap") {
            return acts_of_map(map, packet, is_certain);
        } else if statement.get("xt").is_some_and(|xt| xt["type"] != "target") {
            None
        } else if statement.get("limit").is_some() {
            (!may_meet).then_some(true)
        } else if let Some(act) = Act::of(statement) {
            return vec![(act, is_certain)];
        } else {
            Some(true)
        };
        match meets {
            Some(true) => {}
            None if may_meet => is_certain = false,
            Some(false) | None => return Vec::new(),
        }
    }
    Vec::new()
}

fn acts_of_map<'a>(map: &'a Value, packet: Packet<'_>, is_certain: bool) -> Vec<(Act<'a>, bool)> {
    let may_meet = matches!(packet, Packet::Api { .. });
    let Some(pairs) = map["data"]["set"].as_array() else {
        return if may_meet { vec![(Act::Unknown, false)] } else { Vec::new() };
    };
    let mut found = Vec::new();
    for pair in pairs {
        match (is_equal(&map["key"], &pair[0], packet), Act::of(&pair[1])) {
            (Some(true), act) => {
                found.extend(act.map(|act| (act, is_certain)));
                break;
            }
            (None, Some(act)) if may_meet => found.push((act, false)),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Subnet;
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

    fn is_api_shut(rules: &[Value]) -> bool {
        let packet = Packet::Api { port: 7400 };
        Chains::new(rules).verdict("f", Verdict::Drop, packet) == Verdict::Drop
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
        let type_of = |kind: &str| {
            let left = json!({"fib": {"result": "type", "flags": ["daddr"]}});
            json!({"match": {"op": "==", "left": left, "right": kind}})
        };
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
            (json!([type_of("unicast"), accept]), BOTH),
            (json!([type_of("local"), accept]), NONE),
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

    #[test]
    fn an_api_is_shut_where_no_way_leads_past() {
        let accept = json!({"accept": null});
        let port = |port: Value| {
            let left = json!({"payload": {"protocol": "tcp", "field": "dport"}});
            json!({"match": {"op": "==", "left": left, "right": port}})
        };
        let protocol = |protocol: Value| {
            let left = json!({"meta": {"key": "l4proto"}});
            json!({"match": {"op": "==", "left": left, "right": protocol}})
        };
        let physdev = json!({"xt": {"type": "match", "name": "physdev"}});
        let by_name = json!({"vmap": {"key": {"meta": {"key": "iifname"}}, "data": "@zones"}});
        let by_device = json!({"vmap": {"key": {"meta": {"key": "iifname"}},
            "data": {"set": [["lo", {"accept": null}], ["eth0", {"jump": {"target": "zone"}}]]}}});
        for (statements, is_shut) in [
            (json!([accept]), false),
            (json!([port(json!(7400)), accept]), false),
            (json!([port(json!({"range": [7000, 8000]})), accept]), false),
            (json!([port(json!({"set": [22, 7400]})), accept]), false),
            (json!([port(json!("@ports")), accept]), false),
            (json!([port(json!(22)), accept]), true),
            (json!([protocol(json!(6)), accept]), false),
            (json!([protocol(json!({"set": [1, 58]})), accept]), true),
            (json!([state(json!(["established", "related"])), accept]), true),
            (json!([iif("lo"), accept]), true),
            (json!([iif("eth0"), accept]), false),
            (json!([address("saddr", "10.0.0.0", 8), accept]), false),
            (json!([physdev, accept]), false),
            (json!([physdev, {"drop": null}]), true),
            (json!([by_name]), false),
            (json!([by_device]), true),
            (json!([{"limit": {"rate": 3}}, accept]), false),
        ] {
            assert_eq!(is_api_shut(&[rule("f", statements.clone())]), is_shut, "{statements}");
        }
        let zone = rule("zone", json!([port(json!(7400)), accept]));
        assert!(!is_api_shut(&[rule("f", json!([by_device])), zone]));
        // A rule that may not match hides none of those behind it.
        let maybe = rule("f", json!([physdev, {"drop": null}]));
        assert!(!is_api_shut(&[maybe, rule("f", json!([accept]))]));
        assert!(is_api_shut(&[rule("f", json!([{"drop": null}])), rule("f", json!([accept]))]));
    }
}
