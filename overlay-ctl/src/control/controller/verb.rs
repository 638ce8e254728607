//! What a request is: something that the leader carries out, and that can travel there and back.

use super::{
    barrier::Fresh,
    check::Check,
    error::{Attempt, ControllerError},
    lists::Lists,
};
use crate::{
    control::{state::State, voter::VoterParts},
    model::Invalid,
};
use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, IgnoredAny},
};
use std::{collections::BTreeMap, time::Duration};

/// What a request is carried out with on the node that leads, and a stale read on any voter.
#[derive(Clone)]
pub(super) struct Leader {
    /// The log and what it makes.
    pub(super) voter: VoterParts,
    /// How the node of a new endpoint is asked.
    pub(super) check: Check,
    /// The turns of long lists.
    pub(super) lists: Lists,
    /// The state by which a read is answered that may be stale. The node then need not lead.
    pub(super) stale: Option<Box<State>>,
}

impl Leader {
    /// The state by which a read is answered: one that shows every write that was acknowledged before, unless the caller
    /// takes a stale one.
    pub(super) async fn state(&self) -> Result<State, Attempt> {
        match &self.stale {
            Some(state) => Ok(State::clone(state)),
            None => Ok(Fresh::wait(&self.voter).await?.read(&self.voter, State::clone)),
        }
    }
}

/// A request that is carried out at the leader.
pub(super) trait Verb: Clone + Serialize + Send + Sync + 'static {
    /// The name of its type, by which another node recognises it.
    const NAME: &'static str;
    /// What it answers.
    type Answer: Travels;
    /// It may change the state.
    const CHANGES: bool;
    /// How long it may wait, at the leader, for other things than the log.
    const WAITS: Duration;

    /// Checks what the request's types do not express. Each node that gets the request checks it.
    fn check(&self) -> Result<(), Invalid> {
        Ok(())
    }

    /// Carries the request out on the node that leads. May be called again, with the same request, after an attempt
    /// that gave no answer.
    fn carry_out(
        self,
        leader: Leader,
    ) -> impl Future<Output = Result<Self::Answer, Attempt>> + Send;
}

/// An answer that can be sent to the node that forwarded the request.
pub(super) trait Travels: Sized + Send {
    /// Encodes it.
    fn pack(self) -> impl Future<Output = Result<Vec<u8>, ControllerError>> + Send;

    /// Decodes it. `lists` has the turns of this node: the rows of a list are decoded when they are asked for.
    fn unpack(bytes: Vec<u8>, lists: &Lists) -> Result<Self, ControllerError>;
}

/// The bytes of a request, as another node reads them.
pub(super) fn pack<V: Verb>(verb: &V) -> Result<Vec<u8>, ControllerError> {
    encode(&BTreeMap::from([(V::NAME, verb)]))
}

/// What `bytes` say.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ControllerError> {
    rmp_serde::from_slice(bytes).map_err(|error| unreadable(&error))
}

/// The bytes that say `value`.
pub(super) fn encode(value: &impl Serialize) -> Result<Vec<u8>, ControllerError> {
    rmp_serde::to_vec_named(value).map_err(ControllerError::defect)
}

/// An error, as another node reads it. Behind it is what it says, for a program that does not know its kind; one that looks for
/// nothing there passes that over.
pub(super) fn error_bytes(error: &ControllerError) -> Vec<u8> {
    let words = (error.to_string(), error.effect());
    match (encode(error), encode(&words)) {
        (Ok(error), Ok(words)) => [error, words].concat(),
        (Err(error), _) | (_, Err(error)) => error.to_string().into_bytes(),
    }
}

/// The error that another node sent; one of a later program's kinds in its words.
pub(super) fn read_error(bytes: &[u8]) -> ControllerError {
    let unknown = match decode(bytes) {
        Ok(error) => return error,
        Err(unknown) => unknown,
    };
    let mut rest = rmp_serde::Deserializer::from_read_ref(bytes);
    let words =
        IgnoredAny::deserialize(&mut rest).and_then(|_| Deserialize::deserialize(&mut rest));
    words.map_or(unknown, |(why, effect)| ControllerError::Later { why, effect })
}

/// Bytes of another node that say nothing to this version.
pub(super) fn unreadable(error: &rmp_serde::decode::Error) -> ControllerError {
    ControllerError::Version(format!(
        "another node said something that this version can't read ({error})"
    ))
}
