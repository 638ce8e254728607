//! Running a program to its end, bounded; a failure carries the command line and what it said.

use std::{
    io::Read,
    process::{Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::wait::patient;

/// No command of the lab takes longer, unless its caller says so.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a program left behind.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// All of stdout.
    pub stdout: String,
    /// All of stderr.
    pub stderr: String,
    /// How long it ran.
    pub elapsed: Duration,
}

/// The command as a person would type it.
#[must_use]
pub fn line(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Runs a command to its end and returns what it said, whatever its exit code. One that outlives
/// `patience` is killed, and that is an error.
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
    // Nothing is ever sent: when both readers are done, the channel is closed.
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
        // A program that ends closes its pipes. To wake by that and not by the clock keeps `elapsed` true
        // for one that takes milliseconds.
        if speaks {
            speaks = read.recv_timeout(pause) != Err(RecvTimeoutError::Disconnected);
            pause = if speaks { pause * 2 } else { Duration::from_micros(20) };
        } else {
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
            // A pipe that breaks has given what it had.
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
        // Ends when nobody looks: a wait that doubles from 1 ms would see it after 63 ms, then 83.
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
