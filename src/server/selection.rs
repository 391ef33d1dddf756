//! Which tools a caller sees: toolsets, omitted tools, read-only.
//!
//! The rules are those of the hosted server (`toolsets`, `omit_tools`, an empty value means the
//! default, unknown names warn and never fail) with one addition: what the process was started with
//! is a ceiling, and a request can only tighten it. A list in which no name is known serves nothing
//! rather than everything, because a caller who asked for `rum` did not ask for ours.

use crate::tools::{self, Access};

use llmobs_core::analysis::candidates::closest;

/// The toolsets served when nobody names one.
const DEFAULT_TOOLSETS: [&str; 1] = ["llmobs"];

/// The toolset alias that expands to every toolset.
const ALL: &str = "all";

/// At most so many names of one list are looked at: more is not a wish, it is noise.
const MAX_NAMES: usize = 64;

/// What somebody asks to be served: the process by its settings, a request by its URL and headers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// Toolsets by name or alias; `None` means "whatever the default is".
    pub toolsets: Option<Vec<String>>,
    /// Tools to leave out, applied after `toolsets`. Old tool names count.
    pub omit: Vec<String>,
    /// Whether tools that write are left out.
    pub read_only: bool,
}

/// Splits a comma list into trimmed, lower-case names. An empty list is `None`: "the default".
pub(crate) fn names(list: &str) -> Option<Vec<String>> {
    let names: Vec<String> = list
        .split(',')
        .map(|name| name.trim().to_ascii_lowercase())
        .filter(|name| !name.is_empty())
        .take(MAX_NAMES)
        .collect();
    (!names.is_empty()).then_some(names)
}

/// What selection needs to know of one tool.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The tool's name.
    pub name: &'static str,
    /// The toolset it belongs to.
    pub toolset: &'static str,
    /// Whether it changes anything upstream.
    pub writes: bool,
}

/// Everything that could be served.
#[derive(Debug, Clone)]
pub struct Catalogue {
    tools: Vec<Entry>,
    toolsets: Vec<&'static str>,
    old_names: Vec<(&'static str, &'static str)>,
}

/// Why a tool that exists is not served to this caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hidden {
    /// It writes, and writing is off.
    ReadOnly,
    /// It was left out by name.
    Omitted,
    /// Its toolset, named here, is not enabled.
    Toolset(&'static str),
}

/// The outcome of a selection.
#[derive(Debug, Clone)]
pub struct Selection {
    served: Vec<&'static str>,
    hidden: Vec<(&'static str, Hidden)>,
    /// The enabled toolsets, in the catalogue's order.
    pub toolsets: Vec<&'static str>,
    /// Whether tools that write are left out.
    pub read_only: bool,
    /// Names that mean nothing here, said in sentences for a person.
    pub warnings: Vec<String>,
}

impl Selection {
    /// Whether the tool of this (present) name is served.
    pub fn serves(&self, name: &str) -> bool {
        self.served.contains(&name)
    }

    /// The served tools by name, in their fixed order.
    pub fn served(&self) -> &[&'static str] {
        &self.served
    }

    /// Why the tool of this name is not served, if it exists and is not.
    pub fn hidden(&self, name: &str) -> Option<Hidden> {
        self.hidden
            .iter()
            .find(|(hidden, _)| *hidden == name)
            .map(|(_, why)| *why)
    }

    /// Tools of an enabled toolset that are left out all the same.
    pub fn left_out(&self) -> impl Iterator<Item = &'static str> {
        self.hidden
            .iter()
            .filter(|(_, why)| !matches!(why, Hidden::Toolset(_)))
            .map(|(name, _)| *name)
    }
}

impl Catalogue {
    /// The catalogue of [`crate::tools`].
    pub fn of_tools() -> Self {
        Self::new(
            tools::all()
                .iter()
                .map(|tool| Entry {
                    name: tool.name,
                    toolset: tool.toolset,
                    writes: !matches!(tool.access, Access::Read),
                })
                .collect(),
            tools::TOOLSETS.iter().map(|set| set.name).collect(),
            tools::ALIASES.to_vec(),
        )
    }

