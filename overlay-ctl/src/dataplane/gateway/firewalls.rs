//! Chains of other programs that drop what is forwarded from or to endpoints. An accept in one base chain is not final:
//! each chain of the hook sees the packet, so the table `ip overlay` can't let through what another one drops.

use serde_json::Value;

use super::{
    GatewayError, nft,
    rules::TABLE,
    verdict::{Chains, Packet, Verdict},
};
use crate::model::Subnet;

/// The chains that drop new connections of endpoints, each in words: which one, what it drops, and what to do.
///
/// # Errors
/// [`GatewayError`].
pub async fn dropping_chains(bridge: &str, subnet: Subnet) -> Result<Vec<String>, GatewayError> {
    let mut said = Vec::new();
    for chain in nft::list_chains().await?.iter().filter_map(BaseChain::of_forward_hook) {
        let table = nft::list_table(chain.family, chain.table).await?;
        said.extend(chain.judge(&Chains::new(&table), bridge, subnet));
    }
    Ok(said)
}

/// A chain that sees forwarded packets.
struct BaseChain<'a> {
    family: &'a str,
    table: &'a str,
    name: &'a str,
    priority: i64,
    policy: Verdict,
}

impl<'a> BaseChain<'a> {
    /// A chain of another program that sees each forwarded IPv4 packet.
    fn of_forward_hook(object: &'a Value) -> Option<Self> {
        let chain = object.get("chain")?;
        let text = |key: &str| chain[key].as_str();
        let (family, table) = (text("family")?, text("table")?);
        let is_ours = family == "ip" && table == TABLE;
        if is_ours || !["ip", "inet"].contains(&family) || text("hook")? != "forward" {
            return None;
        }
        let policy = if text("policy") == Some("drop") { Verdict::Drop } else { Verdict::Accept };
        let priority = chain["prio"].as_i64().unwrap_or_default();
        Some(Self { family, table, name: text("name")?, priority, policy })
    }

    fn judge(&self, chains: &Chains<'_>, bridge: &str, subnet: Subnet) -> Option<String> {
        let Self { family, table, name, priority, policy } = self;
        let drops = |packet| chains.verdict(name, *policy, packet) == Verdict::Drop;
        let out = drops(Packet::Out { bridge, subnet });
        let into = drops(Packet::In { bridge, subnet });
        let what = match (out, into) {
            (false, false) => return None,
            (true, false) => "what endpoints send to the outside",
            (false, true) => "what is for published ports",
            (true, true) => "what endpoints send to the outside, and what is for published ports",
        };
        let advice = self.advice(chains, bridge);
        Some(format!(
            "the firewall's table {family} {table}, chain {name} (hook forward, priority {priority}) drops {what}: {advice}"
        ))
    }

    /// What lets the bridge through, by the means of the program whose chain this is, so that it lasts when that program
    /// writes its rules again.
    fn advice(&self, chains: &Chains<'_>, bridge: &str) -> String {
        let Self { family, table, name, .. } = self;
        let iptables = |chain: &str| {
            format!(
                "run `iptables -I {chain} -i {bridge} -j ACCEPT; iptables -I {chain} -o {bridge} -j ACCEPT`"
            )
        };
        match (*family, *table, *name) {
            ("inet", "firewalld", _) => format!(
                "run `firewall-cmd --permanent --zone=trusted --add-interface={bridge}; firewall-cmd --reload`"
            ),
            ("ip", "filter", "FORWARD") if chains.has("ufw-user-forward") => {
                format!("run `ufw route allow in on {bridge}; ufw route allow out on {bridge}`")
            }
            ("ip", "filter", "FORWARD") if chains.has("DOCKER-USER") => iptables("DOCKER-USER"),
            ("ip", "filter", "FORWARD") => iptables("FORWARD"),
            _ => {
                let insert = format!("nft insert rule {family} {table} {name}");
                format!(
                    "run `{insert} iifname {bridge} accept; {insert} oifname {bridge} accept`, and add both to the file that the table is made from"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(
        chains: &[&str],
        family: &str,
        table: &str,
        name: &str,
        policy: &str,
    ) -> Option<String> {
        let chain = json!({"chain": {"family": family, "table": table, "name": name, "handle": 1,
            "type": "filter", "hook": "forward", "prio": 10, "policy": policy}});
        let others: Vec<Value> =
            chains.iter().map(|name| json!({"chain": {"name": name}})).collect();
        let chain = BaseChain::of_forward_hook(&chain)?;
        chain.judge(&Chains::new(&others), "ov_gwbridge", "172.18.0.0/16".parse().unwrap())
    }

    #[test]
    fn each_firewall_gets_the_command_that_it_understands() {
        for (chains, family, table, name, command) in [
            (
                &[][..],
                "ip",
                "filter2",
                "f",
                "`nft insert rule ip filter2 f iifname ov_gwbridge accept;",
            ),
            (
                &[],
                "inet",
                "fw",
                "forward",
                "nft insert rule inet fw forward oifname ov_gwbridge accept`",
            ),
            (
                &[],
                "inet",
                "firewalld",
                "filter_FORWARD",
                "--zone=trusted --add-interface=ov_gwbridge",
            ),
            (&["DOCKER-USER"], "ip", "filter", "FORWARD", "iptables -I DOCKER-USER -o ov_gwbridge"),
            (
                &["ufw-user-forward", "DOCKER-USER"],
                "ip",
                "filter",
                "FORWARD",
                "ufw route allow out on ov_gwbridge",
            ),
            (&[], "ip", "filter", "FORWARD", "`iptables -I FORWARD -i ov_gwbridge -j ACCEPT;"),
        ] {
            let said = said(chains, family, table, name, "drop").unwrap();
            let place =
                format!("table {family} {table}, chain {name} (hook forward, priority 10) drops");
            assert!(said.contains(&place) && said.contains(command), "{said}");
        }
    }

    #[test]
    fn who_drops_nothing_is_not_named() {
        assert_eq!(said(&[], "ip", "filter", "FORWARD", "accept"), None);
        assert_eq!(said(&[], "ip6", "filter", "FORWARD", "drop"), None);
        assert_eq!(said(&[], "ip", "overlay", "forward", "drop"), None);
    }
}
