//! Finds the places in a file that can be changed, and the changes of each.

use std::ops::Range;

use anyhow::{Context as _, Result};
use syn::{
    Arm, Attribute, Block, Expr, ExprBinary, ExprStruct, ExprUnary, Pat, ReturnType, Signature,
    Stmt, UnOp,
    spanned::Spanned,
    visit::{self, Visit},
};

use super::{
    syntax::{has_let, is_of_tests, is_place, last_name},
    values,
};

/// A place in a file, and its possible changes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Site {
    /// The place in bytes; empty if text is only inserted.
    pub(super) range: Range<usize>,
    pub(super) form: Form,
    pub(super) changes: Vec<Change>,
}

/// The way in which the changes of a place are written into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// An expression, instead of which another one is evaluated.
    Expression,
    /// A field of a struct expression that is written without a value, `Name { field }`. It is changed like
    /// an expression.
    Shorthand,
    /// The beginning of a function's body, at which another value is returned.
    Body,
    /// A statement, which is skipped.
    Statement,
    /// The end of a pattern without a guard, which then matches nothing.
    Arm,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// The change as a person reads it: `replace == with != in State::apply`.
    pub(super) name: String,
    /// The new code; empty if a place is skipped.
    pub(super) text: String,
}

/// The places in a file's code, without its tests, in the order of the text.
pub(super) fn sites(text: &str) -> Result<Vec<Site>> {
    let file = syn::parse_file(text).context("cannot parse")?;
    let mut finder = Finder { text, owner: None, function: None, sites: Vec::new() };
    finder.visit_file(&file);
    finder.sites.retain(|site| !site.changes.is_empty());
    Ok(finder.sites)
}

struct Finder<'a> {
    text: &'a str,
    /// The type of the `impl` that is read: `State`, `<impl Display for State>`.
    owner: Option<String>,
    /// The function whose body is read. Nothing outside of a function is changed.
    function: Option<String>,
    sites: Vec<Site>,
}

