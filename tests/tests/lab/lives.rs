//! A voter whose log is lost comes back under its own name: its host's endpoints do not notice, and three vote again.

use std::{fs, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use overlay_lab::{Host, eventually, number, patient, probe::Prober, rows, text};

use crate::support::{Cluster, NODES, address, cluster, copy_folder, refused_with, scenario};

const BOUND: Duration = Duration::from_secs(40);
const EVERY: Duration = Duration::from_millis(5);
const DATABASE: &str = "consensus.redb";

/// Puts files back into a folder whose disk is rolled back: each is the file that it was, with the content of the copy. No file
/// tells then that there was a copy: what says which files they are goes back with them.
fn roll_back(from: &Path, to: &Path) -> Result<()> {
    const WHICH: &str = "machine.json";
    for file in fs::read_dir(to)? {
        let file = file?;
        if !from.join(file.file_name()).exists() {
            fs::remove_file(file.path())?;
        }
    }
    let which = fs::read(to.join(WHICH))?;
    copy_folder(from, to)?;
    Ok(fs::write(to.join(WHICH), which)?)
}

/// Takes away the mark beside the socket, as a reboot does.
fn forget_the_mark(host: &Host) -> Result<()> {
    let socket = host.socket();
    for file in fs::read_dir(socket.parent().context("a folder")?)? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "mark") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// The node's row: its id, its epoch, and its Raft id.
fn row(asked: &Host, node: &Host) -> Result<[u64; 3]> {
    let shown = asked.overlay_json(&["node", "inspect", &node.name])?;
    Ok(["id", "epoch", "raft_id"].map(|field| number(&shown, field)))
}

/// Writes something, and waits until the node has it by its own state.
fn catches_up(writer: &Host, node: &Host, network: &str) -> Result<()> {
    eventually("a write succeeds", BOUND, || writer.overlay(&["network", "create", network]))?;
    eventually(&format!("{} has the write", node.name), BOUND, || {
        let held = node.overlay_json(&["network", "ls", "--stale"])?;
        ensure!(rows(&held["answer"]).iter().any(|row| text(row, "name") == network), "{held}");
        Ok(())
    })
}

fn three_vote(asked: &Host) -> Result<()> {
    eventually("three voters", BOUND, || {
        let voters = asked.voters()?;
        ensure!(voters == ["h1", "h2", "h3"], "{voters:?}");
        Ok(())
    })
}

/// Loses the log of h3, which has web2, by `lose`, while packets flow; `network` is the name of a network that is new.
fn comes_back(
    cluster: &Cluster,
    network: &str,
    lose: impl FnOnce(&Arc<Host>) -> Result<()>,
) -> Result<()> {
    let [h1, _, h3, _] = &cluster.hosts;
    let [id, epoch, life] = row(h1, h3)?;
    let [forth, back] = [(&cluster.web1, &cluster.web2), (&cluster.web2, &cluster.web1)]
        .map(|(from, to)| Prober::new(&from.netns, to.address).map(|it| it.start(patient(EVERY))));
    let (forth, back) = (forth?, back?);
    lose(h3)?;
    eventually("it is another member", BOUND, || {
        let now = row(h1, h3)?;
        ensure!(now[..2] == [id, epoch] && now[2] > life, "{now:?} after {:?}", [id, epoch, life]);
        Ok(())
    })?;
    h3.wait_until_serving()?;
    catches_up(h1, h3, network)?;
    three_vote(h1)?;
    let shown = h1.overlay_json(&["endpoint", "inspect", "web2"])?;
    let endpoint = shown.get("endpoint").unwrap_or(&shown);
    ensure!(address(endpoint)? == cluster.web2.address, "{shown}");
    forth.stop()?.none_lost()?;
    back.stop()?.none_lost()
}

#[test]
fn a_voter_whose_log_is_lost_comes_back_under_its_name_and_no_packet_is_lost() {
    scenario(NODES, |lab| {
        let cluster = cluster(lab)?;
        let [h1, h2, h3, _] = &cluster.hosts;
        three_vote(h1)?;
        let state = h3.state_dir();
        let old = lab.folder().join("old");

        // The disk is new.
        comes_back(&cluster, "after-gone", |h3| {
            h3.stop()?;
            fs::remove_file(state.join(DATABASE))?;
            h3.spawn_again()
        })?;

        // The folder is put back as a whole. On a machine that did not reboot, a mark beside it shows that it had more.
        h3.stop()?;
        copy_folder(&state, &old)?;
        h3.restart()?;
        three_vote(h1)?;
        catches_up(h1, h3, "since-the-copy")?;
        let put_back = |h3: &Arc<Host>| -> Result<()> {
            h3.stop()?;
            roll_back(&old, &state)
        };
        comes_back(&cluster, "after-put-back", |h3| {
            put_back(h3)?;
            h3.spawn_again()
        })?;

        // Its files are others, and that is enough: also where nothing is missing, and no mark tells.
        comes_back(&cluster, "after-a-copy", |h3| {
            h3.stop()?;
            let whole = lab.folder().join("whole");
            copy_folder(&state, &whole)?;
            // Not removed: a file system gives the number of a file that is gone to the next one.
            fs::rename(&state, lab.folder().join("aside"))?;
            fs::rename(&whole, &state)?;
            forget_the_mark(h3)?;
            h3.spawn_again()
        })?;

        // The same copy again is that of a life that is over by now.
        comes_back(&cluster, "after-another-life", |h3| {
            put_back(h3)?;
            forget_the_mark(h3)?;
            h3.spawn_again()
        })?;

        // The copy is one of the present life, and only the leader can tell that it is older.
        let copy_anew = |network: &str| -> Result<()> {
            h3.stop()?;
            fs::remove_dir_all(&old)?;
            copy_folder(&state, &old)?;
            h3.restart()?;
            three_vote(h1)?;
            catches_up(h1, h3, network)
        };
        copy_anew("since-the-second-copy")?;
        comes_back(&cluster, "after-word", |h3| {
            put_back(h3)?;
            forget_the_mark(h3)?;
            h3.spawn_again()
        })?;

        // No leader answers when the node starts with an old folder: the proof comes while it runs.
        copy_anew("since-the-third-copy")?;
        comes_back(&cluster, "after-proof", |h3| {
            put_back(h3)?;
            forget_the_mark(h3)?;
            // Raft's and the API's messages, and not those of endpoints.
            let lost = lab.lose_to(h3, "tcp sport 7400")?;
            let unheard = lab.lose_to(h3, "tcp dport 7400")?;
            h3.spawn_again()?;
            eventually("it serves without the others", BOUND, || h3.overlay(&["status"]))?;
            lost.heal()?;
            unheard.heal()
        })?;

        // It counts as any other: two of three decide with it.
        h2.kill9()?;
        catches_up(h1, h3, "by-two")
    });
}

#[test]
fn the_only_voter_says_what_to_do_when_its_log_is_lost() {
    scenario(NODES, |lab| {
        let hosts = lab.wired_pair(("h1", "10.10.10.101"), ("h2", "10.10.10.102"))?;
        let [h1, _] = &hosts;
        lab.start_cluster(&hosts[..1])?;
        h1.stop()?;
        fs::remove_file(h1.state_dir().join(DATABASE))?;
        let refused = h1.node_fails(&[])?;
        refused_with(&refused, "no other voter is known that has it")?;
        for way in ["overlay cluster restore", "overlay cluster recover", "overlay node reset"] {
            ensure!(refused.stderr.contains(way), "{}", refused.stderr);
        }
        Ok(())
    });
}
