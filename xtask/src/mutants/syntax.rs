//! Questions about pieces of Rust code.

use syn::{Attribute, Expr, Meta, Type};

/// Returns true for an expression such as `name` or `self.name.name`.
pub(super) fn is_place(expression: &Expr) -> bool {
    match expression {
        Expr::Path(_) => true,
        Expr::Field(field) => is_place(&field.base),
        _ => false,
    }
}

/// Returns true if a condition binds names: `let Some(x) = y && z`.
pub(super) fn has_let(expression: &Expr) -> bool {
    match expression {
        Expr::Let(_) => true,
        Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        _ => false,
    }
}

/// Returns true for code of tests, or code that is left out of them: `#[test]`, `#[cfg(test)]`,
/// `#[cfg(not(test))]`.
pub(super) fn is_of_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg")
                && matches!(&attribute.meta, Meta::List(list)
                    if list.tokens.to_string().contains("test"))
    })
}

/// The name of a type without its path and arguments.
pub(super) fn last_name(ty: &Type) -> String {
    match ty {
        Type::Path(path) => {
            path.path.segments.last().map_or_else(String::new, |last| last.ident.to_string())
        }
        Type::Reference(reference) => last_name(&reference.elem),
        _ => "_".to_owned(),
    }
}
