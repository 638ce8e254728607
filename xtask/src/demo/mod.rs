//! `cargo xtask demo`: four hosts in two subnets on this machine, shown command by command.

mod endpoint;
mod gateway;
mod shell;
mod story;

use anyhow::Result;
use overlay_lab::{Host, Lab};

use crate::{
    build, interrupt,
    setup::{self, Purpose},
};

/// Prefix of the names of the demo's namespaces and folders.
const PREFIX: &str = "demo-";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Keep the demo running, and print how to enter it
    #[arg(long)]
    keep: bool,
    /// Only remove a demo that was kept
    #[arg(long, conflicts_with = "keep")]
    clean: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if options.clean {
        return clean();
    }
    setup::ensure(Purpose::Drive)?;
    build::release()?;
    interrupt::take_down_first()?;
    let mut lab = Lab::named(PREFIX, options.keep)?;
    match story::tell(&mut lab) {
        Ok(()) if options.keep => {
            how_to_enter(&lab);
            lab.keep();
            Ok(())
        }
        Ok(()) => {
            drop(lab);
            println!(
                "\nEverything has been removed. (`cargo xtask demo --keep` leaves it standing.)"
            );
            Ok(())
        }
        Err(error) => {
            eprintln!("{}", lab.logs());
            Err(error)
        }
    }
}

fn clean() -> Result<()> {
    if Lab::stands(PREFIX) {
        Lab::remove(PREFIX)?;
        println!("the demo has been removed");
    } else {
        println!("no demo stands");
    }
    Ok(())
}

fn how_to_enter(lab: &Lab) {
    println!("\nIt stands. To enter a host, with `overlay` speaking to that host's node:");
    let (outside, nodes): (Vec<_>, Vec<_>) =
        lab.hosts().iter().partition(|host| host.name == gateway::OUTSIDE);
    for host in nodes {
        println!("  {}", enter(host));
    }
    for host in outside {
        let (netns, name, address) = (host.netns.name(), &host.name, host.address);
        println!("  ip netns exec {netns} bash    # {name}, {address}: no node, a name server");
    }
    println!("To enter a container (web1, web2, web2-2, web3, web4), its names resolved:");
    println!("  ip netns exec {}web1 bash", lab.prefix());
    println!("Logs and states: {}", lab.folder().display());
    println!("To remove it: cargo xtask demo --clean");
}

/// The line that opens a shell on a host.
fn enter(host: &Host) -> String {
    format!(
        "nsenter --net={} env OVERLAY_SOCKET={} PATH={}:$PATH bash    # {}, {}",
        host.netns.path().display(),
        host.socket().display(),
        shell::binary_folder().display(),
        host.name,
        host.address
    )
}
