//! Many endpoints on one node, which leave nothing behind when they are removed.

use std::{collections::BTreeSet, fs, thread, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use overlay_lab::{Host, MachineState, eventually, mirror, netns_files, rows, text};

use crate::support::{NETWORK, NODES, scenario};

const ENDPOINTS: usize = 200;
const FIRST_PORT: usize = 20_000;
/// Number of commands that run at the same time.
const HANDS: usize = 8;

#[test]
fn two_hundred_published_endpoints_leave_nothing_behind() {
    scenario(NODES, |lab| {
        let [h1, h2] = lab.wired_pair(("h1", "10.10.10.101"), ("h2", "10.10.10.102"))?;
        h1.start_node(&[])?;
        h1.overlay(&["network", "create", NETWORK, "--subnet", "10.1.0.0/22"])?;
        let names: Vec<String> = (0..ENDPOINTS).map(|number| format!("e{number}")).collect();
        let containers = names.iter().map(|name| lab.container(name));
        let containers = containers.collect::<Result<Vec<_>>>()?;
        let before = (MachineState::of(&h1)?, netns_files(lab.prefix())?, etc_netns()?);

        let numbers: Vec<usize> = (0..ENDPOINTS).collect();
        in_parallel(&numbers, |&number| {
            let publish = format!("{}:80", FIRST_PORT + number);
            let create = ["endpoint", "create", &names[number], "--network", NETWORK];
            let place = ["--netns", containers[number].name(), "-p", &publish, "--no-wait"];
            h1.overlay(&[create, place].concat()).map(drop)
        })?;
        all_are_up(&h1)?;
        let files = netns_files(lab.prefix())?;
        ensure!(files.keys().filter(|path| path.ends_with("resolv.conf")).count() == ENDPOINTS);
        for number in [0, ENDPOINTS / 2, ENDPOINTS - 1] {
            mirror::tcp(&containers[number], 80)?;
            let port = u16::try_from(FIRST_PORT + number)?;
            eventually("the port leads there", Duration::from_secs(10), || {
                h2.netns.seen_over_tcp(h1.address, port)
            })?;
            let to = names[ENDPOINTS - 1 - number].as_str();
            let answer = containers[number].dig(&[to])?;
            ensure!(answer.records.len() == 1, "{answer:?}");
        }

        in_parallel(&names.chunks(ENDPOINTS / HANDS).collect::<Vec<_>>(), |names| {
            let words = ["endpoint", "rm", "--no-wait"].into_iter();
            h1.overlay(&words.chain(names.iter().map(String::as_str)).collect::<Vec<_>>()).map(drop)
        })?;
        eventually("nothing is left", Duration::from_secs(30), || {
            MachineState::of(&h1)?.same_as(&before.0)?;
            let now = netns_files(lab.prefix())?;
            ensure!(now == before.1 && etc_netns()? == before.2, "{now:?}");
            Ok(())
        })?;
        for netns in &containers {
            ensure!(netns.links()? == ["lo"], "{}: {:?}", netns.name(), netns.links()?);
        }
        // Anybody can bind each port again.
        h1.netns.enter(|| {
            for number in 0..ENDPOINTS {
                let port = u16::try_from(FIRST_PORT + number)?;
                std::net::TcpListener::bind(("0.0.0.0", port)).with_context(|| port.to_string())?;
            }
            Ok(())
        })
    });
}

/// Returns true if the folder for all namespaces' files exists.
fn etc_netns() -> Result<bool> {
    Ok(fs::exists("/etc/netns")?)
}

fn all_are_up(host: &Host) -> Result<()> {
    eventually("all are up", Duration::from_secs(60), || {
        let listed = host.overlay_json(&["endpoint", "ls"])?;
        let up: BTreeSet<&str> = rows(&listed)
            .iter()
            .filter(|row| text(row, "state") == "up")
            .map(|row| text(row, "name"))
            .collect();
        if up.len() == ENDPOINTS { Ok(()) } else { bail!("{} are", up.len()) }
    })
}

/// Calls `work` for each element, from several threads. Returns the first failure.
fn in_parallel<T: Sync>(all: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let share = all.len().div_ceil(HANDS).max(1);
        let hands: Vec<_> = all
            .chunks(share)
            .map(|share| scope.spawn(|| share.iter().try_for_each(&work)))
            .collect();
        hands.into_iter().try_for_each(|hand| match hand.join() {
            Ok(result) => result,
            Err(_) => bail!("a hand panicked"),
        })
    })
}
