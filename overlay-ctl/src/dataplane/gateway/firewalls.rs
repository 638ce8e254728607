//! Chains of other programs that drop what is forwarded from or to endpoints, or keep other nodes from this one. An accept in
//! one base chain is not final: each chain of the hook sees the packet, so the table `ip overlay` can't let through what
//! another one drops.

use serde_json::Value;

use super::{
    GatewayError,
    condition::Packet,
    iptables, nft,
    rules::TABLE,
    verdict::{Chains, Verdict},
};
use crate::model::Subnet;

/// What a node needs other programs to let through.
#[derive(Debug, Clone, Copy)]
pub struct Passage<'a> {
    /// The gateway bridge.
    pub bridge: &'a str,
    /// The bridge's subnet.
    pub subnet: Subnet,
    /// The port of the node's API, over TCP.
    pub api: u16,
}

impl Passage<'_> {
    /// The chains that drop a part of it, each in words: which one, what it drops, and what to do.
    ///
    /// # Errors
    /// [`GatewayError`].
    pub async fn hindrances(self) -> Result<Vec<String>, GatewayError> {
        let mut said = Vec::new();
        let listed = nft::list_chains().await?;
        let chains: Vec<BaseChain<'_>> = listed.iter().filter_map(BaseChain::of).collect();
        for of_table in chains.chunk_by(|one, next| one.table() == next.table()) {
            let Some((family, name)) = of_table.first().map(BaseChain::table) else { continue };
            let mut table = nft::list_table(family, name).await?;
            let is_of_iptables = (family, name) == ("ip", "filter") && iptables::is_opaque(&table);
            if is_of_iptables && let Some(filter) = iptables::read_nft().await {
                table = filter.objects;
            }
            let rules = Chains::new(&table);
            said.extend(of_table.iter().filter_map(|chain| chain.judge(&rules, self)));
        }
        if let Some(iptables::Filter { objects, program }) = iptables::read_legacy().await {
            let rules = Chains::new(&objects);
            for chain in objects.iter().filter_map(BaseChain::of) {
                said.extend(BaseChain { program, ..chain }.judge(&rules, self));
            }
        }
        Ok(said)
    }
}

/// A chain that sees forwarded packets, or those for the host.
struct BaseChain<'a> {
    family: &'a str,
    table: &'a str,
    name: &'a str,
    hook: &'a str,
    priority: i64,
    policy: Verdict,
    /// The program that changes it, if it is a chain of iptables.
    program: &'a str,
}

impl<'a> BaseChain<'a> {
    /// A chain of another program that sees each packet of IPv4.
    fn of(object: &'a Value) -> Option<Self> {
        let chain = object.get("chain")?;
        let text = |key: &str| chain[key].as_str();
        let (family, table, hook) = (text("family")?, text("table")?, text("hook")?);
        let is_ours = family == "ip" && table == TABLE;
        if is_ours || !["ip", "inet"].contains(&family) || !["forward", "input"].contains(&hook) {
            return None;
        }
        let policy = if text("policy") == Some("drop") { Verdict::Drop } else { Verdict::Accept };
        let priority = chain["prio"].as_i64().unwrap_or_default();
        let (name, program) = (text("name")?, "iptables");
        Some(Self { family, table, name, hook, priority, policy, program })
    }

    fn table(&self) -> (&'a str, &'a str) {
        (self.family, self.table)
    }

    fn judge(&self, chains: &Chains<'_>, passage: Passage<'_>) -> Option<String> {
        let Self { family, table, name, hook, priority, policy, program } = self;
        let Passage { bridge, subnet, api } = passage;
        let drops = |packet| chains.verdict(name, *policy, packet) == Verdict::Drop;
        let what = if *hook == "input" {
            drops(Packet::Api { port: api })
                .then(|| format!("what other nodes send to this one (TCP {api})"))
        } else {
            let out = drops(Packet::Out { bridge, subnet });
            let into = drops(Packet::In { bridge, subnet });
            match (out, into) {
                (false, false) => None,
                (true, false) => Some("what endpoints send to the outside"),
                (false, true) => Some("what is for published ports"),
                (true, true) => {
                    Some("what endpoints send to the outside, and what is for published ports")
                }
            }
            .map(str::to_owned)
        };
        let advice = self.advice(chains, passage);
        let of = if *program == "iptables-legacy" { " of iptables-legacy" } else { "" };
        Some(format!(
            "the firewall's table {family} {table}{of}, chain {name} (hook {hook}, priority {priority}) drops {}: run {advice}",
            what?
        ))
    }

