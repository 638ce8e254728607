//! After a reboot the kernel's state is gone, and the state folder is still there.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use overlay_lab::{Host, eventually, patient, probe::Prober, text};
use serde_json::Value;

use crate::support::{NODES, attach, pair, scenario};

#[test]
fn endpoints_are_rebuilt_where_their_namespace_is_back() {
    scenario(NODES, |lab| {
        let ([h1, h2], [web1, web2]) = pair(lab)?;
        let lost = attach(lab, &h1, "lost", &[])?;
        h1.reboot()?;
        ensure!(h1.pins()?.is_empty());
        ensure!(web1.netns.links()? == ["lo"], "{:?}", web1.netns.links()?);
        lost.netns.remove()?;
        h1.restart()?;

        eventually("web1 reaches web2 again", Duration::from_secs(15), || {
            web1.netns.reaches(web2.address)
        })?;
        web2.netns.reaches(web1.address)?;
        let links = web1.netns.ip_json(&["addr", "show", "dev", "eth0"])?;
        ensure!(links[0]["address"] == web1.mac.as_str(), "{links}");
        ensure!(links[0]["mtu"] == 1450, "{links}");
        for host in [&h1, &h2] {
            eventually("lost is down, with the reason", Duration::from_secs(15), || {
                let endpoint = host.overlay_json(&["endpoint", "inspect", "lost"])?;
                let (state, reason) = (text(&endpoint, "state"), text(&endpoint, "state_reason"));
                if state == "down" && reason.contains("namespace") {
                    Ok(())
                } else {
                    bail!("{endpoint}")
                }
            })?;
        }
        let shown = h1.overlay_json(&["endpoint", "inspect", "web1"])?;
        ensure!(text(&shown, "state") == "up", "{shown}");

        // A namespace that comes back later is attached without a command, because the reconciler is
        // level-triggered.
        let back = lab.container("lost")?;
        eventually("lost is up", Duration::from_secs(30), || {
            let endpoint = h1.overlay_json(&["endpoint", "inspect", "lost"])?;
            if text(&endpoint, "state") == "up" { Ok(()) } else { bail!("{endpoint}") }
        })?;
        back.reaches(web2.address)?;
        Ok(())
    });
}

#[test]
fn what_somebody_removes_from_under_a_node_comes_back() {
    scenario(NODES, |lab| {
        let ([h1, _], [web1, web2]) = pair(lab)?;
        let shown = h1.overlay_json(&["endpoint", "inspect", "web1"])?;
        h1.netns.ip(&["link", "del", text(&shown, "host_interface")])?;
        eventually("web1 reaches web2 again", Duration::from_secs(30), || {
            web1.netns.reaches(web2.address)
        })?;
        Ok(())
    });
}

/// The overlay's devices in a host's namespace, by their indexes.
fn overlay_devices(host: &Host) -> Result<BTreeMap<u64, String>> {
    let links = host.netns.ip_json(&["link", "show"])?;
    let links = links.as_array().context("a list")?.iter();
    let named = |link: &Value| Some((link["ifindex"].as_u64()?, text(link, "ifname").to_owned()));
    Ok(links.filter_map(named).filter(|(_, name)| name.starts_with("ov")).collect())
}

#[test]
fn what_somebody_renames_gets_its_name_back() {
    scenario(NODES, |lab| {
        let ([h1, h2], [web1, web2]) = pair(lab)?;
        let probe =
            Prober::new(&web1.netns, web2.address)?.start(patient(Duration::from_millis(5)));
        let before = overlay_devices(&h1)?;
        // A port, a leg, the gateway bridge, the barrier and the GRO device, at least.
        ensure!(before.len() >= 5, "{before:?}");
        for (index, name) in &before {
            let other = format!("other{index}");
            // Before kernel 6.2 only a device that is down can be renamed.
            if h1.netns.ip(&["link", "set", name, "name", &other]).is_err() {
                println!("{name} is not renamed: this kernel renames no device that is up");
                continue;
            }
            eventually(&format!("{name} has its name back"), Duration::from_secs(30), || {
                let now = overlay_devices(&h1)?;
                ensure!(now == before, "{now:?}");
                Ok(())
            })?;
        }
        for host in [&h1, &h2] {
            host.overlay(&["status"])?;
        }
        probe.stop()?.none_lost()
    });
}
