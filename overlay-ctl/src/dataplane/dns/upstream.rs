//! The host's own resolvers, as its resolv.conf names them (resolv.conf(5)).

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV6},
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::net::if_::if_nametoindex;
use resolv_conf::{Config, ScopedIp};

use super::client_conf::ClientConf;

const PORT: u16 = 53;
/// Greatest number of servers that the C library asks (MAXNS).
const SERVERS_MAX: usize = 3;
/// The C library's own bounds (RES_MAXRETRANS, RES_MAXRETRY).
const TIMEOUT_MAX: u32 = 30;
const ATTEMPTS_MAX: u32 = 5;
/// Longest time that a question is pending, whatever the file says: no client waits longer, and pending
/// questions count towards the limits.
const TOTAL_MAX: Duration = Duration::from_secs(30);

/// The servers to ask, and the options of asking them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Upstreams {
    pub(super) servers: Vec<SocketAddr>,
    /// Time after which a question without an answer is sent again.
    pub(super) timeout: Duration,
    /// Time after which a question is given up.
    pub(super) total: Duration,
    /// Each question begins with the next server.
    pub(super) rotate: bool,
    /// Questions are sent by TCP only (`use-vc`).
    pub(super) tcp: bool,
    /// What the file says to the C library itself.
    pub(super) client: ClientConf,
}

impl Upstreams {
    /// As the C library understands the file: without a server, or without the file, that on this machine is asked.
    fn parse(text: &str) -> Self {
        let config = Config::parse(known_parts(text)).unwrap_or_default();
        let timeout = Duration::from_secs(config.timeout.clamp(1, TIMEOUT_MAX).into());
        let mut servers: Vec<_> =
            config.nameservers.iter().filter_map(address).take(SERVERS_MAX).collect();
        if servers.is_empty() {
            servers.push((Ipv4Addr::LOCALHOST, PORT).into());
        }
        Self {
            servers,
            timeout,
            total: (timeout * config.attempts.clamp(1, ATTEMPTS_MAX)).min(TOTAL_MAX),
            rotate: config.rotate,
            tcp: config.use_vc,
            client: ClientConf::parse(text),
        }
    }
}

/// The lines and options that the parser knows. The C library ignores the others, whereas the parser would
/// refuse the whole file.
fn known_parts(text: &str) -> String {
    let mut known = String::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let parts: Vec<String> = match words.next() {
            Some("options") => words.map(|option| format!("options {option}")).collect(),
            _ => vec![line.to_owned()],
        };
        for part in parts.into_iter().filter(|part| Config::parse(part).is_ok()) {
            known.push_str(&part);
            known.push('\n');
        }
    }
    known
}

fn address(server: &ScopedIp) -> Option<SocketAddr> {
    Some(match server {
        ScopedIp::V4(address) => (*address, PORT).into(),
        ScopedIp::V6(address, scope) => {
            let scope = match scope.as_deref() {
                None => 0,
                Some(scope) => scope.parse().ok().or_else(|| if_nametoindex(scope).ok())?,
            };
            SocketAddrV6::new(*address, PORT, 0, scope).into()
        }
    })
}

/// The file, which is read again when it has changed.
#[derive(Debug)]
pub(super) struct ResolvConf {
    path: PathBuf,
    last: Mutex<(Option<Stamp>, Arc<Upstreams>)>,
}

/// Identity and version of a file, by which a change is noticed. Editors and DHCP clients replace a file;
/// other programs write it in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(meta: &fs::Metadata) -> Self {
        // ctime and not mtime, because no program can set it back.
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

