//! What is known of the host's resolvers: which of them did not answer lately, and which send questions back to this
//! node.
//!
//! The order of resolv.conf is kept among those that answer, since a site may mean it (the first may know names that
//! the second does not). A server that stays silent is asked last for a while. After that one question is sent to it
//! beside the others, so that no client waits for it, and it has its place again as soon as it answers.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

/// Time until a silent server is tried again: first, and at most. It doubles with each trial.
const HOLD_FIRST: Duration = Duration::from_secs(5);
const HOLD_MAX: Duration = Duration::from_secs(60);
/// Time for which a server that sends questions back is not asked at all.
const LOOP_HOLD: Duration = Duration::from_secs(60);
/// Least time between two checks of one server for a loop.
const CHECK_PERIOD: Duration = Duration::from_secs(10);

/// One of the host's resolvers, by one transport: a firewall may let only one pass.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) tcp: bool,
    state: Mutex<State>,
    /// It sends questions back, and is not asked until then.
    loops_until: watch::Sender<Option<Instant>>,
}

#[derive(Debug, Default)]
struct State {
    answered: Option<Instant>,
    held: Option<Hold>,
    checked: Option<Instant>,
}

/// A server that is asked last.
#[derive(Debug, Clone, Copy)]
struct Hold {
    /// It is tried again from then on.
    until: Instant,
    /// The time until the trial after that one.
    next: Duration,
}

