//! The loop: when it looks at the kernel, by a clock that only the tests move.

use super::{rhythm::RETRY, *};
use std::time::Duration;
use tokio::{
    sync::mpsc::Sender,
    time::{Instant, sleep, timeout},
};

/// A node that runs for so long, while `events` happens.
struct Node {
    views: watch::Sender<Arc<View>>,
    looks: ScopeSender,
    rules: Sender<()>,
    forwarding: Sender<()>,
    status: watch::Receiver<LocalStatus>,
}

async fn run<T>(
    kernel: &mut FakeKernel,
    view: View,
    seconds: f32,
    events: impl AsyncFnOnce(Node) -> T,
) -> T {
    let (reconciler, status) = Reconciler::new(kernel, node());
    let (views, seen) = watch::channel(Arc::new(view));
    let (looks, looks_asked) = scopes();
    let (rules, rules_seen) = mpsc::channel(1);
    let (forwarding, forwarding_seen) = mpsc::channel(1);
    let nudges = Nudges { looks: looks_asked, rules: rules_seen, forwarding: forwarding_seen };
    let node = Node { views, looks, rules, forwarding, status };
    let run = timeout(Duration::from_secs_f32(seconds), reconciler.run(seen, nudges));
    let (_, happened) = tokio::join!(run, events(node));
    happened
}

/// Nothing happens.
async fn nothing(node: Node) {
    node.views.closed().await;
}

fn one() -> (Cluster, FakeKernel) {
    let mut cluster = Cluster::new();
    cluster.endpoint("web1", "net", 1);
    let mut kernel = FakeKernel::default();
    kernel.namespaces.insert("/run/netns/web1".into());
    (cluster, kernel)
}

#[tokio::test(start_paused = true)]
async fn while_nothing_happens_the_kernel_is_looked_at_and_repaired_every_five_seconds() {
    let (cluster, mut kernel) = one();
    // At the start it is looked at twice: at once, and by the clock.
    run(&mut kernel, cluster.view(), 4.0, nothing).await;
    assert_eq!((kernel.looked, kernel.repaired), (2, 2));
    let mut kernel = FakeKernel { looked: 0, repaired: 0, ..kernel };
    run(&mut kernel, cluster.view(), 11.0, nothing).await;
    assert_eq!((kernel.looked, kernel.repaired), (4, 4));
    assert_eq!(kernel.read_whole, 2, "once for each start");
}

#[tokio::test(start_paused = true)]
async fn looks_that_a_slow_one_kept_from_happening_are_not_made_up_for() {
    let (cluster, kernel) = one();
    let mut kernel = FakeKernel { slow: Some(Duration::from_secs(60)), ..kernel };
    run(&mut kernel, cluster.view(), 62.0, nothing).await;
    assert_eq!(kernel.looked, 2);
}

#[tokio::test(start_paused = true)]
async fn a_failed_pass_says_why_and_is_tried_again_before_the_next_look_is_due() {
    let (cluster, mut kernel) = one();
    kernel.fail_writes = 3;
    let begun = Instant::now();
    let (error, after) = run(&mut kernel, cluster.view(), 4.0, async |mut node: Node| {
        let failed = node.status.wait_for(|status| status.programmed == 0 && is_of_a_map(status));
        let error = failed.await.unwrap().error.clone();
        // A failed pass causes events of its own.
        assert!(node.looks.send(Scope::whole()));
        let done = node.status.wait_for(|status| status.programmed == cluster.index).await;
        assert_eq!(done.unwrap().error, None);
        let after = begun.elapsed();
        nothing(node).await;
        (error, after)
    })
    .await;
    assert_eq!(error.as_deref(), Some("writing a map: no memory"));
    assert_eq!(after, 2 * RETRY, "at once, by the clock, and twice again");
}

fn is_of_a_map(status: &LocalStatus) -> bool {
    status.error.as_ref().is_some_and(|error| error.starts_with("writing a map"))
}

