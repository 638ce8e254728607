//! The modules of a crate, as its files contain them: what each defines, imports and names.
//!
//! Code of tests is left out, because a test may use anything.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use syn::{Attribute, Item, ItemMod};

use super::reader::{Module, Reader};

/// The crates below one `src` folder: a library, a program, or both.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// The name by which the program refers to the library.
    name: String,
    pub(super) modules: Vec<Module>,
    /// Names of the files below `src`, without the extension: `state/apply`, `state` for `state/mod.rs`,
    /// `lib`.
    pub(super) files: Vec<String>,
}

impl Source {
    /// Reads every module that is reached from `lib.rs` or `main.rs` below `folder`.
    pub(super) fn read(name: &str, folder: &Path) -> Result<Self> {
        let mut source = Self { name: name.replace('-', "_"), ..Self::default() };
        for root in ["lib.rs", "main.rs"] {
            if folder.join(root).exists() {
                let index = source.modules.len();
                source.load(
                    folder,
                    &folder.join(root),
                    Module { root: index, ..Module::default() },
                )?;
            }
        }
        if source.modules.is_empty() {
            bail!("neither lib.rs nor main.rs is in {}", folder.display());
        }
        Ok(source)
    }

    fn load(&mut self, folder: &Path, file: &Path, mut module: Module) -> Result<usize> {
        let text =
            fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let parsed =
            syn::parse_file(&text).with_context(|| format!("cannot parse {}", file.display()))?;
        module.file = self.files.len();
        self.files.push(name_of(folder, file));
        self.fill(folder, file, Vec::new(), module, &parsed.items)
    }

    /// Adds a module with these items. `inline` is the path to it from the file's own module.
    fn fill(
        &mut self,
        folder: &Path,
        file: &Path,
        inline: Vec<String>,
        module: Module,
        items: &[Item],
    ) -> Result<usize> {
        let (path, root, file_index) = (module.path.clone(), module.root, module.file);
        let (module, modules) = Reader::read(module, items);
        let index = self.modules.len();
        self.modules.push(module);
        for item in modules {
            let name = item.ident.to_string();
            let child = Module {
                path: [&path[..], std::slice::from_ref(&name)].concat(),
                root,
                parent: Some(index),
                ..Module::default()
            };
            let child = match &item.content {
                Some((_, items)) => {
                    let inline = [&inline[..], std::slice::from_ref(&name)].concat();
                    let child = Module { file: file_index, ..child };
                    self.fill(folder, file, inline, child, items)?
                }
                None => self.load(folder, &file_of(file, &inline, item)?, child)?,
            };
            self.modules[index].children.insert(name, child);
        }
        Ok(index)
    }

    /// The meaning of a path that is in the code of `module`.
    pub(super) fn resolve(&self, module: usize, segments: &[String]) -> Meaning {
        self.resolve_at_most(module, segments, 16)
    }

    fn resolve_at_most(&self, module: usize, segments: &[String], depth: usize) -> Meaning {
        let Some((first, rest)) = segments.split_first() else { return Meaning::Nothing };
        let here = &self.modules[module];
        match first.as_str() {
            _ if depth == 0 => Meaning::Nothing,
            "crate" => self.walk(here.root, rest),
            "self" => self.walk(module, rest),
            "super" => match here.parent {
                // The next segment is `super` again.
                Some(parent) if rest.first().is_some_and(|next| next == "super") => {
                    self.resolve_at_most(parent, rest, depth - 1)
                }
                Some(parent) => self.walk(parent, rest),
                None => Meaning::Nothing,
            },
            name if name == self.name && here.root != 0 => self.walk(0, rest),
            name => match here.uses.get(name) {
                Some(used) if used.first() != Some(first) => {
                    let whole = [used, rest].concat();
                    self.resolve_at_most(module, &whole, depth - 1)
                }
                // The import leads to another crate: `use serde::serde`, or `use tokio;`.
                Some(used) => Meaning::Outside([used, rest].concat()),
                None if here.children.contains_key(name) || here.items.contains(name) => {
                    self.walk(module, segments)
                }
                None if rest.is_empty() => Meaning::Nothing,
                None => Meaning::Outside(segments.to_vec()),
            },
        }
    }

