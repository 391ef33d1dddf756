//! Mode `oauth`, over real HTTP: clients that log in, and those that should not get in.

mod attacks;
mod brute;
mod datadog;
mod datadog_attacks;
mod secrets;
mod sign_in;
mod site;
mod stage;
mod users;
