//! Routes under the prefixes of the Agent's proxy.

use axum::Router;
use axum::routing::MethodRouter;

/// Prefixes of the paths that the Agent's proxy forwards.
pub(crate) const PROXY_PREFIXES: [&str; 2] = ["/evp_proxy/v2", "/evp_proxy/v4"];

/// Adds a route under its path and under each proxy prefix.
pub(crate) fn route_with_prefixes(
    mut router: Router,
    path: &str,
    methods: &MethodRouter,
) -> Router {
    router = router.route(path, methods.clone());
    for prefix in PROXY_PREFIXES {
        router = router.route(&format!("{prefix}{path}"), methods.clone());
    }
    router
}
