//! The linearizable barrier of a request, and what may be decided behind it.

use super::error::{Attempt, ControllerError};
use crate::control::{
    state::{Applied, Command, Decision, Mutation, Noted, Refusal, State},
    voter::VoterParts,
};

/// Proof that a voter's state shows every write that was acknowledged before the proof was asked for. Each request
/// asks once, since asking costs a round of messages to a quorum. What is decided later in the same request is
/// decided by a state that is no older; whether the decision still holds is decided by apply.
#[derive(Debug)]
pub(super) struct Fresh(());

/// What a command would do.
pub(super) enum DryRun {
    /// Nothing: the request was carried out before, and this is its answer.
    Done(Applied),
    /// This, as far as the state tells now.
    New(Decision),
}

impl Fresh {
    /// Waits until the voter's state shows every write that was acknowledged before the call.
    pub(super) async fn wait(voter: &VoterParts) -> Result<Self, Attempt> {
        voter.consensus.read_index().await.map_err(Attempt::of_read)?;
        Ok(Self(()))
    }

    /// Reads the state.
    pub(super) fn read<T>(&self, voter: &VoterParts, read: impl FnOnce(&State) -> T) -> T {
        voter.state.read(read)
    }

    /// Says what the command would do, without doing it. Fails if apply would refuse the command.
    pub(super) fn dry_run(
        &self,
        voter: &VoterParts,
        request: Mutation,
        command: &Command,
    ) -> Result<DryRun, Refusal> {
        self.dry_run_noting(voter, request, command, Noted::default())
    }

    /// As [`Fresh::dry_run`], with what the leader adds.
    pub(super) fn dry_run_noting(
        &self,
        voter: &VoterParts,
        request: Mutation,
        command: &Command,
        noted: Noted,
    ) -> Result<DryRun, Refusal> {
        self.read(voter, |state| match state.recall(&request.id, Some(request.asked), command) {
            Some(outcome) => outcome.map(DryRun::Done),
            None => {
                let next = state.revision() + 1;
                state.decide_noting(next, command.clone(), noted).map(DryRun::New)
            }
        })
    }

    /// Carries out the command: refused before anything is logged if that can be told. Several attempts may log it
    /// several times; it is applied once, since apply knows the request by its id. The answer is the command's own
    /// kind.
    pub(super) async fn execute(
        &self,
        voter: &VoterParts,
        request: Mutation,
        command: Command,
    ) -> Result<Applied, Attempt> {
        self.execute_noting(voter, request, command, Noted::default()).await
    }

    /// As [`Fresh::execute`], with what the leader adds.
    pub(super) async fn execute_noting(
        &self,
        voter: &VoterParts,
        request: Mutation,
        mut command: Command,
        noted: Noted,
    ) -> Result<Applied, Attempt> {
        match self.dry_run_noting(voter, request, &command, noted)? {
            DryRun::Done(applied) => return Ok(applied),
            DryRun::New(decision) => decision.bind(&mut command),
        }
        let entry = self.read(voter, |state| state.entry_noting(request, command, noted));
        let entry = entry.encode();
        let entry = entry.map_err(ControllerError::defect)?;
        let proposed = voter.consensus.propose(entry).await;
        let (_, outcome) = proposed.map_err(|error| Attempt::of_write(voter, error))?;
        Ok(outcome?)
    }
}
