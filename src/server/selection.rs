//! Selects the tools of a caller: toolsets, omitted tools, read-only.
//!
//! The rules are those of the hosted server: `toolsets`, `omit_tools`, an empty value means the
//! default, unknown names warn and never fail. One rule is added: the filter of the process is an
//! upper limit, which a request can only restrict. A list without a known name serves no tool,
//! because a caller that names `rum` does not expect these tools.

use crate::tools::{self, Access};

use llmobs_core::analysis::candidates::closest;

/// The toolsets served by default.
const DEFAULT_TOOLSETS: [&str; 1] = ["llmobs"];

/// The toolset alias that expands to every toolset.
const ALL: &str = "all";

/// The most characters of a caller's text in logs and messages.
const MAX_PRINTABLE_CHARS: usize = 64;

/// The most names of one list that are read.
const MAX_NAMES: usize = 64;

/// A restriction of the served tools: that of the process, from its settings, or that of a request,
/// from its URL and headers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolFilter {
    /// Toolsets by name or alias; `None` means the default.
    pub toolsets: Option<Vec<String>>,
    /// Tools to exclude, applied after `toolsets`. Old tool names are accepted.
    pub omit: Vec<String>,
    /// Whether tools that write are excluded.
    pub read_only: bool,
}

/// Splits a list with commas into lower-case names. An empty list is `None`, the default.
pub(crate) fn names(list: &str) -> Option<Vec<String>> {
    let names: Vec<String> = list
        .split(',')
        .map(|name| name.trim().to_ascii_lowercase())
        .filter(|name| !name.is_empty())
        .take(MAX_NAMES)
        .collect();
    (!names.is_empty()).then_some(names)
}

/// The properties of a tool that the selection depends on.
#[derive(Debug, Clone, Copy)]
pub struct ToolEntry {
    /// The tool's name.
    pub name: &'static str,
    /// The toolset it belongs to.
    pub toolset: &'static str,
    /// Whether it changes anything upstream.
    pub writes: bool,
}

/// All tools and toolsets.
#[derive(Debug, Clone)]
pub struct ToolRegistry {
    tools: Vec<ToolEntry>,
    toolsets: Vec<&'static str>,
    old_names: Vec<(&'static str, &'static str)>,
}

/// Why an existing tool is not served to a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HiddenReason {
    /// It writes, and the caller is read-only.
    ReadOnly,
    /// A filter excludes it by name.
    Omitted,
    /// Its toolset, named here, is not enabled.
    Toolset(&'static str),
}

/// The tools of a caller.
#[derive(Debug, Clone)]
pub struct Selection {
    served: Vec<&'static str>,
    hidden: Vec<(&'static str, HiddenReason)>,
    /// The enabled toolsets, in the order of the registry.
    pub toolsets: Vec<&'static str>,
    /// Whether tools that write are excluded.
    pub read_only: bool,
    /// A sentence for each unknown name.
    pub warnings: Vec<String>,
}

impl Selection {
    /// Whether the tool of this current name is served.
    pub fn serves(&self, name: &str) -> bool {
        self.served.contains(&name)
    }

    /// The served tools by name, in their fixed order.
    pub fn served(&self) -> &[&'static str] {
        &self.served
    }

    /// Why the tool of this name is not served, if it exists and is not.
    pub fn hidden_reason(&self, name: &str) -> Option<HiddenReason> {
        self.hidden
            .iter()
            .find(|(hidden, _)| *hidden == name)
            .map(|(_, reason)| *reason)
    }

    /// The tools of enabled toolsets that are excluded.
    pub fn excluded(&self) -> impl Iterator<Item = &'static str> {
        self.hidden
            .iter()
            .filter(|(_, reason)| !matches!(reason, HiddenReason::Toolset(_)))
            .map(|(name, _)| *name)
    }
}

impl ToolRegistry {
    /// The registry of [`crate::tools`].
    pub fn from_tools() -> Self {
        Self::new(
            tools::all()
                .iter()
                .map(|tool| ToolEntry {
                    name: tool.name,
                    toolset: tool.toolset,
                    writes: !matches!(tool.access, Access::Read),
                })
                .collect(),
            tools::TOOLSETS.iter().map(|set| set.name).collect(),
            tools::ALIASES.to_vec(),
        )
    }