    /// What lets it through, by the means of the program whose chain this is, so that it lasts when that program writes its
    /// rules again.
    fn advice(&self, chains: &Chains<'_>, passage: Passage<'_>) -> String {
        let Self { family, table, name, hook, program, .. } = self;
        let Passage { bridge, api, .. } = passage;
        let is_api = *hook == "input";
        let insert = |chain: &str| {
            if is_api {
                return format!("`{program} -I {chain} -p tcp --dport {api} -j ACCEPT`");
            }
            let insert = format!("{program} -I {chain}");
            format!("`{insert} -i {bridge} -j ACCEPT; {insert} -o {bridge} -j ACCEPT`")
        };
        match (*family, *table, *name) {
            ("inet", "firewalld", _) if is_api => {
                format!("`firewall-cmd --permanent --add-port={api}/tcp; firewall-cmd --reload`")
            }
            ("inet", "firewalld", _) => format!("`{}`", firewalld(bridge)),
            ("ip", "filter", "INPUT") if chains.has("ufw-user-input") => {
                format!("`ufw allow {api}/tcp`")
            }
            ("ip", "filter", "FORWARD") if chains.has("ufw-user-forward") => {
                format!("`ufw route allow in on {bridge}; ufw route allow out on {bridge}`")
            }
            ("ip", "filter", "FORWARD") if chains.has("DOCKER-USER") => insert("DOCKER-USER"),
            ("ip", "filter", "FORWARD" | "INPUT") => insert(name),
            _ => {
                let insert = format!("nft insert rule {family} {table} {name}");
                if is_api {
                    return format!(
                        "`{insert} tcp dport {api} accept`, and add it to the file that the table is made from"
                    );
                }
                format!(
                    "`{insert} iifname {bridge} accept; {insert} oifname {bridge} accept`, and add both to the file that the table is made from"
                )
            }
        }
    }
}

/// A zone and a policy of the bridge's own: the zone `trusted` would open the host's ports to endpoints, too.
fn firewalld(bridge: &str) -> String {
    let zone = format!("--new-zone=overlay; --zone=overlay --add-interface={bridge}");
    let policy = "--new-policy=overlay-out; --policy=overlay-out --set-target=ACCEPT; \
                  --policy=overlay-out --add-ingress-zone=overlay; --policy=overlay-out --add-egress-zone=ANY";
    let parts = zone.split("; ").chain(policy.split("; "));
    let commands: String = parts.map(|part| format!("firewall-cmd --permanent {part}; ")).collect();
    commands + "firewall-cmd --reload"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PASSAGE: (&str, u16) = ("ov_gwbridge", 7400);

    fn said(chains: &[&str], place: [&str; 4], policy: &str, program: &str) -> Option<String> {
        let [family, table, name, hook] = place;
        let chain = json!({"chain": {"family": family, "table": table, "name": name, "handle": 1,
            "type": "filter", "hook": hook, "prio": 10, "policy": policy}});
        let others: Vec<Value> =
            chains.iter().map(|name| json!({"chain": {"name": name}})).collect();
        let chain = BaseChain { program, ..BaseChain::of(&chain)? };
        let (bridge, api) = PASSAGE;
        let passage = Passage { bridge, subnet: "172.18.0.0/16".parse().unwrap(), api };
        chain.judge(&Chains::new(&others), passage)
    }

    #[test]
    fn each_firewall_gets_the_command_that_it_understands() {
        let forward = |family, table, name| [family, table, name, "forward"];
        let (filter, input) =
            (forward("ip", "filter", "FORWARD"), ["ip", "filter", "INPUT", "input"]);
        let (nft, legacy) = ("iptables", "iptables-legacy");
        for (chains, place, program, command) in [
            (
                &[][..],
                forward("ip", "filter2", "f"),
                nft,
                "`nft insert rule ip filter2 f iifname ov_gwbridge accept;",
            ),
            (
                &[],
                forward("inet", "fw", "forward"),
                nft,
                "nft insert rule inet fw forward oifname ov_gwbridge accept`",
            ),
            (
                &[],
                forward("inet", "firewalld", "filter_FORWARD"),
                nft,
                "firewall-cmd --permanent --zone=overlay --add-interface=ov_gwbridge; ",
            ),
            (&["DOCKER-USER"], filter, nft, "iptables -I DOCKER-USER -o ov_gwbridge"),
            (&["DOCKER-USER"], filter, legacy, "iptables-legacy -I DOCKER-USER -o ov_gwbridge"),
            (
                &["ufw-user-forward", "DOCKER-USER"],
                filter,
                nft,
                "ufw route allow out on ov_gwbridge",
            ),
            (&[], filter, nft, "`iptables -I FORWARD -i ov_gwbridge -j ACCEPT;"),
            (&[], input, nft, "`iptables -I INPUT -p tcp --dport 7400 -j ACCEPT`"),
            (&["ufw-user-input"], input, nft, "`ufw allow 7400/tcp`"),
            (
                &[],
                ["inet", "firewalld", "filter_INPUT", "input"],
                nft,
                "`firewall-cmd --permanent --add-port=7400/tcp; firewall-cmd --reload`",
            ),
            (
                &[],
                ["inet", "fw", "in", "input"],
                nft,
                "`nft insert rule inet fw in tcp dport 7400 accept`",
            ),
        ] {
            let said = said(chains, place, "drop", program).unwrap();
            let [family, table, name, hook] = place;
            let of = if program == legacy { " of iptables-legacy" } else { "" };
            let place = format!(
                "table {family} {table}{of}, chain {name} (hook {hook}, priority 10) drops"
            );
            assert!(said.contains(&place) && said.contains(command), "{said}");
        }
    }

    #[test]
    fn who_drops_nothing_is_not_named() {
        let said = |place, policy| said(&[], place, policy, "iptables");
        assert_eq!(said(["ip", "filter", "FORWARD", "forward"], "accept"), None);
        assert_eq!(said(["ip6", "filter", "FORWARD", "forward"], "drop"), None);
        assert_eq!(said(["ip", "overlay", "forward", "forward"], "drop"), None);
        assert_eq!(said(["ip", "filter", "OUTPUT", "output"], "drop"), None);
    }
}
