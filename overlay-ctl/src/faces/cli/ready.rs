//! The text that `overlay node run` prints when it serves: three commands that work as printed.

use crate::control::controller::Existing;
use std::{
    env,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// The network of the examples.
pub const NETWORK: &str = "myoverlay";
/// The endpoint of the examples, on that network.
pub const ENDPOINT: &str = "web1";
const NAMED_NAMESPACES: &str = "/run/netns";

/// Says that the node `name` serves on `socket`, and what to try next given which of the examples' names
/// the cluster holds.
pub fn print_ready(name: &str, socket: &Path, existing: Existing) {
    let overlay = invocation(socket);
    let second = if existing.network {
        format!("{overlay} network inspect {NETWORK}")
    } else {
        format!("{overlay} network create {NETWORK} --subnet 172.16.16.0/24")
    };
    let third = if existing.endpoint {
        format!("{overlay} endpoint inspect {ENDPOINT} --network {NETWORK}")
    } else {
        let create = format!("{overlay} endpoint create {ENDPOINT} --network {NETWORK}");
        if Path::new(NAMED_NAMESPACES).join(ENDPOINT).exists() {
            create
        } else {
            format!("ip netns add {ENDPOINT} && {create}")
        }
    };
    let text = format!(
        "\nnode {name} is ready. Try, in another shell:\n\n  {overlay} status\n  {second}\n  {third}\n\n"
    );
    // If standard output is closed, the node runs on without the text.
    io::stdout().write_all(text.as_bytes()).unwrap_or_default();
}

/// The command that runs this binary against this socket, as short as possible.
fn invocation(socket: &Path) -> String {
    let this = env::current_exe().ok();
    let on_path = env::var_os("PATH").and_then(|path| {
        env::split_paths(&path).map(|folder| folder.join("overlay")).find(|found| found.is_file())
    });
    let same = |found: &PathBuf| {
        this.as_ref().is_some_and(|this| found.canonicalize().is_ok_and(|found| found == *this))
    };
    let binary = match (&this, on_path.filter(same)) {
        (Some(this), None) => this.display().to_string(),
        _ => "overlay".to_owned(),
    };
    if socket == Path::new(super::DEFAULT_SOCKET) {
        binary
    } else {
        format!("{binary} --socket {}", socket.display())
    }
}