impl Finder<'_> {
    fn source(&self, node: &impl Spanned) -> &str {
        &self.text[node.span().byte_range()]
    }

    /// The source of a node in one line.
    fn one_line(&self, node: &impl Spanned) -> String {
        self.source(node).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn add(&mut self, range: Range<usize>, form: Form, changes: Vec<(String, String)>) {
        let Some(function) = &self.function else { return };
        let changes = changes
            .into_iter()
            .map(|(what, text)| Change { name: format!("{what} in {function}"), text });
        self.sites.push(Site { range, form, changes: changes.collect() });
    }

    fn function(&mut self, attributes: &[Attribute], signature: &Signature, block: &Block) {
        if is_of_tests(attributes) || signature.constness.is_some() {
            return;
        }
        let name = match &self.owner {
            Some(owner) => format!("{owner}::{}", signature.ident),
            None => signature.ident.to_string(),
        };
        self.body(&name, signature, block);
        let outer = self.function.replace(name);
        self.visit_block(block);
        self.function = outer;
    }

    fn body(&mut self, name: &str, signature: &Signature, block: &Block) {
        let body = self.one_line(block);
        let body = body.trim_start_matches('{').trim_end_matches('}').trim();
        let (values, returned) = match &signature.output {
            ReturnType::Default => (vec!["()".to_owned()], String::new()),
            ReturnType::Type(_, ty) => (values::of(ty), format!(" -> {}", self.one_line(ty))),
        };
        let is_trivial = |value: &String| {
            body.is_empty()
                || body == value
                // This excludes a default that would call itself, and `new`, whose result its callers test.
                || (value == values::DEFAULT && ["default", "new"].contains(&&*signature.ident.to_string()))
        };
        let changes = values.into_iter().filter(|value| !is_trivial(value)).map(|value| Change {
            name: format!("replace {name}{returned} with {value}"),
            text: value,
        });
        let begin = block.brace_token.span.open().byte_range().end;
        self.sites.push(Site { range: begin..begin, form: Form::Body, changes: changes.collect() });
    }

    fn arm(&mut self, arm: &Arm) {
        let pattern = self.one_line(&arm.pat);
        let end = arm.pat.span().byte_range().end;
        let change = (format!("delete match arm {pattern}"), String::new());
        self.add(end..end, Form::Arm, vec![change]);
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        let owner = self.owner.take();
        self.function(&item.attrs, &item.sig, &item.block);
        self.owner = owner;
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.attrs, &item.sig, &item.block);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.attrs, &item.sig, block);
        }
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        let outer = self.owner.replace(item.ident.to_string());
        visit::visit_item_trait(self, item);
        self.owner = outer;
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let name = last_name(&item.self_ty);
        let of = item
            .trait_
            .as_ref()
            .and_then(|(path, _)| Some(path.segments.last()?.ident.to_string()));
        // Texts for people are not the subject of tests.
        if is_of_tests(&item.attrs)
            || of.as_ref().is_some_and(|of| of == "Debug" || of == "Display")
        {
            return;
        }
        let owner = of.map_or_else(|| name.clone(), |of| format!("<impl {of} for {name}>"));
        let outer = self.owner.replace(owner);
        visit::visit_item_impl(self, item);
        self.owner = outer;
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_of_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    // Constants are evaluated before a change can be chosen.
    fn visit_item_const(&mut self, _: &'ast syn::ItemConst) {}
    fn visit_item_static(&mut self, _: &'ast syn::ItemStatic) {}
    fn visit_impl_item_const(&mut self, _: &'ast syn::ImplItemConst) {}
    fn visit_trait_item_const(&mut self, _: &'ast syn::TraitItemConst) {}
    fn visit_item_enum(&mut self, _: &'ast syn::ItemEnum) {}
    fn visit_expr_const(&mut self, _: &'ast syn::ExprConst) {}
    fn visit_type(&mut self, _: &'ast syn::Type) {}
    fn visit_generic_argument(&mut self, _: &'ast syn::GenericArgument) {}

    fn visit_expr_repeat(&mut self, array: &'ast syn::ExprRepeat) {
        self.visit_expr(&array.expr);
    }

    /// A pattern contains no code except its guard.
    fn visit_pat(&mut self, pattern: &'ast Pat) {
        if let Pat::Guard(pattern) = pattern {
            let guard = &pattern.guard;
            if !has_let(guard) {
                let name =
                    |value| format!("replace match guard {} with {value}", self.one_line(guard));
                let changes = ["true", "false"].map(|value| (name(value), value.to_owned()));
                self.add(guard.span().byte_range(), Form::Expression, changes.into());
            }
            self.visit_expr(guard);
        }
    }

    fn visit_expr_match(&mut self, expression: &'ast syn::ExprMatch) {
        let is_open = |arm: &Arm| match &arm.pat {
            Pat::Wild(_) => true,
            // This is a name that is bound, and not `None`.
            Pat::Ident(name) => name.ident.to_string().starts_with(char::is_lowercase),
            _ => false,
        };
        // Without an arm for all other values, a match that lacks one of its arms does not compile.
        let last = expression.arms.iter().rposition(is_open);
        for arm in &expression.arms[..last.unwrap_or(0)] {
            if !matches!(arm.pat, Pat::Guard(_)) && arm.attrs.is_empty() {
                self.arm(arm);
            }
        }
        visit::visit_expr_match(self, expression);
    }

    fn visit_expr_binary(&mut self, expression: &'ast ExprBinary) {
        if !has_let(&expression.left) && !has_let(&expression.right) {
            let operator = self.source(&expression.op);
            let operands = (self.source(&expression.left), self.source(&expression.right));
            let is_assignment = operator.ends_with('=') && !values::is_comparison(operator);
            let change = |&other: &&str| {
                let text = match (operands, is_assignment) {
                    ((left, right), true) => format!("{left} {other} {right}"),
                    ((left, right), false) => format!("({left}) {other} ({right})"),
                };
                (format!("replace {operator} with {other}"), text)
            };
            let changes = values::instead_of(operator).iter().map(change).collect();
            self.add(expression.span().byte_range(), Form::Expression, changes);
        }
        visit::visit_expr_binary(self, expression);
    }

    fn visit_expr_unary(&mut self, expression: &'ast ExprUnary) {
        if matches!(expression.op, UnOp::Not(_) | UnOp::Neg(_)) {
            let operator = self.source(&expression.op);
            let text = format!("({})", self.source(&expression.expr));
            let change = (format!("delete {operator}"), text);
            self.add(expression.span().byte_range(), Form::Expression, vec![change]);
        }
        visit::visit_expr_unary(self, expression);
    }

    fn visit_expr_struct(&mut self, expression: &'ast ExprStruct) {
        let mut names =
            expression.path.segments.iter().rev().map(|segment| segment.ident.to_string());
        let name = names.next().unwrap_or_default();
        // Fields of enum variants are not changed, because most are errors, whose fields are texts for
        // people.
        let is_variant = names.next().is_some_and(|of| of.starts_with(char::is_uppercase));
        for field in expression.fields.iter().filter(|_| !is_variant) {
            let value = self.one_line(&field.expr);
            if !values::is_default(&value) {
                let member = self.one_line(&field.member);
                let what = format!("replace field {member} of {name} with its default");
                let form =
                    if field.colon_token.is_some() { Form::Expression } else { Form::Shorthand };
                let change = (what, values::DEFAULT.to_owned());
                self.add(field.expr.span().byte_range(), form, vec![change]);
            }
        }
        visit::visit_expr_struct(self, expression);
    }

    fn visit_stmt(&mut self, statement: &'ast Stmt) {
        if let Stmt::Expr(expression, Some(_)) = statement
            && let Some(what) = self.effect(expression)
        {
            let change = (format!("delete {what}"), String::new());
            self.add(statement.span().byte_range(), Form::Statement, vec![change]);
        }
        visit::visit_stmt(self, statement);
    }
}

impl Finder<'_> {
    /// The effect of a statement, if the statement exists for its effect and not for a value.
    fn effect(&self, expression: &Expr) -> Option<String> {
        match expression {
            Expr::Try(inner) => self.effect(&inner.expr),
            Expr::Await(inner) => self.effect(&inner.base),
            Expr::Assign(assignment) if assignment.attrs.is_empty() => {
                Some(format!("assignment of {}", self.one_line(&assignment.left)))
            }
            Expr::MethodCall(call) if call.attrs.is_empty() => {
                let of = if is_place(&call.receiver) {
                    self.one_line(&call.receiver)
                } else {
                    "_".into()
                };
                Some(format!("{of}.{}()", call.method))
            }
            Expr::Call(call) if call.attrs.is_empty() => {
                let function = self.one_line(&call.func);
                // The early release of a lock is not tested.
                (function != "drop").then(|| format!("{function}()"))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        let sites = sites(text).expect("Rust");
        sites.into_iter().flat_map(|site| site.changes).map(|change| change.name).collect()
    }

    #[test]
    fn what_is_calculated_is_changed() {
        let names = names("impl A { fn f(&self) -> bool { self.a == 1 && !(self.b < 2) } }");
        let expected = [
            "replace A::f -> bool with true",
            "replace A::f -> bool with false",
            "replace && with || in A::f",
            "replace == with != in A::f",
            "delete ! in A::f",
            "replace < with <= in A::f",
            "replace < with >= in A::f",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn what_is_done_is_left_out() {
        let names = names(
            "fn f(a: &mut A) -> io::Result<()> { a.map.insert(1); sync(&a)?; a.b = 3; drop(a); Ok(()) }",
        );
        let expected = [
            "replace f -> io::Result<()> with Ok(())",
            "delete a.map.insert() in f",
            "delete sync() in f",
            "delete assignment of a.b in f",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn fields_lose_their_values_unless_these_are_the_default() {
        let names =
            names("fn f() { g(Hello { networks, node: 3, known: Vec::new() }, E::No { it: 1 }) }");
        let expected = [
            "replace f with ()",
            "replace field networks of Hello with its default in f",
            "replace field node of Hello with its default in f",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn an_arm_is_deleted_where_another_takes_its_cases() {
        let open = names("fn f(a: A) { match a { A::B => g(), A::C if d => (), _ => h() } }");
        let expected = [
            "replace f with ()",
            "delete match arm A::B in f",
            "replace match guard d with true in f",
            "replace match guard d with false in f",
        ];
        assert_eq!(open, expected);
        assert_eq!(names("fn f(a: A) { match a { Some(_) => g(), None => h() } }"), expected[..1]);
    }

    #[test]
    fn constants_tests_and_names_bound_by_a_condition_are_left_alone() {
        let text = "const A: u8 = 1 + 2; const fn f() -> bool { 1 == 2 }
            #[cfg(test)] mod tests { fn f() -> bool { 1 == 2 } }
            impl Display for A { fn fmt(&self) -> bool { 1 == 2 } }
            fn g() { if let Some(x) = y && x {} }";
        assert_eq!(names(text), ["replace g with ()"]);
    }
}
