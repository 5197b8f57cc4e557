//! `pushctl token`: makes a token from the secret in the configuration, and says what is in one and whether it is good.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Map, Value};

use super::fault::Fault;
use super::{CONFIG, FAILED, Outcome, check, duration, print};
use crate::config::limits::TOKEN_BYTES_MAX;
use crate::config::{Action, Config, TokenKeys, Tokens};
use crate::daemon::exit::Exit;
use crate::daemon::timeout;
use crate::grant::Verifier;

const EXAMPLES: &str = "\
Examples:
  pushctl token make sub=7                        good for an hour
  pushctl token make --ttl 1d sub=7 name=Ann
  pushctl token check - <token                    what it says; is it good?";

/// Make a token from the secret in the configuration, or look at one
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TokenCommand {
    /// The configuration
    #[arg(short, long, value_name = "FILE", default_value = CONFIG, global = true)]
    config: PathBuf,

    /// NAME in [token.NAME]; needed where there are several
    #[arg(long, value_name = "NAME", global = true)]
    name: Option<String>,

    /// How long a new token is good
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration, global = true)]
    ttl: Duration,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print a token with these claims, signed with the first secret
    Make {
        /// Claims, as NAME=VALUE. A value that is JSON is taken as that, any other as text
        #[arg(value_name = "CLAIM=VALUE")]
        claims: Vec<String>,
    },
    /// Print what a token says, and whether it is good (exit code 1 if not)
    Check {
        /// The token, or "-" for standard input
        token: String,
    },
}

impl TokenCommand {
    pub fn run(&self) -> Outcome {
        let config = check::load(&self.config)?;
        let tokens = tokens(&config, self.name.as_deref(), &self.config)?;
        match &self.command {
            Command::Make { claims } => {
                print(&format!(
                    "{}\n",
                    make(tokens, claims, timeout::seconds_since_1970() + self.ttl.as_secs() as i64)?
                ))?;
                Ok(Exit::Clean.code())
            }
            Command::Check { token } => look(tokens, &read(token)?),
        }
    }
}

/// The tokens of the routes that are meant.
fn tokens<'c>(config: &'c Config, name: Option<&str>, file: &Path) -> Result<&'c Tokens, Fault> {
    let routes = config.servers.iter().flat_map(|server| &server.routes);
    let mut all: Vec<&Tokens> = routes.map(|route| &route.action).filter_map(Action::tokens).collect();
    all.sort_by(|one, other| one.name.cmp(&other.name));
    all.dedup_by(|one, other| one.name == other.name);
    let names = || all.iter().map(|tokens| &*tokens.name).collect::<Vec<_>>().join(", ");
    let file = file.display();
    let fault = |message: String| Fault::new(Exit::Usage, message);
    match (name, &all[..]) {
        (_, []) => Err(fault(format!("no route in {file} accepts tokens"))),
        (None, [one]) => Ok(one),
        (None, _) => Err(fault(format!("{file} has several kinds of tokens: name one with --name: {}", names()))),
        (Some(name), _) => {
            let found = all.iter().find(|tokens| &*tokens.name == name);
            found.copied().ok_or_else(|| fault(format!("no route accepts tokens of '{name}'; there are: {}", names())))
        }
    }
}

fn make(tokens: &Tokens, claims: &[String], expires: i64) -> Result<String, Fault> {
    let TokenKeys::Secrets(secrets) = &tokens.keys else {
        let message = format!("tokens of '{}' are signed with a private key, which pushd does not have", tokens.name);
        return Err(Fault::failed(message));
    };
    let Some(secret) = secrets.first() else {
        return Err(Fault::failed(
            "the secret is a credential that only the service has: name a configuration with a file",
        ));
    };
    let mut payload = Map::new();
    payload.insert("exp".to_owned(), expires.into());
    for (claim, value) in [("iss", &tokens.issuer), ("aud", &tokens.audience)] {
        payload.extend(value.clone().map(|value| (claim.to_owned(), value.into())));
    }
    for claim in claims {
        let Some((name, value)) = claim.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(Fault::new(Exit::Usage, format!("'{claim}' is not a claim: write NAME=VALUE")));
        };
        let value = match serde_json::from_str(value) {
            // Who a user is, is a text.
            Ok(_) if name == "sub" => value.into(),
            Ok(value) => value,
            Err(_) => Value::from(value),
        };
        payload.insert(name.to_owned(), value);
    }
    let key = EncodingKey::from_secret(secret.bytes());
    let made = jsonwebtoken::encode(&Header::new(tokens.algorithm), &payload, &key);
    made.map_err(|error| Fault::failed(format!("the token cannot be signed: {error}")))
}

fn read(token: &str) -> Result<String, Fault> {
    if token != "-" {
        return Ok(token.trim().to_owned());
    }
    let mut text = String::new();
    let read = std::io::stdin().lock().take(2 * TOKEN_BYTES_MAX as u64).read_to_string(&mut text);
    read.map_err(|error| Fault::io("cannot read the token from standard input", &error))?;
    Ok(text.trim().to_owned())
}

fn look(tokens: &Tokens, token: &str) -> Outcome {
    let mut parts = token.split('.');
    let mut part = |name: &str| {
        let bytes = parts.next().and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
        let value = bytes.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        value.map_or_else(|| format!("{name:<8}not readable\n"), |value| format!("{name:<8}{value}\n"))
    };
    let shown = part("header") + &part("claims");
    let (verdict, code) = match Verifier::new(tokens).verify(token) {
        Ok(good) => {
            let left = (good.expires + good.leeway) as i64 - timeout::seconds_since_1970();
            (format!("good: [token.{}] accepts it for {left} s more", tokens.name), Exit::Clean.code())
        }
        Err(bad) => (format!("not good: {}", bad.0), FAILED),
    };
    print(&format!("{shown}{verdict}\n"))?;
    Ok(code)
}
