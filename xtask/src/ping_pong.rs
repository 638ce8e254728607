//! The two ends of a message that is sent back and forth, for `bench icount`. The command is hidden. Its loop
//! has only two system calls, so that the counted instructions are those of the path between the ends.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// The port of the answering end.
pub(crate) const PORT: u16 = 5001;
/// Bytes of a message.
const SIZE: usize = 64;
/// Time after which a message that has not come back counts as lost.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(crate) struct Options {
    protocol: Protocol,
    #[command(subcommand)]
    end: End,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Protocol {
    Tcp,
    Udp,
}

#[derive(clap::Subcommand)]
enum End {
    /// Send each message back, until the other end closes (TCP) or for ever (UDP)
    Answer,
    /// Print the nanoseconds of a message in one direction, one line for each batch
    Ask { to: Ipv4Addr, batches: u32, round_trips: u32 },
}

pub(crate) fn run(options: &Options) -> Result<()> {
    match (options.protocol, &options.end) {
        (Protocol::Tcp, End::Answer) => answer_tcp(),
        (Protocol::Udp, End::Answer) => answer_udp(),
        (Protocol::Tcp, &End::Ask { to, batches, round_trips }) => {
            let mut stream = TcpStream::connect((to, PORT))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            ask(batches, round_trips, |message| {
                stream.write_all(message)?;
                stream.read_exact(message)?;
                Ok(())
            })
        }
        (Protocol::Udp, &End::Ask { to, batches, round_trips }) => {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect((to, PORT))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            ask(batches, round_trips, |message| {
                socket.send(message)?;
                socket.recv(message)?;
                Ok(())
            })
        }
    }
}

/// Runs one batch more than it prints, because the first one is a warm-up.
fn ask(
    batches: u32,
    round_trips: u32,
    mut exchange: impl FnMut(&mut [u8; SIZE]) -> Result<()>,
) -> Result<()> {
    if round_trips == 0 {
        bail!("a batch of no round trips has no mean");
    }
    let mut message = [0; SIZE];
    let mut means = Vec::new();
    for _ in 0..=batches {
        let begun = Instant::now();
        for _ in 0..round_trips {
            exchange(&mut message).context("a message did not come back")?;
        }
        means.push(begun.elapsed().as_nanos() as f64 / f64::from(round_trips) / 2.0);
    }
    for mean in means.iter().skip(1) {
        println!("{mean}");
    }
    Ok(())
}

fn answer_tcp() -> Result<()> {
    let (mut stream, _) = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?.accept()?;
    stream.set_nodelay(true)?;
    let mut message = [0; SIZE];
    loop {
        match stream.read_exact(&mut message) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        }
        stream.write_all(&message)?;
    }
}

fn answer_udp() -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    let mut message = [0; SIZE];
    let (_, asker) = socket.recv_from(&mut message)?;
    socket.connect(asker)?;
    socket.send(&message)?;
    loop {
        socket.recv(&mut message)?;
        socket.send(&message)?;
    }
}
