//! Work that many may ask for at once: it is done once at a time, and those who wait share what came of it.

#[cfg(test)]
mod tests;

use futures::{FutureExt as _, future};
use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::Semaphore, time::Instant};

/// What began no longer than this before somebody asked is an answer to the question.
const FRESH: Duration = Duration::from_secs(1);
/// So many may wait at once.
const WAITING_MAX: usize = 64;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoAnswer {
    #[error("{WAITING_MAX} requests wait for this answer already: ask again in some seconds")]
    Crowded,
    #[error("the work failed in a way that was not foreseen: see the node's log")]
    Failed,
}

/// The last piece of work. It goes on without those who asked for it, so that no work is begun beside it.
struct Last<T> {
    began: Instant,
    outcome: Outcome<T>,
}

type Outcome<T> = future::Shared<future::BoxFuture<'static, Option<T>>>;

/// Work of one kind, begun once a second at most and never twice at once, however many ask for it.
pub(crate) struct Shared<T> {
    last: Mutex<Option<Last<T>>>,
    places: Semaphore,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self { last: Mutex::default(), places: Semaphore::new(WAITING_MAX) }
    }
}

impl<T> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl<T: Clone + Send + Sync + 'static> Shared<T> {
    /// What comes of `work`. It may be what came of it for somebody else, if that began a second ago at most. Older work that goes
    /// on is waited for, and then begun anew.
    ///
    /// # Errors
    /// Too many wait already, or the work panicked.
    pub(crate) async fn get<F>(&self, work: impl Fn() -> F) -> Result<T, NoAnswer>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let _place = self.places.try_acquire().map_err(|_| NoAnswer::Crowded)?;
        let asked = Instant::now();
        loop {
            let (began, outcome) = self.join(asked, &work);
            let outcome = outcome.await;
            if began + FRESH >= asked {
                return outcome.ok_or(NoAnswer::Failed);
            }
        }
    }

    /// The work that goes on, or is fresh; where there is none it is begun.
    fn join<F>(&self, asked: Instant, work: impl Fn() -> F) -> (Instant, Outcome<T>)
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Last { began, outcome }) = &*last
            && (*began + FRESH >= asked || outcome.peek().is_none())
        {
            return (*began, outcome.clone());
        }
        let task = tokio::spawn(work());
        let (began, outcome) = (Instant::now(), async move { task.await.ok() }.boxed().shared());
        *last = Some(Last { began, outcome: outcome.clone() });
        (began, outcome)
    }
}
