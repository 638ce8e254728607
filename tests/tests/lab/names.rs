//! DNS names of endpoints, as `dig` and the C library resolve them.

use std::{
    collections::BTreeSet,
    fs,
    net::Ipv4Addr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use overlay_lab::{
    Host, Lab, Netns, command, dns, eventually, netns_files,
    outside::{LONG_NAME, LONG_TEXTS, MUTE_DOMAIN, OUTSIDE_NAME, RESOLVER_TIMEOUT_S},
    patient,
};

use crate::support::{Endpoint, OUTSIDE, World, attach, attach_to, knows, leg, scenario};

const AT_ONCE: Duration = Duration::from_millis(500);

/// Resolves a name as a program in the namespace would: with the C library and the namespace's own
/// resolv.conf.
fn getent(netns: &Netns, name: &str) -> Result<String> {
    let mut getent = Command::new("ip");
    getent.args(["netns", "exec", netns.name(), "getent", "ahostsv4", name]);
    command::run(&mut getent, Duration::from_secs(20))
}

fn reverse(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("{d}.{c}.{b}.{a}.in-addr.arpa")
}

#[test]
fn endpoints_have_names() {
    scenario(OUTSIDE, |lab| {
        let world = World::build(lab)?;
        let [h1, h2] = &world.hosts;
        h1.overlay(&["network", "create", "other", "--subnet", "10.1.0.0/24"])?;
        let web1 = attach(lab, h1, "web1", &[])?;
        let web2 = attach(lab, h2, "web2", &["--alias", "app", "--alias", "db"])?;
        let web3 = attach(lab, h1, "web3", &["--alias", "app"])?;
        let stranger = attach_to("other", h1, "stranger", lab.container("stranger")?, &[])?;
        let (two, three) = (web2.address.to_string(), web3.address.to_string());

        let inside = &web1.netns;
        for name in ["web2", "web2.", "web2.myoverlay", "WEB2.MyOverlay", "db", "db.myoverlay"] {
            inside.dig(&[name, "A"])?.is(&[&two])?;
            let by_tcp = inside.dig(&["+tcp", name, "A"])?;
            by_tcp.is(&[&two])?;
            ensure!(by_tcp.tcp, "{by_tcp:?}");
        }
        // An answer has EDNS if the query has it, and only then.
        let edns = inside.dig(&["+edns=0", "+bufsize=4096", "web2"])?;
        ensure!(edns.edns && edns.status == "NOERROR", "{edns:?}");
        let plain = inside.dig(&["+noedns", "web2"])?;
        ensure!(!plain.edns && plain.status == "NOERROR", "{plain:?}");
        ensure!(plain.flags.iter().any(|flag| flag == "ra"), "{plain:?}");

        // An alias of two endpoints: each answer has both addresses, and each address is sometimes the first.
        let mut first = BTreeSet::new();
        for _ in 0..16 {
            let answer = inside.dig(&["app", "A"])?;
            answer.is(&[&two, &three])?;
            first.insert(answer.records[0].clone());
        }
        ensure!(first.len() == 2, "always {first:?} first");

        inside.dig(&[&reverse(web2.address), "PTR"])?.is(&["web2.myoverlay."])?;
        for name in ["web2", "web2.myoverlay", "app"] {
            inside.dig(&[name, "AAAA"])?.is_empty("NOERROR")?;
        }
        // An endpoint resolves only the names of its own networks.
        stranger.netns.dig(&["web2"])?.is_empty("NXDOMAIN")?;
        stranger.netns.dig(&["web2.myoverlay"])?.is_empty("NXDOMAIN")?;
        stranger.netns.dig(&[&reverse(web2.address), "PTR"])?.is_empty("NXDOMAIN")?;
        inside.dig(&["stranger"])?.is_empty("NXDOMAIN")?;
        // A name below another network's name is not known here, so it goes to the host's resolvers, of which
        // there are none.
        inside.dig(&["stranger.other"])?.is_empty("REFUSED")?;
        // A namespace on both networks resolves the names of both.
        let both = attach_to("other", h1, "both", web1.netns.clone(), &[])?;
        inside.dig(&["stranger"])?.is(&[&stranger.address.to_string()])?;
        inside.dig(&["web2"])?.is(&[&two])?;
        stranger.netns.dig(&["both"])?.is(&[&both.address.to_string()])?;
        drop(web3);
        Ok(())
    });
}

#[test]
fn other_names_are_the_hosts_resolvers_business() {
    scenario(OUTSIDE, |lab| {
        let (world, _) = World::bare(lab)?;
        let ([h1, h2], outside) = (&world.hosts, &world.outside);
        // As on many hosts, h2's resolver is on its loopback address. The first resolver that its file names
        // is dead.
        let knows = "--host-record=here.example.test,198.51.100.8";
        lab.adopt(dns::serve(&h2.netns, Ipv4Addr::LOCALHOST, &[knows])?);
        let own = lab.folder().join("resolv-h2.conf");
        let dead = h2.address;
        fs::write(
            &own,
            format!("nameserver {dead}\nnameserver 127.0.0.1\noptions timeout:1 attempts:1\n"),
        )?;
        h1.start_node(&["--resolv-conf", &world.resolv_conf()])?;
        let own = own.display().to_string();
        h2.start_node(&["--resolv-conf", &own, "--join", &h1.listen()])?;
        crate::support::create_network(h1)?;
        let web1 = attach(lab, h1, "web1", &[])?;
        let web2 = attach(lab, h2, "web2", &[])?;
        let inside = &web1.netns;

        let (name, address) = OUTSIDE_NAME;
        inside.dig(&[name])?.is(&[address])?;
        inside.dig(&["+tcp", name])?.is(&[address])?;
        let from = format!("query[A] {name} from {}", h1.address);
        ensure!(outside.dns.log().contains(&from), "not {from}: {}", outside.dns.log());
        web2.netns.dig(&["here.example.test"])?.is(&["198.51.100.8"])?;
        inside.dig(&["nosuch.example.test"])?.is_empty("NXDOMAIN")?;
        inside.dig(&[name, "AAAA"])?.is_empty("NOERROR")?;
        // The answer is too long for a datagram: it is cut and marked as cut, and it is whole by TCP.
        let cut = inside.dig(&["+ignore", "+bufsize=1232", LONG_NAME, "TXT"])?;
        ensure!(cut.flags.iter().any(|flag| flag == "tc"), "{cut:?}");
        let whole = inside.dig(&[LONG_NAME, "TXT"])?;
        let texts: usize = whole.records.iter().map(|r| r.split_whitespace().count()).sum();
        ensure!(whole.tcp && texts == LONG_TEXTS, "{texts} texts, by TCP: {}", whole.tcp);

        // A name of one label is an endpoint's or none at all, and is not sent to any other resolver.
        let nothing = inside.dig(&["nosuch"])?;
        nothing.is_empty("NXDOMAIN")?;
        ensure!(nothing.took < patient(AT_ONCE), "{nothing:?}");
        inside.dig(&[&format!("nosuch{}", "."), "AAAA"])?.is_empty("NXDOMAIN")?;
        ensure!(!outside.dns.log().contains("] nosuch from"), "{}", outside.dns.log());

        // A query without an answer from the resolver ends in SERVFAIL within the time-out, and never hangs.
        for transport in ["+notcp", "+tcp"] {
            let failed = inside.dig(&[transport, &format!("a.{MUTE_DOMAIN}")])?;
            failed.is_empty("SERVFAIL")?;
            let patience = Duration::from_secs(RESOLVER_TIMEOUT_S) + Duration::from_secs(1);
            ensure!(failed.took <= patient(patience), "{failed:?}");
        }
        // A file without a resolver, and one whose resolver is not reachable.
        for content in ["", "nameserver 192.0.2.99\noptions timeout:1 attempts:1\n"] {
            h1.stop()?;
            fs::write(&outside.resolv_conf, content)?;
            h1.restart()?;
            let failed = eventually("names are answered again", Duration::from_secs(5), || {
                inside.dig(&[name])
            })?;
            failed.is_empty("SERVFAIL").with_context(|| content.to_owned())?;
            ensure!(failed.took <= patient(Duration::from_secs(3)), "{failed:?}");
            inside.dig(&["web2"])?.is(&[&web2.address.to_string()])?;
        }
        Ok(())
    });
}

#[test]
fn names_of_the_overlay_and_of_internal_networks_never_leave() {
    scenario(OUTSIDE, |lab| {
        let world = World::build(lab)?;
        let [h1, h2] = &world.hosts;
        let web1 = attach(lab, h1, "web1", &[])?;
        let web2 = attach(lab, h2, "web2", &[])?;
        h1.overlay(&["network", "create", "inner", "--subnet", "10.1.0.0/24", "--internal"])?;
        let secret = attach_to("inner", h1, "secret", lab.container("secret")?, &[])?;
        let inside = &secret.netns;
        inside.dig(&["secret"])?.is(&[&secret.address.to_string()])?;
        for arguments in [
            &["data.example.test"][..],
            &["+tcp", "data.example.test", "TXT"],
            &["data", "TXT"],
            &[&reverse(OUTSIDE_NAME.1.parse()?), "PTR"],
            &["web2.myoverlay"],
        ] {
            let refused = inside.dig(arguments)?;
            refused.is_empty("REFUSED")?;
            ensure!(!refused.flags.iter().any(|flag| flag == "ra"), "{refused:?}");
        }
        inside.dig(&["data.inner"])?.is_empty("NXDOMAIN")?;

        // A name that an endpoint had does not become somebody else's.
        web1.netns.dig(&["web2.myoverlay"])?.is(&[&web2.address.to_string()])?;
        h2.overlay(&["endpoint", "rm", "web2"])?;
        web1.netns.dig(&["web2.myoverlay"])?.is_empty("NXDOMAIN")?;
        web1.netns.dig(&["a.web2.myoverlay", "TXT"])?.is_empty("NXDOMAIN")?;
        // Top-level domains are asked for by resolvers inside. The outside's server serves none.
        web1.netns.dig(&["com", "DS"])?.is_empty("REFUSED")?;
        let log = world.outside.dns.log();
        ensure!(log.contains("query[DS] com from"), "{log}");
        let mut questions = log.lines().filter(|line| line.contains("query["));
        let left = questions.find(|line| line.contains("data") || line.contains("myoverlay"));
        ensure!(left.is_none(), "{left:?}");
        // The namespace gets a way out by a second endpoint, and loses it with that.
        attach_to("myoverlay", h1, "open", inside.clone(), &[])?;
        inside.dig(&[OUTSIDE_NAME.0])?.is(&[OUTSIDE_NAME.1])?;
        h1.overlay(&["endpoint", "rm", "open"])?;
        inside.dig(&[OUTSIDE_NAME.0])?.is_empty("REFUSED")
    });
}

#[test]
fn a_namespace_finds_its_resolver() {
    scenario(OUTSIDE, |lab| {
        let world = World::build(lab)?;
        let [h1, h2] = &world.hosts;
        let files = || netns_files(lab.prefix());
        ensure!(files()?.is_empty(), "{:?}", files()?);
        // A resolv.conf that somebody else wrote is left alone.
        let own = lab.container("own")?;
        let folder = Path::new("/etc/netns").join(own.name());
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("resolv.conf"), "nameserver 203.0.113.10\n")?;
        let before = files()?;

        let web1 = attach(lab, h1, "web1", &[])?;
        let web2 = attach(lab, h2, "web2", &["--alias", "app"])?;
        let stays = attach_to("myoverlay", h1, "stays", own.clone(), &[])?;
        let path = Path::new("/etc/netns").join(web1.netns.name()).join("resolv.conf");
        let content = fs::read_to_string(&path)?;
        ensure!(content.lines().any(|line| line == "nameserver 127.0.0.11"), "{content}");
        for name in ["web2", "web2.myoverlay", "app"] {
            let found = getent(&web1.netns, name)?;
            ensure!(found.starts_with(&web2.address.to_string()), "{name}: {found}");
        }
        let found = getent(&web1.netns, OUTSIDE_NAME.0)?;
        ensure!(found.starts_with(OUTSIDE_NAME.1), "{found}");
        let begun = Instant::now();
        ensure!(getent(&web1.netns, "nosuch").is_err());
        ensure!(begun.elapsed() < patient(Duration::from_secs(2)), "{:?}", begun.elapsed());
        let kept = fs::read_to_string(folder.join("resolv.conf"))?;
        ensure!(kept == "nameserver 203.0.113.10\n", "{kept}");
        own.dig(&["web2"])?.is(&[&web2.address.to_string()])?;

        // The file is still needed by a second endpoint in the namespace.
        h1.overlay(&["network", "create", "other", "--subnet", "10.1.0.0/24"])?;
        attach_to("other", h1, "second", web1.netns.clone(), &[])?;
        h1.overlay(&["endpoint", "rm", "web1"])?;
        ensure!(path.exists(), "{} is gone", path.display());
        // A name of a network that the namespace has left is no longer resolved.
        web1.netns.dig(&["web2"])?.is_empty("NXDOMAIN")?;
        h1.overlay(&["endpoint", "rm", "second", "stays"])?;
        h2.overlay(&["endpoint", "rm", "web2"])?;
        drop(stays);
        eventually("the files are as before", Duration::from_secs(5), || {
            let now = files()?;
            if now == before { Ok(()) } else { bail!("{now:?}") }
        })?;
        ensure!(web1.netns.dig_at(Ipv4Addr::new(127, 0, 0, 11), &["+time=1", "web2"]).is_err());
        Ok(())
    });
}

