//! Kernels from Debian's archive: downloaded and unpacked below target/kernels, not installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::archive::Archive;
use crate::exec::{capture, exec, find_program, target_dir};

/// The series under which the tests run: the oldest kernel that Debian still supports and that has the
/// features which the programs need, that of Debian's newest release, and the newest kernel in Debian.
pub(crate) const SERIES: [&str; 3] = ["6.1", "6.12", NEWEST];
/// The newest series, which only Debian's backports have.
const NEWEST: &str = "7";

/// A flavour of Debian's kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// Small, built for virtual machines, and with every device and filter that the project uses.
    Cloud,
    /// With the drivers of all network cards.
    Full,
}

impl Flavour {
    /// The end of its packages' names.
    fn suffix(self) -> &'static str {
        match self {
            Self::Cloud => "-cloud-amd64",
            Self::Full => "-amd64",
        }
    }
}

/// An unpacked kernel.
pub(crate) struct Kernel {
    /// The output of `uname -r` under this kernel: `6.1.0-50-cloud-amd64`.
    pub(crate) release: String,
    /// The folder of the unpacked package.
    folder: PathBuf,
}

impl Kernel {
    /// The image that is booted.
    pub(crate) fn image(&self) -> PathBuf {
        let image = self.folder.join(format!("boot/vmlinuz-{}", self.release));
        // From 7.0 on Debian's package has the image beside the modules.
        if image.exists() { image } else { self.modules().join("vmlinuz") }
    }

    /// The folder of the modules, with the file of their dependencies.
    pub(crate) fn modules(&self) -> PathBuf {
        self.folder.join("lib/modules").join(&self.release)
    }

    /// The modules that must be in the kernel before a module can be read from the host's file system, in the
    /// order in which they are inserted. Built-in modules are not among them.
    pub(crate) fn modules_to_insert(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        let mut files: Vec<PathBuf> = Vec::new();
        for name in names {
            let printed = capture(
                program("modprobe")?
                    .args(["--show-depends", "--set-version", &self.release, "--dirname"])
                    .arg(&self.folder)
                    .arg(name),
            )?;
            for file in printed.lines().filter_map(|line| line.strip_prefix("insmod ")) {
                let file = PathBuf::from(file.trim());
                if !files.contains(&file) {
                    files.push(file);
                }
            }
        }
        Ok(files)
    }
}

/// The newest kernel of a series in Debian's archive, which is fetched once. If the archive does not answer,
/// the newest kernel that was fetched before is used.
pub(crate) fn newest(series: &str, flavour: Flavour) -> Result<Kernel> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("other kernels run on x86-64 only: this machine is {}", std::env::consts::ARCH);
    }
    let store = target_dir().join("kernels");
    let (archive, package) = match in_archive((series, flavour), &store)? {
        Some((archive, package)) => (Some(archive), package),
        None => {
            let package = newest_of((series, flavour), fetched(&store)?).with_context(|| {
                let flavour = flavour.suffix();
                format!(
                    "apt knows no linux-image-{series}.*{flavour}: on Debian bookworm 6.1 is in main and 6.12 in \
                     bookworm-security; add the one that is missing to apt's sources and run apt-get \
                     update"
                )
            })?;
            (None, package)
        }
    };
    let release = package.trim_start_matches("linux-image-").to_owned();
    let folder = store.join(&package);
    // The folder is moved to this place as a whole, so an existing one is complete.
    if let (false, Some(archive)) = (folder.exists(), &archive) {
        fetch(archive, &package, &release, &store, &folder)?;
    }
    Ok(Kernel { release, folder })
}

/// The newest package of a series, and the archive that has it.
fn in_archive(
    (series, flavour): (&str, Flavour),
    store: &Path,
) -> Result<Option<(Archive, String)>> {
    let archive = match series {
        NEWEST => Archive::of_backports(store)?,
        _ => Archive::of_the_system(),
    };
    let pattern = format!("^linux-image-{}\\..*{}$", series.replace('.', "\\."), flavour.suffix());
    Ok(newest_of((series, flavour), archive.search(&pattern)?).map(|package| (archive, package)))
}

