//! Client metadata, from a registration or a metadata document.
//!
//! The metadata is bounded and not trusted: the consent page shows the name as a claim of the program.

use serde_json::Value;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

use super::redirect_uri;

/// The maximum number of redirect URIs of a client.
const MAX_REDIRECT_URIS: usize = 10;
/// The maximum length of a name in characters.
const MAX_NAME_CHARS: usize = 100;
/// The name of a client that does not send one.
const DEFAULT_NAME: &str = "(unnamed)";

/// The members of client metadata that this server uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClientMetadata {
    /// The name: one line without invisible characters.
    pub(super) name: String,
    /// The redirect URIs.
    pub(super) redirects: Vec<String>,
}

/// Why metadata is refused, with the error code of RFC 7591. The description never contains what the
/// client sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MetadataError {
    pub(super) code: &'static str,
    pub(super) description: &'static str,
}

impl ClientMetadata {
    /// Parses metadata. Unknown members are ignored. Further grant types and response types are no error,
    /// because the response lists the accepted ones.
    ///
    /// # Errors
    /// The name or a redirect URI is unusable, or the client does not support the authorization code
    /// flow.
    pub(super) fn parse(sent: &Value) -> Result<Self, MetadataError> {
        let invalid = |description| MetadataError {
            code: "invalid_client_metadata",
            description,
        };
        let name = match sent.get("client_name") {
            None | Some(Value::Null) => DEFAULT_NAME.to_owned(),
            Some(Value::String(name)) => validate_name(name).ok_or(invalid(
                "client_name must have at most 100 characters, none of them invisible",
            ))?,
            Some(_) => return Err(invalid("client_name must be a string")),
        };
        if !contains_or_absent(sent, "grant_types", "authorization_code") {
            return Err(invalid("grant_types must contain authorization_code"));
        }
        if !contains_or_absent(sent, "response_types", "code") {
            return Err(invalid("response_types must contain code"));
        }
        let invalid = |description| MetadataError {
            code: "invalid_redirect_uri",
            description,
        };
        let items = sent
            .get("redirect_uris")
            .and_then(Value::as_array)
            .filter(|items| (1..=MAX_REDIRECT_URIS).contains(&items.len()))
            .ok_or(invalid("redirect_uris must be a list of 1 to 10 URIs"))?;
        let mut redirects = Vec::with_capacity(items.len());
        for item in items {
            let text = item
                .as_str()
                .ok_or(invalid("redirect_uris must be a list of strings"))?;
            redirect_uri::validate(text).map_err(invalid)?;
            redirects.push(text.to_owned());
        }
        Ok(Self { name, redirects })
    }
}

/// Whether a list contains a value, or is absent.
fn contains_or_absent(sent: &Value, key: &str, value: &str) -> bool {
    match sent.get(key) {
        None | Some(Value::Null) => true,
        Some(Value::Array(items)) => items.iter().any(|item| item == value),
        Some(_) => false,
    }
}

/// A trimmed name. `None` if it is too long or has invisible characters.
fn validate_name(name: &str) -> Option<String> {
    let name = name.trim();
    if name.is_empty() {
        return Some(DEFAULT_NAME.to_owned());
    }
    let is_visible = |c: char| {
        !matches!(
            c.general_category(),
            GeneralCategory::Control
                | GeneralCategory::Format
                | GeneralCategory::Surrogate
                | GeneralCategory::PrivateUse
                | GeneralCategory::Unassigned
                | GeneralCategory::LineSeparator
                | GeneralCategory::ParagraphSeparator
        )
    };
    let is_valid = name.chars().count() <= MAX_NAME_CHARS && name.chars().all(is_visible);
    is_valid.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn parse(change: impl FnOnce(&mut Value)) -> Result<ClientMetadata, MetadataError> {
        let mut sent = json!({
            "client_name": "Codex",
            "redirect_uris": ["http://127.0.0.1:5/callback"],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
            "application_type": "native",
        });
        change(&mut sent);
        ClientMetadata::parse(&sent)
    }

    #[test]
    fn parses_metadata_of_known_clients() {
        let metadata = parse(|_| {}).unwrap();
        assert_eq!(metadata.name, "Codex");
        assert_eq!(metadata.redirects, ["http://127.0.0.1:5/callback"]);
        let bare = json!({"redirect_uris": ["https://app.example/cb"]});
        assert_eq!(ClientMetadata::parse(&bare).unwrap().name, DEFAULT_NAME);
    }

    #[rstest]
    #[case(json!("a\nb"))]
    #[case(json!("a\u{202e}b"))]
    #[case(json!("a\u{200b}b"))]
    #[case(json!("a\u{0}b"))]
    #[case(json!("x".repeat(101)))]
    #[case(json!(["a"]))]
    fn refuses_deceptive_names(#[case] name: Value) {
        let error = parse(|sent| sent["client_name"] = name).unwrap_err();
        assert_eq!(error.code, "invalid_client_metadata");
    }

    #[test]
    fn accepts_html_characters_in_names() {
        let name = "<script>alert('x')</script>";
        let metadata = parse(|sent| sent["client_name"] = json!(name)).unwrap();
        assert_eq!(metadata.name, name);
    }

    #[rstest]
    #[case(json!([]))]
    #[case(json!(vec!["https://app.example/cb"; 11]))]
    #[case(json!([5]))]
    #[case(json!("https://app.example/cb"))]
    #[case(json!(["javascript:alert(1)"]))]
    #[case(json!(["https://app.example/cb", "http://evil.example/cb"]))]
    #[case(Value::Null)]
    fn refuses_unusable_redirect_uris(#[case] redirects: Value) {
        let error = parse(|sent| sent["redirect_uris"] = redirects).unwrap_err();
        assert_eq!(error.code, "invalid_redirect_uri");
    }

    #[rstest]
    #[case("grant_types", json!(["client_credentials"]))]
    #[case("grant_types", json!("authorization_code"))]
    #[case("response_types", json!(["token"]))]
    fn refuses_clients_without_code_flow(#[case] key: &str, #[case] value: Value) {
        let error = parse(|sent| sent[key] = value).unwrap_err();
        assert_eq!(error.code, "invalid_client_metadata");
    }
}
