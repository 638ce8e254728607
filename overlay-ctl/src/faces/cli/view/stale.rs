//! The printed form of an answer that may be stale.

use super::View;
use serde::{Serialize, Serializer, ser::SerializeStruct as _};

/// An answer by the state of some voter at some revision.
#[derive(Debug)]
pub(in super::super) struct Stale<V> {
    pub(in super::super) revision: u64,
    pub(in super::super) answer: V,
}

impl<V: Serialize> Serialize for Stale<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Stale", 3)?;
        fields.serialize_field("stale", &true)?;
        fields.serialize_field("revision", &self.revision)?;
        fields.serialize_field("answer", &self.answer)?;
        fields.end()
    }
}

impl<V: View> View for Stale<V> {
    fn text(&self) -> String {
        let Self { revision, answer } = self;
        format!("STALE: as of revision {revision}; later changes may be missing\n{}", answer.text())
    }
}
