//! `basic_auth` of a static route: the users and the hashes of their passwords, in the format of htpasswd(1).
//!
//! The hashes are those of bcrypt and of SHA-crypt. The others that htpasswd(1) makes are broken, or can be tried too fast. The files
//! are read with the configuration, so a reload reads them anew.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::limits::{BCRYPT_COST_MAX, PASSWORD_FILE_BYTES_MAX, SHA_CRYPT_ROUNDS_MAX};
use super::reader::Item;
use super::text_file::{self, Pipes};

/// The users of a route.
#[derive(Debug, Clone, PartialEq)]
pub struct Passwords {
    /// Each user once.
    pub users: Arc<[(Box<str>, PasswordHash)]>,
    /// What browsers show when they ask for the password.
    pub realm: String,
}

/// The hash of a password, with its method.
#[derive(Clone, PartialEq, Eq)]
pub enum PasswordHash {
    /// `$2y$…`
    Bcrypt(Box<str>),
    /// `$5$…` and `$6$…`
    ShaCrypt(Box<str>),
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(hidden)")
    }
}

/// Reads the files that `item` names. None of them, if the configuration is only parsed.
pub(super) fn read(item: &Item<'_>, realm: String) -> Passwords {
    let mut users: Vec<(Box<str>, PasswordHash)> = Vec::new();
    for place in item.places() {
        let Some((path, named)) = place.place() else { continue };
        if !named.report.reads_files {
            continue;
        }
        for (user, hash) in read_file(&named, &path) {
            if users.iter().any(|(known, _)| *known == user) {
                let problem =
                    named.error("a user has two passwords").label(format!("`{}` is there twice", shown(&user)));
                named.note(problem.help("remove one of the lines"));
                continue;
            }
            users.push((user, hash));
        }
    }
    Passwords { users: users.into(), realm }
}

fn read_file(named: &Item<'_>, path: &Path) -> Vec<(Box<str>, PasswordHash)> {
    let at = named.as_text().unwrap_or_default();
    let content =
        match text_file::read(path, Pipes::Refused, PASSWORD_FILE_BYTES_MAX + 1) {
            Ok(content) if content.len() as u64 > PASSWORD_FILE_BYTES_MAX => {
                let problem = named.error("this file of passwords is too long");
                named.note(problem.label(format!("at most {PASSWORD_FILE_BYTES_MAX} bytes")));
                return Vec::new();
            }
            Ok(content) => content,
            Err(error) => {
                let why = match error.kind() {
                    io::ErrorKind::NotFound => "there is no such file".to_owned(),
                    io::ErrorKind::PermissionDenied => "this user may not read it".to_owned(),
                    _ => error.to_string(),
                };
                let problem = named.error("this file of passwords cannot be read").label(why);
                named.note(problem.help(format!(
                    "`htpasswd -cB {at} USER` makes it; a reload reads it as the user that pushd runs as"
                )));
                return Vec::new();
            }
        };
    let text = String::from_utf8_lossy(&content);
    let mut users = Vec::new();
    for (number, line) in text.lines().enumerate() {
        match user(line) {
            Ok(user) => users.extend(user),
            Err(why) => {
                let problem = named.error("a line of this file of passwords cannot be used").label(why);
                named.note(
                    problem.help(format!("line {} of {at}; `htpasswd -B {at} USER` writes a good one", number + 1)),
                );
            }
        }
    }
    if users.is_empty() && text.trim().is_empty() {
        let problem = named.error("this file of passwords is empty").label("nobody could read the files");
        named.note(problem.help(format!("`htpasswd -cB {at} USER` adds a user")));
    }
    users
}

/// The user of a line; `None` for an empty line or a comment. The error does not show the hash.
fn user(line: &str) -> Result<Option<(Box<str>, PasswordHash)>, String> {
    let line = line.trim_end();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let Some((user, rest)) = line.split_once(':').filter(|(user, _)| !user.is_empty()) else {
        return Err("expected `USER:HASH`".to_owned());
    };
    let hash = rest.split(':').next().unwrap_or_default();
    match hash_of(hash) {
        Ok(hash) => Ok(Some((user.into(), hash))),
        Err(why) => Err(format!("the password of `{}` {why}", shown(user))),
    }
}

fn hash_of(hash: &str) -> Result<PasswordHash, String> {
    let fields: Vec<&str> = hash.split('$').collect();
    match fields[..] {
        ["", "2y" | "2b" | "2a", cost, rest] => {
            let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/');
            let cost = cost.parse().ok().filter(|_| rest.len() == 53 && rest.bytes().all(is_base64) && cost.len() == 2);
            match cost {
                Some(4..=BCRYPT_COST_MAX) => Ok(PasswordHash::Bcrypt(hash.into())),
                Some(cost) => Err(format!("has the bcrypt cost {cost}: expected 4 to {BCRYPT_COST_MAX}")),
                None => Err("is not a complete hash of bcrypt".to_owned()),
            }
        }
        ["", "5" | "6", _, _] => Ok(PasswordHash::ShaCrypt(hash.into())),
        ["", "5" | "6", rounds, _, _] => {
            let number = rounds.strip_prefix("rounds=").and_then(|number| number.parse().ok());
            match number {
                Some(1000..=SHA_CRYPT_ROUNDS_MAX) => Ok(PasswordHash::ShaCrypt(hash.into())),
                _ => Err(format!("has wrong rounds: expected 1000 to {SHA_CRYPT_ROUNDS_MAX}")),
            }
        }
        ["", "apr1" | "1", ..] => Err("is hashed with MD5, which is too weak".to_owned()),
        _ if hash.starts_with("{SHA}") => Err("is hashed with SHA-1 without a salt, which is too weak".to_owned()),
        _ => Err("is hashed by no method that pushd has, or not at all".to_owned()),
    }
}

fn shown(user: &str) -> String {
    super::text::cut(user, 40).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_user_with_a_strong_hash() {
        let bcrypt = "$2y$05$abcdefghijklmnopqrstuufCq7KSx/yTY1N2WBDUpQoHYqabOcAn2";
        let sha = "$5$saltsalt$2Op9/kVAQ1GN09Eemt0wtVjmvpnHswRioMKJ4ytV927";
        for good in [format!("a:{bcrypt}"), format!("a:{sha}"), format!("a b:{sha}:comment"), format!("ä:{bcrypt}\r")]
        {
            assert!(matches!(user(&good), Ok(Some(_))), "{good}");
        }
        assert_eq!(user("# a:b"), Ok(None));
        assert_eq!(user("  "), Ok(None));
        for (bad, why) in [
            ("a", "USER:HASH"),
            (":x", "USER:HASH"),
            ("a:plain", "no method"),
            ("a:$apr1$x$y", "MD5"),
            ("a:{SHA}x", "SHA-1"),
            ("a:$2y$05$short", "not a complete hash"),
            ("a:$2y$31$abcdefghijklmnopqrstuufCq7KSx/yTY1N2WBDUpQoHYqabOcAn2", "cost 31"),
            ("a:$6$rounds=99999999$salt$x", "rounds"),
            ("a:$argon2id$v=19$x", "no method"),
        ] {
            let error = user(bad).unwrap_err();
            assert!(error.contains(why) && !error.contains("$2y$") && !error.contains("plain"), "{bad}: {error}");
        }
        let hidden = format!("{:?}", user(&format!("a:{bcrypt}")));
        assert!(!hidden.contains("abcdef"), "{hidden}");
    }
}
