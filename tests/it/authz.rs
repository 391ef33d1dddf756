//! Mode `oauth`, over real HTTP: clients that log in, and those that should not get in.

mod attacks;
mod brute;
mod secrets;
mod sign_in;
mod stage;
mod users;
