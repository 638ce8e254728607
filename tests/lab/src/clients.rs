//! Clients of a [`mirror`](super::mirror) that ask without pause while the test does something else, and
//! record every failure.

use std::{
    net::{IpAddr, SocketAddrV4},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, bail};

use super::{mirror::Connection, netns::Netns};

/// Longest time for an answer, well above the time in which TCP sends a lost segment again a few times.
const PATIENCE: Duration = Duration::from_secs(5);

/// A client goes on until so many of its questions were answered, or so many failed, however slow the machine is.
const FEWEST: usize = 20;

/// One client that keeps its connection open, and one that opens a new connection for each question.
#[derive(Debug)]
pub struct Clients {
    stop: Arc<AtomicBool>,
    lasting: JoinHandle<Asked>,
    fleeting: JoinHandle<Asked>,
}

/// The results of a client's questions.
#[derive(Debug, Default)]
pub struct Asked {
    /// Number of answered questions.
    pub answered: usize,
    /// The errors of the other questions.
    pub failed: Vec<String>,
    /// The longest time that a question took, answered or not.
    pub longest: Duration,
    /// Addresses that the server saw.
    pub seen: Vec<IpAddr>,
}

impl Clients {
    /// Starts both clients inside a namespace. Each sends one question after another.
    pub fn start(netns: &Netns, server: SocketAddrV4) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut kept = netns.enter(|| Connection::open(server, PATIENCE))?;
        // The answer shows that the server has accepted: from now on the connection is open.
        kept.ask()?;
        let (seen, from) = (Arc::clone(&stop), netns.clone());
        let fleeting = thread::spawn(move || {
            let asked =
                from.enter(|| Ok(ask_until(&seen, || Connection::open(server, PATIENCE)?.ask())));
            asked.unwrap_or_else(|error| Asked {
                failed: vec![format!("{error:#}")],
                ..Asked::default()
            })
        });
        let seen = Arc::clone(&stop);
        let lasting = thread::spawn(move || ask_until(&seen, || kept.ask()));
        Ok(Self { stop, lasting, fleeting })
    }

    /// Ends both clients; returns the results of the one that kept its connection, then of the other.
    pub fn stop(self) -> Result<(Asked, Asked)> {
        self.stop.store(true, Ordering::Relaxed);
        let gone = |_| anyhow!("a client panicked");
        Ok((self.lasting.join().map_err(gone)?, self.fleeting.join().map_err(gone)?))
    }
}

impl Asked {
    /// Fails unless all questions were answered.
    pub fn none_failed(&self) -> Result<()> {
        self.failed_at_most(0)
    }

    /// Fails if more questions than these failed, or hardly any was answered.
    pub fn failed_at_most(&self, most: usize) -> Result<()> {
        if self.failed.len() > most || self.answered < FEWEST {
            bail!(
                "{} answered, longest {:?}, {} failed, {most} may: {:?}",
                self.answered,
                self.longest,
                self.failed.len(),
                self.failed
            );
        }
        Ok(())
    }
}

fn ask_until(stop: &AtomicBool, mut ask: impl FnMut() -> Result<IpAddr>) -> Asked {
    // Without a pause, one test would use the whole machine and fill the connection table.
    const PACE: Duration = Duration::from_millis(5);
    let mut asked = Asked::default();
    while !stop.load(Ordering::Relaxed) || asked.answered.max(asked.failed.len()) < FEWEST {
        let begun = Instant::now();
        match ask() {
            Ok(seen) => {
                asked.answered += 1;
                if !asked.seen.contains(&seen) {
                    asked.seen.push(seen);
                }
            }
            Err(error) => asked.failed.push(format!("{error:#}")),
        }
        asked.longest = asked.longest.max(begun.elapsed());
        #[expect(clippy::disallowed_methods, reason = "it keeps the pace of a client")]
        thread::sleep(PACE.saturating_sub(begun.elapsed()));
    }
    asked
}
