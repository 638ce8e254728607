//! What one name of a network or of an endpoint stands for, as the object of which a history is checked.

use overlay_lab::linear::Object;

/// A name. Whoever has it has an id, and may be on a node.
pub(super) struct Name;

/// Who has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Holder {
    /// The number of the call that made it.
    call: usize,
    /// `None` if that call was never answered, and nobody has seen the holder since.
    id: Option<u64>,
    /// The host of an endpoint.
    host: Option<usize>,
}

/// A call with its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operation {
    /// It was created; by a call without an answer the id is not known.
    Made { call: usize, id: Option<u64>, host: Option<usize> },
    /// What that call made was removed, since its node could not make it, or was removed itself.
    TakenBack { call: usize },
    /// What that call made is not there: its answer was that nothing came of it, or nothing is left.
    Gone { call: usize },
    /// A creation was refused, because the name is somebody's.
    Exists,
    /// There is nobody to be shown or removed.
    Absent,
    /// Whoever has it is shown.
    Shown { id: u64, host: Option<usize> },
    /// Whoever had it was removed.
    Removed,
    /// A node was removed with all of its endpoints.
    NodeRemoved { host: usize },
}

impl Object for Name {
    type State = Option<Holder>;
    type Operation = Operation;

    fn apply(&self, state: &Option<Holder>, operation: &Operation) -> Option<Option<Holder>> {
        match (operation, *state) {
            (&Operation::Made { call, id, host }, None) => Some(Some(Holder { call, id, host })),
            (Operation::TakenBack { call }, Some(holder)) if holder.call == *call => Some(None),
            (Operation::Exists, Some(_)) | (Operation::Absent, None) => Some(*state),
            (Operation::Gone { call }, holder) => {
                holder.is_none_or(|holder| holder.call != *call).then_some(holder)
            }
            (Operation::Removed, Some(_)) => Some(None),
            (&Operation::Shown { id, host }, Some(holder)) => {
                let fits = holder.id.is_none_or(|its| its == id) && holder.host == host;
                fits.then_some(Some(Holder { id: Some(id), ..holder }))
            }
            (Operation::NodeRemoved { host }, holder) => {
                Some(holder.filter(|holder| holder.host != Some(*host)))
            }
            (Operation::Made { .. }, Some(_))
            | (Operation::TakenBack { .. } | Operation::Absent, Some(_))
            | (
                Operation::TakenBack { .. }
                | Operation::Exists
                | Operation::Removed
                | Operation::Shown { .. },
                None,
            ) => None,
        }
    }

    fn only_reads(&self, operation: &Operation) -> bool {
        match operation {
            Operation::Exists
            | Operation::Absent
            | Operation::Shown { .. }
            | Operation::Gone { .. } => true,
            Operation::Made { .. }
            | Operation::TakenBack { .. }
            | Operation::Removed
            | Operation::NodeRemoved { .. } => false,
        }
    }
}
