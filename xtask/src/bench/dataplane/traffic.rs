//! The kinds of traffic, and the measurement of each with common tools.

use std::{fmt, time::Duration};

use anyhow::{Context as _, Result};
use overlay_lab::pinned;
use serde::Serialize;

use super::{connections, contestants::Contestant, cpu};
use crate::bench::stats::Samples;

/// [`cpu::CPUS`] as texts.
const CLIENT_CPU: Option<&str> = Some("0");
const SERVER_CPU: Option<&str> = Some("1");
const QPERF_PORT: u16 = 19765;
/// Bytes of a request and of its answer.
const MESSAGE: u32 = 64;

/// The traffic between the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::bench) enum Traffic {
    /// As many bytes as the path can carry (iperf3).
    Tcp { streams: u32 },
    /// One request at a time over one connection (qperf).
    Latency,
    /// One request at a time, each over a connection of its own.
    Connect,
    /// As many datagrams as possible; those that arrive count (qperf).
    Udp { bytes: u32 },
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub(in crate::bench) struct Sample {
    /// In the traffic's unit.
    figure: f64,
    /// Seconds of CPU time of both hosts, in [`Traffic::cpu_unit`].
    cpu: f64,
    cpu_unit: &'static str,
}

/// Measurements of one contestant, one for each round.
#[derive(Debug, Default, Serialize)]
pub(in crate::bench) struct Series {
    pub(in crate::bench) figure: Samples,
    pub(in crate::bench) cpu: Samples,
}

impl Traffic {
    /// The part of a row's name: `tcp-1`.
    pub(in crate::bench) fn name(self) -> String {
        match self {
            Self::Tcp { streams } => format!("tcp-{streams}"),
            Self::Latency => "tcp-latency".to_owned(),
            Self::Connect => "tcp-connect".to_owned(),
            Self::Udp { bytes } => format!("udp-{bytes}"),
        }
    }

    /// The unit of the figure.
    pub(in crate::bench) fn unit(self) -> &'static str {
        match self {
            Self::Tcp { .. } => "Gbit/s",
            Self::Latency => "us, less is better",
            Self::Connect => "connections/s",
            Self::Udp { .. } => "kpackets/s",
        }
    }

    /// The unit of the CPU time.
    pub(in crate::bench) fn cpu_unit(self) -> &'static str {
        match self {
            Self::Tcp { .. } => "s/GB",
            Self::Latency => "s/Mmessage",
            Self::Connect => "s/Mconnection",
            Self::Udp { .. } => "s/Mpacket",
        }
    }

    pub(in crate::bench) fn less_is_better(self) -> bool {
        self == Self::Latency
    }

    pub(in crate::bench) fn measure(self, between: &Contestant, seconds: u32) -> Result<Sample> {
        let duration = f64::from(seconds);
        let (figure, cpu) = match self {
            Self::Tcp { streams } => {
                let (gigabits, cpu) = iperf(between, seconds, streams)?;
                (gigabits, cpu / (gigabits * duration / 8.0))
            }
            Self::Latency => {
                let (ns, cpu) = qperf(between, seconds, MESSAGE, ("tcp_lat", "latency"))?;
                (ns / 1e3, cpu / (duration / ns * 1e9 / 1e6))
            }
            Self::Connect => {
                let (count, cpu) = connections::count(between, seconds)?;
                (count / duration, cpu / (count / 1e6))
            }
            Self::Udp { bytes } => {
                let (rate, cpu) = qperf(between, seconds, bytes, ("udp_bw", "recv_bw"))?;
                let packets = rate / f64::from(bytes);
                (packets / 1e3, cpu / (packets * duration / 1e6))
            }
        };
        Ok(Sample { figure, cpu, cpu_unit: self.cpu_unit() })
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { streams: 1 } => f.write_str("TCP, 1 stream"),
            Self::Tcp { streams } => write!(f, "TCP, {streams} streams"),
            Self::Latency => write!(f, "TCP, {MESSAGE} B, latency"),
            Self::Connect => write!(f, "TCP, {MESSAGE} B, a connection each"),
            Self::Udp { bytes } => write!(f, "UDP, {bytes} B"),
        }
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:10.2}   {:7.3} {}", self.figure, self.cpu, self.cpu_unit)
    }
}

impl Extend<Sample> for Series {
    fn extend<I: IntoIterator<Item = Sample>>(&mut self, samples: I) {
        for Sample { figure, cpu, cpu_unit: _ } in samples {
            self.figure.push(figure);
            self.cpu.push(cpu);
        }
    }
}

/// Congestion control of every stream: the kernel's default, whatever the machine's setting is. If no
/// queueing discipline paces a stream, BBR does so with its own timer, also for round trips of a few
/// microseconds. A stream would then be only as fast as BBR's estimate, and the CPUs would sleep.
pub(super) const CONGESTION_CONTROL: &str = "cubic";

/// The received Gbit/s, and CPU seconds.
fn iperf(between: &Contestant, seconds: u32, streams: u32) -> Result<(f64, f64)> {
    let mut server = between.server.iperf_server(SERVER_CPU)?;
    let streams = streams.to_string();
    let (measured, cpu) = cpu::spent(|| {
        let args = ["-P", &streams, "-C", CONGESTION_CONTROL];
        between.client.iperf_pinned(between.server_address, seconds, &args, CLIENT_CPU)
    })?;
    server.wait(Duration::from_secs(10))?;
    Ok((measured.bits_per_second / 1e9, cpu))
}

/// Runs one test of qperf; returns a field of its output, in bytes a second or nanoseconds, and CPU seconds.
fn qperf(
    between: &Contestant,
    seconds: u32,
    bytes: u32,
    (test, field): (&str, &str),
) -> Result<(f64, f64)> {
    let words: Vec<&str> = pinned(SERVER_CPU).into_iter().chain(["qperf"]).collect();
    let server = between.server.start(&words)?;
    between.server.wait_for_listener(QPERF_PORT)?;
    let (time, bytes) = (seconds.to_string(), bytes.to_string());
    let to = between.server_address.to_string();
    let client = ["qperf", "-t", &time, "-m", &bytes, "--unify_units", &to, test];
    let words: Vec<&str> = pinned(CLIENT_CPU).into_iter().chain(client).collect();
    let patience = Duration::from_secs(u64::from(seconds) + 30);
    let (printed, cpu) = cpu::spent(|| between.client.run_within(&words, patience))?;
    server.kill9()?;
    let figure =
        parse_qperf(&printed, field).with_context(|| format!("qperf {test} printed: {printed}"))?;
    Ok((figure, cpu))
}

fn parse_qperf(printed: &str, field: &str) -> Option<f64> {
    let line = printed.lines().find(|line| line.trim_start().starts_with(field))?;
    let (_, value) = line.split_once('=')?;
    value.split_whitespace().next()?.replace(',', "").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qperf_is_read() {
        let printed =
            "udp_bw:\n    send_bw  =  10746944 bytes/sec\n    recv_bw  =  6,224,384 bytes/sec\n";
        assert_eq!(parse_qperf(printed, "recv_bw"), Some(6_224_384.0));
        assert_eq!(parse_qperf(printed, "latency"), None);
    }
}
