//! The tasks of a node, each with a name. None of them may end unseen: a node without one of its parts would go on
//! and do half of its work.

use super::error::StartError;
use crate::control::watch::Ended;
use std::collections::BTreeMap;
use tokio::{
    runtime::Handle,
    task::{AbortHandle, Id, JoinError, JoinSet},
};

/// How a task ended by itself.
#[derive(Debug)]
pub(super) enum TaskEnd {
    /// It did what it was there for, once.
    Done,
    /// It learnt that the cluster has removed this node.
    Removed,
    /// It was to run for as long as the node, and returned.
    Returned,
    /// It can't go on.
    Failed(StartError),
}

impl From<()> for TaskEnd {
    fn from((): ()) -> Self {
        Self::Returned
    }
}

impl From<Ended> for TaskEnd {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Removed => Self::Removed,
            Ended::Stopped => Self::Returned,
            Ended::Unreadable(error) => Self::Failed(error.into()),
        }
    }
}

impl<E: Into<StartError>> From<Result<(), E>> for TaskEnd {
    fn from(ended: Result<(), E>) -> Self {
        ended.map_or_else(|error| Self::Failed(error.into()), |()| Self::Returned)
    }
}

/// Tasks that end when this is dropped.
#[derive(Default)]
pub(super) struct Tasks {
    running: JoinSet<TaskEnd>,
    names: BTreeMap<Id, (&'static str, AbortHandle)>,
}

impl Tasks {
    /// Starts a task on the runtime of the caller.
    pub(super) fn spawn<T: Into<TaskEnd>>(
        &mut self,
        name: &'static str,
        task: impl Future<Output = T> + Send + 'static,
    ) {
        let handle = self.running.spawn(async { task.await.into() });
        self.names.insert(handle.id(), (name, handle));
    }

    /// Starts a task on `runtime`.
    pub(super) fn spawn_on<T: Into<TaskEnd>>(
        &mut self,
        name: &'static str,
        task: impl Future<Output = T> + Send + 'static,
        runtime: &Handle,
    ) {
        let handle = self.running.spawn_on(async { task.await.into() }, runtime);
        self.names.insert(handle.id(), (name, handle));
    }

    /// Waits until a task learns that the cluster has removed this node, or until one ends that must not.
    ///
    /// # Errors
    /// A task failed or returned. It is logged by its name. So is a task that panicked, where a panic ends only its
    /// task; in a release build a panic ends the process.
    pub(super) async fn until_removed(&mut self) -> Result<(), StartError> {
        while let Some(ended) = self.running.join_next_with_id().await {
            let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
            let name = self.names.remove(&id).map_or("", |(name, _)| name);
            let error = match ended {
                Ok((_, TaskEnd::Done)) => continue,
                Ok((_, TaskEnd::Removed)) => return Ok(()),
                Ok((_, TaskEnd::Failed(error))) => error,
                Ok((_, TaskEnd::Returned)) => {
                    StartError::Task { name, why: "it returned".to_owned() }
                }
                Err(error) => StartError::Task { name, why: error.to_string() },
            };
            tracing::error!(
                task = name, error = %crate::error_chain(&error),
                "a task that the node needs has ended, and so the node ends"
            );
            return Err(error);
        }
        std::future::pending().await
    }

    /// Ends all tasks and waits until they have ended.
    pub(super) async fn end_all(&mut self) {
        self.running.shutdown().await;
        self.names.clear();
    }

    /// Ends the task `name` and waits until it has ended.
    pub(super) async fn end(&mut self, name: &'static str) {
        let found = self.names.iter().find(|(_, (named, _))| *named == name);
        let Some((&id, (_, task))) = found else { return };
        task.abort();
        while let Some(ended) = self.running.join_next_with_id().await {
            let ended = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
            self.names.remove(&ended);
            if ended == id {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::watch::Unreadable;
    use std::{future::pending, time::Duration};
    use tokio::{sync::oneshot, time::timeout};

    const BOUND: Duration = Duration::from_secs(20);

    async fn ended(mut tasks: Tasks) -> Result<(), String> {
        let ended = timeout(BOUND, tasks.until_removed()).await.expect("an end within the bound");
        ended.map_err(|error| error.to_string())
    }

    /// Tasks of which one runs for ever and one has done its work.
    fn tasks() -> Tasks {
        let mut tasks = Tasks::default();
        tasks.spawn("serves", pending::<()>());
        tasks.spawn("announces", async { TaskEnd::Done });
        tasks
    }

    #[tokio::test]
    async fn a_task_that_returns_ends_the_node_by_its_name() {
        let mut tasks = tasks();
        tasks.spawn("reconciles", async {});
        let error = ended(tasks).await.unwrap_err();
        assert!(error.contains("`reconciles`") && error.contains("returned"), "{error}");
    }

    #[tokio::test]
    async fn a_task_that_panics_ends_the_node_by_its_name() {
        let mut tasks = tasks();
        tasks.spawn("reconciles", async { assert_eq!(1, 2, "on purpose") });
        let error = ended(tasks).await.unwrap_err();
        assert!(error.contains("`reconciles`") && error.contains("panicked"), "{error}");
    }

    #[tokio::test]
    async fn a_task_that_fails_ends_the_node_with_its_own_error() {
        let mut tasks = tasks();
        tasks.spawn("serves", async { Err::<(), _>(StartError::NotRoot) });
        assert_eq!(ended(tasks).await, Err(StartError::NotRoot.to_string()));
    }

    #[tokio::test]
    async fn a_node_that_was_removed_ends_in_order() {
        let mut tasks = tasks();
        tasks.spawn("follows", async { Ended::Removed });
        assert_eq!(ended(tasks).await, Ok(()));
    }

    #[tokio::test]
    async fn an_agent_that_can_not_read_what_it_is_sent_ends_the_node_and_says_why() {
        let mut tasks = tasks();
        let unreadable = || Unreadable { voter: 2, revision: 7, why: "no such row".to_owned() };
        tasks.spawn("follows", async move { Ended::Unreadable(unreadable()) });
        assert_eq!(ended(tasks).await, Err(unreadable().to_string()));
    }

    #[tokio::test]
    async fn a_task_that_is_ended_has_ended() {
        let mut tasks = tasks();
        let (held, dropped) = oneshot::channel::<()>();
        tasks.spawn("reconciles", async move {
            let _held = held;
            pending::<()>().await;
        });
        timeout(BOUND, tasks.end("reconciles")).await.expect("ended within the bound");
        assert!(dropped.await.is_err(), "what it held is dropped");
        timeout(BOUND, tasks.end("reconciles")).await.expect("nothing is waited for");
    }

    #[tokio::test]
    async fn tasks_end_when_their_set_is_dropped() {
        let mut tasks = tasks();
        let (held, dropped) = oneshot::channel::<()>();
        tasks.spawn("reconciles", async move {
            let _held = held;
            pending::<()>().await;
        });
        drop(tasks);
        assert!(timeout(BOUND, dropped).await.expect("ended within the bound").is_err());
    }
}
