//! Checks that the tests which documents name exist.
//!
//! A claim in a document names the test that shows it. If such a test is renamed or moved, its name in the
//! document leads nowhere, and nobody would notice.

/// Documents whose claims name tests.
pub(super) const DOCUMENTS: [&str; 3] = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"];

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
