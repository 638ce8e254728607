//! The size and the head of each file.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// The number of lines that a file may have, so that it can be read in one sitting.
const LINES_MAX: usize = 400;

/// The errors in Rust files, each of which is a path and a text. `long` are files that may be longer, and
/// `headless` are folders in which a file may lack a head.
pub(super) fn check(
    files: &[(String, String)],
    long: &[String],
    headless: &[String],
) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, text) in files {
        let lines = text.lines().count();
        match (lines > LINES_MAX, long.contains(name)) {
            (true, false) => wrong
                .push(format!("{name} has {lines} lines, above {LINES_MAX}: split it, or say why")),
            (false, true) => {
                wrong.push(format!("{name} has {lines} lines: strike it from the long files"));
            }
            _ => {}
        }
        if !has_head(text) && !headless.iter().any(|folder| name.starts_with(folder)) {
            wrong
                .push(format!("{name} has no head: it begins with what it is (`//! A sentence.`)"));
        }
    }
    let gone = long.iter().filter(|long| !files.iter().any(|(name, _)| name == *long));
    wrong.extend(gone.map(|name| format!("{name} is no more: strike it from the long files")));
    let lacks =
        |folder: &str| files.iter().any(|(name, text)| name.starts_with(folder) && !has_head(text));
    let whole = headless.iter().filter(|folder| !lacks(folder));
    wrong.extend(whole.map(|folder| format!("all files below {folder} have a head: strike it")));
    wrong
}

fn has_head(text: &str) -> bool {
    text.strip_prefix("//! ").is_some_and(|rest| rest.starts_with(|c: char| !c.is_whitespace()))
}

/// The Rust files of every crate, each with its path and its text.
pub(super) fn read(root: &Path) -> Result<Vec<(String, String)>> {
    let files = sources(root)?.into_iter().map(|file| {
        let name = file.strip_prefix(root)?.display().to_string();
        Ok((name, fs::read_to_string(file)?))
    });
    files.collect()
}

/// The Rust files of every crate, which are the folders with a manifest.
fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for folder in entries(root)?.into_iter().filter(|folder| folder.join("Cargo.toml").exists()) {
        below(&folder, &mut files)?;
    }
    files.sort();
    Ok(files)
}

fn below(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for path in entries(folder)? {
        if path.is_dir() && !path.ends_with("target") {
            below(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(files: &[(&str, &str)], long: &[&str], headless: &[&str]) -> Vec<String> {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let files = files.iter().map(|&(name, text)| (name.to_owned(), text.to_owned()));
        check(&files.collect::<Vec<_>>(), &owned(long), &owned(headless))
    }

    #[test]
    fn a_head_is_the_first_line() {
        assert_eq!(of(&[("a.rs", "//! What it is.\n\nuse a;")], &[], &[]), [""; 0]);
        for none in ["use a;\n", "//!\n//! Later.", "/// An item.\nfn f() {}", "//!  \n", ""] {
            assert_eq!(of(&[("a/b.rs", none)], &[], &[]).len(), 1, "{none:?}");
            assert_eq!(of(&[("a/b.rs", none)], &[], &["a"]), [""; 0], "{none:?}");
        }
        let stale = of(&[("a/b.rs", "//! Head.\n")], &[], &["a"]);
        assert_eq!(stale, ["all files below a have a head: strike it"]);
    }

    #[test]
    fn a_long_file_is_listed_and_no_other_is() {
        let (fits, long) = ("//! Head.\n".repeat(400), "//! Head.\n".repeat(401));
        assert_eq!(of(&[("a.rs", &fits)], &[], &[]), [""; 0]);
        assert_eq!(of(&[("a.rs", &long)], &[], &[]).len(), 1);
        assert_eq!(of(&[("a.rs", &long)], &["a.rs"], &[]), [""; 0]);
        assert_eq!(of(&[("a.rs", &fits)], &["a.rs"], &[]).len(), 1, "it needs no exception");
        assert_eq!(of(&[], &["a.rs"], &[]).len(), 1, "it is no more");
    }
}
