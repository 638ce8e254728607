//! Measures the cost of a million endpoints: `cargo xtask bench scale`.
//!
//! The reconciler and the maps are the real ones, in a network namespace of their own. Devices, next
//! hops and resolvers are not made (see [`kernel::MapsOnly`]). The state is filled by commands, like that of
//! a cluster.

mod kernel;
mod measure;
mod memory;
mod world;

use anyhow::{Context as _, Result};
use clap::Parser;
use nix::sched::{CloneFlags, unshare};
use overlay_common::{Config, Limit, TOS_ECN, ip16_from_v4};
use overlay_ctl::dataplane::{
    datapath::{Datapath, DatapathConfig},
    kernel::Uplink,
};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

#[derive(Parser)]
struct Options {
    /// Number of endpoints of the network
    #[arg(long, default_value_t = 1_000_000)]
    endpoints: u32,
    /// Number of changes, each of one endpoint
    #[arg(long, default_value_t = 1000)]
    changes: u32,
}

fn main() -> Result<()> {
    let options = Options::parse();
    // This must happen before a second thread is started. The namespace ends with the process.
    unshare(CloneFlags::CLONE_NEWNET)
        .context("a network namespace can't be made: run it as root")?;
    command("ip", &["link", "add", UNDERLAY, "type", "veth"])?;
    command("ip", &["link", "set", UNDERLAY, "up"])?;
    let bpffs = PathBuf::from(format!("/sys/fs/bpf/overlay-scale-{}", std::process::id()));
    let datapath = Datapath::open(config(&bpffs)?)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let measured = runtime.block_on(measure::all(&options, datapath, &bpffs));
    Datapath::remove_all(&bpffs)?;
    measured
}

const UNDERLAY: &str = "under0";

fn config(bpffs: &Path) -> Result<DatapathConfig> {
    let underlay_ifindex = nix::net::if_::if_nametoindex(UNDERLAY)?;
    Ok(DatapathConfig {
        bpffs: bpffs.to_owned(),
        underlay: Uplink {
            ifindex: underlay_ifindex,
            name: UNDERLAY.to_owned(),
            ..Uplink::default()
        },
        config: Config {
            vtep: ip16_from_v4(world::LOCAL_VTEP.octets()),
            underlay_ifindex,
            vxlan_port: 4789,
            ttl: 64,
            tos_mask: TOS_ECN,
            flags: 0,
            sample: 0,
            storm: Limit::NONE,
            answers: Limit::NONE,
            claims: Limit::NONE,
            gateway: [172, 18, 0, 0],
            gateway_mask: [255, 255, 0, 0],
            merge_ifindex: 0,
        },
    })
}

fn command(program: &str, arguments: &[&str]) -> Result<()> {
    let status = Command::new(program).args(arguments).status();
    let status = status.with_context(|| format!("{program} can't be run"))?;
    anyhow::ensure!(status.success(), "{program} {} failed", arguments.join(" "));
    Ok(())
}
