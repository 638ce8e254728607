//! The measurements.

use crate::{Options, kernel::MapsOnly, memory, world};
use anyhow::{Context as _, Result};
use overlay_ctl::{
    control::state::View,
    dataplane::{
        datapath::Datapath,
        kernel::{LargePackets, LocalGateway, LocalStatus, SuperPacketHealth},
        reconcile::{LocalNode, LocalVtep, Nudges, Reconciler, scopes},
    },
};
use std::{
    collections::BTreeSet,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, watch};
use world::World;

pub(crate) async fn all(options: &Options, datapath: Datapath, bpffs: &Path) -> Result<()> {
    let endpoints = options.endpoints;
    let start = Instant::now();
    let mut world = World::new()?;
    let empty = view_of(&world)?;
    for number in 1..=endpoints {
        world.create(number)?;
    }
    row("state: apply a create", start.elapsed() / endpoints, "each, of that many");
    let start = Instant::now();
    let full = Arc::new(view_of(&world)?);
    row("state: a node's first view", start.elapsed(), "made and applied");
    let start = Instant::now();
    let snapshot = world.state.snapshot();
    let size = format!("{} MB", snapshot.len() / 1_000_000);
    row("state: a snapshot", start.elapsed(), &size);
    drop(snapshot);
    let held: BTreeSet<_> = full.networks.keys().copied().collect();
    let mut follower = View::clone(&full);
    world.create(endpoints + 1)?;
    let start = Instant::now();
    follower.apply(world.state.delta_for(world::LOCAL, full.revision, &held));
    row("state: the next view", start.elapsed(), "one endpoint more");
    drop((follower, world));

    let reader = datapath.reader();
    let names = ["FDB", "NEIGH"];
    let of_maps =
        || names.iter().map(|name| memory::of_map(bpffs, name)).collect::<Result<Vec<_>>>();
    let (slab, bare) = (memory::slab()?, of_maps()?);
    let (kernel, written) = MapsOnly::new(datapath);
    let (reconciler, mut status) = Reconciler::new(kernel, local()?);
    let (views, receiver) = watch::channel(Arc::new(empty));
    let (_looks, looks) = scopes();
    let (_rules, rules) = mpsc::channel(1);
    let (_forwarding, forwarding) = mpsc::channel(1);
    let nudges = Nudges { looks, rules, forwarding };
    let running = tokio::spawn(reconciler.run(receiver, nudges));
    programmed(&mut status, views.borrow().revision).await?;
    written.take();

    let start = Instant::now();
    views.send_replace(Arc::clone(&full));
    programmed(&mut status, full.revision).await?;
    let done = start.elapsed();
    let loaded = written.take().context("nothing was written")? - start;
    row("load: in the maps", loaded, "goal 5 s");
    row("load: done, names too", done, "");
    let now = of_maps()?;
    for ((name, now), bare) in names.iter().zip(&now).zip(&bare) {
        let each = now / u64::from(endpoints);
        println!(
            "{:<32}{each:>10} B   goal 200 B; by memlock, {} MB of it stand empty",
            format!("memory an endpoint: {name}"),
            bare / 1_000_000
        );
    }
    let slab = memory::slab()?.saturating_sub(slab) / u64::from(endpoints);
    println!("{:<32}{slab:>10} B   both maps, by SUnreclaim, without what stands empty", "");

    let mut times = Vec::new();
    let mut view = full;
    for number in 0..options.changes {
        view = Arc::new(world::changed(&view, number)?);
        let start = Instant::now();
        views.send_replace(Arc::clone(&view));
        programmed(&mut status, view.revision).await?;
        times.push(written.take().context("nothing was written")? - start);
    }
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).or(times.last()).copied();
    row("one changed: median", at(50).unwrap_or_default(), "goal 1 ms");
    row("one changed: 99 of 100", at(99).unwrap_or_default(), "");
    row("one changed: the slowest", times.last().copied().unwrap_or_default(), "");

    let start = Instant::now();
    let tables = reader.tables()?;
    row("read back: everything", start.elapsed(), "at start, and after a failure");
    println!("{:<32}{:>10}     entries of the FDB", "", tables.fdb.len());
    drop(tables);
    let start = Instant::now();
    reader.usage()?;
    row("count the entries", start.elapsed(), "a hundredth of the time at most");
    println!(
        "{:<32}{:>10} MB  of this process, state gone",
        "resident",
        memory::resident()? / 1_000_000
    );
    running.abort();
    drop(running.await);
    Ok(())
}

fn view_of(world: &World) -> Result<View> {
    let mut view = View::default();
    view.apply(world.state.view_of(world::LOCAL));
    Ok(view)
}

async fn programmed(status: &mut watch::Receiver<LocalStatus>, revision: u64) -> Result<()> {
    let is_there = |status: &LocalStatus| status.programmed >= revision || is_failed(status);
    let status = status.wait_for(is_there).await?;
    anyhow::ensure!(!is_failed(&status), "reconcile failed: {:?}", status.error);
    Ok(())
}

fn is_failed(status: &LocalStatus) -> bool {
    status.programmed > 0 && status.error.is_some()
}

fn local() -> Result<LocalNode> {
    Ok(LocalNode {
        id: world::LOCAL,
        vtep: LocalVtep { address: world::LOCAL_VTEP.into(), port: 4789, ttl: 64, mtu: 1500 },
        endpoint_mtu: 1450,
        asked_mtu: None,
        gateway: LocalGateway { subnet: world::gateway_subnet()?, mtu: 1500 },
        large_packets: LargePackets::default(),
        super_packets: SuperPacketHealth::default(),
    })
}

fn row(what: &str, took: Duration, said: &str) {
    println!("{what:<32}{:>10.3} ms  {said}", took.as_secs_f64() * 1000.0);
}
