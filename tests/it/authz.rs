//! Mode `oauth` over HTTP: sign-ins of clients, and attacks.

mod attacks;
mod datadog;
mod datadog_attacks;
mod rate_limits;
mod secrets;
mod sign_in;
mod site_double;
mod test_server;
mod users;
