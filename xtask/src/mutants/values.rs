//! The replacements for an operator, and for a function's result.

use syn::{GenericArgument, PathArguments, Type};

/// A value of a type that is not known better.
pub(super) const DEFAULT: &str = "Default::default()";

/// The operators that replace a given one: they move a bound by one, or return the opposite.
pub(super) fn instead_of(operator: &str) -> &'static [&'static str] {
    match operator {
        "==" => &["!="],
        "!=" => &["=="],
        "<" => &["<=", ">="],
        "<=" => &["<", ">"],
        ">" => &[">=", "<="],
        ">=" => &[">", "<"],
        "&&" => &["||"],
        "||" => &["&&"],
        "+" => &["-"],
        "-" => &["+"],
        "/" => &["*"],
        "*" | "%" => &["/"],
        "&" => &["|"],
        "|" | "^" => &["&"],
        "<<" => &[">>"],
        ">>" => &["<<"],
        "+=" => &["-="],
        "-=" => &["+="],
        "*=" => &["/="],
        "/=" => &["*="],
        "&=" => &["|="],
        "|=" | "^=" => &["&="],
        _ => &[],
    }
}

pub(super) fn is_comparison(operator: &str) -> bool {
    ["==", "!=", "<=", ">="].contains(&operator)
}

/// Returns true if the text of an expression looks like a default value.
pub(super) fn is_default(text: &str) -> bool {
    ["None", "0", "false", "()", "\"\""].contains(&text)
        || ["::new()", "::default()", "vec![]"].iter().any(|end| text.ends_with(end))
}

/// The simplest values of a type, one of which a changed function returns.
pub(super) fn of(ty: &Type) -> Vec<String> {
    match ty {
        Type::Tuple(tuple) if tuple.elems.is_empty() => vec!["()".to_owned()],
        Type::Reference(reference) if reference.mutability.is_none() => match &*reference.elem {
            Type::Path(path) if path.path.is_ident("str") => strings(&["\"\"", "\"xyzzy\""]),
            Type::Slice(_) => strings(&["&[]"]),
            _ => Vec::new(),
        },
        Type::Path(path) => path.path.segments.last().map_or_else(Vec::new, of_name),
        _ => Vec::new(),
    }
}

fn of_name(segment: &syn::PathSegment) -> Vec<String> {
    let argument = || match &segment.arguments {
        PathArguments::AngleBracketed(arguments) => match arguments.args.first() {
            Some(GenericArgument::Type(ty)) => of(ty),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    };
    match &*segment.ident.to_string() {
        "bool" => strings(&["true", "false"]),
        "u8" | "u16" | "u32" | "u64" | "u128" | "usize" | "i8" | "i16" | "i32" | "i64" | "i128"
        | "isize" => strings(&["0", "1"]),
        "String" => strings(&["String::new()", "\"xyzzy\".into()"]),
        "Vec" => strings(&["Vec::new()"]),
        "Option" => {
            let some = argument().into_iter().map(|value| format!("Some({value})"));
            [strings(&["None"]), some.collect()].concat()
        }
        "Result" => argument().into_iter().map(|value| format!("Ok({value})")).collect(),
        _ => strings(&[DEFAULT]),
    }
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_follow_the_type() {
        let of = |ty: &str| of(&syn::parse_str(ty).expect("a type"));
        assert_eq!(
            of("Result<Option<bool>, E>"),
            ["Ok(None)", "Ok(Some(true))", "Ok(Some(false))"]
        );
        assert_eq!(of("io::Result<()>"), ["Ok(())"]);
        assert_eq!(of("&'static str"), ["\"\"", "\"xyzzy\""]);
        assert_eq!(of("State"), [DEFAULT]);
        assert!(of("&State").is_empty());
        assert!(of("impl Iterator<Item = u8>").is_empty());
        assert!(of("!").is_empty());
    }
}