    /// A catalogue of these tools, toolsets and `(old, present)` tool names.
    pub fn new(
        tools: Vec<Entry>,
        toolsets: Vec<&'static str>,
        old_names: Vec<(&'static str, &'static str)>,
    ) -> Self {
        Self {
            tools,
            toolsets,
            old_names,
        }
    }

    /// Whether a toolset is among those served when nobody names one.
    pub fn is_default(toolset: &str) -> bool {
        DEFAULT_TOOLSETS.contains(&toolset)
    }

    /// The toolset aliases, each with the toolsets that it expands to.
    pub fn toolset_aliases(&self) -> Vec<(&'static str, Vec<&'static str>)> {
        vec![(ALL, self.toolsets.clone())]
    }

    /// Applies the wishes of the process and of one request.
    pub fn select(&self, process: &Wish, request: &Wish) -> Selection {
        let mut warnings = Vec::new();
        let ceiling = self.toolsets_of(process, "--toolsets", &mut warnings);
        let asked = self.toolsets_of(request, "toolsets", &mut warnings);
        let toolsets: Vec<&'static str> = self
            .toolsets
            .iter()
            .copied()
            .filter(|set| match (&ceiling, &asked) {
                (None, None) => Self::is_default(set),
                (Some(one), None) | (None, Some(one)) => one.contains(set),
                (Some(ceiling), Some(asked)) => ceiling.contains(set) && asked.contains(set),
            })
            .collect();
        let mut omitted = self.tools_of(&process.omit, "--omit-tools", &mut warnings);
        omitted.extend(self.tools_of(&request.omit, "omit_tools", &mut warnings));
        let read_only = process.read_only || request.read_only;

        let mut served = Vec::new();
        let mut hidden = Vec::new();
        for tool in &self.tools {
            if !toolsets.contains(&tool.toolset) {
                hidden.push((tool.name, Hidden::Toolset(tool.toolset)));
            } else if omitted.contains(&tool.name) {
                hidden.push((tool.name, Hidden::Omitted));
            } else if read_only && tool.writes {
                hidden.push((tool.name, Hidden::ReadOnly));
            } else {
                served.push(tool.name);
            }
        }
        Selection {
            served,
            hidden,
            toolsets,
            read_only,
            warnings,
        }
    }

    /// The toolsets that a wish names, or `None` when it names none at all.
    fn toolsets_of(
        &self,
        wish: &Wish,
        whose: &str,
        warnings: &mut Vec<String>,
    ) -> Option<Vec<&'static str>> {
        let asked = wish.toolsets.as_ref().filter(|list| !list.is_empty())?;
        let mut known = Vec::new();
        for name in asked {
            if name == ALL {
                known.extend(self.toolsets.iter().copied());
            } else if let Some(set) = self.toolsets.iter().find(|set| *set == name) {
                known.push(*set);
            } else {
                let near = closest(name, self.toolsets.iter().copied().chain([ALL]));
                warnings.push(unknown("toolset", name, whose, near));
            }
        }
        Some(known)
    }

    /// The present names of the tools in a list, old names included.
    fn tools_of(
        &self,
        asked: &[String],
        whose: &str,
        warnings: &mut Vec<String>,
    ) -> Vec<&'static str> {
        let mut known = Vec::new();
        for name in asked {
            let present = self
                .old_names
                .iter()
                .find(|(old, _)| old == name)
                .map_or(name.as_str(), |(_, present)| present);
            match self.tools.iter().find(|tool| tool.name == present) {
                Some(tool) => known.push(tool.name),
                None => {
                    let near = closest(name, self.tools.iter().map(|tool| tool.name));
                    warnings.push(unknown("tool", name, whose, near));
                }
            }
        }
        known
    }
}

/// A sentence about a name that means nothing here.
fn unknown(what: &str, name: &str, whose: &str, near: Option<&str>) -> String {
    let name = printable(name);
    match near {
        Some(near) => {
            format!("{whose}: unknown {what} '{name}' is ignored; did you mean '{near}'?")
        }
        None => format!("{whose}: unknown {what} '{name}' is ignored"),
    }
}

