//! The command line, with one file for each verb or noun.
//!
//! Every verb but `node run`, `node reset`, `cluster restore` and `cluster recover` is a client of the API, over the node's own unix socket. Standard
//! output gets the answer and nothing else, as a table or as JSON; standard error gets errors and
//! warnings. Exit codes: 0 done, 1 refused or failed (or, of `status`, the node is not ready, of `cluster status`, the cluster not healthy), 2 not a valid
//! command line.

mod client;
mod cluster;
mod endpoint;
mod error;
mod leave;
mod monitor;
mod network;
mod node;
mod output;
mod port;
mod ready;
mod reset;
mod stale;
mod status;
mod view;

#[cfg(test)]
mod fake_node;
#[cfg(test)]
mod tests;

use crate::config::{ClusterRecoverArgs, ClusterRestoreArgs, NodeResetArgs, NodeRunArgs};
use clap::{Parser, Subcommand, ValueEnum};
use client::Client;
pub use cluster::Begun;
use error::Error;
use output::Output;
pub use ready::{ENDPOINT, NETWORK, print_ready};
pub use reset::Reset;
use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

const DEFAULT_SOCKET: &str = "/run/overlay/overlay.sock";
const GLOBAL: &str = "Global options";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "overlay",
    version,
    about = "One Ethernet across routed hosts: VXLAN in eBPF, filled by a replicated controller",
    disable_help_subcommand = true
)]
pub struct Cli {
    /// Socket of the node's local API: `node run` listens on it, all other commands connect to it
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "PATH", env = "OVERLAY_SOCKET", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Form of the answer: columns, or JSON with stable field names
    #[arg(short, long, global = true, help_heading = GLOBAL, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the node that is asked: role, leader, revision, data plane; fails if the node is not ready
    Status,
    /// Run a node, show and remove nodes of the cluster, or take a node off this host
    #[command(subcommand)]
    Node(node::Command),
    /// Show how the voters are, set how many nodes vote, back up a cluster, restore it, or recover it after the majority of its voters was lost
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Create, show and remove networks
    #[command(subcommand)]
    Network(network::Command),
    /// Create, show and remove endpoints
    #[command(subcommand)]
    Endpoint(endpoint::Command),
    /// Print the published ports of an endpoint, one on each line; nothing if there is none
    Port(port::PortArgs),
    /// Print packets as the asked node drops them, and on request a sample of forwarded packets, until
    /// interrupted
    Monitor(monitor::MonitorArgs),
}

/// What the command line has done on this host itself, without a node's API.
pub trait OnHost {
    /// Runs a node until it ends: `overlay node run`.
    fn run(&self, args: NodeRunArgs) -> impl Future<Output = anyhow::Result<()>>;

    /// Takes away what a node that has ended made here: `overlay node reset`.
    fn reset(&self, args: NodeResetArgs) -> impl Future<Output = anyhow::Result<Reset>>;

    /// Makes the first node of a cluster from a backup: `overlay cluster restore`.
    fn restore(&self, args: ClusterRestoreArgs) -> impl Future<Output = anyhow::Result<Begun>>;

    /// Makes a voter that has ended the only one of its cluster: `overlay cluster recover`.
    fn recover(&self, args: ClusterRecoverArgs) -> impl Future<Output = anyhow::Result<Begun>>;

    /// Waits until the node with this state folder, which leaves its cluster, has wiped what it made and has ended. Fails
    /// if it did not.
    fn left(&self, state_dir: &Path) -> impl Future<Output = anyhow::Result<()>>;
}

/// Carries out a command line and returns the exit code.
pub async fn run(cli: Cli, host: &impl OnHost) -> ExitCode {
    let Cli { socket, output, command } = cli;
    match command {
        Command::Node(node::Command::Run(args)) => {
            match host.run(NodeRunArgs { socket, ..*args }).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    print_error(&mut io::stderr(), &causes(&error));
                    ExitCode::FAILURE
                }
            }
        }
        command => {
            let (mut stdout, mut stderr) = (io::stdout(), io::stderr());
            let output = Output::new(output, &mut stdout, &mut stderr);
            exit_code(carry_out(command, socket, host, output).await)
        }
    }
}

/// The error and its sources.
fn causes(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// The result of a command that ends by itself.
#[derive(Debug, PartialEq, Eq)]
enum Done {
    /// Everything was done, and printed.
    All,
    /// Something was not done. The reason has been printed.
    Failed,
}

fn exit_code(done: Done) -> ExitCode {
    match done {
        Done::All => ExitCode::SUCCESS,
        Done::Failed => ExitCode::FAILURE,
    }
}

async fn carry_out(
    command: Command,
    socket: PathBuf,
    host: &impl OnHost,
    mut output: Output<'_>,
) -> Done {
    let client = Client::new(socket.clone());
    let result = match command {
        Command::Node(node::Command::Reset(args)) => {
            reset::run(NodeResetArgs { socket, ..args }, host, &mut output).await
        }
        Command::Node(node::Command::Leave) => leave::run(&client, host, &mut output).await,
        Command::Status => status::run(&client, &mut output).await,
        Command::Node(command) => node::run(command, &client, &mut output).await,
        Command::Cluster(command) => cluster::run(command, &client, host, &mut output).await,
        Command::Network(command) => network::run(command, &client, &mut output).await,
        Command::Endpoint(command) => endpoint::run(command, &client, &mut output).await,
        Command::Port(args) => port::run(args, &client, &mut output).await,
        Command::Monitor(args) => monitor::run(args, &client, &mut output).await,
    };
    match result {
        Ok(()) if output.failed() => Done::Failed,
        Ok(()) => Done::All,
        // The reader of the output has ended, which is not a failure: `overlay endpoint ls | head -1`.
        Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Done::All,
        Err(error) => {
            output.error(&error);
            Done::Failed
        }
    }
}

/// Prints the message as one line, even if it contains line breaks.
fn print_error(stderr: &mut dyn Write, message: &str) {
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    // If standard error is closed, the message cannot be shown anywhere.
    writeln!(stderr, "error: {message}").unwrap_or_default();
}