impl Server {
    fn new(address: SocketAddr, tcp: bool) -> Self {
        Self { address, tcp, state: Mutex::default(), loops_until: watch::Sender::new(None) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is valid after each assignment, also after a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It answered, whatever its answer was.
    pub(super) fn answered(&self) {
        let mut state = self.state();
        state.answered = Some(Instant::now());
        if state.held.take().is_some() {
            tracing::info!(server = %self.address, "a resolver of the host answers again");
        }
    }

    /// It did not answer a question that was sent at `asked`, or it could not be asked. A server that answered another
    /// question since then is slow with this one, and not dead.
    pub(super) fn silent(&self, asked: Instant) {
        let mut state = self.state();
        if state.answered.is_some_and(|answered| answered >= asked) || state.held.is_some() {
            return;
        }
        tracing::warn!(server = %self.address, "a resolver of the host does not answer: it is asked last");
        state.held = Some(Hold { until: Instant::now() + HOLD_FIRST, next: 2 * HOLD_FIRST });
    }

    /// Returns true if it is asked last.
    pub(super) fn is_held(&self) -> bool {
        self.state().held.is_some()
    }

    /// Returns true if a held server is to be tried again, which is said to one caller only.
    pub(super) fn claim_trial(&self) -> bool {
        let now = Instant::now();
        match &mut self.state().held {
            Some(held) if held.until <= now => {
                *held = Hold { until: now + held.next, next: (2 * held.next).min(HOLD_MAX) };
                true
            }
            _ => false,
        }
    }

    /// Returns true if it is to be checked for a loop, which is said to one caller only.
    pub(super) fn claim_check(&self) -> bool {
        let now = Instant::now();
        let mut state = self.state();
        let is_due = state.checked.is_none_or(|checked| checked + CHECK_PERIOD <= now);
        if is_due {
            state.checked = Some(now);
        }
        is_due
    }

    /// A question that was sent to it came back.
    pub(super) fn loops(&self) {
        if !self.is_looping() {
            tracing::warn!(
                server = %self.address,
                "a resolver of the host sends questions back to this node (a loop, by an endpoint that serves DNS): it is not asked for a minute"
            );
        }
        // A later check has to be possible as soon as it is asked again.
        self.state().checked = None;
        self.loops_until.send_replace(Some(Instant::now() + LOOP_HOLD));
    }

    /// Returns true if it is not asked, because it sends questions back.
    pub(super) fn is_looping(&self) -> bool {
        self.loops_until.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Waits until it is found to send questions back.
    pub(super) async fn until_looping(&self) {
        let mut watched = self.loops_until.subscribe();
        // The sender lives as long as `self`.
        drop(watched.wait_for(|until| until.is_some_and(|until| Instant::now() < until)).await);
    }

    fn trouble(&self) -> Option<String> {
        let address = self.address.ip();
        if self.is_looping() {
            return Some(format!(
                "the host's resolver {address} sends questions back to this node (a loop, by an endpoint that serves DNS): it is not asked; name another server in resolv.conf"
            ));
        }
        let transport = if self.tcp { " by TCP" } else { "" };
        self.is_held().then(|| {
            format!("the host's resolver {address} does not answer{transport}: it is asked last")
        })
    }
}

/// All servers that were asked, by address and transport.
#[derive(Debug, Default)]
pub(super) struct Servers(Mutex<BTreeMap<(SocketAddr, bool), Arc<Server>>>);

impl Servers {
    fn known(&self) -> MutexGuard<'_, BTreeMap<(SocketAddr, bool), Arc<Server>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of these addresses. Servers that are named no more are forgotten.
    pub(super) fn get(&self, addresses: &[SocketAddr], tcp: bool) -> Vec<Arc<Server>> {
        let mut known = self.known();
        known.retain(|(address, _), _| addresses.contains(address));
        let server = |address: &SocketAddr| {
            let new = || Arc::new(Server::new(*address, tcp));
            Arc::clone(known.entry((*address, tcp)).or_insert_with(new))
        };
        addresses.iter().map(server).collect()
    }

    /// The servers that do not serve as they should, a line each.
    pub(super) fn trouble(&self) -> Vec<String> {
        self.known().values().filter_map(|server| server.trouble()).collect()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn server() -> Server {
        Server::new("10.0.0.2:53".parse().unwrap(), false)
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_is_tried_again_ever_more_rarely_until_it_answers() {
        let server = server();
        let asked = Instant::now();
        server.silent(asked);
        assert!(server.is_held() && !server.claim_trial());
        for wait in [5, 10, 20, 40, 60, 60] {
            advance(Duration::from_secs(wait) - Duration::from_millis(1)).await;
            assert!(!server.claim_trial(), "{wait} s");
            advance(Duration::from_millis(1)).await;
            assert!(server.claim_trial() && !server.claim_trial(), "{wait} s, once");
            server.silent(Instant::now());
        }
        server.answered();
        assert!(!server.is_held());
        server.silent(Instant::now());
        assert!(!server.is_held(), "it answered no earlier than this was asked");
        advance(Duration::from_millis(1)).await;
        server.silent(Instant::now());
        advance(HOLD_FIRST).await;
        assert!(server.claim_trial(), "the times begin anew");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_answers_others_is_slow_and_not_dead() {
        let server = server();
        let asked = Instant::now();
        advance(Duration::from_secs(1)).await;
        server.answered();
        server.silent(asked);
        assert!(!server.is_held());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_sends_questions_back_is_not_asked_for_a_while() {
        let server = server();
        assert!(server.claim_check() && !server.claim_check());
        advance(CHECK_PERIOD).await;
        assert!(server.claim_check());
        server.loops();
        server.until_looping().await;
        assert!(server.is_looping() && server.trouble().unwrap().contains("loop"));
        advance(LOOP_HOLD).await;
        assert!(!server.is_looping() && server.trouble().is_none() && server.claim_check());
    }

    #[test]
    fn what_is_known_of_a_server_outlives_the_file_that_names_it() {
        let servers = Servers::default();
        let [one, two] = ["10.0.0.2:53", "10.0.0.3:53"].map(|text| text.parse().unwrap());
        servers.get(&[one, two], false)[0].loops();
        assert!(!servers.get(&[one], true)[0].is_looping(), "by the other transport");
        assert!(servers.get(&[two, one], false)[1].is_looping());
        assert_eq!(servers.trouble().len(), 1);
        servers.get(&[two], false);
        assert!(!servers.get(&[one], false)[0].is_looping(), "forgotten");
    }
}
