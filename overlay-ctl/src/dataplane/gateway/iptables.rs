//! Rules that iptables made, as `iptables-save` prints them. nft does not list those of the kernel's older filter, and shows of
//! many conditions in its own only that there is one (`xt`).

use std::{io, process::Stdio, time::Duration};

use serde_json::{Value, json};
use tokio::process::Command;

/// The tables of the older filter that are in use; the file is missing where the kernel has none.
const IN_USE: &str = "/proc/thread-self/net/ip_tables_names";
/// What iptables prints where it writes to nftables.
const OF_NFTABLES: &str = "(nf_tables)";
/// Time that the program is given.
const BOUND: Duration = Duration::from_secs(30);

/// The table `filter`.
pub(super) struct Filter {
    /// Its chains and rules, as nft would list them.
    pub(super) objects: Vec<Value>,
    /// The program that changes it.
    pub(super) program: &'static str,
}

/// Reads the table of the older filter; `None` if it is not in use, or nothing here can read it.
pub(super) async fn read_legacy() -> Option<Filter> {
    let in_use = std::fs::read_to_string(IN_USE).ok()?;
    if !in_use.lines().any(|table| table == "filter") {
        return None;
    }
    let saved = [("iptables-legacy-save", "iptables-legacy"), ("iptables-save", "iptables")];
    read(&saved, |text| !text.contains(OF_NFTABLES)).await
}

/// Reads the table of nftables that iptables manages; `None` if nothing here can read it.
pub(super) async fn read_nft() -> Option<Filter> {
    let saved = [("iptables-nft-save", "iptables-nft"), ("iptables-save", "iptables")];
    read(&saved, |text| text.contains(OF_NFTABLES)).await
}

/// Returns true if nft does not show all conditions of a table.
pub(super) fn is_opaque(objects: &[Value]) -> bool {
    let statements = objects.iter().filter_map(|object| object["rule"]["expr"].as_array());
    statements.flatten().any(|statement| statement.get("xt").is_some())
}

