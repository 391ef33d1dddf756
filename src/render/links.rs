//! Links to Datadog's pages. A local backend has no pages, so its answers have no links.

/// The page of a trace. `app_base` is the URL of the site's web application, such as
/// `https://app.datadoghq.com`.
pub fn trace_url(app_base: &str, trace_id: &str) -> String {
    let id: String = url::form_urlencoded::byte_serialize(trace_id.as_bytes()).collect();
    format!(
        "{}/llm/traces?query=trace_id:{id}",
        app_base.trim_end_matches('/')
    )
}

/// The page of an experiment.
pub fn experiment_url(app_base: &str, experiment_id: &str) -> String {
    let id: String = url::form_urlencoded::byte_serialize(experiment_id.as_bytes()).collect();
    format!("{}/llm/experiments/{id}", app_base.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_escaped_in_links() {
        assert_eq!(
            trace_url("https://app.datadoghq.eu/", "a&b=c d"),
            "https://app.datadoghq.eu/llm/traces?query=trace_id:a%26b%3Dc+d"
        );
        assert_eq!(
            experiment_url("https://app.datadoghq.eu", "a/b"),
            "https://app.datadoghq.eu/llm/experiments/a%2Fb"
        );
    }
}
