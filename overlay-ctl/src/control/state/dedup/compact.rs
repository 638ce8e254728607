//! The memory from version 2 on: of fixed size a request, so that ten minutes of a thousand writes a second can be kept.

use super::{Did, Kind, Used};
use crate::control::state::{Digest, Refusal, RequestId};
use imbl::{OrdMap, Vector};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, sync::Arc};
use uuid::Uuid;

/// The number of requests with an effect that are kept: those of ten minutes at a thousand a second. It is counted and not
/// timed, because apply reads no clock; at lower rates they are kept for longer.
pub(super) const CARRIED_OUT_MAX: usize = 600_000;
/// The number of refused requests that are kept. They are few, since a leader refuses before it logs: what is in the log and
/// refused is what another request overtook. They are counted apart, because each holds a text.
pub(super) const REFUSED_MAX: usize = 65_536;

/// The requests that were carried out lately.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub(in crate::control::state) struct Compact {
    pub(super) done: OrdMap<RequestId, Done>,
    /// Oldest first.
    pub(super) carried_out: Vector<RequestId>,
    /// Oldest first.
    pub(super) refused: Vector<RequestId>,
}

/// One request: a digest of what it asked for, and its result.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Done {
    asked: Digest,
    did: Did,
}

const _: () = assert!(size_of::<(RequestId, Done)>() == 48, "the table holds many of them");

impl Compact {
    /// As [`Dedup::recall`](super::Dedup::recall).
    pub(super) fn recall(
        &self,
        request: &RequestId,
        asked: impl FnOnce() -> Digest,
    ) -> Option<Result<Did, Used>> {
        let Done { asked: before, did } = self.done.get(request)?;
        Some(if *before == asked() { Ok(did.clone()) } else { Err(Used::By(did.clone())) })
    }

    pub(super) fn insert(&mut self, request: RequestId, asked: Digest, did: Did) {
        let (order, most) = match did {
            Did::Make(..) | Did::Remove(..) | Did::SetVoters(_) => {
                (&mut self.carried_out, CARRIED_OUT_MAX)
            }
            Did::Refuse(_) => (&mut self.refused, REFUSED_MAX),
        };
        order.push_back(request);
        if order.len() > most
            && let Some(oldest) = order.pop_front()
        {
            self.done.remove(&oldest);
        }
        self.done.insert(request, Done { asked, did });
    }
}

/// The form in a snapshot.
#[derive(Serialize, Deserialize)]
struct Wire {
    /// [`RECORD`] bytes each, oldest first.
    carried_out: Bytes,
    /// Oldest first: id, digest, refusal.
    refused: Vec<(Uuid, Digest, Arc<Refusal>)>,
}

/// The length of a request in a snapshot: id, digest, what was done, and the number of its row or revision (big-endian).
const RECORD: usize = 16 + 16 + 1 + 8;

/// What was done, with the number of its row or revision; `None` = no program writes that number.
type Make = fn(u64) -> Option<Did>;

/// The byte that says what was done, and what it says.
const CODES: [(u8, Make); 9] = [
    (1, |id| Some(Did::Make(Kind::Network, id))),
    (2, |id| Some(Did::Make(Kind::Endpoint, id))),
    (3, |id| Some(Did::Make(Kind::Node, id))),
    (4, |revision| Some(Did::Remove(Kind::Network, revision))),
    (5, |revision| Some(Did::Remove(Kind::Endpoint, revision))),
    (6, |revision| Some(Did::Remove(Kind::Node, revision))),
    (7, |life| Some(Did::Make(Kind::Life, life))),
    (8, |id| Some(Did::Make(Kind::Seat, id))),
    (9, |voters| {
        u32::try_from(voters).ok().and_then(|voters| voters.try_into().ok()).map(Did::SetVoters)
    }),
];

/// The code and the number of what was done; `None` for a refusal, which has neither.
fn code(did: &Did) -> Option<(u8, u64)> {
    Some(match did {
        Did::Make(Kind::Network, id) => (1, *id),
        Did::Make(Kind::Endpoint, id) => (2, *id),
        Did::Make(Kind::Node, id) => (3, *id),
        Did::Remove(Kind::Network, revision) => (4, *revision),
        Did::Remove(Kind::Endpoint, revision) => (5, *revision),
        Did::Remove(Kind::Node, revision) => (6, *revision),
        Did::Make(Kind::Life, life) => (7, *life),
        Did::Make(Kind::Seat, id) => (8, *id),
        Did::SetVoters(voters) => (9, u32::from(*voters).into()),
        // No command removes a life or a seat, and a refusal has a list of its own.
        Did::Remove(Kind::Life | Kind::Seat, _) | Did::Refuse(_) => return None,
    })
}

impl From<Compact> for Wire {
    fn from(Compact { done, carried_out, refused }: Compact) -> Self {
        let mut bytes = Vec::with_capacity(carried_out.len() * RECORD);
        for request in &carried_out {
            let Some(Done { asked, did }) = done.get(request) else { continue };
            let Some((code, number)) = code(did) else { continue };
            bytes.extend_from_slice(request);
            bytes.extend_from_slice(asked.as_bytes());
            bytes.push(code);
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        let refused = refused.iter().filter_map(|request| match done.get(request)? {
            Done { asked, did: Did::Refuse(refusal) } => {
                Some((Uuid::from_bytes(*request), *asked, Arc::clone(refusal)))
            }
            Done { did: Did::Make(..) | Did::Remove(..) | Did::SetVoters(_), .. } => None,
        });
        Self { carried_out: Bytes(bytes), refused: refused.collect() }
    }
}

impl TryFrom<Wire> for Compact {
    type Error = &'static str;

    fn try_from(Wire { carried_out: Bytes(bytes), refused }: Wire) -> Result<Self, &'static str> {
        let mut compact = Self::default();
        let (records, rest) = bytes.as_chunks::<RECORD>();
        if !rest.is_empty() {
            return Err("the remembered requests are cut short");
        }
        for record in records {
            let (request, asked, did) = read(record).ok_or("a remembered request is of no kind")?;
            compact.insert(request, asked, did);
        }
        for (request, asked, refusal) in refused {
            compact.insert(request.into_bytes(), asked, Did::Refuse(refusal));
        }
        Ok(compact)
    }
}

/// Reads one request; `None` if this version does not know what was done.
fn read(record: &[u8; RECORD]) -> Option<(RequestId, Digest, Did)> {
    let (request, rest) = record.split_first_chunk::<16>()?;
    let (asked, rest) = rest.split_first_chunk::<16>()?;
    let (code, number) = rest.split_first()?;
    let number = u64::from_be_bytes(*number.first_chunk()?);
    let (_, did) = CODES.iter().find(|(known, _)| known == code)?;
    Some((*request, Uuid::from_bytes(*asked), did(number)?))
}

/// Bytes as they are, and not as a list of numbers.
struct Bytes(Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }

            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                Ok(Bytes(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Visitor)
    }
}