impl ResolvConf {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, last: Mutex::new((None, Arc::new(Upstreams::parse("")))) }
    }

    /// The file's present contents. Costs one stat if nothing changed.
    pub(super) fn upstreams(&self) -> Arc<Upstreams> {
        // The guarded value is replaced as a whole, so that it is valid even after a panic.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = fs::metadata(&self.path).map(|meta| Stamp::of(&meta)).ok();
        if stamp.is_none() || last.0 != stamp {
            let upstreams = match self.read() {
                Ok(upstreams) => upstreams,
                Err(error) => {
                    if last.0.is_some() || stamp.is_some() {
                        tracing::warn!(
                            path = %self.path.display(), %error,
                            "the host's resolvers are not known: 127.0.0.1 is asked, as the C library does"
                        );
                    }
                    Upstreams::parse("")
                }
            };
            // The stamp is older than the content: at worst the file is read once more than needed.
            *last = (stamp, Arc::new(upstreams));
        }
        Arc::clone(&last.1)
    }

    fn read(&self) -> io::Result<Upstreams> {
        Ok(Upstreams::parse(&String::from_utf8_lossy(&fs::read(&self.path)?)))
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn parse(text: &str) -> Upstreams {
        Upstreams::parse(text)
    }

    #[test]
    fn servers_are_those_that_the_c_library_would_ask() {
        let servers = |text| {
            let ips = parse(text).servers.into_iter().map(|server| server.to_string());
            ips.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(servers("nameserver 127.0.0.53\nsearch x"), "127.0.0.53:53");
        // A node inside a container may have no other server than Docker's. Its own namespace is never an endpoint's,
        // so that this address is not its own there.
        assert_eq!(
            servers("nameserver 127.0.0.11\nnameserver 8.8.8.8"),
            "127.0.0.11:53 8.8.8.8:53"
        );
        assert_eq!(
            servers("nameserver 1.1.1.1\nnameserver ::1\nnameserver 1.1.1.3\nnameserver 1.1.1.4"),
            "1.1.1.1:53 [::1]:53 1.1.1.3:53"
        );
        assert_eq!(servers("nameserver fe80::1%lo"), "[fe80::1%1]:53");
        for none in ["", "# nothing", "nameserver fe80::1%no-such-device", "search example.test"] {
            assert_eq!(servers(none), "127.0.0.1:53", "{none}");
        }
    }

    #[test]
    fn what_is_not_understood_is_passed_over() {
        let upstreams = parse(
            "nameserver ten\nnameserver 10.0.0.1 # the first\nwhatever\noptions new timeout:3 rotate\n",
        );
        assert_eq!(upstreams.servers, ["10.0.0.1:53".parse().unwrap()]);
        assert_eq!((upstreams.timeout.as_secs(), upstreams.rotate), (3, true));
    }

    #[test]
    fn times_are_the_options_within_bounds() {
        let times = |text| {
            let upstreams = parse(text);
            (upstreams.timeout.as_secs(), upstreams.total.as_secs())
        };
        assert_eq!(times(""), (5, 10));
        assert_eq!(times("options timeout:2 attempts:1"), (2, 2));
        assert_eq!(times("options timeout:0 attempts:0"), (1, 1));
        assert_eq!(times("options timeout:900 attempts:900"), (30, 30));
        assert!(parse("options rotate use-vc").rotate);
        assert!(parse("options rotate use-vc").tcp);
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        let conf = ResolvConf::new(path.clone());
        let local = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 53))];
        assert_eq!(conf.upstreams().servers, local, "there is no file");
        for server in ["10.0.0.1", "10.0.0.22"] {
            fs::write(&path, format!("nameserver {server}\n")).unwrap();
            assert_eq!(conf.upstreams().servers, [(server.parse::<IpAddr>().unwrap(), 53).into()]);
        }
        let new = folder.path().join("new");
        fs::write(&new, "nameserver 10.0.0.33\n").unwrap();
        fs::rename(&new, &path).unwrap();
        assert_eq!(conf.upstreams().servers[0].ip().to_string(), "10.0.0.33");
        let first = conf.upstreams();
        assert!(Arc::ptr_eq(&first, &conf.upstreams()), "read once");
        fs::remove_file(&path).unwrap();
        assert_eq!(conf.upstreams().servers, local);
    }
}
