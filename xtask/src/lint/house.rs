//! Checks the rules of this repository that no other tool checks: the arrows between rooms, circles of files,
//! names that a room must not use, the size and head of each file, and the tests that documents name.

use std::fs;

use anyhow::{Context as _, Result, bail};

use super::{
    arrows::{Forbidden, Rooms, between_files},
    circles::{Graph, circles, closes_one},
    claims, files,
    source::Source,
    table,
};
use crate::exec::root;

/// The document whose tables are checked.
const DOCUMENT: &str = "ARCHITECTURE.md";
/// The document with the exceptions.
const EXCEPTIONS: &str = "xtask/lint.md";
/// The crate whose rooms the table lists, and the folder of its root.
const ROOMS: (&str, &str) = ("overlay-ctl", "overlay-ctl/src");
/// The crates that must have no circles: their names, and the folders of their roots.
const CRATES: [(&str, &str); 5] = [
    ROOMS,
    ("overlay-common", "overlay-common/src"),
    ("overlay-ebpf", "overlay-ebpf/src"),
    ("overlay-lab", "tests/lab/src"),
    ("xtask", "xtask/src"),
];

/// Arrows that may close a circle.
type Excepted = [(String, String)];

pub(super) fn check() -> Result<()> {
    let document = fs::read_to_string(root().join(DOCUMENT))?;
    let (rooms, forbidden) = (Rooms::read(&document)?, Forbidden::read(&document)?);
    let (mut wrong, mut between) = (Vec::new(), Graph::new());
    for (name, folder) in CRATES {
        let source = Source::read(name, &root().join(folder))?;
        if (name, folder) == ROOMS {
            wrong.extend(rooms.check(&source));
            wrong.extend(forbidden.iter().flat_map(|forbidden| forbidden.check(&source)));
        }
        let whole = |file: String| format!("{folder}/{file}");
        for (from, arrows) in between_files(&source) {
            let arrows = arrows.into_iter().map(|(to, at)| (whole(to), at)).collect();
            between.insert(whole(from), arrows);
        }
    }
    let exceptions = fs::read_to_string(root().join(EXCEPTIONS))?;
    wrong.extend(in_circles("files", between, &excepted(&exceptions, "circles of files")?));
    wrong.extend(in_circles("rooms", rooms.graph(), &excepted(&exceptions, "circles of rooms")?));
    let names = |name| -> Result<Vec<String>> {
        let rows = table::read(&exceptions, name, 2)?;
        Ok(rows.iter().flat_map(|row| table::code(&row.cells[0])).collect())
    };
    let sources = files::read(root())?;
    let (long, headless) = (names("long files")?, names("files without a head")?);
    wrong.extend(files::check(&sources, &long, &headless));
    for name in claims::documents(root())? {
        let document = fs::read_to_string(root().join(&name))?;
        wrong.extend(claims::check(&name, &document, &sources));
        if name.starts_with(claims::FOLDER) {
            wrong.extend(claims::check_rows(&name, &document));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    for wrong in &wrong {
        println!("lint: {wrong}");
    }
    bail!("{} things are not as {DOCUMENT} and CONTRIBUTING.md say; see above", wrong.len())
}

/// Prints the table of rooms that matches the code, for a person who has changed an arrow on purpose.
pub(super) fn print_rooms() -> Result<()> {
    let document = fs::read_to_string(root().join(DOCUMENT))?;
    let source = Source::read(ROOMS.0, &root().join(ROOMS.1))?;
    print!("{}", Rooms::read(&document)?.as_is(&source));
    Ok(())
}

/// The arrows in a table of exceptions.
fn excepted(document: &str, name: &str) -> Result<Vec<(String, String)>> {
    let rows = table::read(document, name, 3)?;
    let arrow = |row: &table::Row| {
        let mut ends = row.cells.iter().take(2).filter_map(|cell| table::code(cell).pop());
        let arrow = ends.next().zip(ends.next());
        arrow.with_context(|| format!("{EXCEPTIONS}:{}: an end of the arrow is missing", row.line))
    };
    rows.iter().map(arrow).collect()
}

/// Circles, and exceptions that close no circle.
fn in_circles(what: &str, mut graph: Graph, excepted: &Excepted) -> Vec<String> {
    let mut wrong = Vec::new();
    for (from, to) in excepted {
        if !closes_one(&graph, from, to) {
            wrong.push(format!("{from} -> {to} closes no circle of {what} any more: strike it"));
        }
    }
    for (from, to) in excepted {
        graph.get_mut(from).and_then(|arrows| arrows.remove(to));
    }
    for circle in circles(&graph) {
        let next = circle.iter().cycle().skip(1);
        let arrows = circle
            .iter()
            .zip(next)
            .map(|(from, to)| format!("\n    {from} -> {to}: {}", graph[from][to]));
        wrong.push(format!("a circle of {what}:{}", arrows.collect::<String>()));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_is_cut_where_an_arrow_is_excepted() {
        let graph = || {
            let arrows = [("a", "b"), ("b", "a"), ("b", "c")];
            let mut graph = Graph::new();
            for (from, to) in arrows {
                graph
                    .entry(from.to_owned())
                    .or_default()
                    .insert(to.to_owned(), "line 1".to_owned());
            }
            graph
        };
        let wrong = in_circles("files", graph(), &[]);
        assert_eq!(wrong, ["a circle of files:\n    a -> b: line 1\n    b -> a: line 1"]);
        let arrow = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        assert_eq!(in_circles("files", graph(), &[arrow("b", "a")]), [""; 0]);
        let stale = in_circles("files", graph(), &[arrow("b", "a"), arrow("b", "c")]);
        assert_eq!(stale, ["b -> c closes no circle of files any more: strike it"]);
    }
}
