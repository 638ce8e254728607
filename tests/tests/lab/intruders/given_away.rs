//! Devices that web1 gives to another namespace. Whoever has one is still web1 to its node, which makes a new one where
//! it belongs.

use std::time::Duration;

use anyhow::{Result, ensure};
use overlay_lab::{Netns, eventually};

use super::scene::{GATEWAY, Scene};
use crate::{
    attack::Victims,
    support::{OUTSIDE, leg, scenario},
};

/// How long it may take until the device is there again.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs shell commands, whose results do not matter: the device may go at any moment.
fn try_to(netns: &Netns, commands: &str) -> Result<()> {
    netns.output(&["sh", "-c", commands]).map(drop)
}

#[test]
fn whoever_gets_a_device_of_the_endpoint_is_the_endpoint() {
    scenario(OUTSIDE, |lab| {
        let scene = Scene::build(lab)?;
        let thief = lab.container("thief")?;
        let (web1, neighbour) = (&scene.web1.netns, scene.neighbour.address);
        let neighbour_leg = leg(&scene.neighbour.netns)?.address;
        let mut victims = Victims::default();
        victims.listen("web2", &scene.web2.netns, "eth0")?;
        victims.listen("near", &scene.near.netns, "eth0")?;
        victims.listen("near", &scene.near.netns, "eth1")?;
        victims.listen("stranger", &scene.stranger.netns, "eth0")?;
        scene.everything_works()?;

        // As the neighbour, by a device that was web1's.
        let by = |device: &str| {
            format!(
                "ip addr flush dev {device}; ip addr add {neighbour}/24 dev {device}; \
                 ip addr add {neighbour_leg}/16 dev {device}; ip link set {device} up; \
                 ping -n -c 1 -W 1 -I {neighbour} {}; ping -n -c 1 -W 1 -I {neighbour_leg} {GATEWAY}",
                scene.web2.address
            )
        };
        for device in ["eth0", "eth1"] {
            web1.ip(&["link", "set", device, "netns", thief.name()])?;
            try_to(&thief, &by(device))?;
            eventually("web1 has it again", PATIENCE, || {
                ensure!(!thief.links()?.contains(&device.to_owned()), "the thief still has it");
                web1.reaches(scene.web2.address)?;
                web1.reaches(scene.stranger.address)
            })?;
        }
        scene.everything_works()?;
        let from_web1 = format!("src host {neighbour} and ether src {}", scene.web1.mac);
        victims.heard_none(&format!("({from_web1}) or src host {neighbour_leg}"))
    });
}
