//! What a namespace's own files say about names, made of the host's: resolv.conf(5) and nsswitch.conf(5).

use std::net::Ipv4Addr;

/// Address at which the resolvers answer inside the namespaces; Docker's resolver has the same.
pub(super) const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// Greatest number of search domains and of options that are handed on.
const WORDS_MAX: usize = 32;
/// Options of the host that are not handed on. `ndots` is 0 inside, so that an endpoint's name is looked up before it
/// is looked up in a search domain; the others are about the choice between several servers, and the node follows them.
const NOT_HANDED_ON: [&str; 3] = ["ndots", "rotate", "use-vc"];

/// The parts of the host's resolv.conf that matter to the C library inside a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ClientConf {
    search: Vec<String>,
    options: Vec<String>,
}

impl ClientConf {
    pub(super) fn parse(host: &str) -> Self {
        let mut conf = Self::default();
        for line in host.lines() {
            let mut words = line.split_whitespace();
            let keyword = words.next().unwrap_or_default();
            let words = words.take_while(|word| !word.starts_with(['#', ';'])).map(str::to_owned);
            match keyword {
                // The last line of either counts.
                "search" => conf.search = words.take(WORDS_MAX).collect(),
                "domain" => conf.search = words.take(1).collect(),
                "options" => {
                    let is_handed_on = |word: &String| {
                        let name = word.split(':').next().unwrap_or_default();
                        !NOT_HANDED_ON.contains(&name)
                    };
                    conf.options.extend(words.filter(is_handed_on));
                    conf.options.truncate(WORDS_MAX);
                }
                _ => {}
            }
        }
        conf
    }

    /// The resolv.conf of a namespace. Where nothing leads outside, no search domain is of any use.
    pub(super) fn resolv_conf(&self, has_outside: bool) -> String {
        let mut text = format!("nameserver {RESOLVER}\n");
        if has_outside && !self.search.is_empty() {
            text.push_str(&format!("search {}\n", self.search.join(" ")));
        }
        let options = [&["ndots:0".to_owned()], self.options.as_slice()].concat();
        text.push_str(&format!("options {}\n", options.join(" ")));
        text
    }
}

/// The nsswitch.conf of a namespace; `None` if the host's serves there too.
///
/// The module `resolve` asks the host's systemd-resolved by a socket in the file system, which is the host's also inside
/// a namespace: it knows no endpoint, and it would answer where nothing leads outside.
pub(super) fn nsswitch(host: &str) -> Option<String> {
    let mut is_changed = false;
    let mut text = String::new();
    for line in host.lines() {
        let services = line.split('#').next().unwrap_or_default();
        match services.trim_start().strip_prefix("hosts:") {
            Some(services) if words(services).iter().any(|word| word == "resolve") => {
                is_changed = true;
                text.push_str(&format!("hosts: {}", without_resolve(services).join(" ")));
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    is_changed.then_some(text)
}

fn without_resolve(services: &str) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    let mut is_dropped = false;
    for word in words(services) {
        // What is in brackets belongs to the service before it.
        is_dropped = if word.starts_with('[') { is_dropped } else { word == "resolve" };
        if !is_dropped {
            kept.push(word);
        }
    }
    if !kept.iter().any(|word| word == "dns") {
        kept.push("dns".to_owned());
    }
    kept
}

/// The services, and the reactions in brackets as one word each.
fn words(services: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = services.trim_start();
    while !rest.is_empty() {
        let end = if rest.starts_with('[') {
            rest.find(']').map_or(rest.len(), |end| end + 1)
        } else {
            rest.find(|c: char| c.is_whitespace() || c == '[').unwrap_or(rest.len())
        };
        words.push(rest[..end].to_owned());
        rest = rest[end..].trim_start();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inside(host: &str) -> String {
        ClientConf::parse(host).resolv_conf(true)
    }

    #[test]
    fn search_domains_and_options_of_the_host_hold_inside() {
        assert_eq!(inside(""), "nameserver 127.0.0.11\noptions ndots:0\n");
        let host = "# search no\ndomain old.test\nsearch corp.test lab.corp.test # ours\n\
                    nameserver 10.0.0.1\noptions timeout:3 ndots:2 rotate\noptions attempts:1 use-vc edns0\n";
        assert_eq!(
            inside(host),
            "nameserver 127.0.0.11\nsearch corp.test lab.corp.test\n\
             options ndots:0 timeout:3 attempts:1 edns0\n"
        );
        assert!(inside("search a.test\ndomain b.test c.test\n").contains("\nsearch b.test\n"));
        assert!(!ClientConf::parse(host).resolv_conf(false).contains("search"));
        let many = format!("search {}\n", "x.test ".repeat(500));
        assert_eq!(inside(&many).matches("x.test").count(), WORDS_MAX);
    }

    #[test]
    fn a_service_that_asks_the_hosts_daemon_is_left_out() {
        let hosts = |line: &str| {
            nsswitch(&format!("passwd: files systemd\n{line}\nnetworks: files\n")).map(|text| {
                let lines: Vec<_> = text.lines().map(str::to_owned).collect();
                assert_eq!(
                    (lines.len(), &*lines[0], &*lines[2]),
                    (3, "passwd: files systemd", "networks: files")
                );
                lines[1].clone()
            })
        };
        for (before, after) in [
            (
                "hosts: resolve [!UNAVAIL=return] files myhostname dns",
                "hosts: files myhostname dns",
            ),
            ("hosts:files resolve[!UNAVAIL=return] dns # here", "hosts: files dns"),
            (
                "hosts: mymachines resolve [!UNAVAIL=return SUCCESS=continue]",
                "hosts: mymachines dns",
            ),
            (
                "  hosts: files [NOTFOUND=continue] resolve dns [NOTFOUND=return]",
                "hosts: files [NOTFOUND=continue] dns [NOTFOUND=return]",
            ),
        ] {
            assert_eq!(hosts(before).as_deref(), Some(after), "{before}");
        }
        for line in [
            "hosts: files dns",
            "# hosts: resolve",
            "hosts: files # resolve",
            "hosts: resolved",
            "",
        ] {
            assert_eq!(hosts(line), None, "{line}");
        }
    }
}
