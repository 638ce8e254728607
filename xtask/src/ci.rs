//! `cargo xtask ci`: runs what CI runs, which is lint, the ladder without skipped tests, and the programs
//! under other kernels.

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
