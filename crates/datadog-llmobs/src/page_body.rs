//! Reads the body of a page row by row.
//!
//! A page contains thousands of rows. As one tree it takes several times the memory of its text, so
//! each row becomes a tree, is read, and is dropped before the next one. Values of another type than
//! expected are skipped.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::json::{self, JsonError};

/// The rows of one kind of page.
pub(crate) trait PageRows: Default {
    /// The path of the value that every page of this kind has, for example `data/attributes`: an
    /// array of rows, or an object that contains such arrays.
    const CONTAINER: &'static str;

    /// The paths of the arrays of rows.
    const LISTS: &'static [&'static str];

    /// Adds a row of the array at the path `list`.
    fn push(&mut self, list: &'static str, row: Value);
}

/// Whether a body has the container of its page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Container {
    /// It is absent, or of another type.
    #[default]
    Missing,
    /// It is `null`.
    Null,
    /// It was read.
    Present,
}

/// A page that was read.
#[derive(Debug, Default)]
pub(crate) struct PageBody<R> {
    pub(crate) rows: R,
    /// The members of the body beside the one that contains the rows.
    pub(crate) envelope: Map<String, Value>,
    pub(crate) container: Container,
}

/// Parses the body of a page.
pub(crate) fn parse<R: PageRows>(text: &[u8]) -> Result<PageBody<R>, JsonError> {
    let mut page = PageBody::default();
    let root = ValueSeed {
        page: &mut page,
        path: String::new(),
    };
    json::parse_into(text, root)?;
    Ok(page)
}

/// Reads the value at a path.
struct ValueSeed<'p, R> {
    page: &'p mut PageBody<R>,
    path: String,
}

impl<R: PageRows> ValueSeed<'_, R> {
    fn is_container(&self) -> bool {
        self.path == R::CONTAINER
    }

    fn list(&self) -> Option<&'static str> {
        R::LISTS.iter().copied().find(|list| *list == self.path)
    }
}

/// Whether `path` is that of a list of rows, or leads to one.
fn leads_to_rows<R: PageRows>(path: &str) -> bool {
    R::LISTS.iter().any(|list| {
        list.strip_prefix(path)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

impl<'de, R: PageRows> DeserializeSeed<'de> for ValueSeed<'_, R> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, R: PageRows> Visitor<'de> for ValueSeed<'_, R> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        if self.is_container() && self.list().is_none() {
            self.page.container = Container::Present;
        }
        while let Some(key) = members.next_key::<String>()? {
            let path = if self.path.is_empty() {
                key.clone()
            } else {
                format!("{}/{key}", self.path)
            };
            if leads_to_rows::<R>(&path) {
                let page = &mut *self.page;
                members.next_value_seed(ValueSeed { page, path })?;
            } else if self.path.is_empty() {
                self.page.envelope.insert(key, members.next_value()?);
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Some(list) = self.list() else {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        };
        if self.is_container() {
            self.page.container = Container::Present;
        }
        while let Some(row) = items.next_element()? {
            self.page.rows.push(list, row);
        }
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        if self.is_container() {
            self.page.container = Container::Null;
        }
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}
