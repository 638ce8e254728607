//! A DNS server that is independent of this project (dnsmasq), and `dig`, which checks answers.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result, bail};

use super::{netns::Netns, process::Process, wait::eventually};

/// A name that every server of a lab knows, by which [`serve`] sees that the server runs.
const SELF: &str = "self.lab.test";

/// One answer, as `dig` printed it.
#[derive(Debug, Clone)]
pub struct Answer {
    /// `NOERROR`, `NXDOMAIN`, …
    pub status: String,
    /// The data of each record of the answer section, in its order.
    pub records: Vec<String>,
    /// Flags of the header.
    pub flags: Vec<String>,
    /// True if the answer came with an OPT record (EDNS, RFC 6891).
    pub edns: bool,
    /// True if the answer came by TCP.
    pub tcp: bool,
    /// The time until the answer, by `dig`'s own clock.
    pub took: Duration,
}

impl Answer {
    /// Fails unless the status is NOERROR and the records are exactly these, in any order.
    pub fn is(&self, records: &[&str]) -> Result<()> {
        let mut own: Vec<&str> = self.records.iter().map(String::as_str).collect();
        let mut expected = records.to_vec();
        own.sort_unstable();
        expected.sort_unstable();
        if self.status != "NOERROR" || own != expected {
            bail!("not {records:?}: {self:?}");
        }
        Ok(())
    }

    /// Fails unless the status is this one and there is no record.
    pub fn is_empty(&self, status: &str) -> Result<()> {
        if self.status != status || !self.records.is_empty() {
            bail!("not an empty {status}: {self:?}");
        }
        Ok(())
    }
}

/// Starts a server on one address of a namespace and waits until it answers. It knows only the names in `args`
/// and asks no other server. With `--log-queries` in `args` it writes each query to its log.
pub fn serve(netns: &Netns, listen: Ipv4Addr, args: &[&str]) -> Result<Process> {
    let (listen_on, own) =
        (format!("--listen-address={listen}"), format!("--host-record={SELF},192.0.2.1"));
    let mut words = vec![
        "dnsmasq",
        "--keep-in-foreground",
        "--user=root",
        "--conf-file=/dev/null",
        "--pid-file=",
        "--no-resolv",
        "--no-hosts",
        "--log-facility=-",
        "--bind-interfaces",
        &listen_on,
        &own,
    ];
    words.extend(args);
    let server = netns.start(&words)?;
    eventually("dnsmasq answers", Duration::from_secs(10), || {
        let answer = netns.dig_at(listen, &["+tries=1", "+time=1", SELF])?;
        answer.is(&["192.0.2.1"]).with_context(|| server.log())
    })?;
    Ok(server)
}

impl Netns {
    /// Runs `dig` with the resolver of endpoints.
    pub fn dig(&self, args: &[&str]) -> Result<Answer> {
        self.dig_at(Ipv4Addr::new(127, 0, 0, 11), args)
    }

    /// Runs `dig` with any server. No answer within 20 seconds is an error.
    pub fn dig_at(&self, server: Ipv4Addr, args: &[&str]) -> Result<Answer> {
        let at = format!("@{server}");
        let words = ["dig", &at, "+tries=1", "+time=20", "+nocookie"];
        let words: Vec<&str> = words.into_iter().chain(args.iter().copied()).collect();
        let text = self.run(&words)?;
        parse(&text).with_context(|| format!("dig {args:?} printed: {text}"))
    }
}

fn parse(text: &str) -> Option<Answer> {
    let after = |mark: &str| text.split_once(mark).map(|(_, rest)| rest);
    let word = |rest: &str| {
        rest.trim_start().split([',', ' ', ';', '\n']).next().unwrap_or_default().to_owned()
    };
    let flags = after(";; flags:")?.split(';').next()?.split_whitespace();
    let records = after(";; ANSWER SECTION:\n").unwrap_or_default();
    let records = records.lines().take_while(|line| !line.is_empty());
    // A line has name, time to live, class, type, and then the data.
    let data = |line: &str| line.split_whitespace().skip(4).collect::<Vec<_>>().join(" ");
    let server = after(";; SERVER: ")?.lines().next()?;
    Some(Answer {
        status: word(after("status:")?),
        records: records.map(data).collect(),
        flags: flags.map(str::to_owned).collect(),
        edns: text.contains("; EDNS: version: 0"),
        tcp: server.ends_with("(TCP)"),
        took: Duration::from_millis(word(after(";; Query time:")?).parse().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dig_prints_is_read() {
        let text = "\n; <<>> DiG 9.18.28 <<>> @127.0.0.11 web2\n; (1 server found)\n;; Got answer:\n\
            ;; ->>HEADER<<- opcode: QUERY, status: NOERROR, id: 7\n\
            ;; flags: qr rd ra; QUERY: 1, ANSWER: 2, AUTHORITY: 0, ADDITIONAL: 1\n\n\
            ;; OPT PSEUDOSECTION:\n; EDNS: version: 0, flags:; udp: 1232\n;; QUESTION SECTION:\n\
            ;web2.\t\t\tIN\tA\n\n;; ANSWER SECTION:\nweb2.\t600\tIN\tA\t172.16.16.130\n\
            web2.\t600\tIN\tA\t172.16.16.131\n\n;; Query time: 12 msec\n\
            ;; SERVER: 127.0.0.11#53(127.0.0.11) (TCP)\n;; WHEN: now\n";
        let answer = parse(text).unwrap();
        answer.is(&["172.16.16.131", "172.16.16.130"]).unwrap();
        assert!(answer.is(&["172.16.16.131"]).is_err());
        assert!(answer.is_empty("NOERROR").is_err());
        assert_eq!(answer.flags, ["qr", "rd", "ra"]);
        assert!(answer.edns && answer.tcp);
        assert_eq!(answer.took, Duration::from_millis(12));

        let nothing = ";; status: NXDOMAIN, id: 1\n;; flags: qr; QUERY: 1\n\n;; Query time: 0 msec\n\
            ;; SERVER: 127.0.0.11#53(127.0.0.11) (UDP)\n";
        let answer = parse(nothing).unwrap();
        answer.is_empty("NXDOMAIN").unwrap();
        assert!(!answer.edns && !answer.tcp);
    }
}
