//! The demo's web server: one page, in the namespace it is started in. Hidden: a distribution's
//! minimal image has no web server, and the demo installs none.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context as _, Result};
use overlay_lab::page;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// What the page says
    text: String,
    #[arg(long, default_value_t = 80)]
    port: u16,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, options.port))
        .with_context(|| format!("cannot listen on port {}", options.port))?;
    page::serve(&listener, &options.text)
}