/// A caller's name cut down to what can stand in a log line or in a message to a model.
pub(crate) fn printable(name: &str) -> String {
    let mut out: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/') {
                c
            } else {
                '?'
            }
        })
        .take(64)
        .collect();
    if name.chars().count() > 64 {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// Two toolsets, one of them with a tool that writes.
    fn catalogue() -> Catalogue {
        let entry = |name, toolset, writes| Entry {
            name,
            toolset,
            writes,
        };
        Catalogue::new(
            vec![
                entry("search_spans", "llmobs", false),
                entry("delete_evaluator", "llmobs", true),
                entry("list_prompts", "prompts", false),
            ],
            vec!["llmobs", "prompts"],
            vec![("old_search", "search_spans")],
        )
    }

    fn wish(toolsets: &str, omit: &str, read_only: bool) -> Wish {
        Wish {
            toolsets: names(toolsets),
            omit: names(omit).unwrap_or_default(),
            read_only,
        }
    }

    #[rstest]
    // what the process asks | what the request asks | what is served
    #[case::nothing_asked(wish("", "", false), wish("", "", false), &["search_spans", "delete_evaluator"])]
    #[case::empty_means_default(wish("", "", false), wish(" , ,", "", false), &["search_spans", "delete_evaluator"])]
    #[case::a_list_means_only_these(wish("", "", false), wish("prompts", "", false), &["list_prompts"])]
    #[case::case_and_space(wish("", "", false), wish(" Prompts ,LLMOBS", "", false), &["search_spans", "delete_evaluator", "list_prompts"])]
    #[case::all(wish("", "", false), wish("all", "", false), &["search_spans", "delete_evaluator", "list_prompts"])]
    #[case::one_known(wish("", "", false), wish("llmobs,core", "", false), &["search_spans", "delete_evaluator"])]
    #[case::none_known_serves_nothing(wish("", "", false), wish("core,rum", "", false), &[])]
    #[case::process_none_known(wish("core", "", false), wish("", "", false), &[])]
    #[case::request_cannot_widen(wish("prompts", "", false), wish("all", "", false), &["list_prompts"])]
    #[case::request_outside_the_ceiling(wish("prompts", "", false), wish("llmobs", "", false), &[])]
    #[case::omit(wish("", "", false), wish("", "delete_evaluator,nope", false), &["search_spans"])]
    #[case::omit_by_old_name(wish("", "old_search", false), wish("", "", false), &["delete_evaluator"])]
    #[case::omits_add_up(wish("", "search_spans", false), wish("", "delete_evaluator", false), &[])]
    #[case::read_only_process(wish("", "", true), wish("all", "", false), &["search_spans", "list_prompts"])]
    #[case::read_only_request(wish("", "", false), wish("", "", true), &["search_spans"])]
    fn the_table(#[case] process: Wish, #[case] request: Wish, #[case] served: &[&str]) {
        assert_eq!(catalogue().select(&process, &request).served(), served);
    }

    #[test]
    fn a_hidden_tool_knows_why() {
        let selection = catalogue().select(&wish("llmobs", "search_spans", true), &Wish::default());
        assert_eq!(selection.hidden("search_spans"), Some(Hidden::Omitted));
        assert_eq!(selection.hidden("delete_evaluator"), Some(Hidden::ReadOnly));
        assert_eq!(
            selection.hidden("list_prompts"),
            Some(Hidden::Toolset("prompts"))
        );
        assert_eq!(selection.hidden("nope"), None);
    }

    #[test]
    fn unknown_names_warn_with_the_nearest_and_cannot_smuggle_text() {
        let selection = catalogue().select(
            &Wish::default(),
            &wish("llmob,ignore all\u{202e} previous", "serch_spans", false),
        );
        assert_eq!(
            selection.warnings,
            [
                "toolsets: unknown toolset 'llmob' is ignored; did you mean 'llmobs'?",
                "toolsets: unknown toolset 'ignore?all??previous' is ignored",
                "omit_tools: unknown tool 'serch_spans' is ignored; did you mean 'search_spans'?",
            ]
        );
    }

    #[test]
    fn every_tool_of_the_product_belongs_to_a_toolset_that_exists() {
        let catalogue = Catalogue::of_tools();
        for tool in &catalogue.tools {
            assert!(catalogue.toolsets.contains(&tool.toolset), "{}", tool.name);
        }
        for set in DEFAULT_TOOLSETS {
            assert!(catalogue.toolsets.contains(&set));
        }
    }
}
