//! Who gets which answer, and how often the work is done.

use super::*;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::{sync::Notify, task::JoinSet, time::advance};

/// Work that counts itself, and goes on until it is let go on. Its outcome is its number.
#[derive(Clone, Default)]
struct Work {
    shared: Arc<Shared<usize>>,
    begun: Arc<AtomicUsize>,
    go_on: Arc<Notify>,
}

impl Work {
    async fn ask(self) -> Result<usize, NoAnswer> {
        let work = || {
            let (number, go_on) =
                (self.begun.fetch_add(1, Ordering::SeqCst) + 1, Arc::clone(&self.go_on));
            async move {
                go_on.notified().await;
                number
            }
        };
        self.shared.get(work).await
    }

    fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }
}

/// Lets all tasks go as far as they can without time.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_ask_at_once_share_one_piece_of_work() {
    let work = Work::default();
    let mut asking = JoinSet::new();
    for _ in 0..WAITING_MAX {
        asking.spawn(work.clone().ask());
    }
    settle().await;
    assert_eq!(work.begun(), 1);
    assert_eq!(work.clone().ask().await, Err(NoAnswer::Crowded), "there is a bound");
    work.go_on.notify_one();
    assert_eq!(asking.join_all().await, [Ok(1); WAITING_MAX]);
    // For a second it is an answer to those who come later.
    advance(FRESH).await;
    assert_eq!(work.clone().ask().await, Ok(1));
    advance(Duration::from_millis(1)).await;
    work.go_on.notify_one();
    assert_eq!((work.clone().ask().await, work.begun()), (Ok(2), 2));
}

#[tokio::test(start_paused = true)]
async fn who_comes_late_waits_for_the_old_work_and_gets_that_of_a_new_one() {
    let work = Work::default();
    let first = tokio::spawn(work.clone().ask());
    settle().await;
    advance(FRESH * 2).await;
    let late: JoinSet<_> = [work.clone(), work.clone()].into_iter().map(Work::ask).collect();
    settle().await;
    assert_eq!(work.begun(), 1, "never two at once");
    work.go_on.notify_one();
    assert_eq!(first.await.unwrap(), Ok(1));
    settle().await;
    assert_eq!(work.begun(), 2, "one for both");
    work.go_on.notify_one();
    assert_eq!(late.join_all().await, [Ok(2), Ok(2)]);
}

#[tokio::test(start_paused = true)]
async fn work_goes_on_without_those_who_asked_for_it() {
    let work = Work::default();
    let asking = tokio::spawn(work.clone().ask());
    settle().await;
    asking.abort();
    asking.await.unwrap_err();
    advance(FRESH / 2).await;
    let next = tokio::spawn(work.clone().ask());
    settle().await;
    assert_eq!(work.begun(), 1);
    work.go_on.notify_one();
    assert_eq!(next.await.unwrap(), Ok(1));
}

#[tokio::test(start_paused = true)]
async fn work_that_panics_is_no_answer_and_is_done_again() {
    let shared = Shared::<usize>::default();
    let panics = async || -> usize { panic!("as the test wishes") };
    assert_eq!(shared.get(panics).await, Err(NoAnswer::Failed));
    advance(FRESH * 2).await;
    assert_eq!(shared.get(async || 7).await, Ok(7));
}