fn fetched(store: &Path) -> Result<Vec<String>> {
    if !store.exists() {
        return Ok(Vec::new());
    }
    let names = fs::read_dir(store)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into()));
    names.collect()
}

/// The package with the greatest version of a series. Meta-packages and unsigned images are ignored.
fn newest_of(wanted: (&str, Flavour), packages: Vec<String>) -> Option<String> {
    packages
        .into_iter()
        .max_by_key(|package| version(wanted, package))
        .filter(|package| version(wanted, package).is_some())
}

/// The numbers of a version below its series: [117, 12] for 6.12.117+deb12, and [0, 50] for 6.1.0-50.
fn version((series, flavour): (&str, Flavour), package: &str) -> Option<Vec<u32>> {
    let version = package.strip_prefix("linux-image-")?.strip_suffix(flavour.suffix())?;
    // The names of the other flavours have a word before the end.
    if version.ends_with("-cloud") || version.ends_with("-rt") {
        return None;
    }
    let rest = version.strip_prefix(series)?.strip_prefix('.')?;
    if !rest.chars().all(|c| c.is_ascii_alphanumeric() || ".+-".contains(c)) {
        return None;
    }
    let numbers = rest.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    numbers.map(|number| number.parse().ok()).collect()
}

fn fetch(
    archive: &Archive,
    package: &str,
    release: &str,
    store: &Path,
    folder: &Path,
) -> Result<()> {
    println!("kernels: fetching {package} into {}", store.display());
    let unfinished = store.join(format!("{package}.unfinished-{}", std::process::id()));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    fs::create_dir_all(&unfinished)
        .with_context(|| format!("cannot make {}", unfinished.display()))?;
    let done = unpack(archive, package, release, &unfinished).and_then(|()| {
        match fs::rename(&unfinished, folder) {
            // Another process has fetched the kernel meanwhile.
            Err(_) if folder.exists() => Ok(()),
            moved => moved.with_context(|| format!("cannot make {}", folder.display())),
        }
    });
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    done
}

fn unpack(archive: &Archive, package: &str, release: &str, folder: &Path) -> Result<()> {
    archive.download(&archive.with_parts(package, release)?, folder)?;
    let files: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    for file in files {
        exec(Command::new("dpkg-deb").arg("--extract").arg(&file).arg(folder))?;
        fs::remove_file(&file)?;
    }
    if !folder.join("lib").exists() {
        std::os::unix::fs::symlink("usr/lib", folder.join("lib"))?;
    }
    exec(program("depmod")?.arg("--basedir").arg(folder).arg(release))
}

fn program(name: &str) -> Result<Command> {
    let path = find_program(name).with_context(|| format!("{name} is missing (package kmod)"))?;
    Ok(Command::new(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_a_series_is_by_number() {
        let packages = [
            "linux-image-6.12-cloud-amd64",
            "linux-image-6.12.116+deb12-amd64",
            "linux-image-6.12.118+deb12-rt-amd64",
            "linux-image-6.12.9+deb12-cloud-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64",
            "linux-image-6.12.107+deb12-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.13.1-rt-amd64",
            "linux-image-7.0.13+deb13-cloud-amd64",
            "linux-image-7.3.4+deb13-cloud-amd64",
            "linux-image-7.10.1+deb13-cloud-amd64",
        ];
        let newest_of =
            |series, flavour| newest_of((series, flavour), packages.map(str::to_owned).to_vec());
        let newest = |series| newest_of(series, Flavour::Cloud);
        assert_eq!(newest("6.12").as_deref(), Some("linux-image-6.12.117+deb12-cloud-amd64"));
        assert_eq!(newest("6.1").as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(newest("7").as_deref(), Some("linux-image-7.10.1+deb13-cloud-amd64"));
        assert_eq!(newest("6.13"), None);
        assert_eq!(
            newest_of("6.12", Flavour::Full).as_deref(),
            Some("linux-image-6.12.116+deb12-amd64")
        );
    }
}
