//! A queue on the host's side of an endpoint's device, as a limit of the rate is: what is for the endpoint waits in it.

use crate::support::{Endpoint, NODES, attach, pair, scenario};
use anyhow::{Context as _, Result, ensure};
use overlay_lab::{eventually, text, transfer};
use std::time::Duration;

/// Longest time until a node follows a change.
const BOUND: Duration = Duration::from_secs(20);

/// Number of packets that have left the outermost queue of a device of the host.
fn passed(endpoint: &Endpoint, device: &str) -> Result<u64> {
    let shown =
        endpoint.host.netns.run(&["tc", "-s", "-j", "qdisc", "show", "dev", device, "root"])?;
    let shown: serde_json::Value = serde_json::from_str(&shown)?;
    shown[0]["packets"].as_u64().with_context(|| format!("no packets in {shown}"))
}

#[test]
fn what_is_for_an_endpoint_waits_in_the_queue_of_its_device() {
    scenario(NODES, |lab| {
        let (hosts, [web1, web2]) = pair(lab)?;
        let near = attach(lab, &hosts[0], "near", &[])?;
        let shown = hosts[0].overlay_json(&["endpoint", "inspect", "web1"])?;
        let device = text(&shown, "host_interface").to_owned();
        let tc = |words: &[&str]| hosts[0].netns.run(&[&["tc", "qdisc"], words].concat());
        for from in [&web2, &near] {
            from.netns.reaches(web1.address)?;
        }
        tc(&[
            "add", "dev", &device, "root", "tbf", "rate", "100mbit", "burst", "64k", "limit", "1mb",
        ])?;
        for from in [&web2, &near] {
            eventually(&format!("packets from {} wait", from.name), BOUND, || {
                let before = passed(&web1, &device)?;
                from.netns.reaches(web1.address)?;
                let more = passed(&web1, &device)? - before;
                ensure!(more >= 3, "{more} packets passed the queue");
                Ok(())
            })?;
            // Super-packets are cut for it, and nothing is changed on the way.
            let before = passed(&web1, &device)?;
            let to = (web1.address, 5001).into();
            transfer::stream(&from.netns, &web1.netns, to, 4 << 20)?;
            ensure!(passed(&web1, &device)? - before >= (4 << 20) / 65_536);
        }
        // The other endpoints have no queue, and the endpoint answers as before.
        web1.netns.reaches(web2.address)?;
        web1.netns.reaches(near.address)?;
        tc(&["del", "dev", &device, "root"])?;
        for from in [&web2, &near] {
            from.netns.reaches(web1.address)?;
        }
        Ok(())
    });
}
