//! The tools by which people measure and observe a network, as functions.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{command, netns::Netns, process::Process, wait::eventually};

/// The counts of `ping`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ping {
    /// Number of requests.
    pub sent: u32,
    /// Number of answers.
    pub received: u32,
}

/// The results of `iperf3`.
#[derive(Debug, Clone)]
pub struct Iperf {
    /// The rate as the receiver measured it.
    pub bits_per_second: f64,
    /// UDP: datagrams sent.
    pub packets: u64,
    /// UDP: datagrams that did not arrive.
    pub lost: u64,
    /// TCP: segments that were retransmitted.
    pub retransmits: u64,
}

/// Converts a name of `ethtool -K` into the one that `ethtool -k` shows.
fn shown_as(offload: &str) -> &str {
    match offload {
        "tx" => "tx-checksumming",
        "rx" => "rx-checksumming",
        "tso" => "tcp-segmentation-offload",
        "gso" => "generic-segmentation-offload",
        "gro" => "generic-receive-offload",
        other => other,
    }
}

impl Netns {
    fn feature(&self, device: &str, offload: &str) -> Result<Value> {
        let shown = self.run(&["ethtool", "--json", "-k", device])?;
        let shown: Value = serde_json::from_str(&shown)?;
        let feature = shown[0][shown_as(offload)].clone();
        ensure!(feature.is_object(), "{device} of {} shows no {offload}", self.name());
        Ok(feature)
    }

    /// Returns true if an offload of a device is on. `offload` is its name for `ethtool -K`.
    pub fn is_offload_on(&self, device: &str, offload: &str) -> Result<bool> {
        let feature = self.feature(device, offload)?;
        feature["active"].as_bool().with_context(|| format!("{offload} of {device}: {feature}"))
    }

    /// Switches an offload of a device. Returns false if the device has it fixed in the other state; any
    /// other failure to switch is an error.
    pub fn switch_offload(&self, device: &str, offload: &str, on: bool) -> Result<bool> {
        let before = self.feature(device, offload)?;
        if before["fixed"] == true && before["active"] != on {
            return Ok(false);
        }
        let state = if on { "on" } else { "off" };
        // The exit code is ignored: it is 1 if nothing had to be changed. Other offloads that changed as well
        // are printed to stderr.
        let output = self.output(&["ethtool", "-K", device, offload, state])?;
        let is_on = self.is_offload_on(device, offload)?;
        ensure!(
            is_on == on,
            "{offload} of {device} in {} is not {state}: {}{}",
            self.name(),
            output.stdout,
            output.stderr
        );
        Ok(true)
    }

    /// Pings `count` times, 10 ms apart, and returns the counts, even if nothing is answered.
    pub fn ping(&self, to: impl ToString, count: u32) -> Result<Ping> {
        let (count, to) = (count.to_string(), to.to_string());
        let output =
            self.output(&["ping", "-n", "-q", "-i", "0.01", "-W", "1", "-c", &count, &to])?;
        // Exit code 1 only means that nothing was answered.
        if output.status.code().is_none_or(|code| code > 1) {
            bail!("ping {to}: {}{}", output.stdout, output.stderr);
        }
        parse_ping(&output.stdout).with_context(|| format!("ping printed: {}", output.stdout))
    }

    /// Pings three times, and fails unless every request is answered.
    pub fn reaches(&self, to: impl ToString) -> Result<()> {
        let to = to.to_string();
        let ping = self.ping(&to, 3)?;
        if ping.received != ping.sent {
            bail!("{} pinged {to}: {} of {} answered", self.name(), ping.received, ping.sent);
        }
        Ok(())
    }

    /// Fetches a page.
    pub fn curl(&self, url: &str) -> Result<String> {
        self.run(&["curl", "-sS", "--fail", "--max-time", "5", url])
    }

    /// Starts an iperf3 server for one measurement and waits until it listens.
    pub fn iperf_server(&self, pin_to: Option<&str>) -> Result<Process> {
        let server = ["iperf3", "-s", "-1", "--forceflush"];
        let words: Vec<&str> = pinned(pin_to).into_iter().chain(server).collect();
        let process = self.start(&words)?;
        self.wait_for_listener(5201)?;
        Ok(process)
    }

