//! A snapshot of the environment, so that resolving settings is a function of its arguments.

use std::collections::BTreeMap;

use llmobs_core::analysis::candidates::closest;

use super::error::SettingsError;
use super::values::{Raw, SETTINGS, Values};

pub(super) const CONFIG: &str = "LLMOBS_MCP_CONFIG";
pub(super) const PROFILE: &str = "LLMOBS_MCP_PROFILE";
pub(super) const STATE_DIR: &str = "LLMOBS_MCP_STATE_DIR";

/// The variable of other tools that also makes this program read-only.
const DATADOG_READ_ONLY: &str = "DD_LLMOBS_READ_ONLY";

/// A snapshot of environment variables.
#[derive(Debug, Default)]
pub(crate) struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The environment of this process. Variables that are not UTF-8 are left out.
    pub(crate) fn from_process() -> Self {
        let variables = std::env::vars_os();
        Self(
            variables
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
        )
    }

    #[cfg(test)]
    pub(crate) fn from_pairs(pairs: &[(&str, &str)]) -> Self {
        Self(
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        )
    }

    /// The trimmed value of a variable; an empty one counts as absent.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let value = self.0.get(name)?.trim();
        (!value.is_empty()).then_some(value)
    }

    /// The settings in the environment.
    pub(super) fn values(&self, notes: &mut Vec<String>) -> Result<Values, SettingsError> {
        let mut values = Values::default();
        for (key, variable) in SETTINGS {
            if let Some(text) = self.get(variable) {
                set(&mut values, key, variable, text, notes)?;
            }
        }
        if values.read_only != Some(true)
            && let Some(text) = self.get(DATADOG_READ_ONLY)
        {
            set(&mut values, "read_only", DATADOG_READ_ONLY, text, notes)?;
        }
        Ok(values)
    }

    /// A note for each variable with our prefix that is not a setting.
    pub(super) fn unknown_names(&self) -> Vec<String> {
        let known = || {
            let settings = SETTINGS.iter().map(|(_, variable)| *variable);
            settings.chain([CONFIG, PROFILE, STATE_DIR])
        };
        self.0
            .keys()
            .filter(|name| name.starts_with("LLMOBS_MCP_"))
            .filter(|name| !known().any(|known| known == name.as_str()))
            .map(|name| match closest(name, known()) {
                _ if name == "LLMOBS_MCP_API_URL" => {
                    "LLMOBS_MCP_API_URL is ignored: only the flag --api-url may say where \
                     credentials are sent"
                        .to_owned()
                }
                Some(near) => {
                    format!("unknown variable {name} is ignored; did you mean {near}?")
                }
                None => format!("unknown variable {name} is ignored"),
            })
            .collect()
    }
}

/// Sets a key from a variable. A switch that is neither on nor off counts as on, because switches
/// only restrict.
fn set(
    values: &mut Values,
    key: &str,
    variable: &str,
    text: &str,
    notes: &mut Vec<String>,
) -> Result<(), SettingsError> {
    let Err(why) = values.set(key, Raw::Text(text)) else {
        return Ok(());
    };
    if values.set(key, Raw::Text("true")).is_ok() {
        notes.push(format!("{variable} {why}; it counts as true"));
        return Ok(());
    }
    Err(SettingsError::Value {
        name: variable.to_owned(),
        why,
    })
}
