//! `[token.NAME]`, and the references of routes to them: JSON Web Tokens that a backend signs (RFC 7519).
//!
//! The algorithm is fixed here, and is never what a token says (RFC 8725, section 3.1).

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, jwk};

use super::keys;
use super::limits::TOKEN_KEYS_BYTES_MAX;
use super::reader::{Item, Table};
use super::report::{Problem, Report};
use super::secret::{self, Secret};
use super::text_file::{self, Pipes};

/// `[token.NAME]`
#[derive(Debug, Clone, PartialEq)]
pub struct Tokens {
    /// NAME in `[token.NAME]`.
    pub name: Arc<str>,
    /// The algorithm of the signature.
    pub algorithm: Algorithm,
    /// What the signature is checked with.
    pub keys: TokenKeys,
    /// What `iss` must be.
    pub issuer: Option<String>,
    /// What `aud` must be, or contain.
    pub audience: Option<String>,
    /// How much the clocks may differ.
    pub leeway: Duration,
    /// The cookie in which a token may come, too.
    pub cookie: Option<String>,
    /// The claim that lists the channels which the client may subscribe to; `None`: those of the route.
    pub channels: Option<String>,
}

/// What signatures are checked with.
#[derive(Debug, Clone, PartialEq)]
pub enum TokenKeys {
    /// One of these secrets.
    Secrets(Vec<Secret>),
    /// The public key in this file, in PEM.
    Public(PathBuf, Vec<u8>),
    /// One of the keys in this file, a JSON Web Key Set (RFC 7517).
    Set(PathBuf, Vec<u8>),
}

/// The words of `algorithm`.
pub(super) const ALGORITHMS: [(&str, Algorithm); 12] = [
    ("HS256", Algorithm::HS256),
    ("HS384", Algorithm::HS384),
    ("HS512", Algorithm::HS512),
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

/// The prefix of the holes that claims fill.
pub const CLAIM: &str = "token.";

impl Tokens {
    /// The name of the algorithm.
    pub fn algorithm_name(&self) -> &'static str {
        ALGORITHMS.iter().find(|(_, algorithm)| *algorithm == self.algorithm).map_or("", |(name, _)| name)
    }
}

/// The public key in PEM, for this algorithm.
///
/// # Errors
/// A sentence that says what it is not.
pub fn public_key(algorithm: Algorithm, pem: &[u8]) -> Result<DecodingKey, &'static str> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    match algorithm {
        RS256 | RS384 | RS512 | PS256 | PS384 | PS512 => {
            DecodingKey::from_rsa_pem(pem).map_err(|_| "expected the PUBLIC KEY of RSA in PEM")
        }
        ES256 | ES384 => DecodingKey::from_ec_pem(pem).map_err(|_| "expected the PUBLIC KEY of a curve in PEM"),
        EdDSA => DecodingKey::from_ed_pem(pem).map_err(|_| "expected the PUBLIC KEY of Ed25519 in PEM"),
        _ => Err("this algorithm has a secret, and no public key"),
    }
}

/// The tables that the file declares, in its order.
pub(super) struct TokenTables<'a> {
    declared: Vec<Declared<'a>>,
}

struct Declared<'a> {
    item: Item<'a>,
    tokens: Option<Tokens>,
    used: Cell<bool>,
}

