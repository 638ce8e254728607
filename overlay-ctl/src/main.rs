//! `overlay`: the controller and its command line.

use clap::Parser as _;
use overlay_ctl::cli::{Cli, NodeRunArgs, run};
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    run(Cli::parse(), node_run).await
}

async fn node_run(_args: NodeRunArgs) -> anyhow::Result<()> {
    anyhow::bail!("this build has no controller; use a release")
}
