//! Checks which room of overlay-ctl uses which, by the table in ARCHITECTURE.md, and finds the arrows between
//! files.
//!
//! A room is a row of the table: a folder or a file below `src`. A file belongs to the room whose name is the
//! longest prefix of the file's name. Code of tests has no arrows.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::{
    circles::Graph,
    source::{Meaning, Source},
    table,
};

/// Arrows from one room to another, each with its place in the code.
type Arrows = BTreeMap<(String, String), String>;

/// The table of rooms.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    may_use: BTreeMap<String, BTreeSet<String>>,
}

/// The paths that rooms must not name, and the reason.
#[derive(Debug)]
pub(super) struct Forbidden {
    rooms: Vec<String>,
    /// True if the rule is for all rooms except the listed ones.
    all_but: bool,
    paths: Vec<String>,
    why: String,
}

impl Rooms {
    pub(super) fn read(document: &str) -> Result<Self> {
        let rows = table::read(document, "rooms", 2)?;
        let room = |row: &table::Row| {
            Some((table::code(&row.cells[0]).pop()?, table::code(&row.cells[1])))
        };
        let may_use =
            rows.iter().filter_map(room).map(|(room, used)| (room, used.into_iter().collect()));
        Ok(Self { may_use: may_use.collect() })
    }

    /// The room of a file.
    fn of(&self, file: &str) -> Option<&str> {
        let rooms = self.may_use.keys().filter(|room| is_in(file, room));
        rooms.max_by_key(|room| room.len()).map(String::as_str)
    }

    /// The differences between the code and the table.
    pub(super) fn check(&self, source: &Source) -> Vec<String> {
        let mut wrong: Vec<String> = source
            .files
            .iter()
            .filter(|file| self.of(file).is_none())
            .map(|file| format!("{file} is in no room of the table"))
            .collect();
        let empty = self
            .may_use
            .keys()
            .filter(|room| !source.files.iter().any(|file| self.of(file) == Some(room.as_str())));
        wrong
            .extend(empty.map(|room| format!("the table has a room {room}, and no file is in it")));
        let arrows = self.arrows(source);
        for ((from, to), at) in &arrows {
            if !self.may_use.get(from).is_some_and(|used| used.contains(to)) {
                wrong.push(format!(
                    "{from} uses {to}, and the table does not say that it may: {at}"
                ));
            }
        }
        for (from, used) in &self.may_use {
            let unused =
                used.iter().filter(|to| !arrows.contains_key(&(from.clone(), (*to).clone())));
            wrong.extend(
                unused.map(|to| format!("{from} does not use {to}: strike it from the table")),
            );
        }
        wrong
    }

    /// The arrows between rooms that the table allows.
    pub(super) fn graph(&self) -> Graph {
        let of = |used: &BTreeSet<String>| {
            used.iter().map(|to| (to.clone(), "so says the table".to_owned())).collect()
        };
        self.may_use.iter().map(|(room, used)| (room.clone(), of(used))).collect()
    }

    fn arrows(&self, source: &Source) -> Arrows {
        let mut arrows = Arrows::new();
        for (index, module) in source.modules.iter().enumerate() {
            let Some(from) = self.of(&source.files[module.file]) else { continue };
            for named in &module.named {
                let Meaning::Inside { module: used, .. } = source.resolve(index, &named.segments)
                else {
                    continue;
                };
                let Some(to) = self.of(&source.files[source.modules[used].file]) else { continue };
                if from != to {
                    let at = format!(
                        "{}:{} names {}",
                        source.files[module.file],
                        named.line,
                        named.segments.join("::")
                    );
                    arrows.entry((from.to_owned(), to.to_owned())).or_insert(at);
                }
            }
        }
        arrows
    }

    /// The table that matches the code.
    pub(super) fn as_is(&self, source: &Source) -> String {
        let arrows = self.arrows(source);
        let line = |room: &String| {
            let used =
                arrows.keys().filter(|(from, _)| from == room).map(|(_, to)| format!("`{to}`"));
            let used: Vec<String> = used.collect();
            let used = if used.is_empty() { "nothing".to_owned() } else { used.join(", ") };
            format!("| `{room}` | {used} |\n")
        };
        self.may_use.keys().map(line).collect()
    }
}

