//! What is tried again and again until the host lets it be done.

use super::error::StartError;
use std::time::Duration;
use tokio::time::sleep;

/// Pause after the first attempt that failed for a reason. It doubles while the reason stays.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// Longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Tries until an attempt succeeds. `tell` hears each reason once, until there is another. While the reason stays, the
/// pauses grow; another one shows that something was changed on the host, and so the next attempt comes soon.
pub(super) async fn until_done<T>(
    mut attempt: impl AsyncFnMut() -> Result<T, StartError>,
    mut tell: impl FnMut(&str),
) -> T {
    let (mut pause, mut last) = (PAUSE_FIRST, None);
    loop {
        let why = match attempt().await {
            Ok(done) => return done,
            Err(error) => crate::error_chain(&error),
        };
        pause = if last.as_ref() == Some(&why) { PAUSE_MAX.min(2 * pause) } else { PAUSE_FIRST };
        if last.as_ref() != Some(&why) {
            tell(&why);
        }
        last = Some(why);
        sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use tokio::time::Instant;

    fn down(device: &str) -> StartError {
        StartError::Signals(io::Error::other(device.to_owned()))
    }

    /// By a clock that only the test moves.
    #[tokio::test(start_paused = true)]
    async fn an_attempt_is_repeated_less_and_less_often_and_each_reason_told_once() {
        // Who is at fault at each of the attempts.
        let faults = [("eth0", 8), ("eth1", 2), ("eth0", 1)];
        let faults = faults.into_iter().flat_map(|(device, times)| vec![device; times]);
        let (mut faults, mut begun, mut told) = (faults, Vec::new(), Vec::new());
        let start = Instant::now();
        let attempt = async || {
            begun.push(start.elapsed().as_secs());
            faults.next().map_or(Ok("up"), |device| Err(down(device)))
        };
        let done = until_done(attempt, |why| told.push(why.to_owned())).await;
        assert_eq!(done, "up");
        let pauses: Vec<u64> = begun.windows(2).map(|two| two[1] - two[0]).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30, 1, 2, 1]);
        let whys = ["eth0", "eth1", "eth0"].map(|device| crate::error_chain(&down(device)));
        assert_eq!(told, whys);
    }
}
