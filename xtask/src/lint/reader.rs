//! Reads the items of one module: definitions, imports, and paths, including those among a macro's tokens.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::{Attribute, Ident, Item, ItemMod, ItemUse, UseTree, visit::Visit};

/// A path in the code, with its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) segments: Vec<String>,
    pub(super) line: usize,
    /// True if the path is only re-exported: `pub use`.
    pub(super) is_handed_on: bool,
}

#[derive(Debug, Default)]
pub(super) struct Module {
    /// The module's path below its crate's root: `["state", "apply"]`.
    pub(super) path: Vec<String>,
    /// Index of the root to which `crate` refers in this module.
    pub(super) root: usize,
    pub(super) parent: Option<usize>,
    /// Index of the module's file in the source.
    pub(super) file: usize,
    pub(super) children: BTreeMap<String, usize>,
    /// The names that the module defines itself.
    pub(super) items: BTreeSet<String>,
    /// The imported paths, by the name that each has in the module.
    pub(super) uses: BTreeMap<String, Vec<String>>,
    pub(super) globs: Vec<Vec<String>>,
    /// All paths in the module, including its imports.
    pub(super) named: Vec<Named>,
}

/// Returns true if an item is built for tests only.
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

/// Collects the names in a module's items. Modules below it are only noted.
pub(super) struct Reader<'a> {
    module: Module,
    /// True while a `pub use` is read.
    hands_on: bool,
    modules: Vec<&'a ItemMod>,
}

impl<'a> Reader<'a> {
    /// Fills a module with the names in its items. Returns it, and the modules below it.
    pub(super) fn read(module: Module, items: &'a [Item]) -> (Module, Vec<&'a ItemMod>) {
        let mut reader = Self { module, hands_on: false, modules: Vec::new() };
        for item in items {
            reader.visit_item(item);
        }
        (reader.module, reader.modules)
    }

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
        // The form `use a::b::{self}`.
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

    /// Finds paths among a macro's tokens, which are not parsed.
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

    /// A room that may see an item is not used by it: `pub(in crate::a)`.
    fn visit_visibility(&mut self, _: &'a syn::Visibility) {}

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
