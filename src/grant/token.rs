//! Tokens: whether one is good, and what it says (RFC 7519; RFC 8725 lists what others did wrong).
//!
//! The algorithm and the keys are those of the configuration. Of the header of a token only `kid` is used, to choose among the keys of a
//! set; keys and addresses in it are ignored. `crit` is refused, because no extension is known (RFC 7515, section 4.1.11).

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation};
use serde_json::{Map, Value};

use crate::config::limits::TOKEN_BYTES_MAX;
use crate::config::{self, ChannelPattern, TokenKeys, Tokens};

/// Checks the tokens of one `[token.NAME]`.
pub struct Verifier {
    /// The configuration.
    pub tokens: Tokens,
    keys: Vec<Key>,
    validation: Validation,
}

/// A key with its number: what identifies it after a reload.
struct Key {
    id: Option<String>,
    number: u64,
    key: DecodingKey,
}

/// A good token.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// What it says.
    pub claims: Map<String, Value>,
    /// When it expires, in seconds since 1970.
    pub expires: u64,
    /// How many seconds later it is still accepted, because clocks differ.
    pub leeway: u64,
    /// The key that signed it.
    pub key: u64,
}

/// Why a token is not good, in a sentence that does not contain it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bad(pub &'static str);

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("name", &self.tokens.name).finish_non_exhaustive()
    }
}

impl Verifier {
    /// Checks by this configuration. Keys of a set that are for something else are left out.
    pub fn new(tokens: &Tokens) -> Verifier {
        let numbered = |id: Option<String>, bytes: &[u8], key| Key { id, number: number(bytes), key };
        let keys = match &tokens.keys {
            TokenKeys::Secrets(secrets) => {
                let key = |bytes| numbered(None, bytes, DecodingKey::from_secret(bytes));
                secrets.iter().map(|secret| key(secret.bytes())).collect()
            }
            TokenKeys::Public(_, pem) => {
                let key = config::public_key(tokens.algorithm, pem);
                key.map(|key| numbered(None, pem, key)).into_iter().collect()
            }
            TokenKeys::Set(_, json) => of_set(tokens, json),
        };
        let mut validation = Validation::new(tokens.algorithm);
        validation.leeway = tokens.leeway.as_secs();
        validation.validate_nbf = true;
        validation.validate_aud = tokens.audience.is_some();
        if let Some(audience) = &tokens.audience {
            validation.set_audience(&[audience]);
            validation.required_spec_claims.insert("aud".to_owned());
        }
        if let Some(issuer) = &tokens.issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        Verifier { tokens: tokens.clone(), keys, validation }
    }

    /// The numbers of its keys.
    pub fn key_numbers(&self) -> Vec<u64> {
        self.keys.iter().map(|key| key.number).collect()
    }

    /// Checks a token.
    ///
    /// # Errors
    /// Why it is not good.
    pub fn verify(&self, token: &str) -> Result<Token, Bad> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Bad("the token is too long"));
        }
        let header = header(token).ok_or(Bad("this is not a JSON Web Token"))?;
        if header.get("alg").and_then(Value::as_str) != Some(self.tokens.algorithm_name()) {
            return Err(Bad("the token is signed by another algorithm"));
        }
        if header.contains_key("crit") {
            return Err(Bad("the token needs an extension that is not known here"));
        }
        let id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.as_str()),
            Some(_) => return Err(Bad("the name of the token's key is not a string")),
        };
        let is_set = matches!(self.tokens.keys, TokenKeys::Set(..));
        let mut candidates =
            self.keys.iter().filter(|key| !is_set || id.is_none() || key.id.as_deref() == id).peekable();
        if candidates.peek().is_none() {
            return Err(Bad("the token is signed by a key that is not known here"));
        }
        if is_set && id.is_none() && self.keys.len() > 1 {
            return Err(Bad("the token does not name its key, and there are several"));
        }
        let mut why = Bad("the signature of the token is wrong");
        for key in candidates {
            match jsonwebtoken::decode::<Map<String, Value>>(token, &key.key, &self.validation) {
                Ok(data) => return self.token(data.claims, key.number),
                Err(error) if *error.kind() == ErrorKind::InvalidSignature => {}
                Err(error) => why = reason(error.kind()),
            }
        }
        Err(why)
    }

    fn token(&self, claims: Map<String, Value>, key: u64) -> Result<Token, Bad> {
        // It is a number: the validation has seen that.
        let expires = claims.get("exp").and_then(Value::as_f64).unwrap_or(0.0) as u64;
        Ok(Token { claims, expires, leeway: self.tokens.leeway.as_secs(), key })
    }
}

impl Token {
    /// A claim that can be part of a text: a string or a whole number.
    pub fn text(&self, name: &str) -> Option<String> {
        match self.claims.get(name)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) if number.is_u64() || number.is_i64() => Some(number.to_string()),
            _ => None,
        }
    }

    /// The channels that a claim lists: strings, each a name or a pattern. A claim of another form lists none.
    pub fn channels(&self, claim: &str) -> Vec<ChannelPattern> {
        let listed = self.claims.get(claim).and_then(Value::as_array).into_iter().flatten();
        listed.filter_map(Value::as_str).filter_map(|text| ChannelPattern::parse(text).ok()).collect()
    }
}

/// The header of a token. `None`: it has none.
fn header(token: &str) -> Option<Map<String, Value>> {
    let bytes = URL_SAFE_NO_PAD.decode(token.split('.').next()?).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// The keys of a set that are for the algorithm.
fn of_set(tokens: &Tokens, json: &[u8]) -> Vec<Key> {
    let Ok(set) = serde_json::from_slice::<JwkSet>(json) else { return Vec::new() };
    let is_ours = |jwk: &&jsonwebtoken::jwk::Jwk| {
        let use_ = jwk.common.public_key_use.as_ref();
        let is_for_signatures = use_.is_none_or(|one| *one == jsonwebtoken::jwk::PublicKeyUse::Signature);
        let algorithm = jwk.common.key_algorithm.map(|one| one.to_string());
        is_for_signatures && algorithm.is_none_or(|one| one == tokens.algorithm_name())
    };
    let fits = |key: &DecodingKey| key.family() == tokens.algorithm.family();
    let key = |jwk: &jsonwebtoken::jwk::Jwk| {
        let key = DecodingKey::from_jwk(jwk).ok().filter(fits)?;
        let bytes = serde_json::to_vec(jwk).ok()?;
        Some(Key { id: jwk.common.key_id.clone(), number: number(&bytes), key })
    };
    set.keys.iter().filter(is_ours).filter_map(key).collect()
}

/// A number that identifies a key, without telling it.
fn number(bytes: &[u8]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&digest(&SHA256, bytes).as_ref()[..8]);
    u64::from_be_bytes(first)
}

fn reason(kind: &ErrorKind) -> Bad {
    Bad(match kind {
        ErrorKind::ExpiredSignature => "the token has expired",
        ErrorKind::ImmatureSignature => "the token is not good yet (nbf)",
        ErrorKind::InvalidIssuer => "the token is from another issuer (iss)",
        ErrorKind::InvalidAudience => "the token is for another audience (aud)",
        ErrorKind::MissingRequiredClaim(claim) if claim == "exp" => "the token does not say when it expires (exp)",
        ErrorKind::MissingRequiredClaim(_) => "the token lacks a claim that is needed (iss or aud)",
        _ => "this is not a JSON Web Token",
    })
}