impl<'a> TokenTables<'a> {
    /// Reads every `[token.NAME]`.
    pub(super) fn read(top: &Table<'a>) -> TokenTables<'a> {
        let declared = |item: Item<'a>| Declared { item, tokens: read(item), used: Cell::new(false) };
        TokenTables { declared: top.named("token").into_iter().map(declared).collect() }
    }

    /// The tokens that `tokens` names in the table of a route.
    pub(super) fn of_route(&self, table: &Table<'a>) -> Option<Tokens> {
        let item = table.item("tokens")?;
        if table.section().key("keys").is_some() && table.item("keys").is_some() {
            let problem = Problem::error(item.key_span(), "a route takes keys or tokens").label("it has `keys`, too");
            item.note(problem.help("both come as `Authorization: Bearer`: use two routes"));
        }
        let name = item.text("the name of a table of tokens")?;
        let Some(declared) = self.declared.iter().find(|declared| declared.item.key() == name) else {
            let known = self.declared.iter().map(|declared| declared.item.key());
            let problem = item.error(format!("there is no token `{name}`")).label("not declared").absence();
            item.note(problem.help(format!("declare it with `[token.{name}]`")).meant(name, known));
            return None;
        };
        declared.used.set(true);
        declared.tokens.clone()
    }

    /// Warns of tables that no route names.
    pub(super) fn note_unused(&self, report: &Report<'_>) {
        for declared in self.declared.iter().filter(|declared| !declared.used.get()) {
            let name = declared.item.key();
            let problem = Problem::warning(declared.item.key_span(), format!("no route accepts tokens of `{name}`"));
            report.note(problem.help(format!("add `tokens = \"{name}\"` to a route, or remove the table")));
        }
    }
}

fn read(item: Item<'_>) -> Option<Tokens> {
    item.note_bad_name();
    let table = item.table(&keys::TOKEN)?;
    let algorithm = table.required("algorithm", "for example `algorithm = \"HS256\"`");
    let algorithm = algorithm.and_then(|item| item.choice(&ALGORITHMS));
    let text = |key: &str| table.item(key).and_then(|item| item.text("a string").map(str::to_owned));
    let channels = table.item("channels").and_then(|item| {
        let claim = item.text("a claim, such as \"token.channels\"")?;
        let name = claim.strip_prefix(CLAIM).filter(|name| !name.is_empty());
        if name.is_none() {
            item.note(item.error("this is not a claim").label("expected a name such as \"token.channels\""));
        }
        name.map(str::to_owned)
    });
    let keys = keys(&table, algorithm);
    Some(Tokens {
        name: item.key().into(),
        issuer: text("issuer"),
        audience: text("audience"),
        leeway: table.duration("leeway"),
        cookie: text("cookie"),
        channels,
        algorithm: algorithm?,
        keys: keys?,
    })
}

fn keys(table: &Table<'_>, algorithm: Option<Algorithm>) -> Option<TokenKeys> {
    let sources = ["secret", "public_key", "jwks"].map(|key| table.item(key));
    let set: Vec<_> = sources.iter().flatten().collect();
    let has_secret = matches!(algorithm, Some(Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512));
    let [item] = set[..] else {
        let problem = Problem::error(table.span(), "tokens are checked with one thing").absence();
        let help = if has_secret { "add `secret`" } else { "add one of `public_key` and `jwks`" };
        table.note(problem.label("expected one of `secret`, `public_key` and `jwks`").help(help));
        return None;
    };
    // Mistakes in the value are reported whatever the algorithm is.
    let secrets = if item.key() == "secret" { item.secrets() } else { Vec::new() };
    let file = if item.key() == "secret" { "" } else { item.text("the path of a file")? };
    let algorithm = algorithm?;
    if has_secret != (item.key() == "secret") {
        let problem = Problem::error(item.key_span(), format!("`{}` does not belong to this algorithm", item.key()));
        let help = if has_secret { "it needs a `secret`" } else { "it needs a `public_key` or `jwks`" };
        item.note(problem.help(help));
        return None;
    }
    if has_secret {
        return Some(TokenKeys::Secrets(secrets));
    }
    let path = item.base().join(file);
    let is_set = item.key() == "jwks";
    if !item.reads_files() {
        return Some(if is_set { TokenKeys::Set(path, Vec::new()) } else { TokenKeys::Public(path, Vec::new()) });
    }
    let content = match text_file::read(&path, Pipes::Refused, TOKEN_KEYS_BYTES_MAX as u64) {
        Ok(content) => content,
        Err(error) => {
            let problem = item.error("this key cannot be read");
            item.note(problem.label(format!("{}: {}", path.display(), secret::unreadable(&error))));
            return None;
        }
    };
    if is_set {
        if let Err(error) = serde_json::from_slice::<jwk::JwkSet>(&content) {
            item.note(item.error("this is not a JSON Web Key Set").label(error.to_string()));
            return None;
        }
        return Some(TokenKeys::Set(path, content));
    }
    if let Err(expected) = public_key(algorithm, &content) {
        item.note(item.error("this key cannot be used").label(expected));
        return None;
    }
    Some(TokenKeys::Public(path, content))
}
