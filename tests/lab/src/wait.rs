//! Waits until a condition holds, never for a fixed time.

use std::{
    env,
    sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// Factor by which this machine is slower than a usual one: a whole number in OVERLAY_PATIENCE.
static SLOWNESS: LazyLock<u32> = LazyLock::new(|| {
    let number = env::var("OVERLAY_PATIENCE").ok().and_then(|number| number.parse().ok());
    number.unwrap_or(1).max(1)
});

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes every wait of this process fail from now on. It is called after Ctrl-C, so that the lab is removed in
/// the same way as after a failure.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::SeqCst);
}

/// Fails if [`interrupt`] was called.
pub fn check_interrupted() -> Result<()> {
    if INTERRUPTED.load(Ordering::SeqCst) {
        bail!("interrupted");
    }
    Ok(())
}

/// Converts a limit of time for a usual machine into one for this machine: it is multiplied by OVERLAY_PATIENCE,
/// which says how many times slower this machine is (a virtual machine without hardware support). All waits
/// take limits for a usual machine and convert them.
#[must_use]
pub fn patient(time: Duration) -> Duration {
    time * *SLOWNESS
}

/// Converts a rate that a usual machine exceeds into one for this machine: see [`patient`].
#[must_use]
pub fn attainable(rate: f64) -> f64 {
    rate / f64::from(*SLOWNESS)
}

/// Lets time pass in which a fault lasts. It ends early when [`interrupt`] was called.
pub fn pass(time: Duration) -> Result<()> {
    let end = Instant::now() + patient(time);
    loop {
        check_interrupted()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        #[expect(clippy::disallowed_methods, reason = "how long a fault lasts is a part of it")]
        thread::sleep(left.min(Duration::from_millis(100)));
    }
}

/// Calls `ask` repeatedly until its answer is `Ok`; after `patience` it fails with the last answer. It also
/// fails when [`interrupt`] was called.
pub fn eventually<T>(
    what: &str,
    patience: Duration,
    mut ask: impl FnMut() -> Result<T>,
) -> Result<T> {
    let mut interrupted = Ok(());
    let answer = poll(what, patience, || {
        interrupted = check_interrupted();
        if interrupted.is_err() { Ok(None) } else { ask().map(Some) }
    })?;
    interrupted?;
    answer.context("interrupted")
}

/// Waits like [`eventually`], but ignores [`interrupt`], because the removal of a lab must go on to its end.
pub(super) fn poll<T>(
    what: &str,
    patience: Duration,
    mut ask: impl FnMut() -> Result<T>,
) -> Result<T> {
    let patience = patient(patience);
    let deadline = Instant::now() + patience;
    let mut pause = Duration::from_millis(2);
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) if Instant::now() >= deadline => {
                return Err(error).with_context(|| format!("not within {patience:?}: {what}"));
            }
            Err(_) => {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "the pause of the bounded wait that all others use"
                )]
                thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(100));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_answer_is_in_the_error() {
        let mut asked = 0;
        let error = eventually("three is reached", Duration::from_millis(20), || -> Result<()> {
            asked += 1;
            bail!("asked {asked} times")
        })
        .unwrap_err();
        assert!(asked > 1);
        assert_eq!(
            format!("{error:#}"),
            format!("not within 20ms: three is reached: asked {asked} times")
        );
    }

    #[test]
    fn the_first_good_answer_ends_the_wait() {
        let mut asked = 0;
        let answer = eventually("two", Duration::from_secs(5), || {
            asked += 1;
            if asked < 2 { bail!("not yet") } else { Ok(asked) }
        });
        assert_eq!(answer.unwrap(), 2);
    }
}
