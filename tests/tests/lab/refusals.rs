//! A node that cannot start says why, and leaves everything as it was.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use overlay_lab::{Host, MachineState};

use crate::support::{NODES, refused_with, scenario};

fn lonely(lab: &mut overlay_lab::Lab) -> Result<std::sync::Arc<Host>> {
    let [h1, _] = lab.wired_pair(("h1", "10.10.10.101"), ("h2", "10.10.10.102"))?;
    Ok(h1)
}

#[test]
fn not_root() {
    scenario(NODES, |lab| {
        let h1 = lonely(lab)?;
        let nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"];
        let refused = h1.node_fails_under(&nobody, &[])?;
        refused_with(&refused, "root")
    });
}

#[test]
fn no_bpffs() {
    scenario(NODES, |lab| {
        let h1 = lonely(lab)?;
        let before = MachineState::of(&h1)?;
        let elsewhere = lab.folder().join("not-bpffs").display().to_string();
        let refused = h1.node_fails(&["--bpffs", &elsewhere])?;
        refused_with(&refused, "bpffs")?;
        MachineState::of(&h1)?.same_as(&before)
    });
}

#[test]
fn port_taken() {
    scenario(NODES, |lab| {
        let h1 = lonely(lab)?;
        let before = MachineState::of(&h1)?;
        let address = h1.listen();
        let _taken = h1.netns.enter(|| TcpListener::bind(&address).context("the port"))?;
        let refused = h1.node_fails(&[])?;
        refused_with(&refused, &address)?;
        MachineState::of(&h1)?.same_as(&before)
    });
}

/// Creates a foreign VXLAN device of the kernel's on a host, with a local address of that host.
fn foreign_vxlan(host: &Host, local: &str, address: &str) -> Result<()> {
    let words =
        ["link", "add", "vx0", "type", "vxlan", "id", "7", "dstport", "4789", "dev", "eth0"];
    host.netns.ip(&[&words[..], &["local", local]].concat())?;
    host.netns.ip(&["addr", "add", address, "dev", "vx0"])?;
    host.netns.ip(&["link", "set", "vx0", "up"])?;
    Ok(())
}

#[test]
fn vxlan_port_taken() {
    scenario(NODES, |lab| {
        let h1 = lonely(lab)?;
        // A device for any VNI shares the port with no other.
        let external = ["link", "add", "vx0", "type", "vxlan", "external", "dstport", "4789"];
        h1.netns.ip(&external)?;
        h1.netns.ip(&["link", "set", "vx0", "up"])?;
        let before = MachineState::of(&h1)?;
        refused_with(&h1.node_fails(&[])?, "vx0")?;
        MachineState::of(&h1)?.same_as(&before)?;
        // The refusal names this option as the way out.
        h1.start_node(&["--vxlan-port", "4790"])?;
        ensure!(h1.netns.links()?.iter().any(|link| link == "vx0"), "{:?}", h1.netns.links()?);
        Ok(())
    });
}

#[test]
fn another_vxlan_at_another_address_of_the_host_goes_on() {
    scenario(NODES, |lab| {
        let hosts = lab.wired_pair(("h1", "10.10.10.101"), ("h2", "10.10.10.102"))?;
        let far = |number: usize| format!("10.10.10.{}", 201 + number);
        for (number, host) in hosts.iter().enumerate() {
            host.netns.ip(&["addr", "add", &format!("{}/24", far(number)), "dev", "eth0"])?;
            foreign_vxlan(host, &far(number), &format!("10.7.0.{}/24", number + 1))?;
            let other = far(1 - number);
            let zero = "00:00:00:00:00:00";
            host.netns.run(&["bridge", "fdb", "append", zero, "dev", "vx0", "dst", &other])?;
        }
        hosts[0].netns.reaches("10.7.0.2")?;
        lab.start_cluster(&hosts)?;
        crate::support::create_network(&hosts[0])?;
        let ends = [
            crate::support::attach(lab, &hosts[0], "web1", &[])?,
            crate::support::attach(lab, &hosts[1], "web2", &[])?,
        ];
        // Packets of both kinds of VXLAN arrive at the right device, in both directions, at the same port.
        for _ in 0..2 {
            ends[0].netns.reaches(ends[1].address)?;
            hosts[1].netns.reaches("10.7.0.1")?;
        }
        Ok(())
    });
}

#[test]
fn unknown_underlay() {
    scenario(NODES, |lab| {
        let h1 = lonely(lab)?;
        let before = MachineState::of(&h1)?;
        refused_with(&h1.node_fails(&["--underlay", "not-there"])?, "not-there")?;
        refused_with(&h1.node_fails(&["--underlay", "192.0.2.1"])?, "192.0.2.1")?;
        MachineState::of(&h1)?.same_as(&before)
    });
}

#[test]
fn state_folder_of_another_cluster() {
    scenario(NODES, |lab| {
        let [h1, h2] = lab.wired_pair(("h1", "10.10.10.101"), ("h2", "10.10.10.102"))?;
        h1.start_node(&[])?;
        h2.start_node(&[])?;
        h2.overlay(&["network", "create", "own", "--subnet", "10.1.0.0/24"])?;
        h2.stop()?;
        let refused = h2.node_fails(&["--join", &h1.listen()])?;
        refused_with(&refused, "cluster")?;
        // The refused node has lost nothing: it still has its own cluster.
        h2.start_node(&[])?;
        h2.overlay(&["network", "inspect", "own"])?;
        let nodes = h1.ready_nodes()?;
        ensure!(nodes == ["h1"], "{nodes:?}");
        Ok(())
    });
}

#[test]
fn damaged_database() {
    scenario(NODES, |lab| {
        let h1 = lonely(lab)?;
        h1.start_node(&[])?;
        h1.overlay(&["network", "create", "own", "--subnet", "10.1.0.0/24"])?;
        h1.stop()?;
        let database = largest_file(&h1.state_dir())?;
        let intact = fs::read(&database)?;
        for (what, damage) in [
            ("its first page is overwritten", (0, 4096)),
            ("everything behind its first page is overwritten", (4096, intact.len() - 4096)),
        ] {
            let (offset, length) = damage;
            let file = fs::File::options().write(true).open(&database)?;
            file.write_all_at(&vec![0xa5; length], offset as u64)?;
            let damaged = fs::read(&database)?;
            let refused = h1.node_fails(&[])?;
            let name = database.file_name().context("a name")?.to_string_lossy().into_owned();
            refused_with(&refused, &name).with_context(|| what.to_owned())?;
            ensure!(fs::read(&database)? == damaged, "{what}: the evidence was changed");
            fs::write(&database, &intact)?;
        }
        // When the file is restored, everything is back.
        h1.start_node(&[])?;
        h1.overlay(&["network", "inspect", "own"])?;
        Ok(())
    });
}

fn largest_file(folder: &Path) -> Result<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        files.push((entry.metadata()?.size(), entry.path()));
    }
    files.sort();
    Ok(files.pop().context("the state folder is empty")?.1)
}
