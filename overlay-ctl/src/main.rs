//! `overlay`: the controller and its command line.

use clap::Parser as _;
use overlay_ctl::{
    config::{ClusterRecoverArgs, ClusterRestoreArgs, NodeResetArgs, NodeRunArgs},
    faces::cli::{Begun, Cli, OnHost, Reset, run},
    node,
};
use std::{path::Path, process::ExitCode};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    run(Cli::parse(), &Host).await
}

/// This host.
struct Host;

impl OnHost for Host {
    async fn run(&self, args: NodeRunArgs) -> anyhow::Result<()> {
        // Logs go to stderr, so that stdout is only what was asked for.
        let filter = EnvFilter::try_from_env("OVERLAY_LOG")
            .unwrap_or_else(|_| EnvFilter::new("info,raft=warn"));
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
        Ok(node::run(args).await?)
    }

    async fn reset(&self, args: NodeResetArgs) -> anyhow::Result<Reset> {
        Ok(node::reset(args).await?)
    }

    async fn restore(&self, args: ClusterRestoreArgs) -> anyhow::Result<Begun> {
        Ok(node::restore(args).await?)
    }

    async fn recover(&self, args: ClusterRecoverArgs) -> anyhow::Result<Begun> {
        Ok(node::recover(args).await?)
    }

    async fn left(&self, state_dir: &Path) -> anyhow::Result<()> {
        Ok(node::left(state_dir).await?)
    }
}