impl Forbidden {
    pub(super) fn read(document: &str) -> Result<Vec<Self>> {
        let rows = table::read(document, "forbidden", 3)?;
        let of = |row: &table::Row| Self {
            rooms: table::code(&row.cells[0]),
            all_but: row.cells[0].starts_with("all but"),
            paths: table::code(&row.cells[1]),
            why: row.cells[2].clone(),
        };
        Ok(rows.iter().map(of).collect())
    }

    /// The places where the code names a forbidden path.
    pub(super) fn check(&self, source: &Source) -> Vec<String> {
        let (mut wrong, mut said) = (Vec::new(), BTreeSet::new());
        let missing =
            self.rooms.iter().filter(|room| !source.files.iter().any(|file| is_in(file, room)));
        wrong.extend(
            missing.map(|room| format!("no file is in {room}, which must not name something")),
        );
        for (index, module) in source.modules.iter().enumerate() {
            let file = &source.files[module.file];
            if self.rooms.iter().any(|room| is_in(file, room)) == self.all_but {
                continue;
            }
            for named in &module.named {
                let Meaning::Outside(segments) = source.resolve(index, &named.segments) else {
                    continue;
                };
                let path = segments.join("::");
                let forbids = |forbidden: &&String| {
                    path.strip_prefix(forbidden.as_str())
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
                };
                // One message for each file and path is enough.
                if let Some(forbidden) = self.paths.iter().find(forbids)
                    && said.insert((file, forbidden))
                {
                    let why = &self.why;
                    wrong.push(format!("{file}:{} names {forbidden}: {why}", named.line));
                }
            }
        }
        wrong
    }
}

