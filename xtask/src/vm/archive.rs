//! Debian's archive in two forms: as apt on this machine is set up, and Debian's backports with apt's files
//! in a separate folder, so that the machine's own sources stay unchanged.

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
/// The key that signs the archive. Debian 12 has it.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Age at which package lists are fetched again.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);

/// An archive in which packages are searched.
pub(super) struct Archive {
    /// apt's configuration, if it is not the system's.
    config: Option<PathBuf>,
    /// A file whose time is that of the last fetch of the package lists.
    stamp: Option<PathBuf>,
}

impl Archive {
    /// The archive as apt on this machine is set up.
    pub(super) fn of_the_system() -> Self {
        Self { config: None, stamp: None }
    }

    /// Debian's backports from the mirror that this machine uses, with their package lists below `store`.
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

    /// The packages whose names match a pattern. The package lists are updated first if they have no such
    /// package or are old. If the archive does not answer, the old lists are used.
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

    /// Returns true if the package lists are new enough. The system's own lists count as fresh, because
    /// updating them is the administrator's task.
    fn is_fresh(&self) -> bool {
        let Some(stamp) = &self.stamp else { return true };
        let age = fs::metadata(stamp).and_then(|stamp| stamp.modified()).map(|time| time.elapsed());
        age.is_ok_and(|age| age.is_ok_and(|age| age < FRESH))
    }

    /// A package, and those packages of the same release on which it depends, because from 7.0 on Debian
    /// splits a kernel into several packages.
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
        // apt's own user has no right to write below this folder.
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

/// Finds the mirror in a file of sources, in either of apt's formats.
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
