//! Reading of EVENTS: the records of dropped and of sampled packets.
#![expect(unsafe_code, reason = "records are read from the ring as the programs wrote them")]

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use aya::maps::{Map, MapData, RingBuf};
use overlay_common::{Event, map};
use tokio::io::unix::AsyncFd;

use super::DatapathError;

/// The one reader of EVENTS. When it is dropped, another can be opened.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
    _turn: Turn,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

/// The right to read, which the reader holds: of two readers, each would miss what the other took.
struct Turn(Arc<AtomicBool>);

impl Turn {
    fn take(taken: &Arc<AtomicBool>) -> Option<Self> {
        let was_taken = taken.swap(true, Ordering::AcqRel);
        (!was_taken).then(|| Self(Arc::clone(taken)))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Events {
    /// Opens the pinned map, and discards the records that are in it.
    pub(super) fn open(maps: &Path, taken: &Arc<AtomicBool>) -> Result<Self, DatapathError> {
        let failed = DatapathError::table(map::EVENTS::NAME, "opened");
        let turn = Turn::take(taken).ok_or(DatapathError::EventsTaken)?;
        let data = MapData::from_pin(maps.join(map::EVENTS::NAME)).map_err(failed)?;
        let mut ring = RingBuf::try_from(Map::RingBuf(data)).map_err(failed)?;
        while ring.next().is_some() {}
        // SAFETY: the ring owns its descriptor and keeps it until the AsyncFd that owns the ring is
        // gone.
        let ring = unsafe { AsyncFd::register(ring) };
        let ring = ring.map_err(|error| DatapathError::Events(error.into_parts().1))?;
        Ok(Self { ring, _turn: turn })
    }

    /// The next record. Cancel safe.
    ///
    /// # Errors
    /// [`DatapathError::Events`].
    pub async fn next(&mut self) -> Result<Event, DatapathError> {
        loop {
            let mut ready = self.ring.readable_mut().await.map_err(DatapathError::Events)?;
            if let Some(record) = ready.get_inner_mut().next() {
                return decode(&record).map_err(DatapathError::Events);
            }
            ready.clear_ready();
        }
    }
}

fn decode(record: &[u8]) -> io::Result<Event> {
    // The kernel rounds records up to 8 bytes.
    if record.len() < size_of::<Event>() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a record of EVENTS has {} bytes: another version wrote it", record.len()),
        ));
    }
    // SAFETY: long enough, and every bit pattern is a Event (it is Pod); the read needs no
    // alignment.
    Ok(unsafe { std::ptr::read_unaligned(record.as_ptr().cast::<Event>()) })
}
