//! What must not be done to a cluster on a bad day is refused in one sentence that says what helps, and leaves nothing half-made.
//! `docs/operations.md` lists these refusals.

use std::{fs, sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use overlay_lab::{Host, MachineState, SmallDisk, eventually, rows, text};

use crate::support::{NODES, refused_with, scenario};

/// An agent that can't take its seat tries again every half a minute.
const BOUND: Duration = Duration::from_secs(75);

/// Each node's name and role, as a host lists them.
fn roles(host: &Host) -> Result<Vec<(String, String)>> {
    let nodes = host.overlay_json(&["node", "ls"])?;
    let role = |node| (text(node, "name").to_owned(), text(node, "role").to_owned());
    Ok(rows(&nodes).iter().map(role).collect())
}

#[test]
fn the_last_voter_is_not_removed() {
    const NOBODY_ELSE: &str = "it is the cluster's only voter, and no other node that is up holds \
         the whole log yet; start another node or wait until one has caught up, then try again";
    const ALONE: &str = "it is the cluster's only voter; to end the cluster, end the node and run `overlay node reset`";
    scenario(NODES, |lab| {
        let hosts = lab.wired_pair(("h1", "10.10.10.101"), ("h2", "10.10.10.102"))?;
        lab.start_cluster(&hosts)?;
        let [h1, h2] = &hosts;
        h2.kill9()?;
        eventually("h2 is down", BOUND, || {
            let shown = h1.overlay_json(&["node", "inspect", "h2"])?;
            ensure!(text(&shown, "state") == "down", "{shown}");
            Ok(())
        })?;
        let refused = |removal: &str, leave: &str| -> Result<()> {
            let before = (roles(h1)?, MachineState::of(h1)?);
            refused_with(&h1.overlay_fails(&["node", "rm", "h1"])?, removal)?;
            refused_with(&h1.overlay_fails(&["node", "leave"])?, leave)?;
            ensure!(roles(h1)? == before.0, "{before:?} became {:?}", roles(h1)?);
            MachineState::of(h1)?.same_as(&before.1)
        };
        refused(NOBODY_ELSE, NOBODY_ELSE)?;
        h1.overlay(&["node", "rm", "h2"])?;
        refused(ALONE, "h1 is the whole cluster: end the node and run `overlay node reset`")?;
        h1.overlay(&["network", "create", "it-decides"])?;
        Ok(())
    });
}

#[test]
fn an_agent_without_room_takes_no_seat_until_there_is_some() {
    scenario(NODES, |lab| {
        let hosts = lab.four_hosts()?;
        let [h1, _, _, h4] = &hosts;
        let small = SmallDisk::mount(&h4.state_dir(), 8)?;
        lab.start_cluster(&hosts)?;
        small.fill(512 << 10)?;
        h1.overlay(&["node", "demote", "h3"])?;
        eventually("it says why it can't vote", BOUND, || {
            let log = h4.log();
            ensure!(log.contains("this node is to vote, and can't"), "{log}");
            ensure!(log.contains("has 0 MiB free, 4 are needed"), "{log}");
            Ok(())
        })?;
        eventually("the cluster says so, and does not take it for dead", BOUND, || {
            let status = h1.overlay_json(&["cluster", "status"])?.to_string();
            ensure!(
                status.contains("h4 is to hold the log and has not taken its seat"),
                "{status}"
            );
            ensure!(!status.contains("overlay node rm h4"), "{status}");
            Ok(())
        })?;
        let half_made = fs::read_dir(h4.state_dir())?
            .map(|file| Ok(file?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<Vec<String>>>()?;
        ensure!(!half_made.iter().any(|name| name.starts_with("consensus")), "{half_made:?}");
        ensure!(h4.is_running()?, "{}", h4.log());
        h4.overlay(&["network", "create", "by-the-agent"])?;
        small.free()?;
        eventually("it votes", BOUND, || {
            let voters = h1.voters()?;
            ensure!(voters == ["h1", "h2", "h4"], "{voters:?}");
            Ok(())
        })
    });
}

#[test]
fn a_node_with_the_listen_address_of_another_one_is_not_taken_in() {
    const SHARED: &str = "10.99.0.9";
    scenario(NODES, |lab| {
        let subnet = lab.subnet("10.10.10.1/24")?;
        let mut host =
            |last: u8| lab.host(&subnet, &format!("h{last}"), &format!("10.10.10.10{last}"));
        let [h1, h2, h3] = [host(1)?, host(2)?, host(3)?];
        for host in [&h2, &h3] {
            host.netns.ip(&["addr", "add", &format!("{SHARED}/32"), "dev", "lo"])?;
        }
        h1.netns.ip(&["route", "add", SHARED, "via", &h2.address.to_string()])?;
        h1.start_node(&[])?;
        let listen = format!("{SHARED}:7400");
        let join = h1.listen();
        let args = ["--join", &join, "--listen", &listen];
        h2.start_node(&args)?;
        eventually("h2 is there", BOUND, || {
            let ready = h1.ready_nodes()?;
            ensure!(ready == ["h1", "h2"], "{ready:?}");
            Ok(())
        })?;
        let before = MachineState::of(&h3)?;
        refused_with(
            &h3.node_fails(&args)?,
            "is where node h2 listens, which runs: give each node a --listen of its own",
        )?;
        MachineState::of(&h3)?.same_as(&before)?;
        ensure!(roles(&h1)?.len() == 2, "{:?}", roles(&h1)?);
        // The same folder serves with an address of its own.
        h3.start_node(&["--join", &join])?;
        ensure!(roles(&h1)?.len() == 3, "{:?}", roles(&h1)?);
        Ok(())
    });
}

#[test]
fn what_is_no_backup_of_this_cluster_is_not_restored() {
    scenario(NODES, |lab| {
        let hosts = lab.wired_pair(("h1", "10.10.10.101"), ("h2", "10.10.10.102"))?;
        let [h1, h2]: &[Arc<Host>; 2] = &hosts;
        lab.start_cluster(&hosts[..1])?;
        let path = |name: &str| lab.folder().join(name).display().to_string();
        let backup = path("backup");
        h1.overlay(&["cluster", "backup", &backup])?;
        h1.stop()?;

        let bytes = fs::read(&backup)?;
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 2] ^= 1;
        fs::write(path("flipped"), &flipped)?;
        fs::write(path("cut"), &bytes[..bytes.len() - 1])?;
        fs::write(path("text"), "a shopping list, which is none")?;
        let another = "00000000-0000-0000-0000-000000000008";
        let state_dir = h2.state_dir().display().to_string();
        eventually("the card has its link-local address", BOUND, || {
            let links = h2.netns.ip_json(&["addr", "show", "dev", "eth0"])?;
            let is_there =
                rows(&links[0]["addr_info"]).iter().any(|a| text(a, "family") == "inet6");
            ensure!(is_there, "{links}");
            Ok(())
        })?;
        let before = MachineState::of(h2)?;
        for (file, more, words) in [
            ("backup", &["--cluster", another][..], "not of 00000000-0000-0000-0000-000000000008"),
            ("backup", &["--name", "h9"], "it knows no node h9, but h1: say with --name"),
            ("flipped", &[], "it is damaged, or was cut off"),
            ("cut", &[], "it is damaged, or was cut off"),
            ("text", &[], "it is no backup of a cluster"),
            ("nowhere", &[], "it can't be read"),
        ] {
            let file = path(file);
            let name = if more.contains(&"--name") { &[][..] } else { &["--name", "h1"] };
            let words_of =
                [&["cluster", "restore", &file, "--state-dir", &state_dir][..], name, more]
                    .concat();
            refused_with(&h2.overlay_fails(&words_of)?, words)?;
            ensure!(!h2.state_dir().exists(), "{words}: something half-made is left");
        }
        MachineState::of(h2)?.same_as(&before)
    });
}
