//! Sends questions by UDP with a fixed number in flight: after each answer the next question is sent.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use overlay_lab::Netns;

use super::query::Query;
use crate::bench::stats::Samples;

/// Time after which a missing answer counts as lost.
const PATIENCE: Duration = Duration::from_secs(1);

/// The result of a run.
pub(super) struct Counted {
    pub(super) queries_per_second: f64,
    pub(super) latency_us: Samples,
    pub(super) lost: u64,
}

/// Asks from inside a namespace for `time`. A wrong answer is an error.
pub(super) fn ask(
    netns: &Netns,
    server: SocketAddrV4,
    query: &Query,
    window: usize,
    time: Duration,
) -> Result<Counted> {
    let socket = netns.enter(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(server).with_context(|| format!("cannot ask {server}"))?;
        Ok(socket)
    })?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut asked: Vec<Option<Instant>> = vec![None; 1 << 16];
    let mut next: u16 = 0;
    let mut latencies = Vec::new();
    let mut lost = 0;
    let mut answer = [0; 1500];
    let mut send = |asked: &mut Vec<Option<Instant>>| -> Result<()> {
        asked[usize::from(next)] = Some(Instant::now());
        socket.send(&query.message(next))?;
        next = next.wrapping_add(1);
        Ok(())
    };
    let begun = Instant::now();
    for _ in 0..window {
        send(&mut asked)?;
    }
    let mut in_flight = window;
    // The rate ends at the last answer, so that the wait for lost answers is not part of it.
    let mut last_answer = begun;
    while in_flight > 0 {
        match socket.recv(&mut answer) {
            Ok(length) => {
                let id = query.check(&answer[..length])?;
                // An answer that was given up, or comes a second time, has been counted already.
                let Some(at) = asked[usize::from(id)].take() else { continue };
                last_answer = Instant::now();
                latencies.push((last_answer - at).as_secs_f64() * 1e6);
                in_flight -= 1;
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                lost += in_flight as u64;
                asked.fill(None);
                in_flight = 0;
            }
            Err(error) => return Err(error).with_context(|| format!("asking {server}")),
        }
        // Until the time is over further questions are sent; then only the pending answers are awaited.
        while in_flight < window && begun.elapsed() < time {
            send(&mut asked)?;
            in_flight += 1;
        }
    }
    ensure!(!latencies.is_empty(), "{server} answers nothing");
    let queries_per_second = latencies.len() as f64 / (last_answer - begun).as_secs_f64();
    Ok(Counted { queries_per_second, latency_us: latencies.into_iter().collect(), lost })
}
