//! Endpoints whose namespace is given by the path of a process.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use overlay_lab::{Host, Process, eventually, text};
use serde_json::Value;

use crate::support::{NETWORK, NODES, pair, scenario};

const BOUND: Duration = Duration::from_secs(20);

/// Starts a process on the host, in a network namespace without a name.
fn nameless(host: &Host) -> Result<(Process, PathBuf)> {
    let process = host.netns.start(&["unshare", "--net", "sleep", "infinity"])?;
    let path = PathBuf::from(format!("/proc/{}/ns/net", process.pid().context("it runs")?));
    let hosts = fs::metadata(host.netns.path())?;
    eventually("the process has a namespace of its own", BOUND, || {
        let inode = std::os::unix::fs::MetadataExt::ino;
        ensure!(inode(&fs::metadata(&path)?) != inode(&hosts));
        let own = fs::read_link("/proc/self/ns/net")?;
        ensure!(fs::read_link(&path)? != own);
        Ok(())
    })?;
    Ok((process, path))
}

fn inspect(host: &Host, endpoint: &str) -> Result<Value> {
    host.overlay_json(&["endpoint", "inspect", endpoint])
}

fn is_down(host: &Host, endpoint: &str) -> Result<()> {
    eventually(&format!("{endpoint} is down, with the reason"), BOUND, || {
        let shown = inspect(host, endpoint)?;
        let reason = text(&shown, "state_reason");
        if text(&shown, "state") == "down" && reason.contains("by way of a process") {
            Ok(())
        } else {
            bail!("{shown}")
        }
    })
}

#[test]
fn an_endpoint_has_the_namespace_and_not_the_number_of_its_process() {
    scenario(NODES, |lab| {
        let ([h1, h2], [_, web2]) = pair(lab)?;
        let (process, path) = nameless(&h1)?;
        let given = path.display().to_string();
        // The other node is asked, so that the path is sent across the cluster.
        h2.overlay(&[
            "endpoint",
            "create",
            "nameless",
            "--network",
            NETWORK,
            "--node",
            "h1",
            "--netns",
            &given,
        ])?;
        let shown = inspect(&h1, "nameless")?;
        let held = PathBuf::from(text(&shown, "netns"));
        ensure!(held.starts_with(h1.held_namespaces()), "{shown}");
        let reaches = || web2.netns.reaches(crate::support::address(&shown)?);
        reaches()?;

        // A second endpoint of the same process is in the same namespace, even if it is given by a different
        // path.
        h1.overlay(&["network", "create", "second", "--subnet", "172.16.17.0/24"])?;
        let task = path
            .display()
            .to_string()
            .replace("/ns/", &format!("/task/{}/ns/", process.pid().context("it runs")?));
        h1.overlay(&["endpoint", "create", "again", "--network", "second", "--netns", &task])?;
        let again = inspect(&h1, "again")?;
        ensure!(text(&again, "netns") == text(&shown, "netns"), "{again}");
        h1.overlay(&["endpoint", "rm", "again"])?;

        // The mount that holds the namespace stays while the node is down.
        h1.kill9()?;
        h1.restart()?;
        reaches()?;
        eventually("the endpoint is up", BOUND, || {
            let shown = inspect(&h1, "nameless")?;
            ensure!(text(&shown, "state") == "up", "{shown}");
            Ok(())
        })?;

        // The endpoint is down when the process has ended, and no mount is left.
        process.kill9()?;
        is_down(&h1, "nameless")?;
        eventually("nothing is held", BOUND, || {
            ensure!(!held.exists(), "{}", held.display());
            Ok(())
        })?;

        // A reboot leaves no mount either.
        h1.overlay(&["endpoint", "rm", "nameless"])?;
        let (process, path) = nameless(&h1)?;
        let given = path.display().to_string();
        h1.overlay(&["endpoint", "create", "nameless", "--network", NETWORK, "--netns", &given])?;
        h1.reboot()?;
        h1.restart()?;
        is_down(&h1, "nameless")?;
        drop(process);
        Ok(())
    });
}
