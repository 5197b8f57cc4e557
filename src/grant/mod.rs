//! Who may do what: what a request shows, and what that allows.
//!
//! - [`bearer`]: what the request shows (RFC 6750).
//! - [`keyring`]: the keys of a route. A program that shows one may publish on the channels of that key.
//!
//! Pure functions. `http` asks them once for each request, and answers with what they refuse.

pub mod bearer;
pub mod keyring;

pub use keyring::Keyring;