    /// Waits until somebody listens on a TCP port of the namespace.
    pub fn wait_for_listener(&self, port: u16) -> Result<()> {
        let what = format!("{} listens on {port}", self.name());
        let filter = format!("sport = :{port}");
        eventually(&what, Duration::from_secs(10), || {
            let listeners = self.run(&["ss", "-Htln", &filter])?;
            if listeners.trim().is_empty() { bail!("nobody listens") } else { Ok(()) }
        })
    }

    /// Runs an iperf3 client with these further arguments.
    pub fn iperf(&self, to: Ipv4Addr, seconds: u32, args: &[&str]) -> Result<Iperf> {
        self.iperf_pinned(to, seconds, args, None)
    }

    /// Runs an iperf3 client like [`Self::iperf`], on one CPU.
    pub fn iperf_pinned(
        &self,
        to: Ipv4Addr,
        seconds: u32,
        args: &[&str],
        pin_to: Option<&str>,
    ) -> Result<Iperf> {
        let (to, time) = (to.to_string(), seconds.to_string());
        let client = ["iperf3", "-c", &to, "-t", &time, "-J"];
        let words: Vec<&str> =
            pinned(pin_to).into_iter().chain(client).chain(args.iter().copied()).collect();
        let patience = Duration::from_secs(u64::from(seconds) + 30);
        let output = command::output(&mut self.command(&words), patience)?;
        parse_iperf(&output.stdout).with_context(|| {
            format!("iperf3 to {to}: {}\n{}{}", output.status, output.stdout, output.stderr)
        })
    }
}

/// The words before a command that keep it on one CPU.
pub fn pinned(cpu: Option<&str>) -> Vec<&str> {
    cpu.map_or_else(Vec::new, |cpu| vec!["taskset", "-c", cpu])
}

fn parse_ping(text: &str) -> Option<Ping> {
    let line = text.lines().find(|line| line.contains(" packets transmitted, "))?;
    let mut numbers = line.split(", ").map(|part| part.split(' ').next()?.parse().ok());
    Some(Ping { sent: numbers.next()??, received: numbers.next()?? })
}

fn parse_iperf(text: &str) -> Result<Iperf> {
    let json: Value = serde_json::from_str(text)?;
    if let Some(error) = json["error"].as_str() {
        bail!("iperf3: {error}");
    }
    let end = &json["end"];
    let udp = end["sum"]["lost_packets"].as_u64();
    let received = if udp.is_some() { &end["sum"] } else { &end["sum_received"] };
    Ok(Iperf {
        bits_per_second: received["bits_per_second"].as_f64().context("no rate")?,
        packets: end["sum"]["packets"].as_u64().unwrap_or_default(),
        lost: udp.unwrap_or_default(),
        retransmits: end["sum_sent"]["retransmits"].as_u64().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_are_counted() {
        let text = "PING 127.0.0.1 (127.0.0.1) 56(84) bytes of data.\n\n--- 127.0.0.1 ping statistics ---\n\
                    3 packets transmitted, 2 received, 33% packet loss, time 20ms\n";
        assert_eq!(parse_ping(text), Some(Ping { sent: 3, received: 2 }));
        let errors = "2 packets transmitted, 0 received, +2 errors, 100% packet loss, time 10ms";
        assert_eq!(parse_ping(errors), Some(Ping { sent: 2, received: 0 }));
        assert_eq!(parse_ping("ping: connect: Network is unreachable"), None);
    }

    #[test]
    fn what_iperf_lost_is_counted() {
        let udp = r#"{"end": {"sum": {"bits_per_second": 5.0, "packets": 7, "lost_packets": 2}}}"#;
        let iperf = parse_iperf(udp).unwrap();
        assert_eq!((iperf.packets, iperf.lost), (7, 2));
        let tcp = r#"{"end": {"sum_received": {"bits_per_second": 8.0}, "sum_sent": {"retransmits": 3}}}"#;
        let iperf = parse_iperf(tcp).unwrap();
        assert!(iperf.bits_per_second > 7.0);
        assert_eq!(iperf.retransmits, 3);
        assert!(parse_iperf(r#"{"error": "unable to connect"}"#).is_err());
    }
}
