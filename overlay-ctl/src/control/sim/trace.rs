//! What happened in a run, event by event, as a hash: two runs of a seed that do the same have the same one.

use std::{
    fmt::{self, Write as _},
    hash::{DefaultHasher, Hasher as _},
};

/// The events so far.
#[derive(Debug)]
pub(super) struct Trace {
    hasher: DefaultHasher,
    events: u64,
    is_printed: bool,
}

struct Hashed<'a>(&'a mut DefaultHasher);

impl fmt::Write for Hashed<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

impl Trace {
    /// No events yet. They are also printed if `is_printed`.
    pub(super) fn new(is_printed: bool) -> Self {
        Self { hasher: DefaultHasher::new(), events: 0, is_printed }
    }

    /// Notes an event.
    pub(super) fn note(&mut self, now: u64, event: fmt::Arguments<'_>) {
        self.events += 1;
        if self.is_printed {
            println!("{now:>7}  {event}");
        }
        writeln!(Hashed(&mut self.hasher), "{now} {event}").expect("a hash takes everything");
    }

    /// How many events there were.
    pub(super) fn events(&self) -> u64 {
        self.events
    }

    /// The hash of all events.
    pub(super) fn hash(&self) -> u64 {
        self.hasher.finish()
    }
}

/// A hash of bytes, to show them in an event.
pub(super) fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}
