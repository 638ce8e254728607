//! `cargo xtask test --nics`: the overlay between two virtual machines, on emulated network cards.
//!
//! Everything else runs on veth, which leaves checksums and segmentation undone and has no driver. Here each of two
//! guests has a card, and a node on it. The cards are joined by taps and a bridge in a namespace of this machine,
//! so that super-packets and unfinished checksums reach the card's driver. The features of the card are switched
//! one by one, and the same bytes must arrive with each of them.

mod agent;
mod drive;
mod echo;

use std::{env, process::Command, thread, time::Duration};

use anyhow::{Context as _, Result, bail};
use overlay_lab::{Lab, Netns};

use crate::{
    build,
    exec::root,
    setup::{self, Purpose},
    vm::{self, Clock, Flavour, Link, Machine},
};

/// The kernel of the guests.
const SERIES: &str = "6.12";
/// Longest time for the two guests of a card.
const LIMIT: Duration = Duration::from_secs(20 * 60);
/// Addresses of the two guests, and of their endpoints.
const HOSTS: [&str; 2] = ["10.7.0.1", "10.7.0.2"];
const ENDPOINTS: [&str; 2] = ["10.8.0.11", "10.8.0.12"];

/// A card that qemu emulates.
#[derive(Debug, Clone, Copy)]
struct Card {
    /// Its name in qemu, and the name of its driver's module.
    model: &'static str,
    driver: &'static str,
    /// The kernel that has the driver.
    flavour: Flavour,
    /// Whether the driver runs XDP programs itself.
    runs_xdp: bool,
}

const CARDS: [Card; 3] = [
    Card { model: "virtio-net-pci", driver: "virtio_net", flavour: Flavour::Cloud, runs_xdp: true },
    Card { model: "vmxnet3", driver: "vmxnet3", flavour: Flavour::Cloud, runs_xdp: true },
    Card { model: "e1000e", driver: "e1000e", flavour: Flavour::Full, runs_xdp: false },
];

/// What a guest does; the command is hidden.
#[derive(clap::Args)]
pub(crate) struct Inside {
    #[command(subcommand)]
    side: Side,
}

#[derive(clap::Subcommand)]
enum Side {
    /// Run commands that the other guest sends
    Agent { driver: String },
    /// Build a cluster of the two guests and test it
    Drive {
        driver: String,
        #[arg(long)]
        runs_xdp: bool,
    },
    /// Send back what comes to this address, by TCP and UDP
    Echo { address: std::net::SocketAddr },
}

impl Inside {
    pub(crate) fn run(&self) -> Result<()> {
        match &self.side {
            Side::Agent { driver } => agent::serve(driver),
            Side::Drive { driver, runs_xdp } => drive::drive(driver, *runs_xdp),
            Side::Echo { address } => echo::serve(*address),
        }
    }
}

/// Tests all cards, or those whose name contains `filter`.
pub(crate) fn run(filter: Option<&str>) -> Result<()> {
    setup::ensure(Purpose::TestMachines)?;
    let binary = build::binary()?;
    let cards: Vec<Card> = CARDS
        .into_iter()
        .filter(|card| filter.is_none_or(|filter| card.model.contains(filter)))
        .collect();
    if cards.is_empty() {
        bail!("no card is called so; there are {}", CARDS.map(|card| card.model).join(", "));
    }
    let mut failed = Vec::new();
    for card in &cards {
        println!("\n=== two guests with {}", card.model);
        if let Err(error) = test(*card, &binary) {
            println!("{}: FAILED: {error:#}", card.model);
            failed.push(card.model);
        } else {
            println!("{}: ok", card.model);
        }
    }
    println!("\n{} cards passed, {} failed", cards.len() - failed.len(), failed.len());
    if failed.is_empty() { Ok(()) } else { bail!("{} failed", failed.join(", ")) }
}

fn test(card: Card, binary: &std::path::Path) -> Result<()> {
    let kernel = vm::newest(SERIES, card.flavour)?;
    let lab = Lab::new()?;
    let bridge = wire(&lab)?;
    let path = bridge.path();
    let guest = |number: usize, side: &[&str]| -> Result<i32> {
        let (tap, mac) = (tap(number), format!("52:54:00:07:00:{number:02x}"));
        let link = Link { netns: &path, tap: &tap, model: card.model, mac: &mac };
        let machine = Machine {
            kernel: &kernel,
            cpus: 1,
            memory_mib: 2048,
            clock: Clock::Wall,
            link: Some(link),
        };
        let mut command = Command::new(env::current_exe()?);
        command
            .arg("nics-inside")
            .args(side)
            .current_dir(root())
            .env("OVERLAY_BIN", binary)
            .env("OVERLAY_PATIENCE", "10");
        machine.run(&command, LIMIT, |line| println!("  {number} | {line}"))
    };
    thread::scope(|scope| {
        let agent = scope.spawn(|| guest(0, &["agent", card.driver]));
        let mut words = vec!["drive", card.driver];
        words.extend(card.runs_xdp.then_some("--runs-xdp"));
        let driven = guest(1, &words);
        let agent = agent.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        if driven? != 0 {
            bail!("see above");
        }
        let code = agent.context("the other guest")?;
        if code == 0 { Ok(()) } else { bail!("the other guest ended with exit code {code}") }
    })
}

fn tap(number: usize) -> String {
    format!("guest{number}")
}

/// A namespace with a bridge and a tap for each guest. The taps take super-packets and unfinished checksums.
fn wire(lab: &Lab) -> Result<Netns> {
    let netns = lab.container("wire")?;
    netns.ip(&["link", "add", "br0", "type", "bridge"])?;
    netns.ip(&["link", "set", "br0", "up"])?;
    for number in 0..HOSTS.len() {
        let tap = tap(number);
        netns.ip(&["tuntap", "add", &tap, "mode", "tap", "vnet_hdr"])?;
        netns.ip(&["link", "set", &tap, "master", "br0", "up"])?;
    }
    Ok(netns)
}
