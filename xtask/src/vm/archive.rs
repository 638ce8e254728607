//! Debian's archive: as apt knows it on this machine, and Debian's backports beside it, in a folder of their own,
//! so that the machine's own sources stay as they are.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::exec::{capture, exec};

/// The suite with the newest kernels.
const BACKPORTS: &str = "trixie-backports";
/// What signs it; Debian 12 has it already.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Lists that are older are asked for again.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);

/// Where packages are looked for.
pub(super) struct Archive {
    /// Instead of the system's configuration.
    config: Option<PathBuf>,
    /// When its lists were last fetched, as a file's time.
    stamp: Option<PathBuf>,
}

impl Archive {
    /// As apt is set up on this machine.
    pub(super) fn of_the_system() -> Self {
        Self { config: None, stamp: None }
    }

    /// Debian's backports, their lists below `store`, from the mirror that this machine uses.
    pub(super) fn of_backports(store: &Path) -> Result<Self> {
        let folder = store.join("apt");
        for below in ["lists/partial", "cache/archives/partial", "preferences.d"] {
            fs::create_dir_all(folder.join(below))?;
        }
        let mirror = mirror().context("apt's sources name no mirror of Debian")?;
        let sources = folder.join("sources.list");
        fs::write(&sources, format!("deb [signed-by={KEYRING}] {mirror} {BACKPORTS} main\n"))?;
        let at = |below: &str| folder.join(below).display().to_string();
        let config = folder.join("apt.conf");
        let text = format!(
            "Dir::Etc::sourcelist \"{}\";\nDir::Etc::sourceparts \"-\";\nDir::Etc::preferencesparts \"{}\";\n\
             Dir::State::lists \"{}\";\nDir::Cache \"{}\";\n",
            sources.display(),
            at("preferences.d"),
            at("lists"),
            at("cache")
        );
        fs::write(&config, text)?;
        Ok(Self { config: Some(config), stamp: Some(folder.join("updated")) })
    }

    /// The packages whose name a pattern finds, after a look at the archive where none is known, or where
    /// what is known is old. Where the archive does not answer, what is known must do.
    pub(super) fn search(&self, pattern: &str) -> Result<Vec<String>> {
        let known = self.known(pattern)?;
        if !known.is_empty() && self.is_fresh() {
            return Ok(known);
        }
        println!("kernels: apt-get update, for {pattern}");
        let updated = exec(self.apt("apt-get").args(["update", "-q"]));
        match (updated, &self.stamp) {
            (Ok(()), Some(stamp)) => fs::write(stamp, "")?,
            (Ok(()), None) => {}
            (Err(error), _) => println!("kernels: {error:#}"),
        }
        self.known(pattern)
    }

    fn known(&self, pattern: &str) -> Result<Vec<String>> {
        let text = capture(self.apt("apt-cache").args(["search", "--names-only", pattern]))?;
        Ok(text
            .lines()
            .filter_map(|line| Some(line.split_whitespace().next()?.to_owned()))
            .collect())
    }

    /// The system's own lists are its administrator's to update.
    fn is_fresh(&self) -> bool {
        let Some(stamp) = &self.stamp else { return true };
        let age = fs::metadata(stamp).and_then(|stamp| stamp.modified()).map(|time| time.elapsed());
        age.is_ok_and(|age| age.is_ok_and(|age| age < FRESH))
    }

    /// A package, and of those that it depends on the ones of the same release: from 7.0 on Debian has a
    /// kernel in several.
    pub(super) fn with_parts(&self, package: &str, release: &str) -> Result<Vec<String>> {
        let text = capture(self.apt("apt-cache").args(["depends", "--important", package]))?;
        let parts = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .filter(|part| part.starts_with("linux-") && part.ends_with(release))
            .map(str::to_owned);
        Ok([package.to_owned()].into_iter().chain(parts).collect())
    }

    /// Downloads packages into a folder.
    pub(super) fn download(&self, packages: &[String], folder: &Path) -> Result<()> {
        let mut command = self.apt("apt-get");
        // apt's own user may not write below our folder.
        command.args(["-q", "-o", "APT::Sandbox::User=root", "download"]).args(packages);
        exec(command.current_dir(folder))
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.envs(self.config.iter().map(|config| ("APT_CONFIG", config)));
        command
    }
}

/// The mirror of Debian's main archive that this machine's sources name.
fn mirror() -> Option<String> {
    let folder = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
    let files = [PathBuf::from("/etc/apt/sources.list")].into_iter();
    files
        .chain(folder.map(|entry| entry.path()))
        .find_map(|file| mirror_in(&fs::read_to_string(file).ok()?))
}

/// In either format of such a file.
fn mirror_in(sources: &str) -> Option<String> {
    sources
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(str::split_whitespace)
        .filter(|word| word.contains("://"))
        .find(|word| word.trim_end_matches('/').ends_with("/debian"))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_found_in_either_format() {
        let new = "Types: deb\n# http://other.test/debian\nURIs: http://mirror.test/debian\nSuites: bookworm\n";
        assert_eq!(mirror_in(new).as_deref(), Some("http://mirror.test/debian"));
        let old = "deb http://mirror.test/debian-security bookworm-security main\n\
                   deb [signed-by=/k.gpg] https://mirror.test/debian/ bookworm main\n";
        assert_eq!(mirror_in(old).as_deref(), Some("https://mirror.test/debian/"));
        assert_eq!(mirror_in("deb http://mirror.test/ubuntu noble main"), None);
    }
}