    /// Follows the segments down from a module, as far as they are modules.
    fn walk(&self, from: usize, segments: &[String]) -> Meaning {
        let (mut module, mut rest) = (from, segments);
        while let Some((first, after)) = rest.split_first() {
            let Some(child) = self.modules[module].children.get(first) else { break };
            (module, rest) = (*child, after);
        }
        Meaning::Inside { module, rest: rest.to_vec() }
    }

    /// The module that defines the item of a path. A name that a module only imports is followed to its
    /// origin.
    pub(super) fn definition(&self, module: usize, segments: &[String]) -> Option<usize> {
        let mut meaning = self.resolve(module, segments);
        for _ in 0..16 {
            let Meaning::Inside { module, rest } = &meaning else { return None };
            let here = &self.modules[*module];
            let Some(name) = rest.first().filter(|name| !here.items.contains(*name)) else {
                return Some(*module);
            };
            let next = match here.uses.get(name) {
                Some(used) => self.resolve(*module, &[used, &rest[1..]].concat()),
                None => match self.by_glob(*module, name) {
                    Some(origin) => Meaning::Inside { module: origin, rest: rest.clone() },
                    None => return Some(*module),
                },
            };
            if next == meaning {
                return Some(*module);
            }
            meaning = next;
        }
        None
    }

    /// The module that has a name, among those from which a module imports everything.
    fn by_glob(&self, module: usize, name: &str) -> Option<usize> {
        self.modules[module].globs.iter().find_map(|glob| {
            let Meaning::Inside { module: origin, rest } = self.resolve(module, glob) else {
                return None;
            };
            let target = &self.modules[origin];
            let has = target.items.contains(name) || target.uses.contains_key(name);
            (rest.is_empty() && has && origin != module).then_some(origin)
        })
    }
}

/// The meaning of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// An item of this folder: the deepest module in the path, and the remaining segments.
    Inside { module: usize, rest: Vec<String> },
    /// An item of another crate, with imports followed: `std::time::Instant::now`.
    Outside(Vec<String>),
    /// A local name, or a name of the prelude.
    Nothing,
}

/// The name of a file in tables.
fn name_of(folder: &Path, file: &Path) -> String {
    let below = file.strip_prefix(folder).unwrap_or(file).with_extension("");
    let below = if below.ends_with("mod") { below.parent().unwrap_or(&below) } else { &below };
    below.to_string_lossy().into_owned()
}

/// The file of the item `mod name;` in `file`.
fn file_of(file: &Path, inline: &[String], item: &ItemMod) -> Result<PathBuf> {
    let folder = file.parent().unwrap_or(file);
    if let Some(path) = item.attrs.iter().find_map(path_attribute) {
        return Ok(folder.join(path));
    }
    let is_root = ["mod", "lib", "main"].iter().any(|name| file.file_stem() == Some(name.as_ref()));
    let mut folder = if is_root { folder.to_owned() } else { file.with_extension("") };
    folder.extend(inline);
    let name = item.ident.to_string();
    let candidates = [folder.join(format!("{name}.rs")), folder.join(&name).join("mod.rs")];
    let found = candidates.iter().find(|candidate| candidate.exists()).cloned();
    found.with_context(|| format!("{} has `mod {name}`, and there is no such file", file.display()))
}

/// The text of the attribute `#[path = "text"]`.
fn path_attribute(attribute: &Attribute) -> Option<String> {
    let syn::Meta::NameValue(pair) = &attribute.meta else { return None };
    let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) = &pair.value else {
        return None;
    };
    attribute.path().is_ident("path").then(|| text.value())
}
