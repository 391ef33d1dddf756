//! The span query language and the time grammar.
//!
//! Datadog's own search stays the authority on what a query finds on a site: a caller's text goes
//! there verbatim. This room exists for what must be known on this side: the local backend
//! evaluates queries ([`Query::matches`]), every search warns of what will silently find nothing
//! ([`Query::warnings`]), a text that would break out of its parentheses is refused before
//! anything is sent ([`check_balance`]), and structured filters are put into words
//! ([`combine`]).
//!
//! ```text
//! query   := or
//! or      := and ( "OR" and )*
//! and     := unary ( "AND"? unary )*                     a blank means AND
//! unary   := ( "-" | "NOT" ) unary | "(" or ")" | term
//! term    := field ":" value | field "IN" "[" value ( "," value )* "]"
//!          | "_exists_:" field | "_missing_:" field
//!          | quoted | word | "*"                         free text; all spans
//! field   := "@" path | "@child.@" path | key            attribute, of a descendant, tag
//! value   := word | quoted | "*"                         "*" and "?" are wildcards outside quotes
//!          | ( ">" | ">=" | "<" | "<=" ) number | "[" bound "TO" bound "]"
//!          | "(" value ( "OR" value )* ")"
//! bound   := number | "*"
//! number  := decimal with an optional unit of time: ns us μs ms s m h
//! ```
//!
//! A backslash takes the next character literally, in quotes and outside. Operators are upper-case
//! only. Field values are compared with case, free text without.

mod ast;
mod balance;
pub mod combine;
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
pub use error::ParseError;
pub use eval::SpanContext;
pub use number::{Number, TimeUnit};
pub use parser::{MAX_DEPTH, parse};
pub use values::facet_values;
pub use wildcard::{Wildcard, WildcardElement};
