//! Writes resolv.conf files for namespaces that `ip netns` made. `ip netns exec NAME` mounts the files in
//! /etc/netns/NAME over those in /etc for the command that it runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use super::upstream::{RESOLVER, Stamp};

/// Beginning of the first line of every such file. The rest of the line names the node, because several
/// nodes may run on one machine.
const MARKER: &str = "# Written by overlay node ";
const NETNS_FOLDERS: [&str; 2] = ["/run/netns", "/var/run/netns"];
const FILE: &str = "resolv.conf";

/// The files of one node.
#[derive(Debug, Clone)]
pub(super) struct Files {
    folder: PathBuf,
    text: String,
    /// Stamps of the files that were right when they were last read or written, by namespace.
    seen: BTreeMap<String, Stamp>,
    /// The files of an earlier run were removed.
    leftovers_removed: bool,
    /// The node created the folder.
    created_folder: bool,
}

/// The owner of a file.
#[derive(Debug, PartialEq, Eq)]
enum Owner {
    /// There is no file.
    None,
    ThisNode,
    OtherNode,
    /// The file was not written by a node.
    Foreign,
}

/// The name under which `ip netns` lists a namespace.
pub(super) fn netns_name(path: &Path) -> Option<&str> {
    let folder = path.parent()?;
    let named = NETNS_FOLDERS.iter().any(|known| folder == Path::new(known));
    path.file_name().filter(|_| named)?.to_str()
}

impl Files {
    pub(super) fn new(folder: PathBuf, node: &str) -> Self {
        // The marker stays one line for every name of a node.
        let node: String = node.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let text = format!(
            "{MARKER}{node}, which removes it with its endpoint. Without this line it is left alone.\n\
             nameserver {RESOLVER}\noptions ndots:0\n"
        );
        Self {
            folder,
            text,
            seen: BTreeMap::new(),
            leftovers_removed: false,
            created_folder: false,
        }
    }

    /// Writes the files of the namespaces in `wanted` and removes all others. Returns the problems, a line
    /// each.
    pub(super) fn sync(&mut self, wanted: &BTreeSet<String>) -> Vec<String> {
        let mut trouble = Vec::new();
        let mut stale: BTreeSet<String> =
            self.seen.keys().filter(|name| !wanted.contains(*name)).cloned().collect();
        if !self.leftovers_removed {
            match self.leftovers(wanted) {
                Ok(found) => {
                    stale.extend(found);
                    self.leftovers_removed = true;
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
        if wanted.is_empty() && self.created_folder && remove_if_empty(&self.folder).is_ok() {
            self.created_folder = false;
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
            Owner::Foreign => Err(format!(
                "{} was not written by this node and is left alone: names of endpoints are resolved at {RESOLVER}; add that as its nameserver, or remove the file",
                path.display()
            )),
            // A file of another node, or of this node under an earlier name, is replaced, because this node
            // serves the namespace now.
            Owner::None | Owner::OtherNode | Owner::ThisNode => {
                self.replace(name, &path).map_err(failed)
            }
        }
    }

    fn replace(&mut self, name: &str, path: &Path) -> io::Result<()> {
        if !self.folder.exists() {
            fs::create_dir_all(&self.folder)?;
            self.created_folder = true;
        }
        match fs::create_dir(self.folder.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // The temporary file is not in the namespace's own folder, because `ip netns exec` would try to
        // use it there.
        let new = self.folder.join(format!(".{name}.{FILE}.new"));
        let written = (|| {
            let mut file = fs::File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o644)
                .open(&new)?;
            // The mode does not depend on the umask, because every user inside resolves names.
            file.set_permissions(fs::Permissions::from_mode(0o644))?;
            file.write_all(self.text.as_bytes())?;
            // Without this, the file could be empty after a crash, and would count as foreign for ever.
            file.sync_data()?;
            fs::rename(&new, path)
        })();
        if written.is_err() {
            // Best effort: the error of the write is the one that is reported.
            drop(fs::remove_file(&new));
        }
        written?;
        self.seen.insert(name.to_owned(), Stamp::of(&fs::metadata(path)?));
        Ok(())
    }

    /// Removes the file if a node wrote it, and its folder if that is then empty. A file of another node
    /// stays as long as the namespace exists.
    fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.path(name);
        let ours = match self.owner(&path)? {
            Owner::ThisNode => true,
            Owner::OtherNode => !netns_exists(name),
            Owner::None => return remove_if_empty(&self.folder.join(name)),
            Owner::Foreign => false,
        };
        if ours {
            fs::remove_file(&path)?;
            remove_if_empty(&self.folder.join(name))?;
        }
        Ok(())
    }

    /// Names of namespaces with a file of an earlier run that is not wanted any more. A file of another node
    /// counts when its namespace is gone.
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
                Ok(Owner::ThisNode) => found.push(name),
                Ok(Owner::OtherNode) if !netns_exists(&name) => found.push(name),
                // A file that cannot be read is not known to be the node's.
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
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(Owner::None),
                    _ => Err(error),
                };
            }
        };
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line)?;
        let ours = self.text.split_inclusive('\n').next().unwrap_or_default();
        Ok(if line == ours.as_bytes() {
            Owner::ThisNode
        } else if line.starts_with(MARKER.as_bytes()) {
            Owner::OtherNode
        } else {
            Owner::Foreign
        })
    }
}

fn netns_exists(name: &str) -> bool {
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
