//! Many entries of a map in one system call, by BPF_MAP_LOOKUP_BATCH, BPF_MAP_UPDATE_BATCH and
//! BPF_MAP_DELETE_BATCH, for which aya has no calls. All kernels that can load the programs (5.13) have them (5.6).
#![expect(unsafe_code, reason = "aya has no calls for batches: bpf(2) itself")]

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use aya::Pod;
use nix::{errno::Errno, libc};

/// Number of entries in one call. It takes some milliseconds, and the buffers stay in the cache.
pub(super) const BATCH: usize = 4096;
/// How often a call is repeated that makes no progress. The kernel may have no element ready when many are needed in
/// a row (it gets them from an interrupt's context), or a bucket may be locked; then it asks for another try.
const ATTEMPTS: usize = 64;

const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;
const BPF_MAP_DELETE_BATCH: libc::c_long = 27;

/// The member `batch` of `union bpf_attr`.
#[repr(C)]
struct Attributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Where a walk through a map goes on; only the kernel knows what the number means. A walk sees every entry that is
/// there all the time, and may miss one that is put meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(u32);

/// Puts all entries, in their order. Those before one that fails are put.
///
/// # Errors
/// The kernel's error for the first entry that could not be put.
pub(super) fn put<K: Pod, V: Pod>(map: BorrowedFd<'_>, entries: &[(K, V)]) -> Result<(), Errno> {
    let mut attempts = 0;
    for entries in entries.chunks(BATCH) {
        let keys: Vec<K> = entries.iter().map(|(key, _)| *key).collect();
        let values: Vec<V> = entries.iter().map(|(_, value)| *value).collect();
        let mut done = 0;
        while let (Some(keys), Some(values)) = (keys.get(done..), values.get(done..))
            && !keys.is_empty()
        {
            let (count, result) = write(map, BPF_MAP_UPDATE_BATCH, keys, Some(values));
            done += count;
            match result {
                Err(Errno::EAGAIN | Errno::EBUSY | Errno::ENOMEM)
                    if count > 0 || attempts < ATTEMPTS =>
                {
                    attempts = if count > 0 { 0 } else { attempts + 1 };
                    std::thread::yield_now();
                }
                result => result?,
            }
        }
    }
    Ok(())
}

/// Deletes all keys, in their order. A key that is not there is no error.
///
/// # Errors
/// The kernel's error for the first key that could not be deleted.
pub(super) fn delete<K: Pod>(map: BorrowedFd<'_>, keys: &[K]) -> Result<(), Errno> {
    let (mut done, mut attempts) = (0, 0);
    while let Some(left) = keys.get(done..)
        && !left.is_empty()
    {
        let chunk = left.get(..BATCH).unwrap_or(left);
        let (count, result) = write::<K, ()>(map, BPF_MAP_DELETE_BATCH, chunk, None);
        done += count;
        match result {
            Err(Errno::ENOENT) => done += 1,
            Err(Errno::EAGAIN | Errno::EBUSY) if count > 0 || attempts < ATTEMPTS => {
                attempts = if count > 0 { 0 } else { attempts + 1 };
                std::thread::yield_now();
            }
            result => result?,
        }
    }
    Ok(())
}

/// Adds about [`BATCH`] of the entries behind `cursor` to `entries`. Returns where the next ones begin, `None` after
/// the last.
///
/// # Errors
/// The kernel's.
pub(super) fn read<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    cursor: Option<Cursor>,
    entries: &mut Vec<(K, V)>,
) -> Result<Option<Cursor>, Errno> {
    let mut room = BATCH;
    loop {
        match look_up::<K, V>(map, cursor, room, 1) {
            Ok(found) => {
                entries.extend(found.keys.into_iter().zip(found.values));
                return Ok(found.next);
            }
            // One bucket has more entries than fit.
            Err(Errno::ENOSPC) => room *= 2,
            Err(error) => return Err(error),
        }
    }
}

