//! resolv.conf of the namespaces that `ip netns` made: `ip netns exec NAME` puts what is in
//! /etc/netns/NAME over /etc for the command that it runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use super::upstream::{RESOLVER, Stamp};

/// How the first line of every such file begins. The rest of the line names whose it is: several
/// nodes may run on one machine.
const MARKER: &str = "# Written by overlay node ";
const NETNS_FOLDERS: [&str; 2] = ["/run/netns", "/var/run/netns"];
const FILE: &str = "resolv.conf";

/// The files of one node.
#[derive(Debug, Clone)]
pub(super) struct Files {
    folder: PathBuf,
    text: String,
    /// What stood where it was last seen to be right, by namespace.
    seen: BTreeMap<String, Stamp>,
    /// Leftovers of an earlier run were removed.
    swept: bool,
    /// The folder did not exist before us.
    made_folder: bool,
}

/// Whose a file is.
#[derive(Debug, PartialEq, Eq)]
enum Owner {
    Nobody,
    Us,
    OtherNode,
    Somebody,
}

/// The name that `ip netns` knows a namespace by.
pub(super) fn netns_name(path: &Path) -> Option<&str> {
    let folder = path.parent()?;
    let named = NETNS_FOLDERS.iter().any(|known| folder == Path::new(known));
    path.file_name().filter(|_| named)?.to_str()
}

impl Files {
    pub(super) fn new(folder: PathBuf, node: &str) -> Self {
        // One line, whatever the node is called.
        let node: String = node.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let text = format!(
            "{MARKER}{node}, which removes it with its endpoint. Without this line it is left alone.\n\
             nameserver {RESOLVER}\noptions ndots:0\n"
        );
        Self { folder, text, seen: BTreeMap::new(), swept: false, made_folder: false }
    }

    /// Makes the files be those of `wanted`, and returns what stands in the way, a line each.
    pub(super) fn sync(&mut self, wanted: &BTreeSet<String>) -> Vec<String> {
        let mut trouble = Vec::new();
        let mut stale: BTreeSet<String> =
            self.seen.keys().filter(|name| !wanted.contains(*name)).cloned().collect();
        if !self.swept {
            match self.leftovers(wanted) {
                Ok(found) => {
                    stale.extend(found);
                    self.swept = true;
                }
                Err(error) => trouble.push(format!("{}: {error}", self.folder.display())),
            }
        }
        for name in stale {
            match self.remove(&name) {
                Ok(()) => {
                    self.seen.remove(&name);
                }
                Err(error) => trouble.push(format!("{}: {error}", self.path(&name).display())),
            }
        }
        for name in wanted {
            if let Err(why) = self.write(name) {
                trouble.push(why);
            }
        }
        if wanted.is_empty() && self.made_folder && remove_if_empty(&self.folder).is_ok() {
            self.made_folder = false;
        }
        trouble
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name).join(FILE)
    }

    fn write(&mut self, name: &str) -> Result<(), String> {
        let path = self.path(name);
        let stamp = fs::metadata(&path).map(|meta| Stamp::of(&meta)).ok();
        if stamp.is_some() && self.seen.get(name) == stamp.as_ref() {
            return Ok(());
        }
        self.seen.remove(name);
        let failed = |error: io::Error| format!("{} could not be written: {error}", path.display());
        match self.owner(&path).map_err(failed)? {
            Owner::Somebody => Err(format!(
                "{} is not ours and was left alone: names of the overlay are asked at {RESOLVER}; add that as its nameserver, or remove the file",
                path.display()
            )),
            // Of another node, or of ours by an earlier name: the namespace is served by us now.
            Owner::Nobody | Owner::OtherNode | Owner::Us => {
                self.replace(name, &path).map_err(failed)
            }
        }
    }

    fn replace(&mut self, name: &str, path: &Path) -> io::Result<()> {
        if !self.folder.exists() {
            fs::create_dir_all(&self.folder)?;
            self.made_folder = true;
        }
        match fs::create_dir(self.folder.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // Not in the namespace's own folder, where `ip netns exec` would try to use it.
        let new = self.folder.join(format!(".{name}.{FILE}.new"));
        let written = (|| {
            let mut file = fs::File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o644)
                .open(&new)?;
            // The umask has no say: every user inside resolves names.
            file.set_permissions(fs::Permissions::from_mode(0o644))?;
            file.write_all(self.text.as_bytes())?;
            // Empty after a crash it would be somebody's file for ever.
            file.sync_data()?;
            fs::rename(&new, path)
        })();
        if written.is_err() {
            // Best effort: what is reported is why it could not be written.
            drop(fs::remove_file(&new));
        }
        written?;
        self.seen.insert(name.to_owned(), Stamp::of(&fs::metadata(path)?));
        Ok(())
    }

    /// Removes the file where it is ours, and its folder where nothing else is in it.
    fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.path(name);
        let ours = match self.owner(&path)? {
            Owner::Us => true,
            Owner::OtherNode => !exists(name),
            Owner::Nobody => return remove_if_empty(&self.folder.join(name)),
            Owner::Somebody => false,
        };
        if ours {
            fs::remove_file(&path)?;
            remove_if_empty(&self.folder.join(name))?;
        }
        Ok(())
    }

    /// Namespaces with a file that an earlier run wrote and nobody has a use for. One of another
    /// node's counts once its namespace is gone.
    fn leftovers(&self, wanted: &BTreeSet<String>) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            if wanted.contains(&name) {
                continue;
            }
            match self.owner(&self.path(&name)) {
                Ok(Owner::Us) => found.push(name),
                Ok(Owner::OtherNode) if !exists(&name) => found.push(name),
                // A file that cannot be read is not known to be ours.
                Ok(_) | Err(_) => {}
            }
        }
        Ok(found)
    }

    fn owner(&self, path: &Path) -> io::Result<Owner> {
        let file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) => {
                return match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(Owner::Nobody),
                    _ => Err(error),
                };
            }
        };
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line)?;
        let ours = self.text.split_inclusive('\n').next().unwrap_or_default();
        Ok(if line == ours.as_bytes() {
            Owner::Us
        } else if line.starts_with(MARKER.as_bytes()) {
            Owner::OtherNode
        } else {
            Owner::Somebody
        })
    }
}

fn exists(name: &str) -> bool {
    NETNS_FOLDERS.iter().any(|folder| Path::new(folder).join(name).exists())
}

fn remove_if_empty(folder: &Path) -> io::Result<()> {
    match fs::remove_dir(folder) {
        Err(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::DirectoryNotEmpty
                    | io::ErrorKind::NotFound
                    | io::ErrorKind::NotADirectory
            ) =>
        {
            Err(error)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
