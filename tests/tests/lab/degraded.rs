//! One thing on a host that is not as the node needs it: it is named, and everything else goes on.

use std::time::Duration;

use anyhow::{Result, ensure};
use overlay_lab::{Host, eventually};

use crate::support::{NODES, attach, pair, scenario};

const BOUND: Duration = Duration::from_secs(20);

fn says(host: &Host, words: &str) -> Result<bool> {
    Ok(host.overlay(&["status"])?.contains(words))
}

#[test]
fn a_foreign_vxlan_device_on_the_port_stops_nothing() {
    scenario(NODES, |lab| {
        let ([h1, _h2], [web1, web2]) = pair(lab)?;
        let foreign = ["link", "add", "foreign", "type", "vxlan", "id", "5", "dstport", "4789"];
        h1.netns.ip(&[&foreign[..], &["dev", "eth0"]].concat())?;
        eventually("the device is named", BOUND, || {
            ensure!(says(&h1, "the VXLAN device foreign")?, "it is not");
            Ok(())
        })?;
        let web3 = attach(lab, &h1, "web3", &["-p", "8080:80"])?;
        web3.netns.reaches(web2.address)?;
        web1.netns.reaches(web2.address)?;
        // What is lost meanwhile comes back.
        web3.netns.ip(&["link", "del", "eth0"])?;
        eventually("the lost interface is there again", BOUND, || {
            web3.netns.reaches(web2.address)
        })?;
        h1.netns.run(&["nft", "flush", "ruleset"])?;
        eventually("the rules are back", BOUND, || {
            let rules = h1.netns.run(&["nft", "list", "ruleset"])?;
            ensure!(rules.contains("8080"), "{rules}");
            Ok(())
        })?;
        h1.netns.ip(&["link", "del", "foreign"])?;
        eventually("nothing is named any more", BOUND, || {
            ensure!(!says(&h1, "foreign")?, "it is");
            Ok(())
        })
    });
}