#[test]
fn a_name_is_there_as_long_as_the_data_path_has_its_endpoint() {
    scenario(OUTSIDE, |lab| {
        let world = World::build(lab)?;
        let [h1, h2] = &world.hosts;
        let web1 = attach(lab, h1, "web1", &[])?;
        web1.netns.dig(&["web2"])?.is_empty("NXDOMAIN")?;
        // When the creation returns, the name is known, also on the other node.
        let web2 = attach(lab, h2, "web2", &[])?;
        web1.netns.dig(&["web2"])?.is(&[&web2.address.to_string()])?;
        web2.netns.dig(&["web1"])?.is(&[&web1.address.to_string()])?;
        h2.overlay(&["endpoint", "rm", "web2"])?;
        web1.netns.dig(&["web2"])?.is_empty("NXDOMAIN")?;
        web1.netns.dig(&[&reverse(web2.address), "PTR"])?.is_empty("NXDOMAIN")?;

        // With `--no-wait` a name is not known before the endpoint is in the maps.
        let netns = lab.container("web3")?;
        let create = ["endpoint", "create", "web3", "--network", "myoverlay", "--no-wait"];
        h2.overlay(&[&create[..], &["--netns", netns.name()]].concat())?;
        let address = eventually("web3 has a name", Duration::from_secs(5), || {
            let answer = web1.netns.dig(&["web3"])?;
            answer.records.first().cloned().with_context(|| format!("{answer:?}"))
        })?;
        ensure!(knows(h1, address.parse()?)?, "{address} is not among h1's neighbours");
        h2.overlay(&["endpoint", "rm", "web3", "--no-wait"])?;
        eventually("web3 has no name", Duration::from_secs(5), || {
            web1.netns.dig(&["web3"])?.is_empty("NXDOMAIN")
        })
    });
}

