//! Captures packets with tcpdump and reads them with tshark, which is independent of this project.

use std::{
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;

use super::{
    command::{self, PATIENCE},
    netns::Netns,
    process::Process,
    wait::eventually,
};

/// Number of captures that have been started.
static STARTED: AtomicUsize = AtomicUsize::new(0);

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Process,
    file: PathBuf,
}

/// A capture that has ended.
#[derive(Debug)]
pub struct Packets {
    file: PathBuf,
}

impl Capture {
    /// Starts a capture on a device (or `any`) of a namespace, and waits until it runs.
    pub fn start(netns: &Netns, device: &str, filter: &str) -> Result<Self> {
        // Each capture has its own files, so that no capture reads another one's log.
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let file = netns.log_file(&format!("{device}-{number}.pcap"));
        let name = file.to_string_lossy().into_owned();
        // -Z root, because tcpdump would give up root before it opens the file. -U writes packet by packet.
        let mut command = netns.command(&[
            "tcpdump",
            "-n",
            "-i",
            device,
            "-Z",
            "root",
            "-U",
            "--immediate-mode",
            // The buffer in KiB, so that a busy machine does not lose packets of a fast stream.
            "-B",
            "65536",
            "-w",
            &name,
            filter,
        ]);
        let tcpdump = Process::start(&mut command, &file.with_extension("log"))?;
        eventually("tcpdump captures", Duration::from_secs(10), || {
            let log = tcpdump.log();
            if log.contains("listening on") { Ok(()) } else { bail!("it says: {log}") }
        })?;
        Ok(Self { tcpdump, file })
    }

    /// Waits until there are packets that pass the display filter; returns all packets so far.
    pub fn wait_for(&self, filter: &str) -> Result<Packets> {
        let so_far = Packets { file: self.file.clone() };
        eventually(&format!("{filter} is captured"), Duration::from_secs(10), || {
            let caught = so_far.fields(filter, &["frame.number"])?;
            if caught.is_empty() { bail!("not yet") } else { Ok(()) }
        })?;
        Ok(so_far)
    }

    /// Ends the capture.
    pub fn stop(mut self) -> Result<Packets> {
        self.tcpdump.signal(Signal::SIGINT)?;
        self.tcpdump.wait(Duration::from_secs(10))?;
        Ok(Packets { file: self.file })
    }
}

impl Packets {
    /// Returns true if any packet contains these bytes.
    pub fn have(&self, bytes: &[u8]) -> Result<bool> {
        // The file contains each packet in one piece.
        let all = std::fs::read(&self.file)?;
        Ok(all.windows(bytes.len()).any(|window| window == bytes))
    }

    /// Number of packets that pass a filter of tcpdump, which is much faster than a filter of tshark.
    pub fn count(&self, filter: &str) -> Result<usize> {
        let mut tcpdump = Command::new("tcpdump");
        tcpdump.args(["-nn", "-Z", "root", "-r"]).arg(&self.file).arg(filter);
        Ok(command::run(&mut tcpdump, PATIENCE)?.lines().count())
    }

    /// One line for each packet, as tcpdump prints it.
    pub fn lines(&self) -> Result<Vec<String>> {
        let mut tcpdump = Command::new("tcpdump");
        tcpdump.args(["-nn", "-e", "-v", "-Z", "root", "-r"]).arg(&self.file);
        let text = command::run(&mut tcpdump, PATIENCE)?;
        let mut packets: Vec<String> = Vec::new();
        for line in text.lines() {
            // A line that is indented continues the packet before.
            match packets.last_mut() {
                Some(packet) if line.starts_with([' ', '\t']) => {
                    packet.push(' ');
                    packet.push_str(line.trim());
                }
                _ => packets.push(line.to_owned()),
            }
        }
        Ok(packets)
    }

    /// These fields of each packet that passes the display filter, as tshark reads them. All occurrences of a
    /// field are in one text, separated by commas, the outer one first.
    pub fn fields(&self, filter: &str, fields: &[&str]) -> Result<Vec<Vec<String>>> {
        let mut tshark = Command::new("tshark");
        tshark.arg("-n").arg("-r").arg(&self.file).args(["-Y", filter, "-T", "fields"]);
        tshark.args(["-o", "ip.check_checksum:TRUE", "-o", "sctp.checksum:CRC 32c"]);
        tshark.args(["-o", "tcp.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"]);
        tshark.args(["-E", "separator=;", "-E", "occurrence=a"]);
        for field in fields {
            tshark.args(["-e", field]);
        }
        let text = command::run(&mut tshark, PATIENCE)?;
        Ok(text.lines().map(|line| line.split(';').map(str::to_owned).collect()).collect())
    }

    /// The first packet that passes the filter, in tshark's most detailed form.
    pub fn describe(&self, filter: &str) -> Result<String> {
        let mut tshark = Command::new("tshark");
        tshark.arg("-n").arg("-r").arg(&self.file).args(["-Y", filter, "-V", "-c", "200"]);
        let text = command::run(&mut tshark, PATIENCE)?;
        text.split("\n\n").next().map(str::to_owned).context("no packet passed the filter")
    }
}
