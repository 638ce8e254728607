//! What a host looks like from outside: to prove that something came back to where it was, and that
//! what is not ours was left alone.

use std::path::PathBuf;

use anyhow::{Result, bail};
use serde_json::Value;

use super::host::Host;

/// Devices, addresses, routes, queueing disciplines and pins of a host, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineState {
    /// Devices, with their addresses and master.
    pub links: Vec<String>,
    /// Routes of all tables that a person sets.
    pub routes: Vec<String>,
    /// Queueing disciplines (clsact shows here) and filters below them.
    pub qdiscs: Vec<String>,
    /// Everything below the node's folder of bpffs.
    pub pins: Vec<PathBuf>,
}

impl MachineState {
    /// Looks at a host.
    pub fn of(host: &Host) -> Result<Self> {
        let netns = &host.netns;
        let mut links = Vec::new();
        let mut qdiscs = Vec::new();
        for link in netns.ip_json(&["addr", "show"])?.as_array().into_iter().flatten() {
            let name = link["ifname"].as_str().unwrap_or_default();
            let addresses: Vec<String> = link["addr_info"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|address| address["family"] == "inet")
                .map(|address| format!("{}/{}", address["local"], address["prefixlen"]))
                .collect();
            links.push(format!("{name} {} {addresses:?} {}", link["address"], link["master"]));
            let filters = netns.output(&["tc", "filter", "show", "dev", name, "ingress"])?;
            qdiscs.push(format!("{name} {}", filters.stdout.trim()));
        }
        links.sort();
        qdiscs.extend(netns.run(&["tc", "qdisc", "show"])?.lines().map(str::to_owned));
        qdiscs.sort();
        let mut routes: Vec<String> = netns
            .ip_json(&["route", "show"])?
            .as_array()
            .into_iter()
            .flatten()
            .map(Value::to_string)
            .collect();
        routes.sort();
        Ok(Self { links, routes, qdiscs, pins: host.pins()? })
    }

    /// Fails, with what is different, unless the two are the same.
    pub fn same_as(&self, before: &Self) -> Result<()> {
        if self != before {
            bail!("before: {before:#?}\nafter: {self:#?}");
        }
        Ok(())
    }
}
