//! A crate's modules as its files have them: what each defines, imports and names.
//!
//! Code of tests is left out: a test may look at anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use proc_macro2::{TokenStream, TokenTree};
use syn::{Attribute, Ident, Item, ItemMod, ItemUse, UseTree, visit::Visit};

/// A path as it stands in code, with its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) segments: Vec<String>,
    pub(super) line: usize,
    /// It is only handed on: `pub use`.
    pub(super) is_handed_on: bool,
}

#[derive(Debug, Default)]
pub(super) struct Module {
    /// Below its crate's root: `["state", "apply"]`.
    pub(super) path: Vec<String>,
    /// The root that `crate` means in it.
    pub(super) root: usize,
    pub(super) parent: Option<usize>,
    /// Index in [`Source::files`].
    pub(super) file: usize,
    pub(super) children: BTreeMap<String, usize>,
    /// What it defines by itself.
    pub(super) items: BTreeSet<String>,
    /// What it imports, by the name under which it is known here.
    pub(super) uses: BTreeMap<String, Vec<String>>,
    pub(super) globs: Vec<Vec<String>>,
    /// All paths in it, its imports among them.
    pub(super) named: Vec<Named>,
}

/// The crates below one `src` folder: its library and its program, or one of them.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// The library's name, by which the program calls it.
    name: String,
    pub(super) modules: Vec<Module>,
    /// Below `src`, without ending: `state/apply`, `state` for `state/mod.rs`, `lib`.
    pub(super) files: Vec<String>,
}

impl Source {
    /// Reads every module that `lib.rs` or `main.rs` below `folder` leads to.
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

    /// Adds a module of these items. `inline` is the way to it from the file's own module.
    fn fill(
        &mut self,
        folder: &Path,
        file: &Path,
        inline: Vec<String>,
        module: Module,
        items: &[Item],
    ) -> Result<usize> {
        let (path, root, file_index) = (module.path.clone(), module.root, module.file);
        let mut reader = Reader { module, hands_on: false, modules: Vec::new() };
        for item in items {
            reader.visit_item(item);
        }
        let Reader { module, modules, .. } = reader;
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

    /// Of which module a path speaks that stands in `module`, and what of it; None for what is not of this
    /// folder. `outside` tells what it is then, as far as its names tell.
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
                // What follows may be `super` again.
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
                // `use serde::serde`, or `use tokio;`: it leads out.
                Some(used) => Meaning::Outside([used, rest].concat()),
                None if here.children.contains_key(name) || here.items.contains(name) => {
                    self.walk(module, segments)
                }
                None if rest.is_empty() => Meaning::Nothing,
                None => Meaning::Outside(segments.to_vec()),
            },
        }
    }

    /// The deepest module on the way down from one.
    fn walk(&self, from: usize, segments: &[String]) -> Meaning {
        let (mut module, mut rest) = (from, segments);
        while let Some((first, after)) = rest.split_first() {
            let Some(child) = self.modules[module].children.get(first) else { break };
            (module, rest) = (*child, after);
        }
        Meaning::Inside { module, rest: rest.to_vec() }
    }

    /// The module that defines what a path means: a name that a module has only imported is followed to where
    /// it is from.
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

    /// Of the modules that one imports whole, the one that has a name.
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

/// What a path means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Something of this folder: the deepest module that it names, and what of it.
    Inside { module: usize, rest: Vec<String> },
    /// Something of another crate, with imports followed: `std::time::Instant::now`.
    Outside(Vec<String>),
    /// A local name, or one of the prelude.
    Nothing,
}

/// How a file is called in tables.
fn name_of(folder: &Path, file: &Path) -> String {
    let below = file.strip_prefix(folder).unwrap_or(file).with_extension("");
    let below = if below.ends_with("mod") { below.parent().unwrap_or(&below) } else { &below };
    below.to_string_lossy().into_owned()
}

/// The file of `mod name;`, which stands in `file`.
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

/// The text of `#[path = "text"]`.
fn path_attribute(attribute: &Attribute) -> Option<String> {
    let syn::Meta::NameValue(pair) = &attribute.meta else { return None };
    let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) = &pair.value else {
        return None;
    };
    attribute.path().is_ident("path").then(|| text.value())
}

