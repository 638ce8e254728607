//! Runs the program `nft`.
//!
//! The nftables crate's own functions for this pass the program's error messages to the node's standard
//! error, wait for ever, and leave the program running when the caller gives up.

use std::{io, process::Stdio, time::Duration};

use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, process::Command};

use super::{GatewayError, rules::TABLE};

const PROGRAM: &str = "nft";
/// Time that `nft` is given. A thousand elements take tens of milliseconds.
const BOUND: Duration = Duration::from_secs(30);
const READ: &str = "read the table `ip overlay`";
const READ_OTHERS: &str = "read the tables of other programs";
pub(super) const WRITE: &str = "change the table `ip overlay`";

/// The objects of the table `ip overlay`, in nft's JSON; `None` if there is no such table.
pub(super) async fn list() -> Result<Option<Vec<Value>>, GatewayError> {
    objects(READ, &["list", "table", "ip", TABLE]).await
}

/// The chains of all tables, without their rules, in nft's JSON.
pub(super) async fn list_chains() -> Result<Vec<Value>, GatewayError> {
    Ok(objects(READ_OTHERS, &["list", "chains"]).await?.unwrap_or_default())
}

/// The objects of a table of another program, in nft's JSON; empty if there is no such table (any more).
pub(super) async fn list_table(family: &str, name: &str) -> Result<Vec<Value>, GatewayError> {
    // Without the elements of sets, which may be many.
    let table = ["-t", "list", "table", family, name];
    Ok(objects(READ_OTHERS, &table).await?.unwrap_or_default())
}

/// The objects that nft lists; `None` if there is none of that name.
async fn objects(action: &'static str, what: &[&str]) -> Result<Option<Vec<Value>>, GatewayError> {
    // -p: protocols as numbers, because names depend on /etc/protocols.
    let arguments: Vec<&str> = ["-j", "-p"].into_iter().chain(what.iter().copied()).collect();
    let answer = match run(action, &arguments, None).await {
        Err(GatewayError::Refused { answer, .. })
            if answer.contains("No such file or directory") =>
        {
            return Ok(None);
        }
        answer => answer?,
    };
    let mut document: Value = serde_json::from_slice(&answer)
        .map_err(|source| GatewayError::Answer { action, source })?;
    match document.get_mut("nftables").map(Value::take) {
        Some(Value::Array(objects)) => Ok(Some(objects)),
        _ => Ok(Some(Vec::new())),
    }
}

/// Runs all of `commands` or, on an error, none.
pub(super) async fn apply(commands: Vec<Value>) -> Result<(), GatewayError> {
    let document = json!({"nftables": commands}).to_string();
    run(WRITE, &["-j", "-f", "-"], Some(document.as_bytes())).await.map(drop)
}

async fn run(
    action: &'static str,
    arguments: &[&str],
    input: Option<&[u8]>,
) -> Result<Vec<u8>, GatewayError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => GatewayError::NoProgram,
        _ => GatewayError::Run { action, source },
    };
    let mut child = Command::new(PROGRAM)
        .args(arguments)
        // The error messages are parsed below, in English.
        .env("LC_ALL", "C")
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let stdin = child.stdin.take();
    let work = async move {
        let write = async move {
            match (stdin, input) {
                (Some(mut stdin), Some(input)) => stdin.write_all(input).await,
                _ => Ok(()),
            }
        };
        // Both at once, because `nft` may write much before it has read everything. If it ends without
        // reading everything, its own message is better than the error of the write.
        let (written, output) = tokio::join!(write, child.wait_with_output());
        let output = output?;
        if output.status.success() {
            written?;
        }
        Ok(output)
    };
    let output = tokio::time::timeout(BOUND, work)
        .await
        .map_err(|_| GatewayError::Slow { action, bound: BOUND })?
        .map_err(failed)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    // A program that crashed has written no message.
    let status = output.status.to_string();
    Err(refused(action, if complaint.trim().is_empty() { &status } else { &complaint }))
}

fn refused(action: &'static str, complaint: &str) -> GatewayError {
    // The first line is the message; the others repeat the JSON input.
    let answer = complaint.lines().map(str::trim).find(|line| !line.is_empty());
    let answer = answer.unwrap_or_default().to_owned();
    let says = |words: &[&str]| words.iter().any(|word| answer.contains(word));
    if says(&["Operation not permitted", "must be root"]) {
        GatewayError::Denied { action }
    } else if says(&[
        "Protocol not supported",
        "Operation not supported",
        "cache initialization failed",
    ]) {
        GatewayError::NoSupport { answer }
    } else {
        GatewayError::Refused { action, answer }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_told_apart() {
        let refused = |text| refused(READ, text);
        assert!(matches!(
            refused(
                "Operation not permitted (you must be root)\nnetlink: Error: cache initialization failed: Operation not permitted"
            ),
            GatewayError::Denied { .. }
        ));
        assert!(matches!(
            refused("netlink: Error: cache initialization failed: Protocol not supported\n"),
            GatewayError::NoSupport { .. }
        ));
        let GatewayError::Refused { answer, .. } =
            refused("\nError: interval overlaps\n{...}\n^^^")
        else {
            panic!();
        };
        assert_eq!(answer, "Error: interval overlaps");
    }
}
