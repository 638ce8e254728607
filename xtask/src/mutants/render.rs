//! Writes all changes of a file into it, each behind its number: `(if crate::mutation::is(17) { a != b } else
//! { a == b })`. Code without a chosen change is evaluated as before, even if changes are nested.

use std::{collections::BTreeMap, ops::Range};

use super::find::{Form, Site};

/// A file with all of its changes.
#[derive(Debug, Default)]
pub(super) struct Rendered {
    pub(super) text: String,
    /// The range of each change's code in the text.
    changes: Vec<(Range<usize>, u32)>,
    /// The range of each place in the text, and the numbers of its changes.
    sites: Vec<(Range<usize>, Vec<u32>)>,
}

/// A text that is inserted at an offset of the original text.
struct Insertion {
    at: usize,
    /// The order of insertions at the same offset. Ends come before beginnings; among ends the inner ones
    /// come first, and among beginnings the outer ones.
    order: (bool, isize, isize),
    site: usize,
    /// The texts, each with the number of the change whose code it is.
    parts: Vec<(String, Option<u32>)>,
}

/// Writes the changes into the text. `numbers` are those of each site's changes; `None` leaves a change out.
pub(super) fn render(text: &str, sites: &[Site], numbers: &[Vec<Option<u32>>]) -> Rendered {
    let mut insertions: Vec<Insertion> = Vec::new();
    for (index, (site, numbers)) in sites.iter().zip(numbers).enumerate() {
        let changes = site.changes.iter().zip(numbers);
        let changes: Vec<(&str, u32)> =
            changes.filter_map(|(change, number)| Some((&*change.text, (*number)?))).collect();
        if changes.is_empty() {
            continue;
        }
        let (begin, end) = (site.range.start as isize, site.range.end as isize);
        let nth = index as isize;
        let opening = opening(site, &text[site.range.clone()], &changes);
        // An insertion without extent comes before everything that begins at the same offset.
        let extent = if begin == end { isize::MIN } else { -end };
        insertions.push(Insertion {
            at: site.range.start,
            order: (true, extent, nth),
            site: index,
            parts: opening,
        });
        let closing = match site.form {
            Form::Expression | Form::Shorthand => " })",
            Form::Statement => " }",
            Form::Body | Form::Arm => continue,
        };
        insertions.push(Insertion {
            at: site.range.end,
            order: (false, -begin, -nth),
            site: index,
            parts: vec![(closing.to_owned(), None)],
        });
    }
    insertions.sort_by_key(|insertion| (insertion.at, insertion.order));
    write(text, insertions, numbers)
}

/// The text before a place, or the text that is inserted there.
fn opening(site: &Site, original: &str, changes: &[(&str, u32)]) -> Vec<(String, Option<u32>)> {
    let mut parts = Vec::new();
    let mut plain = |text: &str| parts.push((text.to_owned(), None));
    match site.form {
        Form::Shorthand => plain(&format!("{original}: (")),
        Form::Expression => plain("("),
        Form::Body | Form::Statement | Form::Arm => {}
    }
    for &(text, number) in changes {
        let is = format!("crate::mutation::is({number})");
        match site.form {
            Form::Expression | Form::Shorthand => {
                parts.push((format!("if {is} {{ "), None));
                parts.push((text.to_owned(), Some(number)));
                parts.push((" } else ".to_owned(), None));
            }
            Form::Body => {
                parts.push((format!(" if {is} {{ return "), None));
                parts.push((text.to_owned(), Some(number)));
                parts.push(("; }".to_owned(), None));
            }
            Form::Statement => parts.push((format!("if !{is} {{ "), None)),
            Form::Arm => parts.push((format!(" if !{is}"), None)),
        }
    }
    if matches!(site.form, Form::Expression | Form::Shorthand) {
        parts.push(("{ ".to_owned(), None));
    }
    parts
}