/// Makes sure that the log of every voter contains everything that was created before, however soon it dies.
/// A new commit index alone is written within a tick, or together with the next entry.
fn logged(host: &Host) -> Result<()> {
    host.overlay(&["network", "create", "later", "--subnet", "10.2.0.0/24"])?;
    Ok(())
}

/// Kills a node, restarts it, and checks that a name is answered there within a second.
fn answers_again(endpoint: &Endpoint, neighbour: &Endpoint) -> Result<()> {
    let host = &endpoint.host;
    let before = leg(&endpoint.netns)?.address;
    logged(host)?;
    host.kill9()?;
    host.spawn_again()?;
    eventually("names are answered again", Duration::from_secs(1), || {
        let answer = endpoint.netns.dig(&["+time=1", &neighbour.name])?;
        answer.is(&[&neighbour.address.to_string()])
    })?;
    endpoint.netns.dig(&[OUTSIDE_NAME.0])?.is(&[OUTSIDE_NAME.1])?;
    ensure!(leg(&endpoint.netns)?.address == before, "the leg was renumbered");
    host.wait_until_serving()
}

/// Creates two endpoints on each of two nodes, and returns those of the leader first, then those of the
/// follower.
fn leader_and_follower(lab: &Lab, world: &World) -> Result<[[Endpoint; 2]; 2]> {
    let [h1, h2] = &world.hosts;
    let on_h1 = [attach(lab, h1, "web1", &[])?, attach(lab, h1, "near1", &[])?];
    let on_h2 = [attach(lab, h2, "web2", &[])?, attach(lab, h2, "near2", &[])?];
    Ok(if h1.leader()? == "h1" { [on_h1, on_h2] } else { [on_h2, on_h1] })
}

#[test]
fn names_are_back_within_a_second_of_a_restart() {
    scenario(OUTSIDE, |lab| {
        let world = World::build(lab)?;
        let [_, [web, near]] = leader_and_follower(lab, &world)?;
        answers_again(&web, &near)
    });
}

#[test]
fn names_are_back_within_a_second_of_the_leaders_restart() {
    scenario(OUTSIDE, |lab| {
        let world = World::build(lab)?;
        let [[web, near], _] = leader_and_follower(lab, &world)?;
        answers_again(&web, &near)
    });
}

#[test]
fn names_are_back_after_a_restart_that_finds_no_quorum() {
    scenario(OUTSIDE, |lab| {
        let world = World::build(lab)?;
        let [[other, _], [web, near]] = leader_and_follower(lab, &world)?;
        logged(&other.host)?;
        other.host.kill9()?;
        web.host.kill9()?;
        // Packets are still forwarded, and names must be resolved soon as well.
        web.netns.reaches(near.address)?;
        web.host.spawn_again()?;
        eventually("names are answered again", Duration::from_secs(5), || {
            web.netns.dig(&["+time=1", &near.name])?.is(&[&near.address.to_string()])
        })
    });
}