/// Runs these programs until one prints a table of the right kind. On a system with one kind alone they have plain names.
async fn read(saved: &[(&str, &'static str)], is_right: impl Fn(&str) -> bool) -> Option<Filter> {
    for &(save, program) in saved {
        match print(save).await {
            Ok(text) if is_right(&text) => {
                let objects = parse(&text);
                if !objects.is_empty() {
                    return Some(Filter { objects, program });
                }
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(save, %error, "rules of iptables can't be read"),
        }
    }
    None
}

async fn print(program: &str) -> io::Result<String> {
    let mut command = Command::new(program);
    command.args(["-t", "filter"]).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(BOUND, command.output()).await??;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The chains and rules of a text of `iptables-save`, in nft's JSON.
fn parse(text: &str) -> Vec<Value> {
    let chain = |name: &str, policy: &str| {
        let mut chain = json!({"family": "ip", "table": "filter", "name": name});
        let hook = name.to_lowercase();
        if policy != "-" {
            chain["hook"] = json!(hook);
            chain["policy"] = json!(policy.to_lowercase());
            chain["prio"] = json!(0);
        }
        json!({"chain": chain})
    };
    let object = |line: &str| {
        let words = words(line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words[..] {
            [name, policy, _] => Some(chain(name.strip_prefix(':')?, policy)),
            ["-A", name, ref rest @ ..] => {
                Some(json!({"rule": {"chain": name, "expr": statements(rest)}}))
            }
            _ => None,
        }
    };
    let is_object = |line: &&str| line.starts_with(':') || line.starts_with("-A ");
    text.lines().filter(is_object).filter_map(object).collect()
}

/// The words of a line, in which one with spaces stands between quotation marks.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut is_quoted) = (Vec::new(), String::new(), false);
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => is_quoted = !is_quoted,
            '\\' => word.extend(letters.next()),
            ' ' if !is_quoted => words.push(std::mem::take(&mut word)),
            _ => word.push(letter),
        }
    }
    words.push(word);
    words
}

/// The conditions and the act of one rule.
fn statements(words: &[&str]) -> Vec<Value> {
    let mut statements = Vec::new();
    let mut words = words.iter().copied();
    let mut op = "==";
    while let Some(word) = words.next() {
        if word == "!" {
            op = "!=";
            continue;
        }
        let mut value = || words.next().unwrap_or_default();
        let meta = |key: &str| json!({"meta": {"key": key}});
        let payload = |protocol: &str, field: &str| json!({"payload": {"protocol": protocol, "field": field}});
        let matches =
            |left: Value, right: Value| json!({"match": {"op": op, "left": left, "right": right}});
        let statement = match word {
            // What a module asks comes in words of its own.
            "-m" | "--comment" | "--reject-with" | "--log-prefix" | "--log-level" => {
                value();
                continue;
            }
            "-i" => matches(meta("iifname"), json!(value().replace('+', "*"))),
            "-o" => matches(meta("oifname"), json!(value().replace('+', "*"))),
            "-p" => matches(payload("ip", "protocol"), json!(value())),
            "-s" => matches(payload("ip", "saddr"), prefix(value())),
            "-d" => matches(payload("ip", "daddr"), prefix(value())),
            "--dport" => matches(payload("th", "dport"), port(value())),
            "--dports" => {
                let ports: Vec<Value> = value().split(',').map(port).collect();
                matches(payload("th", "dport"), json!({"set": ports}))
            }
            "--ctstate" | "--state" => {
                let states: Vec<String> = value().split(',').map(str::to_lowercase).collect();
                let dnat = states.iter().any(|state| state == "dnat");
                let key = if dnat { "status" } else { "state" };
                matches(json!({"ct": {"key": key}}), json!(states))
            }
            "--dst-type" => {
                let fib = json!({"fib": {"result": "type", "flags": "daddr"}});
                matches(fib, json!(value().to_lowercase()))
            }
            "-j" => act(value(), "jump"),
            "-g" => act(value(), "goto"),
            // A condition that is not known.
            _ => json!({"xt": {"type": "match", "name": word}}),
        };
        op = "==";
        statements.push(statement);
    }
    statements
}

fn prefix(text: &str) -> Value {
    match text.split_once('/') {
        Some((addr, len)) => {
            json!({"prefix": {"addr": addr, "len": len.parse::<u8>().unwrap_or(32)}})
        }
        None => json!(text),
    }
}

fn port(text: &str) -> Value {
    let number = |text: &str| json!(text.parse::<u16>().ok());
    match text.split_once(':') {
        Some((first, last)) => json!({"range": [number(first), number(last)]}),
        None => number(text),
    }
}

fn act(target: &str, way: &str) -> Value {
    match target {
        "ACCEPT" => json!({"accept": null}),
        "DROP" => json!({"drop": null}),
        "REJECT" => json!({"reject": null}),
        "RETURN" => json!({"return": null}),
        "LOG" | "MARK" | "CONNMARK" | "TCPMSS" | "NFLOG" | "CT" => json!({"counter": null}),
        chain => json!({way: {"target": chain}}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_become_what_nft_would_list() {
        let text = "# Generated by iptables-save v1.8.9 on Mon Nov 30 00:00:00 2026\n*filter\n\
            :FORWARD DROP [0:0]\n:USER - [0:0]\n\
            -A FORWARD -m comment --comment \"let -j DROP \\\"be\\\"\" -j USER\n\
            -A USER ! -i br+ -s 172.18.0.0/16 -m conntrack --ctstate NEW,RELATED -j ACCEPT\n\
            -A USER -p tcp -m tcp --dport 7000:8000 -m limit --limit 3/min -g USER\n\
            -A USER -m addrtype --dst-type LOCAL -j RETURN\nCOMMIT\n";
        let objects = parse(text);
        assert_eq!(objects[0]["chain"]["hook"], "forward");
        assert_eq!(objects[0]["chain"]["policy"], "drop");
        assert!(objects[1]["chain"].get("hook").is_none());
        let of = |index: usize| objects[index]["rule"]["expr"].clone();
        assert_eq!(of(2), json!([{"jump": {"target": "USER"}}]));
        let conditions = of(3);
        assert_eq!(conditions[0]["match"]["op"], "!=");
        assert_eq!(conditions[0]["match"]["right"], "br*");
        assert_eq!(conditions[1]["match"]["op"], "==");
        assert_eq!(conditions[1]["match"]["right"]["prefix"]["len"], 16);
        assert_eq!(conditions[2]["match"]["right"], json!(["new", "related"]));
        assert_eq!(conditions[3], json!({"accept": null}));
        let last = of(4);
        assert_eq!(last[1]["match"]["right"]["range"], json!([7000, 8000]));
        assert_eq!(last[2]["xt"]["name"], "--limit");
        assert!(last.as_array().unwrap().iter().any(|s| s["goto"]["target"] == "USER"));
        assert_eq!(of(5)[0]["match"]["left"]["fib"]["flags"], "daddr");
        assert_eq!(of(5)[1], json!({"return": null}));
    }

    #[test]
    fn a_table_of_which_nft_shows_only_a_part_is_noticed() {
        let rule = |expr: Value| [json!({"rule": {"chain": "f", "expr": expr}})];
        let hidden = json!([{"xt": {"type": "match", "name": "conntrack"}}, {"accept": null}]);
        assert!(is_opaque(&rule(hidden)));
        assert!(is_opaque(&rule(json!([{"xt": null}]))), "as nft before 1.0 prints it");
        assert!(!is_opaque(&rule(json!([{"accept": null}]))));
    }
}
