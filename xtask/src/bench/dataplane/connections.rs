//! Measures connections per second: each request has a connection of its own, one after the other. HTTP
//! without keep-alive does the same, and this traffic costs most on a path that keeps state for flows.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    sys::{
        socket::{setsockopt, sockopt::ReceiveTimeout},
        time::{TimeVal, TimeValLike as _},
    },
    unistd::Pid,
};

use super::{contestants::Contestant, cpu};

const PORT: u16 = 5301;
const MESSAGE: usize = 64;
/// First bytes of a request: [`LAST`] tells the server that no further request follows.
const GO_ON: u8 = 0;
const LAST: u8 = 1;
/// Time after which an end gives up when the other sends nothing.
const PATIENCE: Duration = Duration::from_secs(5);

/// Measures for `seconds`; returns the number of connections and the CPU seconds that they cost.
pub(super) fn count(between: &Contestant, seconds: u32) -> Result<(f64, f64)> {
    // The kernel keeps a closed connection for a minute (TIME_WAIT), and the client cannot use its port
    // again. After 28,000 connections the figure would only show the lack of ports.
    for end in [&between.client, &between.server] {
        end.sysctl("net.ipv4.tcp_max_tw_buckets", "64")?;
    }
    let [client_cpu, server_cpu] = cpu::CPUS;
    let listener = between.server.enter(|| {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
        // The limit is for accept, for which std has none.
        setsockopt(&listener, ReceiveTimeout, &TimeVal::seconds(PATIENCE.as_secs().cast_signed()))?;
        Ok(listener)
    })?;
    let to = SocketAddrV4::new(between.server_address, PORT);
    thread::scope(|scope| {
        let server = scope.spawn(|| {
            pin(server_cpu)?;
            serve(&listener)
        });
        let asked = between.client.enter(|| {
            pin(client_cpu)?;
            cpu::spent(|| ask(to, Duration::from_secs(seconds.into())))
        });
        let served = server.join().map_err(|_| anyhow!("the server panicked"))?;
        let (asked, cpu) = asked?;
        if served.context("the server")? != asked {
            bail!("the server saw another number of connections than {asked}");
        }
        Ok((f64::from(asked), cpu))
    })
}

fn pin(cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    // Process 0 means the calling thread only.
    sched_setaffinity(Pid::from_raw(0), &cpus).with_context(|| format!("cannot run on CPU {cpu}"))
}

fn ask(to: SocketAddrV4, time: Duration) -> Result<u32> {
    let begun = Instant::now();
    let mut count = 0;
    loop {
        count += 1;
        let last = begun.elapsed() >= time;
        let mut message = [if last { LAST } else { GO_ON }; MESSAGE];
        let mut stream = TcpStream::connect_timeout(&to.into(), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&message)?;
        stream.read_exact(&mut message)?;
        if last {
            return Ok(count);
        }
    }
}

fn serve(listener: &TcpListener) -> Result<u32> {
    let mut count = 0;
    loop {
        let (mut stream, _) = listener.accept().context("nobody connects")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        count += 1;
        let mut message = [0; MESSAGE];
        stream.read_exact(&mut message)?;
        stream.write_all(&message)?;
        // The client closes first, so that its port and not the server's is in TIME_WAIT.
        stream.read_to_end(&mut Vec::new())?;
        if message[0] == LAST {
            return Ok(count);
        }
    }
}
