//! A client that writes to the cluster without a pause while its nodes are restarted, and remembers what was acknowledged.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Result, anyhow, ensure};
use overlay_lab::{Host, Lab, Netns, eventually};

use crate::support::NETWORK;

/// Longest time until some more writes are acknowledged: an election may come in between, and a node that is waited for.
const GOES_ON: Duration = Duration::from_secs(40);
/// What a write may fail with while a leader restarts: the cluster looks for another one, and the one that ends says so. The host
/// that restarts is asked nothing, so that no connection may be lost.
const TRANSIENT: [&str; 2] = ["the cluster has no leader with a quorum (", "the node is stopping"];
/// The place of no host.
const NOBODY: usize = usize::MAX;

/// Returns true if a write may fail so. What a node says of versions is never transient, also as the reason of another error.
fn is_foreseen(error: &str, may_say: &[&str]) -> bool {
    !error.contains("version") && TRANSIENT.iter().chain(may_say).any(|words| error.contains(words))
}

/// A client in the background. It asks one host after the other, but for the one that is about to be restarted.
pub(super) struct Writer {
    shared: Arc<Shared>,
    hosts: Vec<Arc<Host>>,
    thread: JoinHandle<Written>,
}

/// What the client and the test tell each other.
struct Shared {
    stop: AtomicBool,
    /// The place of the host that is left out.
    away: AtomicUsize,
    /// The place of the host that is asked.
    asked: AtomicUsize,
    acknowledged: AtomicUsize,
}

/// What came of the writes.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Networks whose creation was acknowledged, and whose removal was not asked for.
    pub(super) kept: BTreeSet<String>,
    /// Networks and endpoints whose removal was acknowledged.
    pub(super) gone: BTreeSet<String>,
    /// How many writes were acknowledged.
    pub(super) acknowledged: usize,
    /// Requests that failed for want of a leader, and what was said: their effect is not known.
    pub(super) failed: Vec<String>,
    /// Requests that failed for any other reason, which no upgrade may give.
    pub(super) refused: Vec<String>,
}

impl Writer {
    /// Starts the client.
    pub(super) fn start(lab: &Lab, hosts: &[Arc<Host>]) -> Result<Self> {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            away: AtomicUsize::new(NOBODY),
            asked: AtomicUsize::new(NOBODY),
            acknowledged: AtomicUsize::new(0),
        });
        let inside = |host: &Arc<Host>| {
            Ok((Arc::clone(host), lab.container(&format!("writer-{}", host.name))?))
        };
        let client = Client {
            hosts: hosts.iter().map(inside).collect::<Result<_>>()?,
            shared: Arc::clone(&shared),
            written: Written::default(),
        };
        let thread = thread::spawn(move || client.write());
        Ok(Self { shared, hosts: hosts.to_vec(), thread })
    }

    /// Asks nothing of this host any more, which is about to be restarted; `None` = each one is asked. When it returns, all that
    /// the host was asked is answered.
    pub(super) fn leave_out(&self, host: Option<&Host>) -> Result<()> {
        let place = host.and_then(|host| self.hosts.iter().position(|it| it.name == host.name));
        let place = place.unwrap_or(NOBODY);
        self.shared.away.store(place, Ordering::SeqCst);
        eventually("the host has answered", GOES_ON, || {
            let asked = self.shared.asked.load(Ordering::SeqCst);
            ensure!(asked == NOBODY || asked != place, "it is asked something");
            Ok(())
        })
    }

    /// Waits until so many more writes were acknowledged.
    pub(super) fn goes_on(&self, writes: usize) -> Result<()> {
        let wanted = self.shared.acknowledged.load(Ordering::SeqCst) + writes;
        eventually("the cluster takes writes", GOES_ON, || {
            let acknowledged = self.shared.acknowledged.load(Ordering::SeqCst);
            ensure!(acknowledged >= wanted, "{acknowledged} of {wanted} are acknowledged");
            Ok(())
        })
    }

    /// Ends the client.
    pub(super) fn stop(self) -> Result<Written> {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.thread.join().map_err(|_| anyhow!("the writer panicked"))
    }
}

struct Client {
    /// Each host, and a namespace on it.
    hosts: Vec<(Arc<Host>, Netns)>,
    shared: Arc<Shared>,
    written: Written,
}

impl Client {
    fn write(mut self) -> Written {
        for number in 0.. {
            if self.shared.stop.load(Ordering::SeqCst) {
                break;
            }
            let place = number % self.hosts.len();
            // First it is said who is asked, and then looked who is left out: the test does it the other way round.
            self.shared.asked.store(place, Ordering::SeqCst);
            if place != self.shared.away.load(Ordering::SeqCst) {
                self.round(place, number);
            }
            self.shared.asked.store(NOBODY, Ordering::SeqCst);
        }
        self.written
    }

    /// Creates two networks and an endpoint by one host, and removes the endpoint and one of the networks.
    fn round(&mut self, place: usize, number: usize) {
        let [kept, gone, end] = ["kept", "gone", "end"].map(|word| format!("{word}{number}"));
        if self.asks(place, &["network", "create", &kept], &[]) {
            self.written.kept.insert(kept);
        }
        if self.asks(place, &["network", "create", &gone], &[]) {
            self.removes(place, "network", gone, &[]);
        }
        let inside = self.hosts[place].1.name().to_owned();
        let words = ["endpoint", "create", &end, "--network", NETWORK, "--netns", &inside];
        let is_made = self.asks(place, &words, &[]);
        // Also where that failed: it may be there all the same, and then its namespace is taken.
        let not_there = format!("no endpoint with name {end};");
        let may_miss = if is_made { &[][..] } else { &[not_there.as_str()] };
        self.removes(place, "endpoint", end, may_miss);
    }

    fn removes(&mut self, place: usize, kind: &str, name: String, may_say: &[&str]) {
        if self.asks(place, &[kind, "rm", &name], may_say) {
            self.written.gone.insert(name);
        }
    }

    /// Returns true if the request was acknowledged. Beside what is transient it may fail with one of `may_say`.
    fn asks(&mut self, place: usize, words: &[&str], may_say: &[&str]) -> bool {
        let answer = self.hosts[place].0.overlay(words);
        match answer {
            Ok(_) => {
                self.written.acknowledged += 1;
                self.shared.acknowledged.fetch_add(1, Ordering::SeqCst);
            }
            Err(ref error) => {
                let (host, error) = (&self.hosts[place].0.name, format!("{error:#}"));
                let Written { failed, refused, .. } = &mut self.written;
                let list = if is_foreseen(&error, may_say) { failed } else { refused };
                list.push(format!("{host}: {words:?}: {error}"));
            }
        }
        answer.is_ok()
    }
}
