//! Who may do what: what a request shows, and what that allows.
//!
//! - [`bearer`]: what the request shows (RFC 6750).
//! - [`passwords`]: the users of a route that asks for passwords (RFC 7617).
//! - [`keyring`]: the keys of a route. A program that shows one may publish on the channels of that key.
//! - [`token`]: JSON Web Tokens. What one says fills templates, and its session ends when it expires.
//!
//! Pure functions, but for what `passwords` remembers. `http` asks them once for each request, and answers with what they refuse.

pub mod bearer;
pub mod keyring;
pub mod passwords;
pub mod token;

pub use keyring::Keyring;
pub use token::Verifier;
