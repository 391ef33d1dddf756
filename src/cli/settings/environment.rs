//! The environment, taken once, so that resolving settings is a function of its arguments.

use std::collections::BTreeMap;

use crate::server::closest;

/// The variables of ours that exist besides Datadog's.
const OURS: [&str; 21] = [
    "LLMOBS_MCP_TOOLSETS",
    "LLMOBS_MCP_OMIT_TOOLS",
    "LLMOBS_MCP_READ_ONLY",
    "LLMOBS_MCP_DATA_DIR",
    "LLMOBS_MCP_RETAIN_DAYS",
    "LLMOBS_MCP_RETAIN_BYTES",
    "LLMOBS_MCP_DATADOG_LIMITS",
    "LLMOBS_MCP_CA_FILE",
    "LLMOBS_MCP_LOG",
    "LLMOBS_MCP_CONFIG",
    "LLMOBS_MCP_PROFILE",
    "LLMOBS_MCP_STATE_DIR",
    "LLMOBS_MCP_AUTH",
    "LLMOBS_MCP_PUBLIC_URL",
    "LLMOBS_MCP_NO_CLIENT_METADATA_DOCUMENTS",
    "LLMOBS_MCP_DATADOG_SIGN_IN",
    "LLMOBS_MCP_DATADOG_CLIENT_ID",
    "LLMOBS_MCP_BEARER",
    "LLMOBS_MCP_BEARER_FILE",
    "LLMOBS_MCP_SECRET_KEY",
    "LLMOBS_MCP_SECRET_KEY_FILE",
];

/// A snapshot of environment variables.
#[derive(Debug, Default)]
pub(crate) struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The environment of this process. Variables that are not text are none of ours.
    pub(crate) fn of_process() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
        )
    }

    #[cfg(test)]
    pub(crate) fn of(pairs: &[(&str, &str)]) -> Self {
        Self(
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        )
    }

    /// A variable's trimmed value; an empty one is absent.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        self.0
            .get(name)
            .map(|value| value.trim())
            .filter(|value| !value.is_empty())
            .map(str::to_owned)
    }

    /// Whether a yes-or-no variable that only tightens is on. What is neither counts as on.
    pub(crate) fn is_set(&self, name: &str, notes: &mut Vec<String>) -> bool {
        let Some(value) = self.get(name) else {
            return false;
        };
        match value.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => true,
            "0" | "false" | "no" | "off" => false,
            _ => {
                notes.push(format!(
                    "{name} is neither true nor false; it counts as true"
                ));
                true
            }
        }
    }

    /// A remark for each variable that looks like ours and is not.
    pub(crate) fn unknown_names(&self) -> Vec<String> {
        self.0
            .keys()
            .filter(|name| name.starts_with("LLMOBS_MCP_") && !OURS.contains(&name.as_str()))
            .map(|name| match closest(name, OURS) {
                _ if name == "LLMOBS_MCP_API_URL" => {
                    "LLMOBS_MCP_API_URL is ignored: where credentials go is said by the flag \
                     --api-url only"
                        .to_owned()
                }
                Some(near) => format!("{name} is not known and ignored; did you mean {near}?"),
                None => format!("{name} is not known and ignored"),
            })
            .collect()
    }
}