fn write(text: &str, insertions: Vec<Insertion>, numbers: &[Vec<Option<u32>>]) -> Rendered {
    let mut rendered = Rendered::default();
    let mut bounds: BTreeMap<usize, Range<usize>> = BTreeMap::new();
    let mut copied = 0;
    for insertion in insertions {
        rendered.text.push_str(&text[copied..insertion.at]);
        copied = insertion.at;
        let begin = rendered.text.len();
        for (part, number) in insertion.parts {
            let from = rendered.text.len();
            rendered.text.push_str(&part);
            if let Some(number) = number {
                rendered.changes.push((from..rendered.text.len(), number));
            }
        }
        bounds.entry(insertion.site).or_insert(begin..begin).end = rendered.text.len();
    }
    rendered.text.push_str(&text[copied..]);
    rendered.sites = bounds
        .into_iter()
        .map(|(site, range)| (range, numbers[site].iter().copied().flatten().collect()))
        .collect();
    rendered
}

impl Rendered {
    /// The changes that cause a compiler's error at these places: those whose code is at one of them; or else
    /// those of the innermost place around one; or else those inside of one.
    pub(super) fn blamed(&self, complaint: &[Range<usize>]) -> Vec<u32> {
        let touched = |range: &Range<usize>| {
            complaint.iter().any(|place| place.start < range.end && range.start < place.end)
        };
        let inside = |range: &Range<usize>| {
            complaint.iter().any(|place| range.start <= place.start && place.end <= range.end)
        };
        // An error about a whole expression is not caused by a change deep inside it.
        let named = self.changes.iter().filter(|(range, _)| inside(range));
        let named: Vec<u32> = named.map(|(_, number)| *number).collect();
        if !named.is_empty() {
            return named;
        }
        let around = self.sites.iter().filter(|(range, _)| inside(range));
        if let Some((_, numbers)) = around.min_by_key(|(range, _)| range.len()) {
            return numbers.clone();
        }
        let within = self.sites.iter().filter(|(range, _)| touched(range));
        within.flat_map(|(_, numbers)| numbers.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::find::sites, *};

    fn rendered(text: &str, leave_out: &[u32]) -> Rendered {
        let sites = sites(text).expect("Rust");
        let mut next = 0;
        let mut number = || {
            next += 1;
            (!leave_out.contains(&next)).then_some(next)
        };
        let numbers: Vec<Vec<_>> =
            sites.iter().map(|site| site.changes.iter().map(|_| number()).collect()).collect();
        render(text, &sites, &numbers)
    }

    #[test]
    fn changes_nest() {
        let text = "fn f() { if a == b && c {} d.e(); }";
        let expected = "fn f() { if crate::mutation::is(1) { return (); } \
            if (if crate::mutation::is(2) { (a == b) || (c) } else { \
            (if crate::mutation::is(3) { (a) != (b) } else { a == b }) && c }) {} \
            if !crate::mutation::is(4) { d.e(); } }";
        assert_eq!(rendered(text, &[]).text, expected);
        assert_eq!(rendered(text, &[1, 2, 3, 4]).text, text);
    }

    #[test]
    fn fields_and_arms_keep_their_form() {
        let text = "fn f() -> &A { match a { 1 => S { b }, _ => S { b: 1 } } }";
        let expected = "fn f() -> &A { match a { 1 if !crate::mutation::is(1) => \
            S { b: (if crate::mutation::is(2) { Default::default() } else { b }) }, \
            _ => S { b: (if crate::mutation::is(3) { Default::default() } else { 1 }) } } }";
        assert_eq!(rendered(text, &[]).text, expected);
    }

    #[test]
    fn a_complaint_is_about_the_code_that_it_names_or_about_the_place_around_it() {
        let rendered = rendered("fn f() -> &A { a < b; c() }", &[]);
        let place = |text: &str| {
            let from = rendered.text.find(text).expect("it is in there");
            from..from + text.len()
        };
        assert_eq!(rendered.blamed(&[place("(a) >= (b)")]), [2]);
        assert_eq!(rendered.blamed(&[place("{ a < b }")]), [1, 2]);
        assert_eq!(rendered.blamed(&[place("fn f() -> &A { (if")]), [1, 2]);
        assert!(rendered.blamed(&[place("c()")]).is_empty());
    }
}
