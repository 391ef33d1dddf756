//! What a program says of itself, at registration or in its metadata document, read within hard
//! bounds. Nothing of it is believed: the name is shown as the program's own claim.

use serde_json::Value;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

use super::redirect;

/// Redirect addresses of one client.
const MOST_REDIRECTS: usize = 10;
/// Characters of a name.
const LONGEST_NAME: usize = 100;
/// How a program without a name is called.
const UNNAMED: &str = "A program without a name";

/// The part of a client's metadata that means something here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Metadata {
    /// Its name for itself: one line, nothing invisible.
    pub(super) name: String,
    /// Where browsers may be sent.
    pub(super) redirects: Vec<String>,
}

/// What was wrong, with RFC 7591's code for it. The words hold nothing that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadMetadata {
    pub(super) code: &'static str,
    pub(super) words: &'static str,
}

impl Metadata {
    /// Reads it. Members that are not known are ignored; a grant or response type beside those that
    /// we serve is no error, because the answer says what was accepted.
    ///
    /// # Errors
    /// A name or an address that cannot be shown or used, or a client that could use nothing.
    pub(super) fn read(sent: &Value) -> Result<Self, BadMetadata> {
        let wrong = |words| BadMetadata {
            code: "invalid_client_metadata",
            words,
        };
        let name = match sent.get("client_name") {
            None | Some(Value::Null) => UNNAMED.to_owned(),
            Some(Value::String(name)) => readable(name).ok_or(wrong(
                "client_name may have 100 characters, none of them invisible",
            ))?,
            Some(_) => return Err(wrong("client_name must be a text")),
        };
        if !lists(sent, "grant_types", "authorization_code") {
            return Err(wrong("grant_types must hold authorization_code"));
        }
        if !lists(sent, "response_types", "code") {
            return Err(wrong("response_types must hold code"));
        }
        let wrong = |words| BadMetadata {
            code: "invalid_redirect_uri",
            words,
        };
        let items = sent
            .get("redirect_uris")
            .and_then(Value::as_array)
            .filter(|items| (1..=MOST_REDIRECTS).contains(&items.len()))
            .ok_or(wrong("redirect_uris must be a list of 1 to 10 addresses"))?;
        let mut redirects = Vec::with_capacity(items.len());
        for item in items {
            let text = item
                .as_str()
                .ok_or(wrong("redirect_uris must be a list of texts"))?;
            redirect::check(text).map_err(wrong)?;
            redirects.push(text.to_owned());
        }
        Ok(Self { name, redirects })
    }
}

/// Whether a list that may be absent holds a value.
fn lists(sent: &Value, key: &str, value: &str) -> bool {
    match sent.get(key) {
        None | Some(Value::Null) => true,
        Some(Value::Array(items)) => items.iter().any(|item| item == value),
        Some(_) => false,
    }
}

/// A name that shows all it holds.
fn readable(name: &str) -> Option<String> {
    let name = name.trim();
    if name.is_empty() {
        return Some(UNNAMED.to_owned());
    }
    let shows = |c: char| {
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
    let fits = name.chars().count() <= LONGEST_NAME && name.chars().all(shows);
    fits.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn read(change: impl FnOnce(&mut Value)) -> Result<Metadata, BadMetadata> {
        let mut sent = json!({
            "client_name": "Codex",
            "redirect_uris": ["http://127.0.0.1:5/callback"],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
            "application_type": "native",
        });
        change(&mut sent);
        Metadata::read(&sent)
    }

    #[test]
    fn what_real_clients_send_is_read() {
        let metadata = read(|_| {}).unwrap();
        assert_eq!(metadata.name, "Codex");
        assert_eq!(metadata.redirects, ["http://127.0.0.1:5/callback"]);
        let bare = json!({"redirect_uris": ["https://app.example/cb"]});
        assert_eq!(Metadata::read(&bare).unwrap().name, UNNAMED);
    }

    #[rstest]
    #[case(json!("a\nb"))]
    #[case(json!("a\u{202e}b"))]
    #[case(json!("a\u{200b}b"))]
    #[case(json!("a\u{0}b"))]
    #[case(json!("x".repeat(101)))]
    #[case(json!(["a"]))]
    fn a_name_that_could_deceive_is_refused(#[case] name: Value) {
        let error = read(|sent| sent["client_name"] = name).unwrap_err();
        assert_eq!(error.code, "invalid_client_metadata");
    }

    #[test]
    fn a_name_with_marks_of_html_is_only_a_name() {
        let name = "<script>alert('x')</script>";
        let metadata = read(|sent| sent["client_name"] = json!(name)).unwrap();
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
    fn addresses_that_cannot_be_used_are_refused(#[case] redirects: Value) {
        let error = read(|sent| sent["redirect_uris"] = redirects).unwrap_err();
        assert_eq!(error.code, "invalid_redirect_uri");
    }

    #[rstest]
    #[case("grant_types", json!(["client_credentials"]))]
    #[case("grant_types", json!("authorization_code"))]
    #[case("response_types", json!(["token"]))]
    fn a_client_that_could_use_nothing_is_refused(#[case] key: &str, #[case] value: Value) {
        let error = read(|sent| sent[key] = value).unwrap_err();
        assert_eq!(error.code, "invalid_client_metadata");
    }
}
