//! Waiting on a level, never for a time.

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

/// How much slower than a machine of today this one is: a whole number in OVERLAY_PATIENCE.
static SLOWNESS: LazyLock<u32> = LazyLock::new(|| {
    let number = env::var("OVERLAY_PATIENCE").ok().and_then(|number| number.parse().ok());
    number.unwrap_or(1).max(1)
});

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes every wait of this process fail from now on: somebody pressed Ctrl-C, and what the lab built
/// must be taken down by the ordinary way out.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::SeqCst);
}

/// Fails once [`interrupt`] was called.
pub fn check_interrupted() -> Result<()> {
    if INTERRUPTED.load(Ordering::SeqCst) {
        bail!("interrupted");
    }
    Ok(())
}

/// A time in which a machine of today is done, for the machine that this is: as long, but where
/// OVERLAY_PATIENCE says how many times slower it is (a virtual machine without hardware's help).
/// Everything that waits here is given the former and waits the latter.
#[must_use]
pub fn patient(time: Duration) -> Duration {
    time * *SLOWNESS
}

/// A rate that a machine of today exceeds, for the machine that this is: see [`patient`].
#[must_use]
pub fn attainable(rate: f64) -> f64 {
    rate / f64::from(*SLOWNESS)
}

/// Asks again and again until the answer is Ok; after `patience`, fails with the last answer. Also
/// fails once [`interrupt`] was called.
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

/// The same, deaf to interruption: what takes a lab down must go on to its end.
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
