//! Reads tables of Markdown for lints. A table follows a line `<!-- lint: NAME -->`.

use anyhow::{Context as _, Result, bail};

/// A row: its cells, and its line in the document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) cells: Vec<String>,
    pub(super) line: usize,
}

/// The rows of the table with this name, which must have `columns` columns.
pub(super) fn read(document: &str, name: &str, columns: usize) -> Result<Vec<Row>> {
    let marker = format!("<!-- lint: {name} -->");
    let mut lines = document.lines().enumerate().skip_while(|(_, line)| line.trim() != marker);
    lines
        .next()
        .with_context(|| format!("there is no line `{marker}`, which the table follows"))?;
    let rows: Vec<Row> = lines
        .skip_while(|(_, line)| line.trim().is_empty())
        .map_while(|(number, line)| Some((number, line.trim().strip_prefix('|')?)))
        .map(|(number, line)| Row {
            cells: line
                .trim_end_matches('|')
                .split('|')
                .map(|cell| cell.trim().to_owned())
                .collect(),
            line: number + 1,
        })
        .collect();
    if let Some(row) = rows.iter().find(|row| row.cells.len() != columns) {
        bail!("line {}: {} columns and not {columns}", row.line, row.cells.len());
    }
    // The first two lines are the head, and the line below it.
    match rows.get(2..) {
        Some(rows) => Ok(rows.to_vec()),
        None => bail!("no table follows `{marker}`"),
    }
}

/// The texts in backticks in a cell.
pub(super) fn code(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "# A\n\n| x | y |\n|---|---|\n| no | no |\n\n<!-- lint: rooms -->\n\n\
                            | room | may use |\n|---|---|\n| `a/b` | `c`, `d` |\n| `c` | nothing |\n\nText";

    #[test]
    fn the_table_after_its_marker_is_read() {
        let rows = read(DOCUMENT, "rooms", 2).expect("a table");
        assert_eq!(rows.len(), 2);
        assert_eq!((code(&rows[0].cells[0]), rows[0].line), (vec!["a/b".to_owned()], 11));
        assert_eq!(code(&rows[0].cells[1]), ["c", "d"]);
        assert_eq!(code(&rows[1].cells[1]), [""; 0]);
    }

    #[test]
    fn no_table_is_no_empty_table() {
        assert!(read(DOCUMENT, "circles", 2).is_err());
        assert!(read(DOCUMENT, "rooms", 3).is_err());
        assert!(read("<!-- lint: rooms -->\ntext", "rooms", 2).is_err());
    }
}