    /// A registry of these tools, toolsets and `(old, current)` tool names.
    pub fn new(
        tools: Vec<ToolEntry>,
        toolsets: Vec<&'static str>,
        old_names: Vec<(&'static str, &'static str)>,
    ) -> Self {
        Self {
            tools,
            toolsets,
            old_names,
        }
    }

    /// Whether a toolset is served by default.
    pub fn is_default(toolset: &str) -> bool {
        DEFAULT_TOOLSETS.contains(&toolset)
    }

    /// The toolset aliases with the toolsets that they expand to.
    pub fn toolset_aliases(&self) -> Vec<(&'static str, Vec<&'static str>)> {
        vec![(ALL, self.toolsets.clone())]
    }

    /// Checks a list of toolsets: at least one name must be known.
    ///
    /// # Errors
    /// A sentence that names the first unknown name and the known ones.
    pub fn check_toolsets(&self, names: &[String]) -> Result<(), String> {
        let known = || self.toolsets.iter().copied().chain([ALL]);
        let Some(first) = names.first() else {
            return Ok(());
        };
        if names.iter().any(|name| known().any(|known| known == name)) {
            return Ok(());
        }
        let name = printable(first);
        let near = closest(first, known())
            .map_or(String::new(), |near| format!("did you mean '{near}'? "));
        let known: Vec<&str> = known().collect();
        Err(format!(
            "unknown toolset '{name}', so no tool would be served; {near}the toolsets are {}",
            known.join(", ")
        ))
    }