/// Calls `each` for every index of a per-CPU array, with the values of all CPUs; `cpus` is the number of possible
/// CPUs.
///
/// # Errors
/// The kernel's.
pub(super) fn for_each_per_cpu<V: Pod>(
    map: BorrowedFd<'_>,
    cpus: usize,
    mut each: impl FnMut(u32, &[V]),
) -> Result<(), Errno> {
    const { assert!(size_of::<V>().is_multiple_of(8), "the kernel pads each CPU's value to that") }
    let room = (BATCH / cpus).max(64);
    let mut cursor = None;
    loop {
        let Found { keys, values, next } = look_up(map, cursor, room, cpus)?;
        for (index, of_cpus) in keys.into_iter().zip(values.chunks(cpus)) {
            each(index, of_cpus);
        }
        cursor = next;
        if cursor.is_none() {
            return Ok(());
        }
    }
}

/// The entries that one call found.
struct Found<K, V> {
    keys: Vec<K>,
    /// For each key, as many values as were asked for.
    values: Vec<V>,
    next: Option<Cursor>,
}

/// Looks up at most `room` entries behind `cursor`, each of one key and `per_key` values.
fn look_up<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    cursor: Option<Cursor>,
    room: usize,
    per_key: usize,
) -> Result<Found<K, V>, Errno> {
    let mut keys: Vec<K> = Vec::with_capacity(room);
    let mut values: Vec<V> = Vec::with_capacity(room * per_key);
    let mut next = 0u32;
    let mut attributes = Attributes {
        in_batch: cursor.as_ref().map_or(0, |cursor| address(&raw const cursor.0)),
        out_batch: address(&raw mut next),
        keys: address(keys.as_mut_ptr()),
        values: address(values.as_mut_ptr()),
        count: u32::try_from(room).unwrap_or(u32::MAX),
        map_fd: descriptor(map),
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: the kernel writes `next` (every kind of map that is read so has a cursor of four bytes) and at
    // most `room` keys and their values, for which there is room; sizes of keys and values are the map's.
    let is_last = match unsafe { call(BPF_MAP_LOOKUP_BATCH, &mut attributes) } {
        Ok(()) => false,
        Err(Errno::ENOENT) => true,
        Err(error) => return Err(error),
    };
    let count = (attributes.count as usize).min(room);
    // SAFETY: the kernel has written this many of each, and any bytes are a value of a Pod.
    unsafe {
        keys.set_len(count);
        values.set_len(count * per_key);
    }
    Ok(Found { keys, values, next: (!is_last).then_some(Cursor(next)) })
}

/// Runs a command that writes. Returns how many entries were written before one failed, if one did.
fn write<K: Pod, V>(
    map: BorrowedFd<'_>,
    command: libc::c_long,
    keys: &[K],
    values: Option<&[V]>,
) -> (usize, Result<(), Errno>) {
    let mut attributes = Attributes {
        in_batch: 0,
        out_batch: 0,
        keys: address(keys.as_ptr()),
        values: values.map_or(0, |values| address(values.as_ptr())),
        count: u32::try_from(keys.len()).unwrap_or(u32::MAX),
        map_fd: descriptor(map),
        elem_flags: 0,
        flags: 0,
    };
    let asked = attributes.count;
    // SAFETY: the kernel reads `count` keys and values, which there are; their sizes are the map's.
    let result = unsafe { call(command, &mut attributes) };
    // If the call itself is refused, the count stays as it was.
    let is_refused = result.is_err() && attributes.count == asked;
    (if is_refused { 0 } else { attributes.count as usize }, result)
}

/// # Safety
/// The addresses in `attributes` must be of buffers that are as large as the command needs.
unsafe fn call(command: libc::c_long, attributes: &mut Attributes) -> Result<(), Errno> {
    let size = size_of::<Attributes>();
    // SAFETY: as the caller says; the attributes themselves are borrowed until the call returns.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size) };
    Errno::result(result).map(drop)
}

fn address<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}

fn descriptor(map: BorrowedFd<'_>) -> u32 {
    map.as_raw_fd().cast_unsigned()
}

/// The kernel's answer as aya has it.
pub(super) fn map_error(call: &'static str) -> impl Fn(Errno) -> aya::maps::MapError {
    move |errno| {
        let io_error = io::Error::from(errno);
        aya::maps::MapError::SyscallError(aya::sys::SyscallError { call, io_error })
    }
}
