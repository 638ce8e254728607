//! XDP programs that web1 puts on its own devices. What they send back, or hand over to the other device, never saw
//! web1's stack, and is checked as everything that web1 sends.

use std::{fmt::Write as _, net::Ipv4Addr, time::Duration};

use anyhow::{Result, ensure};
use overlay_lab::{
    Netns, eventually,
    xdp::{Attached, Handling},
};

use super::scene::{GATEWAY, Scene};
use crate::support::{OUTSIDE, leg, scenario};

const PATIENCE: Duration = Duration::from_secs(5);

struct Row<'a> {
    /// Where the program is, and what it does.
    device: &'static str,
    handling: Handling<'static>,
    /// Who sends to web1, and to which of its addresses.
    from: &'a Netns,
    to: Ipv4Addr,
    /// The program that counts what it hands on, as that has the sender's MAC.
    counted: &'static str,
}

fn attempt(scene: &Scene, row: &Row<'_>, in_driver: bool) -> Result<()> {
    let count = || -> Result<u64> {
        let counters = scene.hosts[0].counters(row.counted)?;
        Ok(counters.get("spoofed_mac").copied().unwrap_or_default())
    };
    let before = count()?;
    let attached = Attached::new(&scene.web1.netns, row.device, row.handling, in_driver)?;
    let heard = row.from.ping(row.to, 2)?.received;
    drop(attached);
    ensure!(heard == 0, "somebody answered");
    // In the driver the host's side has to be ready for such frames (NAPI), and where it is not, the kernel drops them
    // before any program could.
    if in_driver {
        return Ok(());
    }
    eventually("it is counted", PATIENCE, || {
        ensure!(count()? > before, "not as spoofed_mac by {}", row.counted);
        Ok(())
    })
}

#[test]
fn what_a_program_of_the_endpoint_hands_on_is_checked_too() {
    scenario(OUTSIDE, |lab| {
        let scene = Scene::build(lab)?;
        let on_leg = leg(&scene.web1.netns)?.address;
        let (neighbour, host) = (&scene.neighbour.netns, &scene.hosts[0].netns);
        let row = |device, handling, from, to, counted| Row { device, handling, from, to, counted };
        let (own, back) = (scene.web1.address, Handling::SentBack);
        let rows = [
            row("eth0", back, neighbour, own, "from_endpoint"),
            row("eth1", back, host, on_leg, "from_gateway"),
            row("eth0", Handling::Redirected("eth1"), neighbour, own, "from_gateway"),
            row("eth1", Handling::Redirected("eth0"), host, on_leg, "from_endpoint"),
        ];
        scene.everything_works()?;
        host.reaches(on_leg)?;
        let mut failed = String::new();
        for row in &rows {
            // What comes to eth0 is handed to the namespace without passing the device's driver (`bpf_redirect_peer`), so
            // a program in the driver sees none of it.
            for in_driver in
                [false, true].into_iter().filter(|driver| !driver || row.device != "eth0")
            {
                if let Err(error) = attempt(&scene, row, in_driver) {
                    let Row { device, handling, .. } = row;
                    writeln!(failed, "{handling:?} on {device}, driver {in_driver}: {error:#}")?;
                }
            }
        }
        eventually("all works again", PATIENCE, || {
            scene.everything_works()?;
            scene.neighbour.netns.reaches(own)?;
            scene.web1.netns.reaches(GATEWAY)
        })?;
        ensure!(failed.is_empty(), "{failed}");
        Ok(())
    });
}