/// Returns true if a file is the room, or is below it.
fn is_in(file: &str, room: &str) -> bool {
    file.strip_prefix(room).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The arrows between files. An arrow leads to the file that defines an item, and not to one that re-exports
/// it. A folder's `mod.rs` contains the shared parts and the public names of the files below it, so a use of
/// it by these files is no arrow.
pub(super) fn between_files(source: &Source) -> Graph {
    let mut arrows = Graph::new();
    for (index, module) in source.modules.iter().enumerate() {
        let from = &source.files[module.file];
        for named in module.named.iter().filter(|named| !named.is_handed_on) {
            let Some(used) = source.definition(index, &named.segments) else { continue };
            let to = &source.files[source.modules[used].file];
            let is_above = is_in(from, to) || ["lib", "main"].contains(&to.as_str());
            if from != to && !is_above {
                let at = format!("line {} names {}", named.line, named.segments.join("::"));
                arrows.entry(from.clone()).or_default().entry(to.clone()).or_insert(at);
            }
        }
    }
    arrows
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{super::circles::circles, *};

    /// A crate of these files, in a folder that is removed after the test.
    fn source(name: &str, files: &[(&str, &str)]) -> Source {
        let folder =
            std::env::temp_dir().join(format!("overlay-arrows-{}-{name}", std::process::id()));
        for (file, text) in files {
            let path = folder.join(file);
            fs::create_dir_all(path.parent().expect("below the folder")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        let source = Source::read("a-crate", &folder);
        fs::remove_dir_all(&folder).expect("it was made");
        source.expect("it parses")
    }

    fn rooms(rows: &[(&str, &[&str])]) -> Rooms {
        let row = |(room, used): &(&str, &[&str])| {
            ((*room).to_owned(), used.iter().map(|&used| used.to_owned()).collect())
        };
        Rooms { may_use: rows.iter().map(row).collect() }
    }

    #[test]
    fn every_way_of_naming_a_room_is_an_arrow() {
        let ways = [
            "use crate::b::B;",
            "use crate::{b::{self, B}, c as d};",
            "use super::b;",
            "fn f() -> crate::b::B { todo!() }",
            "fn f() { super::b::f(); }",
            "fn f() { assert!(crate::b::f()); }",
            "fn f() { use crate::b; b::f(); }",
            "mod inner { use super::super::b::B; }",
            "impl crate::b::Trait for T {}",
        ];
        for (number, way) in ways.iter().enumerate() {
            let source = source(
                &format!("way{number}"),
                &[
                    ("lib.rs", "mod a; mod b; mod c;"),
                    ("a.rs", way),
                    ("b/mod.rs", ""),
                    ("c.rs", ""),
                ],
            );
            let rooms = rooms(&[("lib", &[]), ("a", &[]), ("b", &[]), ("c", &[])]);
            let found: Vec<_> = rooms.arrows(&source).into_keys().collect();
            let expected = ("a".to_owned(), "b".to_owned());
            assert!(found.contains(&expected), "{way}: {found:?}");
        }
    }

    #[test]
    fn an_arrow_must_be_in_the_table_and_the_table_must_need_it() {
        let source = source(
            "table",
            &[
                ("lib.rs", "mod a; mod b;"),
                ("a/mod.rs", "mod deep;"),
                ("a/deep.rs", "\nuse crate::b::B;"),
                ("b.rs", "pub struct B; #[cfg(test)] mod tests { use crate::a; }"),
            ],
        );
        let check = |rows: &[(&str, &[&str])]| rooms(rows).check(&source);
        assert_eq!(check(&[("lib", &[]), ("a", &["b"]), ("b", &[])]), [""; 0]);
        let wrong = check(&[("lib", &[]), ("a", &[]), ("b", &["a"])]);
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        assert!(wrong[0].contains("a/deep:2 names crate::b::B"), "{wrong:?}");
        assert!(wrong[1].contains("b does not use a"), "{wrong:?}");
        // The longest name wins, and every file has a room.
        let wrong = check(&[("lib", &[]), ("a", &[]), ("a/deep", &["b"]), ("b", &[]), ("c", &[])]);
        assert_eq!(wrong, ["the table has a room c, and no file is in it"]);
        assert_eq!(check(&[("lib", &[]), ("a", &[])]), ["b is in no room of the table"]);
    }

    #[test]
    fn who_may_see_an_item_is_not_used_by_it() {
        let deep = "pub(in crate::a) struct B; impl B { pub(in crate::a) fn f() {} }";
        let source =
            source("seen", &[("lib.rs", "mod a;"), ("a/mod.rs", "mod deep;"), ("a/deep.rs", deep)]);
        let rooms = rooms(&[("lib", &[]), ("a", &[]), ("a/deep", &[])]);
        assert_eq!(rooms.check(&source), [""; 0]);
    }

    #[test]
    fn the_program_uses_the_library_by_its_name() {
        let source = source(
            "program",
            &[("lib.rs", "pub mod a;"), ("a.rs", ""), ("main.rs", "use a_crate::a::A;")],
        );
        let rooms = rooms(&[("lib", &[]), ("a", &[]), ("main", &["a"])]);
        assert_eq!(rooms.check(&source), [""; 0]);
    }

    #[test]
    fn a_circle_is_followed_through_what_a_folder_re_exports() {
        let files = |b: &'static str| {
            [
                ("lib.rs", "mod a;"),
                ("a/mod.rs", "mod x; mod y; pub use self::{x::X, y::Y}; pub struct Shared;"),
                ("a/x.rs", "use super::{Shared, Y}; pub struct X(Y, Shared);"),
                ("a/y.rs", b),
            ]
        };
        let none = source("line", &files("pub struct Y;"));
        assert_eq!(circles(&between_files(&none)), [[""; 0]; 0]);
        let face = source(
            "face",
            &[
                ("lib.rs", "mod a;"),
                ("a/mod.rs", "mod x; use self::x::X; mod inline { pub fn f() {} }"),
                ("a/x.rs", "pub struct X; fn f() { super::inline::f(); }"),
            ],
        );
        assert_eq!(circles(&between_files(&face)), [[""; 0]; 0]);
        let one = source("circle", &files("use crate::a::X; pub struct Y;"));
        assert_eq!(circles(&between_files(&one)), [["a/x", "a/y"]]);
    }

    #[test]
    fn what_is_forbidden_is_found_behind_its_import() {
        let source = source(
            "forbidden",
            &[
                ("lib.rs", "mod pure; mod other;"),
                (
                    "pure.rs",
                    "use std::{collections as c, time::{Duration, Instant}};\n\
                             fn f(d: Duration) { Instant::now(); }\nfn g() -> c::HashMap<u8, u8> {}\n\
                             #[test] fn t() { Instant::now(); }",
                ),
                ("other.rs", "fn f() { std::time::Instant::now(); }"),
            ],
        );
        let mut forbidden = Forbidden {
            rooms: vec!["pure".to_owned()],
            all_but: false,
            paths: vec![
                "std::time::Instant::now".to_owned(),
                "std::collections::HashMap".to_owned(),
            ],
            why: "because".to_owned(),
        };
        assert_eq!(
            forbidden.check(&source),
            [
                "pure:2 names std::time::Instant::now: because",
                "pure:3 names std::collections::HashMap: because"
            ]
        );
        forbidden.all_but = true;
        assert_eq!(forbidden.check(&source), ["other:1 names std::time::Instant::now: because"]);
    }
}