/// Whether this is built for tests only.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) if list.path.is_ident("cfg") => {
            let words: Vec<String> =
                list.tokens.clone().into_iter().map(|token| token.to_string()).collect();
            words == ["test"]
        }
        meta => meta.path().is_ident("test"),
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// The name that an item brings into its module.
fn name(item: &Item) -> Option<&Ident> {
    match item {
        Item::Const(item) => Some(&item.ident),
        Item::Enum(item) => Some(&item.ident),
        Item::Fn(item) => Some(&item.sig.ident),
        Item::Static(item) => Some(&item.ident),
        Item::Struct(item) => Some(&item.ident),
        Item::Trait(item) => Some(&item.ident),
        Item::Type(item) => Some(&item.ident),
        Item::Union(item) => Some(&item.ident),
        _ => None,
    }
}

/// Collects what a module's items name. Modules below it are only noted.
struct Reader<'a> {
    module: Module,
    /// What is read is of a `pub use`.
    hands_on: bool,
    modules: Vec<&'a ItemMod>,
}

impl Reader<'_> {
    fn name(&mut self, segments: Vec<String>, line: usize) {
        self.module.named.push(Named { segments, line, is_handed_on: self.hands_on });
    }

    fn import(&mut self, tree: &UseTree, before: &[String]) {
        let with = |ident: &Ident| [before, &[ident.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.import(&path.tree, &with(&path.ident)),
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.import(tree, before));
            }
            UseTree::Glob(glob) => {
                self.name(before.to_vec(), glob.star_token.spans[0].start().line);
                self.module.globs.push(before.to_vec());
            }
            UseTree::Name(name) => self.bring(&name.ident, &name.ident, before),
            UseTree::Rename(rename) => self.bring(&rename.ident, &rename.rename, before),
        }
    }

    fn bring(&mut self, ident: &Ident, known_as: &Ident, before: &[String]) {
        // `use a::b::{self}`
        let (segments, known_as) = match before.last() {
            Some(last) if ident == "self" && ident == known_as => (before.to_vec(), last.clone()),
            _ if ident == "self" => (before.to_vec(), known_as.to_string()),
            _ => ([before, &[ident.to_string()]].concat(), known_as.to_string()),
        };
        self.name(segments.clone(), ident.span().start().line);
        if known_as != "_" {
            self.module.uses.insert(known_as, segments);
        }
    }

    /// Paths among a macro's tokens, which nobody has parsed.
    fn scan(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let (mut line, mut colons) = (0, 0);
        for token in tokens {
            match &token {
                TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => {
                    colons += 1;
                    continue;
                }
                TokenTree::Ident(ident) if colons == 2 => {
                    path.push(ident.to_string());
                    colons = 0;
                    continue;
                }
                _ => {}
            }
            self.scanned(&mut path, line);
            colons = 0;
            match token {
                TokenTree::Ident(ident) => {
                    line = ident.span().start().line;
                    path.push(ident.to_string());
                }
                TokenTree::Group(group) => self.scan(group.stream()),
                _ => {}
            }
        }
        self.scanned(&mut path, line);
    }

    fn scanned(&mut self, path: &mut Vec<String>, line: usize) {
        let path = std::mem::take(path);
        if path.len() > 1 {
            self.name(path, line);
        }
    }
}

impl<'a> Visit<'a> for Reader<'a> {
    fn visit_item(&mut self, item: &'a Item) {
        if is_for_tests(attributes(item)) {
            return;
        }
        if let Some(name) = name(item) {
            self.module.items.insert(name.to_string());
        }
        syn::visit::visit_item(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        if !is_for_tests(&item.attrs) {
            syn::visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'a ItemMod) {
        self.modules.push(item);
    }

    fn visit_item_use(&mut self, item: &'a ItemUse) {
        self.hands_on = !matches!(item.vis, syn::Visibility::Inherited);
        self.import(&item.tree, &[]);
        self.hands_on = false;
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let segments = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        let line = path.segments.first().map_or(0, |first| first.ident.span().start().line);
        self.name(segments, line);
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'a syn::Macro) {
        self.scan(call.tokens.clone());
        syn::visit::visit_macro(self, call);
    }
}