    /// Applies the filters of the process and of one request.
    pub fn select(&self, process: &ToolFilter, request: &ToolFilter) -> Selection {
        let mut warnings = Vec::new();
        let limit = self.toolsets_of(process, "--toolsets", &mut warnings);
        let requested = self.toolsets_of(request, "toolsets", &mut warnings);
        let toolsets: Vec<&'static str> = self
            .toolsets
            .iter()
            .copied()
            .filter(|set| match (&limit, &requested) {
                (None, None) => Self::is_default(set),
                (Some(one), None) | (None, Some(one)) => one.contains(set),
                (Some(limit), Some(requested)) => limit.contains(set) && requested.contains(set),
            })
            .collect();
        let mut omitted = self.tools_of(&process.omit, "--omit-tools", &mut warnings);
        omitted.extend(self.tools_of(&request.omit, "omit_tools", &mut warnings));
        let read_only = process.read_only || request.read_only;

        let mut served = Vec::new();
        let mut hidden = Vec::new();
        for tool in &self.tools {
            if !toolsets.contains(&tool.toolset) {
                hidden.push((tool.name, HiddenReason::Toolset(tool.toolset)));
            } else if omitted.contains(&tool.name) {
                hidden.push((tool.name, HiddenReason::Omitted));
            } else if read_only && tool.writes {
                hidden.push((tool.name, HiddenReason::ReadOnly));
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

    /// The known toolsets of a filter, or `None` if it names no toolset.
    fn toolsets_of(
        &self,
        filter: &ToolFilter,
        source: &str,
        warnings: &mut Vec<String>,
    ) -> Option<Vec<&'static str>> {
        let names = filter.toolsets.as_ref().filter(|list| !list.is_empty())?;
        let mut known = Vec::new();
        for name in names {
            if name == ALL {
                known.extend(self.toolsets.iter().copied());
            } else if let Some(set) = self.toolsets.iter().find(|set| *set == name) {
                known.push(*set);
            } else {
                let near = closest(name, self.toolsets.iter().copied().chain([ALL]));
                warnings.push(unknown("toolset", name, source, near));
            }
        }
        Some(known)
    }

    /// The current names of the tools in a list of current and old names.
    fn tools_of(
        &self,
        names: &[String],
        source: &str,
        warnings: &mut Vec<String>,
    ) -> Vec<&'static str> {
        let mut known = Vec::new();
        for name in names {
            let current = self
                .old_names
                .iter()
                .find(|(old, _)| old == name)
                .map_or(name.as_str(), |(_, current)| current);
            match self.tools.iter().find(|tool| tool.name == current) {
                Some(tool) => known.push(tool.name),
                None => {
                    let near = closest(name, self.tools.iter().map(|tool| tool.name));
                    warnings.push(unknown("tool", name, source, near));
                }
            }
        }
        known
    }
}

/// The warning for an unknown name.
fn unknown(what: &str, name: &str, source: &str, near: Option<&str>) -> String {
    let name = printable(name);
    match near {
        Some(near) => {
            format!("{source}: unknown {what} '{name}' is ignored; did you mean '{near}'?")
        }
        None => format!("{source}: unknown {what} '{name}' is ignored"),
    }
}

/// Sanitizes a caller's text for a log line or a message to a model: at most 64 characters, all of
/// them harmless.
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
        .take(MAX_PRINTABLE_CHARS)
        .collect();
    if name.chars().count() > MAX_PRINTABLE_CHARS {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// Two toolsets, one of them with a tool that writes.
    fn registry() -> ToolRegistry {
        let entry = |name, toolset, writes| ToolEntry {
            name,
            toolset,
            writes,
        };
        ToolRegistry::new(
            vec![
                entry("search_spans", "llmobs", false),
                entry("delete_evaluator", "llmobs", true),
                entry("list_prompts", "prompts", false),
            ],
            vec!["llmobs", "prompts"],
            vec![("old_search", "search_spans")],
        )
    }

    fn filter(toolsets: &str, omit: &str, read_only: bool) -> ToolFilter {
        ToolFilter {
            toolsets: names(toolsets),
            omit: names(omit).unwrap_or_default(),
            read_only,
        }
    }

    #[rstest]
    // filter of the process | filter of the request | served tools
    #[case::no_filter(filter("", "", false), filter("", "", false), &["search_spans", "delete_evaluator"])]
    #[case::empty_means_default(filter("", "", false), filter(" , ,", "", false), &["search_spans", "delete_evaluator"])]
    #[case::only_the_listed(filter("", "", false), filter("prompts", "", false), &["list_prompts"])]
    #[case::case_and_space(filter("", "", false), filter(" Prompts ,LLMOBS", "", false), &["search_spans", "delete_evaluator", "list_prompts"])]
    #[case::all(filter("", "", false), filter("all", "", false), &["search_spans", "delete_evaluator", "list_prompts"])]
    #[case::one_known_name(filter("", "", false), filter("llmobs,core", "", false), &["search_spans", "delete_evaluator"])]
    #[case::no_known_name_serves_nothing(filter("", "", false), filter("core,rum", "", false), &[])]
    #[case::no_known_name_of_process(filter("core", "", false), filter("", "", false), &[])]
    #[case::request_cannot_widen(filter("prompts", "", false), filter("all", "", false), &["list_prompts"])]
    #[case::request_outside_the_limit(filter("prompts", "", false), filter("llmobs", "", false), &[])]
    #[case::omit(filter("", "", false), filter("", "delete_evaluator,nope", false), &["search_spans"])]
    #[case::omit_by_old_name(filter("", "old_search", false), filter("", "", false), &["delete_evaluator"])]
    #[case::omits_add_up(filter("", "search_spans", false), filter("", "delete_evaluator", false), &[])]
    #[case::read_only_process(filter("", "", true), filter("all", "", false), &["search_spans", "list_prompts"])]
    #[case::read_only_request(filter("", "", false), filter("", "", true), &["search_spans"])]
    fn selects_tools(
        #[case] process: ToolFilter,
        #[case] request: ToolFilter,
        #[case] served: &[&str],
    ) {
        assert_eq!(registry().select(&process, &request).served(), served);
    }

    #[test]
    fn names_reason_of_hidden_tool() {
        let selection = registry().select(
            &filter("llmobs", "search_spans", true),
            &ToolFilter::default(),
        );
        assert_eq!(
            selection.hidden_reason("search_spans"),
            Some(HiddenReason::Omitted)
        );
        assert_eq!(
            selection.hidden_reason("delete_evaluator"),
            Some(HiddenReason::ReadOnly)
        );
        assert_eq!(
            selection.hidden_reason("list_prompts"),
            Some(HiddenReason::Toolset("prompts"))
        );
        assert_eq!(selection.hidden_reason("nope"), None);
    }

    #[test]
    fn warns_of_unknown_names_without_repeating_text() {
        let selection = registry().select(
            &ToolFilter::default(),
            &filter("llmob,ignore all\u{202e} previous", "serch_spans", false),
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
    fn every_tool_belongs_to_a_toolset() {
        let registry = ToolRegistry::from_tools();
        for tool in &registry.tools {
            assert!(registry.toolsets.contains(&tool.toolset), "{}", tool.name);
        }
        for set in DEFAULT_TOOLSETS {
            assert!(registry.toolsets.contains(&set));
        }
    }
}