#[tokio::test(start_paused = true)]
async fn an_event_is_acted_on_at_once() {
    let (mut cluster, mut kernel) = one();
    cluster.endpoint("web2", "net", 2);
    let first = cluster.view();
    cluster.endpoint("web3", "net", 2);
    let next = cluster.view();
    run(&mut kernel, first, 1.0, async |mut node: Node| {
        let begun = Instant::now();
        node.status.wait_for(|status| status.programmed > 0).await.unwrap();
        node.views.send_replace(Arc::new(next.clone()));
        node.status.wait_for(|status| status.programmed == next.revision).await.unwrap();
        assert!(node.looks.send(Scope::whole()));
        node.rules.send(()).await.unwrap();
        node.forwarding.send(()).await.unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO);
        nothing(node).await;
    })
    .await;
    assert_eq!(kernel.looked, 3, "for a device; not for a view that is followed, nor for a rule");
    assert_eq!(kernel.publications, 5, "the rules and forwarding are put right at once");
}

#[tokio::test(start_paused = true)]
async fn events_without_end_get_a_share_of_the_time_and_a_view_does_not_wait_for_them() {
    let (mut cluster, mut kernel) = one();
    let first = cluster.view();
    cluster.endpoint("web2", "net", 1);
    let next = cluster.view();
    kernel.namespaces.insert("/run/netns/web2".into());
    run(&mut kernel, first, 0.9, async |mut node: Node| {
        node.status.wait_for(|status| status.programmed > 0).await.unwrap();
        for _ in 0..3 {
            assert!(node.looks.send(Scope::whole()));
            sleep(Duration::from_millis(1)).await;
        }
        let sent = Instant::now();
        node.views.send_replace(Arc::new(next.clone()));
        node.status.wait_for(|status| status.programmed == next.revision).await.unwrap();
        assert_eq!(sent.elapsed(), Duration::ZERO, "at once");
        while node.looks.send(Scope::whole()) {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    // Twice at the start, for the view, and for an event every 200 ms.
    assert_eq!(kernel.looked + kernel.glanced, 3 + 5);
}

#[tokio::test(start_paused = true)]
async fn rules_are_put_back_whatever_else_fails() {
    let (mut cluster, mut kernel) = one();
    let first = cluster.view();
    kernel.namespaces.insert("/run/netns/web2".into());
    let fresh = kernel.clone();
    run(&mut kernel, first.clone(), 0.1, nothing).await;
    // All that comes after the first pass fails.
    let mut kernel =
        FakeKernel { good_writes: kernel.written, fail_writes: usize::MAX, ..fresh.clone() };
    cluster.endpoint("web2", "net", 1);
    let next = cluster.view();
    run(&mut kernel, first, 0.4, async |mut node: Node| {
        node.status.wait_for(|status| status.programmed > 0).await.unwrap();
        node.views.send_replace(Arc::new(next));
        node.status.wait_for(is_of_a_map).await.unwrap();
        node.rules.send(()).await.unwrap();
        nothing(node).await;
    })
    .await;
    assert_eq!(kernel.publications, 3, "twice at the start, and for the rules");

    // What an earlier process published stands until this one knows better.
    let mut kernel = FakeKernel { fail_writes: usize::MAX, ..fresh };
    run(&mut kernel, cluster.view(), 0.4, async |mut node: Node| {
        node.status.wait_for(is_of_a_map).await.unwrap();
        node.rules.send(()).await.unwrap();
        nothing(node).await;
    })
    .await;
    assert_eq!(kernel.publications, 0);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_ways_makes_no_look_at_devices() {
    let (mut cluster, mut kernel) = one();
    cluster.endpoint("web2", "net", 2);
    run(&mut kernel, cluster.view(), 0.1, async |mut node: Node| {
        node.status.wait_for(|status| status.programmed > 0).await.unwrap();
        assert!(node.looks.send(Scope::ways()));
        nothing(node).await;
    })
    .await;
    assert_eq!((kernel.looked, kernel.looked_for_ways), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_the_last_view() {
    let (cluster, mut kernel) = one();
    let begun = Instant::now();
    run(&mut kernel, cluster.view(), 100.0, async |mut node: Node| {
        node.status.wait_for(|status| status.programmed > 0).await.unwrap();
    })
    .await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
}
