//! Docker's own overlay, if a Docker engine is installed: an engine in swarm mode on each of two hosts, an
//! attachable overlay network, and a container on each.
//!
//! An engine runs in namespaces of its own, so that it meets neither the machine's Docker nor the other
//! engine. One of these is a PID namespace: when the engine dies for any reason, the kernel ends all its
//! processes, and its mounts go with the last of them.

use std::{fs, net::Ipv4Addr, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use overlay_lab::{Host, Lab, Netns, Process, eventually};

use super::{Contestant, pair_of_hosts};
use crate::{
    bench::dataplane::scene::{DOCKER, Place, Underlay},
    exec::{capture, find_program},
};

/// The network's subnet. 10.0.0.0/24 is the swarm's own.
const SUBNET: &str = "172.16.16.0/24";
const NETWORK: &str = "bench";
/// The image of the containers, which has no files; they use the host's programs.
const IMAGE: &str = "empty";
const SWARM_PORT: u16 = 2377;
/// Longest time to wait until an engine serves.
const START: Duration = Duration::from_secs(30);
/// Shell commands that give an engine its own folder for everything with a fixed path. $1 is that folder,
/// the rest is the engine's command line.
const IN_PRIVATE: &str = "mount --bind \"$1/run\" /run && mkdir -p /run/lock /etc/docker && mount --bind \
                          \"$1/etc\" /etc/docker && shift && exec \"$@\"";

/// A running dockerd, and everything that it has started.
pub(in crate::bench) struct Engine {
    process: Process,
    /// The engine itself; `process` only waits for it.
    dockerd: Pid,
    socket: String,
}

pub(in crate::bench) fn is_installed() -> bool {
    ["dockerd", "docker", "containerd", "runc"].iter().all(|name| find_program(name).is_some())
}

pub(in crate::bench) fn build(lab: &mut Lab, underlay: Underlay) -> Result<Contestant> {
    let hosts = pair_of_hosts(lab, "d", underlay)?;
    let first = Engine::start(lab, &hosts[0])?;
    let second = Engine::start(lab, &hosts[1])?;
    let [manager, worker] = hosts.each_ref().map(|host| format!("{}:{SWARM_PORT}", host.address));
    first.docker(&["swarm", "init", "--advertise-addr", &manager, "--listen-addr", &manager])?;
    let token = first.docker(&["swarm", "join-token", "-q", "worker"])?;
    let join = ["swarm", "join", "--token", &token, "--advertise-addr", &worker];
    second.docker(&[&join[..], &["--listen-addr", &worker, &manager]].concat())?;
    // The driver's option is the underlay's MTU; the driver subtracts the encapsulation itself.
    let mtu_option = format!("com.docker.network.driver.mtu={}", underlay.mtu);
    let network = ["network", "create", "-d", "overlay", "--attachable", "--subnet", SUBNET];
    first.docker(&[&network[..], &["-o", &mtu_option, NETWORK]].concat())?;
    let (client, _) = first.container(lab, &format!("{}c", hosts[0].name))?;
    let (server, server_address) = second.container(lab, &format!("{}c", hosts[1].name))?;
    Ok(Contestant {
        name: DOCKER,
        place: Place::TwoHosts(underlay),
        client,
        server,
        server_address,
        wired: hosts.into(),
        _engines: vec![first, second],
    })
}

impl Engine {
    fn start(lab: &Lab, host: &Host) -> Result<Self> {
        let folder = lab.folder().join(&host.name);
        for part in ["run", "etc"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let path = |part: &str| folder.join(part).display().to_string();
        let socket = format!("unix://{}", path("docker.sock"));
        let cgroup = format!("/{}{}", lab.prefix(), host.name);
        let dockerd = find_program("dockerd").context("dockerd is not installed")?;
        let (dockerd, own) = (dockerd.display().to_string(), folder.display().to_string());
        let namespaces = ["--mount", "--propagation", "private", "--uts", "--pid", "--mount-proc"];
        let process = host.netns.start(
            &[
                &["unshare", "--fork", "--kill-child"][..],
                &namespaces,
                &["sh", "-c", IN_PRIVATE, "sh", &own],
                &[&dockerd, "--host", &socket, "--pidfile", &path("dockerd.pid")],
                &["--data-root", &path("data"), "--exec-root", &path("exec")],
                &["--cgroup-parent", &cgroup, "--exec-opt", "native.cgroupdriver=cgroupfs"],
            ]
            .concat(),
        )?;
        let waiting = process.pid().context("the engine was let go")?;
        let dockerd = eventually("the engine starts", START, || only_child(waiting))?;
        let mut engine = Self { process, dockerd, socket };
        eventually(&format!("{}'s engine serves", host.name), START, || {
            let runs = engine.process.is_running()?;
            if runs { engine.docker(&["version"]) } else { Ok(String::new()) }
        })?;
        let runs = engine.process.is_running()?;
        ensure!(runs, "{}'s engine ended:\n{}", host.name, engine.process.log());
        let image = folder.join("empty.tar");
        // A tar archive without files consists of its end mark only.
        fs::write(&image, [0; 1024])?;
        engine.docker(&["import", &image.display().to_string(), IMAGE])?;
        Ok(engine)
    }

    /// Starts a container on the network; returns its namespace, and its address there.
    fn container(&self, lab: &Lab, name: &str) -> Result<(Netns, Ipv4Addr)> {
        let mut words = vec!["run", "--detach", "--name", name, "--network", NETWORK];
        for borrowed in ["/usr:/usr:ro", "/lib:/lib:ro", "/lib64:/lib64:ro"] {
            let folder = borrowed.split(':').next().unwrap_or_default();
            if PathBuf::from(folder).exists() {
                words.extend(["--volume", borrowed]);
            }
        }
        words.extend([IMAGE, "/usr/bin/sleep", "infinity"]);
        self.docker(&words)?;
        let format = format!(
            "{{{{.NetworkSettings.SandboxKey}}}} {{{{.NetworkSettings.Networks.{NETWORK}.IPAddress}}}}"
        );
        let printed = self.docker(&["inspect", "--format", &format, name])?;
        let (sandbox, address) = printed.split_once(' ').with_context(|| printed.clone())?;
        // The path leads through the engine's root, because the namespace is mounted only in the engine's
        // file system.
        let file = PathBuf::from(format!("/proc/{}/root{sandbox}", self.dockerd));
        Ok((lab.adopt_netns(name, &file)?, address.parse()?))
    }

    fn docker(&self, words: &[&str]) -> Result<String> {
        let client = find_program("docker").context("docker is not installed")?;
        let printed = capture(Command::new(client).args(["--host", &self.socket]).args(words))?;
        Ok(printed.trim().to_owned())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // The engine is the first process of its namespace, so that the kernel kills all others with it. A
        // failure needs no report, because the lab kills the processes that are left in its namespaces.
        kill(self.dockerd, Signal::SIGKILL).ok();
        drop(self.process.wait(Duration::from_secs(10)));
    }
}

fn only_child(parent: Pid) -> Result<Pid> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
    Ok(Pid::from_raw(children.trim().parse().context("no child yet")?))
}
