//! One thing on a host that is not as the node needs it: it is named, and everything else goes on.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use overlay_lab::{
    Host, Lab,
    command::{self, PATIENCE},
    eventually,
};

use crate::support::{
    Cluster, ELECTION, NETWORK, NODES, attach, cluster, create_network, pair, refused_with,
    scenario,
};

const BOUND: Duration = Duration::from_secs(20);
/// Longest time until a node has its data plane after what kept it from that is gone: the longest pause between two
/// attempts, and an attempt.
const HEALED: Duration = Duration::from_secs(45);

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

/// A program `nft` before the real one on PATH, which fails for as long as it is told to.
struct FakeNft {
    folder: PathBuf,
}

impl FakeNft {
    fn new(lab: &Lab) -> Result<Self> {
        let path = env::var_os("PATH").context("no PATH")?;
        let real = env::split_paths(&path).map(|folder| folder.join("nft"));
        let real = real.into_iter().find(|nft| nft.is_file()).context("no nft on PATH")?;
        let fake = Self { folder: lab.folder().join("fake") };
        fs::create_dir_all(&fake.folder)?;
        let program = fake.folder.join("nft");
        let script = format!(
            "#!/bin/sh\n[ -e {} ] && {{ echo 'Error: broken on purpose' >&2; exit 1; }}\nexec {} \"$@\"\n",
            fake.switch().display(),
            real.display()
        );
        fs::write(&program, script)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        Ok(fake)
    }

    fn switch(&self) -> PathBuf {
        self.folder.join("broken")
    }

    /// Starts a host's node again, with this program for `nft`.
    fn spawn(&self, host: &Host) -> Result<()> {
        let path = env::var("PATH")?;
        host.spawn_again_under(&["env", &format!("PATH={}:{path}", self.folder.display())])
    }
}

/// Waits until the node is ready.
fn is_ready(host: &Host) -> Result<()> {
    eventually(&format!("{} is ready", host.name), HEALED, || {
        command::run(&mut host.overlay_command(&["status"]), PATIENCE).map(drop)
    })
}

/// Waits until the node serves and says with these words why it has no data plane.
fn has_no_data_plane(host: &Host, words: &str) -> Result<()> {
    eventually(&format!("{} has no data plane", host.name), BOUND, || {
        refused_with(&host.overlay_fails(&["status"])?, words)
    })?;
    let status = host.overlay_json(&["status"])?;
    ensure!(status["datapath"].is_null(), "{status}");
    Ok(())
}

#[test]
fn a_voter_without_nft_votes() {
    scenario(NODES, |lab| {
        let cluster = cluster(lab)?;
        let Cluster { hosts: [h1, h2, h3, _], web1, web2, .. } = &cluster;
        let nft = FakeNft::new(lab)?;
        fs::write(nft.switch(), "")?;
        h3.kill9()?;
        nft.spawn(h3)?;
        has_no_data_plane(h3, "broken on purpose")?;
        // Two of three voters are left, and it is one of them.
        h2.kill9()?;
        eventually("a write is taken", ELECTION, || {
            h1.overlay(&["network", "create", "later"]).map(drop)
        })?;
        // What its earlier run left in the kernel goes on.
        web1.netns.reaches(web2.address)?;
        let inside = lab.container("inside")?;
        let create = ["endpoint", "create", "web3", "--network", NETWORK, "--netns", inside.name()];
        refused_with(&h3.overlay_fails(&create)?, "broken on purpose")?;

        h2.restart()?;
        fs::remove_file(nft.switch())?;
        is_ready(h3)?;
        let web4 = attach(lab, h3, "web4", &[])?;
        web1.netns.reaches(web4.address)?;
        web2.netns.reaches(web1.address)
    });
}

/// A BPF file system at a folder, which is unmounted when this is dropped, with all that is pinned there.
struct BpfMount(PathBuf);

impl BpfMount {
    fn new(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let mut mount = Command::new("mount");
        command::run(mount.args(["-t", "bpf", "overlay-lab"]).arg(folder), PATIENCE)?;
        Ok(Self(folder.to_owned()))
    }
}

impl Drop for BpfMount {
    fn drop(&mut self) {
        let unmounted = command::run(Command::new("umount").arg("-l").arg(&self.0), PATIENCE);
        if let Err(error) = unmounted {
            eprintln!("{} is left: {error}", self.0.display());
        }
    }
}

/// A host on a wire to another one. Its node will be a cluster of one: it alone decides.
fn alone(lab: &mut Lab) -> Result<[Arc<Host>; 2]> {
    lab.wired_pair(("h1", "10.10.10.101"), ("h2", "10.10.10.102"))
}

#[test]
fn a_voter_without_bpffs_votes() {
    scenario(NODES, |lab| {
        let [h1, _] = alone(lab)?;
        let folder = lab.folder().join("bpffs");
        let mount = BpfMount::new(&folder)?;
        h1.start_node(&["--bpffs", &folder.join("overlay").display().to_string()])?;
        create_network(&h1)?;
        let ends = [attach(lab, &h1, "web1", &[])?, attach(lab, &h1, "web2", &[])?];
        h1.kill9()?;
        drop(mount);
        h1.spawn_again()?;
        has_no_data_plane(&h1, "mount -t bpf")?;
        h1.overlay(&["network", "create", "later"])?;

        let _mount = BpfMount::new(&folder)?;
        is_ready(&h1)?;
        ends[0].netns.reaches(ends[1].address)?;
        h1.stop()
    });
}

#[test]
fn a_voter_without_its_underlay_votes_and_is_reached_when_that_is_back() {
    scenario(NODES, |lab| {
        let [h1, h2] = alone(lab)?;
        h1.start_node(&[])?;
        // Before it is registered it is no member that could vote.
        is_ready(&h1)?;
        h1.kill9()?;
        let address = format!("{}/24", h1.address);
        h1.netns.ip(&["addr", "del", &address, "dev", "eth0"])?;
        h1.spawn_again()?;
        has_no_data_plane(&h1, "10.10.10.101")?;
        h1.overlay(&["network", "create", "later"])?;

        h1.netns.ip(&["addr", "add", &address, "dev", "eth0"])?;
        is_ready(&h1)?;
        h2.start_node(&["--join", &h1.listen()])?;
        is_ready(&h2)
    });
}
