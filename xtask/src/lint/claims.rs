//! Checks that the tests which documents name exist.
//!
//! A claim in a document names the test that shows it. If such a test is renamed or moved, its name in the
//! document leads nowhere, and nobody would notice.

use anyhow::Result;
use std::{fs, path::Path};

/// Documents whose claims name tests, beside those in [`FOLDER`].
const DOCUMENTS: [&str; 3] = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"];
/// The folder of further documents, in which rows of tables name tests, too.
pub(super) const FOLDER: &str = "docs/";

/// The paths of all documents whose claims name tests.
pub(super) fn documents(root: &Path) -> Result<Vec<String>> {
    let mut names: Vec<String> = DOCUMENTS.map(str::to_owned).into();
    for entry in fs::read_dir(root.join(FOLDER))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".md") {
            names.push(format!("{FOLDER}{name}"));
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The names in `document` for which no file has a function. `files` are paths with their texts.
pub(super) fn check(name: &str, document: &str, files: &[(String, String)]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, line) in (1..).zip(document.lines()) {
        for test in line.split('`').skip(1).step_by(2).filter(|code| is_test(code)) {
            if !files.iter().any(|(path, text)| has(path, text, test)) {
                wrong.push(format!("{name}:{number}: there is no test {test}"));
            }
        }
    }
    wrong
}

/// The rows of tables in `document` that name no test. A table whose header ends in "test" has one in each row; where none
/// exists the row says "no test yet".
pub(super) fn check_rows(name: &str, document: &str) -> Vec<String> {
    let (mut wrong, mut has_tests) = (Vec::new(), false);
    for (number, line) in (1..).zip(document.lines()) {
        let Some(row) = line.trim().strip_prefix('|').and_then(|row| row.strip_suffix('|')) else {
            has_tests = false;
            continue;
        };
        let last = row.rsplit('|').next().unwrap_or_default().trim();
        if last == "test" {
            has_tests = true;
        } else if has_tests && !last.starts_with("--") && last != "no test yet" {
            let names_one = last.split('`').skip(1).step_by(2).any(is_test);
            if !names_one {
                wrong.push(format!("{name}:{number}: the row names no test"));
            }
        }
    }
    wrong
}

/// Returns true for a path of lower-case names whose last one has several words:
/// `members::a_node_is_removed`.
fn is_test(code: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty()
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let last = code.rsplit("::").next();
    code.contains("::")
        && code.split("::").all(is_name)
        && last.is_some_and(|last| last.contains('_'))
}

/// Returns true if the file has the function, in the modules that `test` names. Each of these is a folder or
/// the file in the path, or a module in the text.
fn has(path: &str, text: &str, test: &str) -> bool {
    let Some((modules, function)) = test.rsplit_once("::") else { return false };
    let is_module = |module: &str| {
        path.trim_end_matches(".rs").split('/').any(|part| part == module)
            || text.contains(&format!("mod {module} {{"))
            || text.contains(&format!("{module}! {{"))
    };
    let defined = text.contains(&format!("fn {function}("))
        || text.contains(&format!("\n    {function}: \""));
    defined && modules.split("::").all(is_module)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Vec<(String, String)> {
        let file = |path: &str, text: &str| (path.to_owned(), text.to_owned());
        vec![
            file("tests/tests/lab/members.rs", "#[test]\nfn a_node_is_removed() {}\n"),
            file(
                "overlay-ctl/src/model/leg.rs",
                "mod tests {\n    #[test]\n    fn a_leg_is_read() {}\n}\n",
            ),
        ]
    }

    #[test]
    fn each_row_of_a_table_of_tests_names_one() {
        let table =
            |last: &str| format!("| what | test |\n|---|---|\n| a | {last} |\n\n| b | c |\n");
        for right in ["`members::a_node_is_removed`", "no test yet"] {
            assert_eq!(check_rows("L.md", &table(right)), [""; 0]);
        }
        for wrong in ["", "`cargo test`", "seen once"] {
            assert_eq!(check_rows("L.md", &table(wrong)), ["L.md:3: the row names no test"]);
        }
    }

    #[test]
    fn a_name_leads_to_a_function_in_its_modules() {
        let document = "It goes (`members::a_node_is_removed`, `model::leg::tests::a_leg_is_read`).\n\
            Not `tokio::time`, `model::Vtep`, `Kind::cuts_inside` or `a_node_is_removed`.";
        assert_eq!(check("A.md", document, &files()), [""; 0]);
        for gone in
            ["members::a_node_is_gone", "removal::a_node_is_removed", "leg::inner::a_leg_is_read"]
        {
            let wrong = check("A.md", &format!("One.\nTwo (`{gone}`)."), &files());
            assert_eq!(wrong, [format!("A.md:2: there is no test {gone}")]);
        }
    }
}
