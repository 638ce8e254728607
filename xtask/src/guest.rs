//! `cargo xtask guest`: runs a command under another kernel, in the environment that a test has there.

use std::{process::Command, time::Duration};

use anyhow::{Result, bail};

use crate::{
    exec::root,
    setup::{self, Purpose},
    vm::{self, Clock, Flavour, Machine, SERIES},
};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Series of the kernel
    #[arg(long, default_value = SERIES[0], value_parser = SERIES)]
    series: String,
    /// Minutes after which the command is stopped
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// A command and its arguments, which run as root at the repository's root
    #[arg(trailing_var_arg = true, required = true)]
    command: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    setup::ensure(Purpose::Boot)?;
    let kernel = vm::newest(&options.series, Flavour::Cloud)?;
    let machine =
        Machine { kernel: &kernel, cpus: 1, memory_mib: 3072, clock: Clock::Wall, link: None };
    let [program, args @ ..] = &options.command[..] else { bail!("no command") };
    let mut command = Command::new(program);
    command.args(args).current_dir(root());
    let limit = Duration::from_secs(options.minutes * 60);
    let code = machine.run(&command, limit, |line| println!("{line}"))?;
    if code != 0 {
        bail!("it ended with exit code {code}");
    }
    Ok(())
}
