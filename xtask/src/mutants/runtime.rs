//! Decides whether a change is active. `cargo xtask mutants` adds this file to its copy of the library as
//! `crate::mutation`.

use std::{
    env,
    fs::OpenOptions,
    io::Write as _,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

static REACHED: [AtomicBool; NUMBERS] = [const { AtomicBool::new(false) }; NUMBERS];

/// Returns true if the change of this number is active. In a run that only records which changes are reached,
/// none is.
pub(crate) fn is(number: u32) -> bool {
    static MUTANT: OnceLock<Option<u32>> = OnceLock::new();
    match MUTANT.get_or_init(|| env::var("OVERLAY_MUTANT").ok()?.parse().ok()) {
        Some(mutant) => *mutant == number,
        None => {
            if !REACHED[number as usize].swap(true, Ordering::Relaxed) {
                reached(number);
            }
            false
        }
    }
}

/// Records that a change was reached. It is written at once, because a test's process may end at any time.
fn reached(number: u32) {
    let Ok(file) = env::var("OVERLAY_MUTANTS_REACHED") else { return };
    let file = OpenOptions::new().append(true).create(true).open(file);
    let written = file.and_then(|mut file| file.write_all(format!("{number}\n").as_bytes()));
    if let Err(error) = written {
        panic!("cannot write what is reached: {error}");
    }
}
