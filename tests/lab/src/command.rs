//! Runs a program to its end, within a limit of time. An error contains the command line and the output.

use std::{
    io::Read,
    process::{Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::wait::patient;

/// Longest time of a command of the lab, if its caller does not give another one.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The result of a program.
#[derive(Debug, Clone)]
pub struct Output {
    /// The program's exit status.
    pub status: ExitStatus,
    /// All of stdout.
    pub stdout: String,
    /// All of stderr.
    pub stderr: String,
    /// The time for which the program ran.
    pub elapsed: Duration,
}

/// The command line as text.
#[must_use]
pub fn line(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Runs a command to its end and returns its output, whatever its exit code. A command that runs longer than
/// `patience` is killed, which is an error.
pub fn output(command: &mut Command, patience: Duration) -> Result<Output> {
    let what = line(command);
    let patience = patient(patience);
    let begun = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{what}`"))?;
    // Nothing is sent on the channel. It is closed when both readers have ended.
    let (reading, read) = mpsc::channel();
    let stdout = reader(child.stdout.take(), reading.clone());
    let stderr = reader(child.stderr.take(), reading);
    let mut pause = Duration::from_millis(1);
    let mut speaks = true;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if begun.elapsed() > patience {
            child.kill()?;
            child.wait()?;
            break None;
        }
        // A program that ends closes its pipes. The wait ends with that and not with the clock, so that
        // `elapsed` is exact even for a program that takes milliseconds.
        if speaks {
            speaks = read.recv_timeout(pause) != Err(RecvTimeoutError::Disconnected);
            pause = if speaks { pause * 2 } else { Duration::from_micros(20) };
        } else {
            #[expect(clippy::disallowed_methods, reason = "the pause of a bounded wait")]
            thread::sleep(pause);
            pause *= 2;
        }
        pause = pause.min(Duration::from_millis(20));
    };
    let elapsed = begun.elapsed();
    let (stdout, stderr) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
    let Some(status) = status else {
        bail!("`{what}` did not end within {patience:?}\n{stdout}{stderr}");
    };
    Ok(Output { status, stdout, stderr, elapsed })
}

/// Runs a command that must succeed; returns its stdout.
pub fn run(command: &mut Command, patience: Duration) -> Result<String> {
    let what = line(command);
    let output = output(command, patience)?;
    if !output.status.success() {
        bail!("`{what}` failed: {}\n{}{}", output.status, output.stdout, output.stderr.trim_end());
    }
    Ok(output.stdout)
}

fn reader(
    pipe: Option<impl Read + Send + 'static>,
    reading: Sender<()>,
) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let _reading = reading;
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // After an error the output that was read so far is used.
            drop(pipe.read_to_end(&mut bytes));
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_what_it_said() {
        let error = run(Command::new("sh").args(["-c", "echo why >&2; exit 3"]), PATIENCE)
            .unwrap_err()
            .to_string();
        assert!(error.contains("sh -c"), "{error}");
        assert!(error.contains("why"), "{error}");
    }

    #[test]
    fn the_time_is_the_programs_own() {
        // The program ends between two checks by the clock: with pauses that double from 1 ms they come after
        // 63 ms and 83 ms.
        let fastest = (0..5)
            .map(|_| output(Command::new("sleep").arg("0.064"), PATIENCE).unwrap().elapsed)
            .min()
            .unwrap();
        assert!(fastest < Duration::from_millis(70), "{fastest:?}");
    }

    #[test]
    fn a_command_that_hangs_is_killed() {
        let begun = Instant::now();
        let error = output(Command::new("sleep").arg("60"), Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("did not end"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}
