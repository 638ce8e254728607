//! `cargo xtask ci`: what CI runs: lint, the ladder with none skipped, and the programs under other kernels.

use anyhow::Result;

use crate::{
    lint,
    test::{self, Kernels},
};

pub(crate) fn run() -> Result<()> {
    lint::run(&lint::Options::default())?;
    let kernels = Some(Kernels::Programs);
    test::run(&test::Options { refuse_skips: true, kernels, ..test::Options::default() })
}
