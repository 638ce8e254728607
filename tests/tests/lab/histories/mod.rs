//! Histories of clients against real nodes, checked for linearizability while a fault strikes again and again.
//!
//! `cargo xtask histories` runs many of them, by what the environment says: `HISTORIES_RUNS=n` runs of each fault,
//! `HISTORIES_FAULT=NAME` of one fault alone, from the seed `HISTORIES_SEED` on. Without it a short run of a few faults is
//! made. A seed makes the choice of hosts, moments and calls again, but not the order in which the machine does them.

mod book;
mod client;
mod dice;
mod faults;
mod foreseen;
mod name;
mod report;
mod settled;
#[cfg(test)]
mod tests;
mod verdict;
mod world;

use std::{
    env, fs,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use overlay_lab::{Lab, missing, pass, skip, tagged::Traffic};

use self::{
    book::Book,
    client::Client,
    dice::Dice,
    faults::{Fault, Striker},
    report::{Counts, Report, Table},
    verdict::Wrong,
    world::World,
};
use crate::support::NODES;

/// Clients that write and read at all nodes. At each node there is one more, which only reads.
const CLIENTS: usize = 8;
/// Between two packets of each flow.
const EVERY: Duration = Duration::from_millis(20);
/// How long a fault strikes again and again.
const LONG: Duration = Duration::from_secs(12);
/// Time for calls before the first strike and after the last one.
const CALM: Duration = Duration::from_secs(1);

/// Runs one history. The fault strikes once at least, and no more after `time`.
fn run(lab: &mut Lab, fault: Fault, seed: u64, time: Duration) -> Result<Report> {
    let mut dice = Dice::new(seed);
    let world = World::build(lab, fault.needs(), &mut dice)?;
    let traffic = Traffic::start(&world.lasting, EVERY)?;
    let (book, stop) = (Book::new(), AtomicBool::new(false));
    let mut striker = Striker { lab, world: &world, book: &book, dice };
    let (strikes, end) = thread::scope(|scope| {
        let client = |number| Client::new(number, seed, &book, &world);
        let readers =
            (0..world.hosts.len()).map(|host| client(CLIENTS + host).only_reading_at(host));
        let clients: Vec<_> = (0..CLIENTS)
            .map(client)
            .chain(readers)
            .map(|client| scope.spawn(|| client.run(&stop)))
            .collect();
        let strikes = strike(&mut striker, fault, time);
        let end = book.now();
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().map_err(|_| anyhow!("a client panicked"))??;
        }
        anyhow::Ok((strikes?, end))
    })?;
    let settled = settled::settle(&world, &book);
    let traffic = traffic.stop()?;
    let settled = settled?;
    let (records, removals) = book.close();
    let (names, mut wrong) =
        verdict::names(&records, &removals, |record| settled.last_look(record, &world));
    wrong.extend(verdict::revisions(&records));
    wrong.extend(verdict::owners(&records, &removals));
    wrong.extend(foreseen::others(&records, &removals));
    if traffic.lost + traffic.misdelivered > 0 {
        let what =
            format!("{} packets were lost, {} misdelivered", traffic.lost, traffic.misdelivered);
        wrong.push(Wrong { what, shown: traffic.examples.clone() });
    }
    let counts = Counts::of(&records);
    ensure!(
        counts.are_enough() && traffic.sent > 100,
        "too little was done: {counts:?}, {traffic:?}"
    );
    Ok(Report {
        voters: world.voters,
        strikes,
        counts,
        names,
        traffic,
        longest_gap: Duration::from_micros(verdict::longest_gap(&records, end)),
        wrong,
    })
}

fn strike(striker: &mut Striker<'_>, fault: Fault, time: Duration) -> Result<Vec<String>> {
    let begun = Instant::now();
    let mut done = Vec::new();
    pass(CALM)?;
    while done.is_empty() || begun.elapsed() < time {
        let what = striker.strike(fault);
        done.push(what.with_context(|| format!("strike {} of {fault:?}", done.len() + 1))?);
        pass(striker.dice.millis(100, 1500))?;
    }
    pass(CALM)?;
    Ok(done)
}

/// Where a run that failed leaves its logs and what is wrong.
fn folder(fault: Fault, seed: u64) -> Result<PathBuf> {
    let target = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/histories");
    let folder = target.join(format!("{}-{seed}", fault.name()));
    fs::create_dir_all(&folder)?;
    Ok(folder.canonicalize()?)
}

/// Runs one history in a lab of its own. Fails, after it has written down all that there is to see, if something is wrong.
fn tell(table: &mut Table, fault: Fault, seed: u64, time: Duration) -> Result<()> {
    let mut lab = Lab::new()?;
    let run = run(&mut lab, fault, seed, time);
    table.add(fault, run.as_ref().ok());
    let wrong = match &run {
        Ok(report) => {
            println!("{} seed {seed}: {report}", fault.name());
            report.wrong.iter().map(|wrong| (&wrong.what, &wrong.shown[..])).collect()
        }
        Err(_) => Vec::new(),
    };
    if run.is_ok() && wrong.is_empty() {
        return Ok(());
    }
    let folder = folder(fault, seed)?;
    for file in fs::read_dir(lab.folder())? {
        let path = file?.path();
        if let (Some(name), Some("log")) =
            (path.file_name(), path.extension().and_then(|it| it.to_str()))
        {
            fs::copy(&path, folder.join(name))?;
        }
    }
    let mut said = Vec::new();
    for (number, (what, shown)) in wrong.into_iter().enumerate() {
        let file = folder.join(format!("wrong-{number}.txt"));
        fs::write(&file, format!("{what}\n{}\n", shown.join("\n")))?;
        said.push(format!("{what}: {}", file.display()));
    }
    if let Err(error) = run {
        said.push(format!("{error:#}; logs: {}", folder.display()));
    }
    bail!("{} seed {seed}: {}", fault.name(), said.join("\n  "))
}

fn given(name: &str) -> Option<u64> {
    let value = env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|error| panic!("{name}={value}: {error}")))
}

#[test]
fn every_name_s_history_is_linearizable_and_no_packet_is_lost() {
    if let Some(reason) = missing(NODES) {
        return skip(&reason, std::panic::Location::caller()).expect("the file that counts skips");
    }
    let asked = env::var("HISTORIES_FAULT").ok();
    let faults: Vec<Fault> = Fault::ALL
        .into_iter()
        .filter(|(_, name)| asked.as_ref().is_none_or(|asked| asked == name))
        .map(|(fault, _)| fault)
        .collect();
    assert!(!faults.is_empty(), "no fault has the name {asked:?}; there are {:?}", Fault::ALL);
    let by_chance = u64::from(std::process::id()) << 16;
    let seed = given("HISTORIES_SEED").unwrap_or(by_chance);
    let mut runs = Vec::new();
    if let Some(count) = given("HISTORIES_RUNS") {
        for number in 0..count {
            runs.extend(faults.iter().map(|&fault| (fault, seed.wrapping_add(number), LONG)));
        }
    } else {
        let short = [Fault::LeaderKilled, Fault::CutOneWay];
        runs.extend(short.map(|fault| (fault, seed, Duration::ZERO)));
    }
    let (mut table, mut failed) = (Table::default(), Vec::new());
    for (fault, seed, time) in runs {
        if let Err(error) = tell(&mut table, fault, seed, time) {
            println!("FAILED {error:#}");
            failed.push(format!("{error:#}"));
        }
    }
    println!("{table}");
    assert!(
        failed.is_empty(),
        "{}\nagain: cargo xtask histories --runs 1 --fault NAME --seed SEED",
        failed.join("\n")
    );
}
