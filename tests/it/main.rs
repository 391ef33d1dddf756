//! Integration tests: one binary, a module per theme.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice
)]

mod aggregate;
mod architecture;
mod authz;
mod bad_input;
mod binary;
mod burst;
mod captures;
mod circles;
mod control_double;
mod crash;
mod demo;
mod disk;
mod docs;
mod evaluators;
mod experiments;
mod login;
mod maintenance;
mod modes;
mod reach;
mod search;
mod shapes;
mod statistics;
mod support;
mod takeover;
mod tool_list;
mod users;
