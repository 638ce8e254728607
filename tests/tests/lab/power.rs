//! All nodes die at once: by a kill, and by a loss of power.

use std::time::Duration;

use anyhow::{Result, ensure};
use overlay_lab::{Lab, eventually, probe::Prober};

use crate::support::{Cluster, NODES, attach, cluster, scenario};

const BACK: Duration = Duration::from_secs(20);
const EVERY: Duration = Duration::from_millis(2);

/// Starts all nodes at the same moment, and waits until they have found each other and are one cluster.
fn start_all(lab: &Lab) -> Result<()> {
    lab.hosts().iter().try_for_each(|host| host.spawn_again())?;
    lab.hosts().iter().try_for_each(|host| host.wait_until_serving())?;
    eventually("every node lists every node as ready", BACK, || {
        for host in lab.hosts() {
            let ready = host.ready_nodes()?;
            ensure!(ready.len() == lab.hosts().len(), "{} sees {ready:?}", host.name);
            ensure!(host.is_programmed()?, "{}'s kernel does not hold anything yet", host.name);
        }
        Ok(())
    })
}

/// Checks that each endpoint that existed still exists once, and that new ones can be created.
fn complete(lab: &Lab, cluster: &Cluster) -> Result<()> {
    let Cluster { hosts, web1, web2, web2_2 } = cluster;
    let listed = hosts[3].overlay_json(&["endpoint", "ls"])?;
    ensure!(overlay_lab::rows(&listed).len() == 4, "{listed}");
    let more = attach(lab, &hosts[3], "more", &[])?;
    for endpoint in [web1, web2, web2_2] {
        eventually("it reaches the new one", BACK, || endpoint.netns.reaches(more.address))?;
    }
    Ok(())
}

#[test]
fn all_controllers_are_killed_at_once_and_no_packet_is_lost() {
    scenario(NODES, |lab| {
        let cluster = cluster(lab)?;
        let web4 = attach(lab, &cluster.hosts[3], "web4", &[])?;
        web4.netns.reaches(cluster.web1.address)?;
        let probe = Prober::new(&web4.netns, cluster.web1.address)?.start(EVERY);
        lab.kill_all()?;
        cluster.web2.netns.reaches(web4.address)?;
        start_all(lab)?;
        complete(lab, &cluster)?;
        probe.stop()?.none_lost()
    });
}

#[test]
fn all_hosts_lose_their_power_at_once_and_everything_is_built_again() {
    scenario(NODES, |lab| {
        let cluster = cluster(lab)?;
        let web4 = attach(lab, &cluster.hosts[3], "web4", &[])?;
        lab.kill_all()?;
        for host in &cluster.hosts {
            host.reboot()?;
        }
        ensure!(web4.netns.links()? == ["lo"], "{:?}", web4.netns.links()?);
        start_all(lab)?;
        let all = [&cluster.web1, &cluster.web2, &cluster.web2_2, &web4];
        for from in all {
            for to in all {
                eventually("each reaches each", BACK, || from.netns.reaches(to.address))?;
            }
        }
        complete(lab, &cluster)
    });
}
