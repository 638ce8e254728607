//! `cargo xtask bench dns`: the resolver of an endpoint's namespace, asked from inside it.
//!
//! First `dig` checks that the answers are right. Then a generator asks over UDP in a closed loop: one query
//! at a time shows the latency, 32 in flight show the rate. The kinds of questions take turns within each
//! round. For comparison the endpoint also asks the outside's dnsmasq directly, which shows the speed of the
//! machine.

mod generator;
mod query;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use anyhow::{Context as _, Result};
use overlay_lab::{Lab, Netns, check_interrupted};
use serde::Serialize;

use self::{
    generator::{Counted, ask},
    query::{Query, Rcode, Type},
};
use super::{Report, endpoint::create_endpoint, load, stats::Samples};
use crate::{
    build, interrupt,
    outside::{OUTSIDE_NAME, serve_names},
    setup::{self, Purpose},
};

/// The address of a resolver inside an endpoint's namespace.
const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const PORT: u16 = 53;
/// Number of queries in flight when the rate is measured.
const WINDOW: usize = 32;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Take three short rounds instead of seven
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    report: Report,
}

/// A question, the server to ask, and the right answer.
struct Kind {
    name: &'static str,
    query: Query,
    server: Ipv4Addr,
    records: Vec<String>,
}

/// The results of one kind, one sample for each round.
#[derive(Default, Serialize)]
struct OfKind {
    queries_per_second: Samples,
    /// One query at a time, in microseconds.
    alone_p50_us: Samples,
    alone_p99_us: Samples,
    /// [`WINDOW`] queries in flight, in microseconds.
    loaded_p50_us: Samples,
    loaded_p99_us: Samples,
    lost: u64,
}

/// All samples of a run.
#[derive(Serialize)]
struct Figures {
    rounds: usize,
    in_flight: usize,
    load_before: String,
    load_after: String,
    kernel: String,
    kinds: BTreeMap<&'static str, OfKind>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    setup::ensure(Purpose::Drive)?;
    build::release()?;
    interrupt::take_down_first()?;
    let (rounds, time) =
        if options.quick { (3, Duration::from_millis(500)) } else { (7, Duration::from_secs(3)) };
    let load_before = load()?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
    let mut lab = Lab::new()?;
    let (asking, kinds) = build(&mut lab)?;
    for kind in &kinds {
        kind.judge(&asking).with_context(|| format!("{}: a wrong answer", kind.name))?;
    }
    let mut by_kind: BTreeMap<&'static str, OfKind> = BTreeMap::new();
    for round in 1..=rounds {
        for kind in &kinds {
            check_interrupted()?;
            let server = SocketAddrV4::new(kind.server, PORT);
            let alone = ask(&asking, server, &kind.query, 1, time)?;
            let loaded = ask(&asking, server, &kind.query, WINDOW, time)?;
            println!(
                "round {round}/{rounds}  {:32} {:8.0} queries/s",
                kind.name, loaded.queries_per_second
            );
            by_kind.entry(kind.name).or_default().add(&alone, &loaded);
        }
    }
    let load_after = load()?;
    let in_flight = WINDOW;
    let figures = Figures { rounds, in_flight, load_before, load_after, kernel, kinds: by_kind };
    figures.print(&kinds);
    options.report.write(&figures)
}

/// A node, an outside host with a name server, and two endpoints of which one asks.
fn build(lab: &mut Lab) -> Result<(Netns, Vec<Kind>)> {
    let [outside, host] = lab.wired_pair(("outside", "10.9.0.1"), ("h1", "10.9.0.2"))?;
    let upstream = outside.address;
    let resolv_conf = serve_names(lab, &outside.netns, upstream)?;
    host.start_node(&["--resolv-conf", &resolv_conf.to_string_lossy()])?;
    host.overlay(&["network", "create", "bench", "--subnet", "10.0.0.0/24"])?;
    let asking = lab.container("asking")?;
    create_endpoint(&host, "asking", &asking, &[])?;
    let web1 = create_endpoint(&host, "web1", &lab.container("web1")?, &["--alias", "www"])?;
    let [a, b, c, d] = web1.octets();
    let pointer = format!("{d}.{c}.{b}.{a}.in-addr.arpa");
    let kinds = vec![
        Kind::new("a name of ours, A", Query::new("web1", Type::A)?, &[&web1.to_string()]),
        Kind::new("an alias, A", Query::new("www", Type::A)?, &[&web1.to_string()]),
        Kind::new("an address, PTR", Query::new(&pointer, Type::Ptr)?, &["web1.bench."]),
        Kind::new("nobody's name, NXDOMAIN", Query::nobody("nobody")?, &[]),
        Kind::new("forwarded, A", Query::new(OUTSIDE_NAME, Type::A)?, &[&upstream.to_string()]),
        Kind {
            server: upstream,
            ..Kind::new(
                "(dnsmasq outside, asked directly)",
                Query::new(OUTSIDE_NAME, Type::A)?,
                &[&upstream.to_string()],
            )
        },
    ];
    Ok((asking, kinds))
}

impl Kind {
    fn new(name: &'static str, query: Query, records: &[&str]) -> Self {
        let records = records.iter().map(|&record| record.to_owned()).collect();
        Self { name, query, server: RESOLVER, records }
    }

    /// Checks that `dig` gets the right answer.
    fn judge(&self, asking: &Netns) -> Result<()> {
        let answer =
            asking.dig_at(self.server, &[self.query.name(), self.query.record_type().name()])?;
        match self.query.rcode() {
            Rcode::NoError => {
                let records: Vec<&str> = self.records.iter().map(String::as_str).collect();
                answer.is(&records)
            }
            Rcode::NxDomain => answer.is_empty("NXDOMAIN"),
        }
    }
}

impl OfKind {
    fn add(&mut self, alone: &Counted, loaded: &Counted) {
        let Self { queries_per_second, alone_p50_us, alone_p99_us, loaded_p50_us, .. } = self;
        queries_per_second.push(loaded.queries_per_second);
        alone_p50_us.push(alone.latency_us.median());
        alone_p99_us.push(alone.latency_us.percentile(99));
        loaded_p50_us.push(loaded.latency_us.median());
        self.loaded_p99_us.push(loaded.latency_us.percentile(99));
        self.lost += alone.lost + loaded.lost;
    }
}

impl Figures {
    fn print(&self, kinds: &[Kind]) {
        println!(
            "\n{} rounds, questions in turns; kernel {}; load average {} before, {} after",
            self.rounds, self.kernel, self.load_before, self.load_after
        );
        println!(
            "medians of the rounds; [least .. greatest] rate; latency one at a time, and with {} in \
             flight\n",
            self.in_flight
        );
        println!(
            "{:34} {:>9} {:23} {:>18} {:>18}  lost",
            "", "queries/s", "", "alone p50/p99 us", "loaded p50/p99 us"
        );
        for kind in kinds {
            let Some(of_kind) = self.kinds.get(kind.name) else { continue };
            let rate = &of_kind.queries_per_second;
            println!(
                "{:34} {:9.0} [{:9.0} .. {:8.0}] {:9.0} /{:7.0} {:9.0} /{:7.0}  {}",
                kind.name,
                rate.median(),
                rate.min(),
                rate.max(),
                of_kind.alone_p50_us.median(),
                of_kind.alone_p99_us.median(),
                of_kind.loaded_p50_us.median(),
                of_kind.loaded_p99_us.median(),
                of_kind.lost
            );
        }
    }
}
