//! The guest that does as it is told: it runs the commands that the other guest sends, one for each connection.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use overlay_lab::{command, eventually, patient};
use serde::{Deserialize, Serialize};

use super::HOSTS;

/// Port of the guest that runs commands.
const PORT: u16 = 9001;
/// Longest time without a command: the other guest has died.
const SILENCE: Duration = Duration::from_secs(60);
/// Longest time of a connection's parts.
const PATIENCE: Duration = Duration::from_secs(60);
/// The command that ends this guest.
const END: &str = "end";

/// The result of a command.
#[derive(Debug, Serialize, Deserialize)]
struct Ran {
    ok: bool,
    printed: String,
}

/// Gives this guest's card an address.
pub(super) fn set_up_card(driver: &str, address: &str) -> Result<()> {
    for words in [
        &["modprobe", driver][..],
        &["ip", "addr", "add", &format!("{address}/24"), "dev", "eth0"],
        &["ip", "link", "set", "eth0", "up"],
    ] {
        run_here(words)?;
    }
    Ok(())
}

/// Runs a command in this guest that must succeed; returns its stdout.
pub(super) fn run_here(words: &[&str]) -> Result<String> {
    let [program, args @ ..] = words else { bail!("no command") };
    command::run(Command::new(program).args(args), PATIENCE)
}

/// Runs commands until the other guest sends the end, or nothing for a while.
pub(super) fn serve(driver: &str) -> Result<()> {
    set_up_card(driver, HOSTS[0])?;
    let listener = TcpListener::bind((HOSTS[0], PORT))?;
    listener.set_nonblocking(true)?;
    let mut heard = Instant::now();
    loop {
        let connection =
            eventually("the other guest sends a command", SILENCE, || Ok(listener.accept()?));
        let (connection, _) = connection.with_context(|| {
            format!("nothing came for {:?}, {:?} were waited", heard.elapsed(), patient(SILENCE))
        })?;
        connection.set_nonblocking(false)?;
        heard = Instant::now();
        if answer(&connection)? {
            return Ok(());
        }
    }
}

/// Runs the command of one connection. Returns true if it was the end.
fn answer(mut connection: &TcpStream) -> Result<bool> {
    connection.set_read_timeout(Some(patient(PATIENCE)))?;
    let mut line = String::new();
    BufReader::new(connection).read_line(&mut line)?;
    let words: Vec<String> = serde_json::from_str(&line)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let is_end = words == [END];
    let ran = match is_end {
        true => Ran { ok: true, printed: String::new() },
        false => match run_here(&words) {
            Ok(printed) => Ran { ok: true, printed },
            Err(error) => Ran { ok: false, printed: format!("{error:#}") },
        },
    };
    connection.write_all(serde_json::to_string(&ran)?.as_bytes())?;
    Ok(is_end)
}

/// Runs a command in the other guest that must succeed; returns its stdout.
pub(super) fn run_there(words: &[&str]) -> Result<String> {
    let to: SocketAddr = format!("{}:{PORT}", HOSTS[0]).parse()?;
    let mut connection = eventually("the other guest answers", PATIENCE, || {
        Ok(TcpStream::connect_timeout(&to, Duration::from_secs(5))?)
    })?;
    connection.set_read_timeout(Some(patient(PATIENCE)))?;
    writeln!(connection, "{}", serde_json::to_string(words)?)?;
    let ran: Ran = serde_json::from_reader(connection)
        .with_context(|| format!("the other guest's answer to {words:?}"))?;
    if ran.ok { Ok(ran.printed) } else { bail!("in the other guest: {}", ran.printed) }
}

/// Ends the other guest.
pub(super) fn end_there() -> Result<()> {
    run_there(&[END]).map(drop)
}
