//! The lab itself, on which the other scenarios rely.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use overlay_lab::{BPFFS, Lab, Requirement, page, patient, probe::Prober};

use crate::support::scenario;

const NAMESPACES: &[Requirement] = &[Requirement::Root, Requirement::Tool("ping")];

#[test]
fn every_host_reaches_every_other_through_the_router() {
    scenario(NAMESPACES, |lab| {
        let hosts = lab.four_hosts()?;
        for from in &hosts {
            for to in &hosts {
                from.netns.reaches(to.address)?;
            }
        }
        Ok(())
    });
}

#[test]
fn a_probe_counts_what_a_wire_loses() {
    scenario(NAMESPACES, |lab| {
        let [a, b] = lab.wired_pair(("a", "10.0.0.1"), ("b", "10.0.0.2"))?;
        let first = Prober::new(&a.netns, b.address)?.first_reply(Duration::from_secs(5))?;
        ensure!(first < patient(Duration::from_secs(1)), "{first:?}");
        let probe = Prober::new(&a.netns, b.address)?.start(Duration::from_millis(2));
        a.netns.ping(b.address, 50)?;
        let counted = probe.stop()?;
        counted.none_lost()?;
        ensure!(counted.sent > 50, "{counted:?}");

        let probe = Prober::new(&a.netns, b.address)?.start(Duration::from_millis(2));
        b.netns.ip(&["link", "set", "eth0", "down"])?;
        a.netns.ping(b.address, 5)?;
        let counted = probe.stop()?;
        ensure!(counted.received < counted.sent, "{counted:?}");
        ensure!(counted.none_lost().is_err());
        Ok(())
    });
}

#[test]
fn a_page_is_served_in_its_namespace() {
    scenario(&[Requirement::Root, Requirement::Tool("curl")], |lab| {
        let web = lab.container("web")?;
        page::serve_in(&web, "from web")?;
        let page = web.curl("http://127.0.0.1/")?;
        ensure!(page.trim() == "from web", "{page}");
        let other = lab.container("other")?;
        ensure!(other.curl("http://127.0.0.1/").is_err(), "another namespace serves it too");
        Ok(())
    });
}

#[test]
fn nothing_of_a_lab_remains_also_after_a_panic() {
    scenario(NAMESPACES, |_| {
        let mut made = None;
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let mut lab = Lab::new().expect("a lab");
            made = Some((lab.prefix().to_owned(), lab.folder().to_owned()));
            let hosts = lab.four_hosts().expect("hosts");
            fs::create_dir(Path::new(BPFFS).join(format!("{}h1", lab.prefix()))).ok();
            let mut sleeper = hosts[0].netns.start(&["sleep", "600"]).expect("a program");
            assert!(sleeper.is_running().expect("its state"));
            panic!("a test fails here");
        }));
        ensure!(panicked.is_err());
        let (prefix, folder) = made.context("a lab was made")?;
        ensure!(!folder.exists(), "{} remains", folder.display());
        for place in ["/run/netns", BPFFS] {
            for entry in fs::read_dir(place)? {
                let name = entry?.file_name();
                ensure!(
                    !name.to_string_lossy().starts_with(&prefix),
                    "{name:?} remains in {place}"
                );
            }
        }
        Ok(())
    });
}
