//! `cargo xtask bench scale`: a node with a million endpoints.
//!
//! The program tests/scale measures, because xtask does not link the crates that it builds.

use anyhow::Result;

use crate::{
    exec::{cargo, exec},
    setup::{self, Purpose},
};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Number of endpoints of the network
    #[arg(long, default_value_t = 1_000_000)]
    endpoints: u32,
    /// Number of changes, each of one endpoint
    #[arg(long, default_value_t = 1000)]
    changes: u32,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    setup::ensure(Purpose::Run)?;
    let Options { endpoints, changes } = options;
    exec(
        cargo(["run", "--quiet", "--release", "--package", "overlay-scale", "--"])
            .args([format!("--endpoints={endpoints}"), format!("--changes={changes}")]),
    )
}
