//! The questions of one namespace that the host's resolvers were asked and have not answered yet.
//!
//! A question that is equal to a pending one, but for its id, waits for the same answer. It would get no other one, and
//! a forger would have more chances to hit one of several equal questions (RFC 5452, section 5). And a question that
//! comes back to the node, because a resolver of the host is an endpoint of the node that asks the node again, is not
//! sent a second time.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use hickory_proto::rr::{Name, RecordType};

use super::ask::Reply;

/// Greatest number of pending questions about one name and type that differ in anything else. Few clients write them in
/// more than two ways; a resolver that changes each question and sends it back does so without end.
const FORMS_MAX: usize = 64;

/// What a question is about: its name in lower case, its type, and whether it is asked by TCP.
pub(super) type Subject = (Name, u16, bool);

/// The subject of a question.
pub(super) fn subject(name: &Name, wanted: RecordType, tcp: bool) -> Subject {
    (name.to_lowercase(), wanted.into(), tcp)
}

/// A future answer, which several may wait for.
pub(super) type Asked = Shared<BoxFuture<'static, Reply>>;

/// The pending questions of one namespace.
#[derive(Debug, Clone, Default)]
pub(super) struct Pending(Arc<Mutex<BTreeMap<Subject, Forms>>>);

/// The forms in which something is asked: all octets of the message behind its id.
type Forms = BTreeMap<Vec<u8>, Form>;

#[derive(Debug)]
struct Form {
    asked: Asked,
    /// Who asked first.
    client: SocketAddr,
    waiting: usize,
}

/// A question that waits for its answer.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) asked: Asked,
    /// The same is asked by another client too, which may be the question itself that came back.
    pub(super) is_repeated: bool,
    /// To be dropped when the answer is there.
    pub(super) ticket: Ticket,
}

/// Keeps a question pending.
#[derive(Debug)]
pub(super) struct Ticket {
    pending: Pending,
    subject: Subject,
    form: Vec<u8>,
}

impl Pending {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Subject, Forms>> {
        // Every change is one call, so the map is valid also after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the answer to an equal question, or begins to `ask` this one. `None` if the subject is asked in too
    /// many forms.
    pub(super) fn join(
        &self,
        subject: Subject,
        form: &[u8],
        client: SocketAddr,
        ask: impl FnOnce() -> BoxFuture<'static, Reply>,
    ) -> Option<Waiting> {
        let mut pending = self.lock();
        let forms = pending.entry(subject.clone()).or_default();
        if forms.len() >= FORMS_MAX && !forms.contains_key(form) {
            return None;
        }
        let has_others = forms.iter().any(|(known, _)| known.as_slice() != form);
        let new = || Form { asked: ask().shared(), client, waiting: 0 };
        let entry = forms.entry(form.to_vec()).or_insert_with(new);
        entry.waiting += 1;
        let (asked, is_repeated) = (entry.asked.clone(), has_others || entry.client != client);
        drop(pending);
        let ticket = Ticket { pending: self.clone(), subject, form: form.to_vec() };
        Some(Waiting { asked, is_repeated, ticket })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut pending = self.pending.lock();
        let Some(forms) = pending.get_mut(&self.subject) else { return };
        let Some(form) = forms.get_mut(&self.form) else { return };
        form.waiting -= 1;
        if form.waiting == 0 {
            // Where nobody waits any more, the question is given up.
            forms.remove(&self.form);
        }
        if forms.is_empty() {
            pending.remove(&self.subject);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        str::FromStr as _,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    const CLIENTS: [&str; 2] = ["127.0.0.1:1000", "127.0.0.1:1001"];

    fn about(name: &str) -> Subject {
        subject(&Name::from_str(name).unwrap(), RecordType::A, false)
    }

    #[test]
    fn equal_questions_are_asked_once_and_answered_alike() {
        let (pending, times) = (Pending::default(), Arc::new(AtomicUsize::new(0)));
        let join = |form: &[u8], client: &str| {
            let times = Arc::clone(&times);
            let ask = move || {
                times.fetch_add(1, Ordering::Relaxed);
                std::future::ready(Reply::Answer(Arc::new(vec![1, 2, 3]))).boxed()
            };
            pending.join(about("A.example"), form, client.parse().unwrap(), ask).unwrap()
        };
        let first = join(b"x", CLIENTS[0]);
        let again = join(b"x", CLIENTS[0]);
        assert!(!first.is_repeated && !again.is_repeated, "a client asks again by the same socket");
        assert!(join(b"x", CLIENTS[1]).is_repeated);
        assert_eq!(times.load(Ordering::Relaxed), 1);
        assert!(join(b"y", CLIENTS[0]).is_repeated, "another form of the same question");
        assert_eq!(times.load(Ordering::Relaxed), 2);
        for waiting in [first, again] {
            let answer = waiting.asked.clone().now_or_never();
            assert!(matches!(answer, Some(Reply::Answer(bytes)) if *bytes == [1, 2, 3]));
        }
        assert!(pending.lock().is_empty(), "nothing is kept");
        assert!(!join(b"x", CLIENTS[1]).is_repeated);
        assert_eq!(times.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_question_that_comes_back_changed_is_not_sent_without_end() {
        let pending = Pending::default();
        let join = |name: &str, form: usize| {
            let ask = || std::future::pending().boxed();
            let client = CLIENTS[0].parse().unwrap();
            pending.join(about(name), &form.to_be_bytes(), client, ask)
        };
        let all: Vec<_> = (0..1000).filter_map(|form| join("a.example", form)).collect();
        assert_eq!(all.len(), FORMS_MAX);
        assert!(join("a.example", 0).is_some(), "an equal one waits with the others");
        assert!(join("b.example", 0).is_some());
        drop(all);
        assert!(pending.lock().is_empty());
    }
}
