//! The span query language and the time grammar.
//!
//! On a Datadog site, Datadog's own search decides what a query finds: the caller's text is sent
//! there unchanged. This module covers the rest:
//!
//! - [`Query::matches`] evaluates a query for the local backend.
//! - [`Query::warnings`] reports terms that match nothing without an error.
//! - [`check_balance`] refuses text that would close the parentheses around it, before it is sent.
//! - [`combine`] writes structured filters as query terms.
//!
//! ```text
//! query   := or
//! or      := and ( "OR" and )*
//! and     := unary ( "AND"? unary )*                     whitespace means AND
//! unary   := ( "-" | "NOT" ) unary | "(" or ")" | term
//! term    := field ":" value | field "IN" "[" value ( "," value )* "]"
//!          | "_exists_:" field | "_missing_:" field
//!          | quoted | word | "*"                         free text; all spans
//! field   := "@" path | "@child.@" path | key            attribute, descendant's attribute, tag
//! value   := word | quoted | "*"                         "*" and "?" are wildcards outside quotes
//!          | ( ">" | ">=" | "<" | "<=" ) number | "[" bound "TO" bound "]"
//!          | "(" value ( "OR" value )* ")"
//! bound   := number | "*"
//! number  := decimal with an optional time unit: ns us μs ms s m h
//! ```
//!
//! A backslash escapes the next character, inside and outside quotes. Operators are upper case
//! only. Field values are case-sensitive, free text is not.

mod ast;
mod balance;
pub mod combine;
mod context;
mod cursor;
mod error;
mod eval;
mod facets;
pub mod index;
mod json;
mod number;
mod parser;
mod print;
pub mod text;
pub mod time;
mod values;
mod warnings;
mod wildcard;

#[cfg(test)]
mod documented;
#[cfg(test)]
mod properties;

pub use ast::{Comparison, Expr, Field, FreeText, Pattern, Query, Term};
pub use balance::check_balance;
pub use context::SpanContext;
pub use error::ParseError;
pub use number::{Number, TimeUnit};
pub use parser::{MAX_DEPTH, parse};
pub use values::facet_values;
pub use wildcard::{Wildcard, WildcardElement};
