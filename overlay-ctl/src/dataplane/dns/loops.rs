//! Checks whether a resolver of the host sends questions back to this node. It does where it is an endpoint of this
//! overlay, reached by a published port, that asks 127.0.0.11 in its own namespace in turn.
//!
//! Such a question can't be told from one that an endpoint asks by itself. So a server that may do so is asked for a
//! name that nobody else knows: below the name that was asked for, so that it takes the same way. If a resolver of this
//! node then hears that name, the server sends questions back.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hickory_proto::{
    op::Query,
    rr::{Name, RecordType},
};
use tokio::time::Instant;

use super::{
    ask::{Question, exchange},
    message::{random_id, write_question},
    servers::Server,
};

/// Beginning of the first label of such a name. The rest are random digits.
const MARK: &str = "overlay-loop-check-";
/// Time in which the name must be heard.
const WAIT: Duration = Duration::from_secs(5);
/// Greatest number of checks at once. Each is a question.
const CHECKS_MAX: usize = 16;
/// Bytes of the longest answer to such a question, which nobody reads.
const ANSWER_MAX: usize = 512;

/// The checks that are under way, by the first label of the name that is asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct LoopChecks(Arc<Mutex<BTreeMap<Vec<u8>, Arc<Server>>>>);

impl LoopChecks {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, Arc<Server>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks these servers, each at most once in a while, after a question for `name` came that may have come back.
    pub(super) fn begin(&self, servers: &[Arc<Server>], name: &Name) {
        for server in servers.iter().filter(|server| !server.is_looping()) {
            if self.lock().len() >= CHECKS_MAX || !server.claim_check() {
                continue;
            }
            let Some((label, question)) = question(name) else { return };
            self.lock().insert(label.clone(), Arc::clone(server));
            let (checks, server) = (self.clone(), Arc::clone(server));
            tokio::spawn(async move {
                let deadline = Instant::now() + WAIT;
                // Only whether the question is heard counts, and not the answer. The question is sent once.
                let asked = exchange(&server, &question, WAIT, deadline).await;
                tracing::debug!(server = %server.address, ok = asked.is_ok(), "checked for a loop");
                checks.lock().remove(&label);
            });
        }
    }

    /// Returns true if the question is one of this node's own, and remembers that its server sends questions back.
    pub(super) fn is_own(&self, name: &Name) -> bool {
        let Some(label) = name.iter().next() else { return false };
        // Spares all other questions the lock.
        let mark = label.get(..MARK.len());
        if !mark.is_some_and(|mark| mark.eq_ignore_ascii_case(MARK.as_bytes())) {
            return false;
        }
        let found = self.lock().remove(&label.to_ascii_lowercase());
        if let Some(server) = &found {
            server.loops();
        }
        found.is_some()
    }
}

/// A question for a name below `name`, and the first label of that name; `None` if `name` is too long for that.
fn question(name: &Name) -> Option<(Vec<u8>, Question)> {
    let digits: String = (0..4).map(|_| format!("{:04x}", random_id())).collect();
    let label = format!("{MARK}{digits}").into_bytes();
    let below = Name::from_labels(std::iter::once(label.as_slice()).chain(name.iter())).ok()?;
    let query = Query::query(below, RecordType::A);
    let message = write_question(&query)?;
    Some((label, Question { message, query, limit: ANSWER_MAX }))
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use super::*;
    use crate::dataplane::dns::{message::Request, servers::Servers};

    #[tokio::test]
    async fn a_server_whose_check_is_heard_sends_questions_back() {
        let servers = Servers::default();
        // Nobody listens at this port of this machine.
        let server = Arc::clone(&servers.get(&["127.0.0.1:9".parse().unwrap()], false)[0]);
        let checks = LoopChecks::default();
        let name = Name::from_str("www.example.").unwrap();
        checks.begin(&[Arc::clone(&server)], &name);
        let label = checks.lock().keys().next().unwrap().clone();
        assert!(!checks.is_own(&name));
        let other = Name::from_labels([format!("{MARK}0").as_bytes(), b"example"]).unwrap();
        assert!(!checks.is_own(&other) && !server.is_looping(), "of another node");
        let heard =
            Name::from_labels([&label.to_ascii_uppercase()[..], b"www", b"example"]).unwrap();
        assert!(checks.is_own(&heard) && server.is_looping());
        assert!(!checks.is_own(&heard), "once");
    }

    #[test]
    fn a_check_is_a_question_below_the_name_that_was_asked_for() {
        let name = Name::from_str("www.example.").unwrap();
        let (label, asked) = question(&name).unwrap();
        let request = Request::parse(&asked.message).unwrap();
        assert_eq!(request.query, asked.query);
        assert!(name.zone_of(&request.query.name));
        assert_eq!(request.query.name.iter().next(), Some(label.as_slice()));
        assert_ne!(question(&name).unwrap().0, label);
        let long = Name::from_labels([[b'x'; 63]; 3].iter().map(|label| &label[..])).unwrap();
        assert!(question(&long).is_some());
        let longest = long.append_label([b'y'; 61].as_slice()).unwrap();
        assert!(question(&longest).is_none());
    }
}
