//! Lists of rows, which may be long: their rows are made one by one, and only a few lists at a time, on threads of
//! their own. So a long list costs a node one CPU at most, and no worker of the runtime that answers everybody else.

use super::error::ControllerError;
use std::{fmt, num::NonZeroUsize, sync::Arc, thread::available_parallelism, time::Duration};
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

/// Up to so many rows are made at once: that takes less than a millisecond.
pub(super) const FEW: usize = 1_000;
/// Longest wait for a turn.
pub(super) const TURN: Duration = Duration::from_secs(5);
/// How many lists may wait for a turn. Fewer than the calls that a connection between nodes carries at once (200), so
/// that forwarded lists leave room for other calls.
const WAITING: usize = 64;

/// The turns of long lists. Clones share them.
#[derive(Clone)]
pub struct Lists {
    turns: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

impl Default for Lists {
    /// At once as many lists as half of the machine's CPUs: the other half is for everybody else.
    fn default() -> Self {
        let cpus = available_parallelism().map_or(1, NonZeroUsize::get);
        Self::new((cpus / 2).max(1))
    }
}

impl Lists {
    fn new(turns: usize) -> Self {
        let places = Arc::new(Semaphore::new(WAITING));
        Self { turns: Arc::new(Semaphore::new(turns)), places }
    }

    /// Answers what `make` gives, which goes through `rows` rows.
    async fn make<T: Send + 'static>(
        &self,
        rows: usize,
        make: impl FnOnce() -> Result<T, ControllerError> + Send + 'static,
    ) -> Result<T, ControllerError> {
        if rows <= FEW {
            return make();
        }
        let busy = || ControllerError::ListsBusy;
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| busy())?;
        let turn = timeout(TURN, Arc::clone(&self.turns).acquire_owned());
        let turn = turn.await.map_err(|_| busy())?.map_err(|_| busy())?;
        drop(place);
        let made = spawn_blocking(move || {
            // The turn lasts as long as the work, also if the caller has gone by now: the CPU is taken until then.
            let _turn = turn;
            make()
        });
        // The error is a panic of a build in which that ends only its task; a release build ends the process.
        made.await.map_err(ControllerError::defect)?
    }
}

/// What takes the rows, one by one.
type Take<'a, T> = &'a mut dyn FnMut(T) -> Result<(), ControllerError>;
/// What makes the rows.
type Make<T> = Box<dyn FnOnce(Take<'_, T>) -> Result<(), ControllerError> + Send>;

/// The rows of a list, which are made when [`Rows::gather`] asks for them.
pub struct Rows<T> {
    lists: Lists,
    count: usize,
    make: Make<T>,
}

impl<T> fmt::Debug for Rows<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows").field("count", &self.count).finish_non_exhaustive()
    }
}

impl<T: 'static> Rows<T> {
    /// Rows that `make` hands to its argument, one by one, going through `count` rows of the state.
    pub(super) fn new(
        lists: &Lists,
        count: usize,
        make: impl FnOnce(Take<'_, T>) -> Result<(), ControllerError> + Send + 'static,
    ) -> Self {
        Self { lists: lists.clone(), count, make: Box::new(make) }
    }

    /// How many rows of the state are gone through, which is never less than the number of rows.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Gives each row to `add`, in order, and answers what `into` has become. Many rows are gone through on a thread
    /// of its own, when it is their turn.
    ///
    /// # Errors
    /// Too many lists are being made, or `add` failed.
    pub async fn gather<R: Send + 'static>(
        self,
        mut into: R,
        mut add: impl FnMut(&mut R, T) -> Result<(), ControllerError> + Send + 'static,
    ) -> Result<R, ControllerError> {
        let Self { lists, count, make } = self;
        let gather = move || {
            make(&mut |row| add(&mut into, row))?;
            Ok(into)
        };
        lists.make(count, gather).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use std::sync::mpsc;

    const BOUND: Duration = Duration::from_secs(20);
    const MANY: usize = FEW + 1;

    async fn within<T>(made: impl Future<Output = T>) -> T {
        timeout(BOUND, made).await.expect("made within the bound")
    }

    #[tokio::test]
    async fn a_short_list_waits_for_no_turn() {
        let lists = Lists::new(1);
        let _turn = Arc::clone(&lists.turns).try_acquire_owned().unwrap();
        assert_eq!(within(lists.make(FEW, || Ok(7))).await, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_list_whose_turn_does_not_come_is_refused() {
        let lists = Lists::new(1);
        let _turn = Arc::clone(&lists.turns).try_acquire_owned().unwrap();
        assert_eq!(lists.make(MANY, || Ok(())).await, Err(ControllerError::ListsBusy));
    }

    #[tokio::test]
    async fn no_more_wait_than_there_are_places() {
        let lists = Lists::new(1);
        let turn = Arc::clone(&lists.turns).try_acquire_owned().unwrap();
        let mut waiting: Vec<_> =
            (0..WAITING).map(|n| Box::pin(lists.make(MANY, move || Ok(n)))).collect();
        for waiting in &mut waiting {
            assert!(waiting.as_mut().now_or_never().is_none());
        }
        // The next caller is refused at once.
        let refused = lists.make(MANY, || Ok(0)).now_or_never().expect("an answer at once");
        assert_eq!(refused, Err(ControllerError::ListsBusy));
        drop(turn);
        for (n, waiting) in waiting.into_iter().enumerate() {
            assert_eq!(within(waiting).await, Ok(n));
        }
        assert_eq!(lists.places.available_permits(), WAITING);
    }

    #[tokio::test]
    async fn the_turn_of_a_caller_that_went_away_ends_with_the_work() {
        let lists = Lists::new(1);
        let ((begin, begun), (end, ended)) = (mpsc::channel(), mpsc::channel::<()>());
        let made = tokio::spawn({
            let lists = lists.clone();
            async move {
                lists
                    .make(MANY, move || {
                        begin.send(()).unwrap();
                        assert!(ended.recv().is_err(), "nothing is sent");
                        Ok(())
                    })
                    .await
            }
        });
        spawn_blocking(move || begun.recv_timeout(BOUND)).await.unwrap().unwrap();
        made.abort();
        assert!(made.await.is_err());
        assert_eq!(lists.turns.available_permits(), 0, "the CPU is taken still");
        drop(end);
        assert_eq!(within(lists.make(MANY, || Ok(7))).await, Ok(7));
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_gives_the_turn_back() {
        let lists = Lists::new(1);
        let panic = || -> Result<(), ControllerError> { panic!("on purpose") };
        let made = within(lists.make(MANY, panic)).await;
        assert!(matches!(made, Err(ControllerError::Defect { .. })), "{made:?}");
        assert_eq!(within(lists.make(MANY, || Ok(7))).await, Ok(7));
    }

    #[tokio::test]
    async fn rows_are_gathered_in_order_until_one_is_refused() {
        let lists = Lists::new(1);
        let rows = || Rows::new(&lists, MANY, |take| (0..MANY).try_for_each(take));
        let gathered = rows().gather(Vec::new(), |into, row| {
            into.push(row);
            Ok(())
        });
        assert_eq!(within(gathered).await, Ok((0..MANY).collect::<Vec<_>>()));
        let too_long = ControllerError::ListTooLong { limit_mib: 1 };
        let refused = rows().gather(0, move |taken, row| {
            *taken += 1;
            if row < 9 { Ok(()) } else { Err(ControllerError::ListTooLong { limit_mib: 1 }) }
        });
        assert_eq!(within(refused).await, Err(too_long));
    }
}
