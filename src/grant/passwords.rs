//! The users of a route that asks for passwords (HTTP Basic, RFC 7617).
//!
//! A comparison is slow on purpose, so the caller makes it on another thread, and a password that was right is remembered for some
//! minutes, by all shards: as a keyed hash, whose key only this process has. The hash of the password is in it, so a changed password
//! is compared anew. A name that is unknown takes as long as one that is known.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderMap};
use sha_crypt::{PasswordVerifier as _, ShaCrypt};

use crate::config::limits::{PASSWORD_BYTES_MAX, PASSWORD_KEPT, PASSWORDS_KEPT_MAX};
use crate::config::{PasswordHash, Passwords};

/// Compared where a user is unknown, at the default cost of htpasswd(1). No password has this hash.
const NOBODY: &str = "$2y$05$......................................................";

/// A name and a password that a request shows.
pub struct Shown {
    name: String,
    password: Vec<u8>,
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown(hidden)")
    }
}

/// The users of a route.
pub struct Users {
    hashes: HashMap<Box<str>, PasswordHash>,
    /// What an unknown user is compared with.
    nobody: PasswordHash,
}

/// The passwords that were right some minutes ago.
struct Recent {
    /// `None`: the system gave no random numbers, and nothing is remembered.
    key: Option<hmac::Key>,
    right: Mutex<HashMap<[u8; 32], Instant>>,
}

static RECENT: LazyLock<Recent> = LazyLock::new(|| Recent {
    key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok(),
    right: Mutex::default(),
});

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users").field("count", &self.hashes.len()).finish_non_exhaustive()
    }
}

/// What the request shows. `None`: nothing that can be right.
pub fn shown(headers: &HeaderMap) -> Option<Shown> {
    const SCHEME: &[u8] = b"basic ";
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.as_bytes();
    // Which of several counts would be a guess.
    if values.next().is_some() {
        return None;
    }
    let (scheme, encoded) = value.split_at_checked(SCHEME.len())?;
    let decoded = STANDARD.decode(encoded.trim_ascii()).ok().filter(|_| scheme.eq_ignore_ascii_case(SCHEME))?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let name = String::from_utf8(decoded[..colon].to_vec()).ok()?;
    let password = decoded[colon + 1..].to_vec();
    (password.len() <= PASSWORD_BYTES_MAX).then_some(Shown { name, password })
}

impl Users {
    /// The users of `passwords`.
    pub fn new(passwords: &Passwords) -> Users {
        // An unknown name must take as long as most known ones.
        let first = passwords.users.first().map(|(_, hash)| hash.clone());
        Users {
            hashes: passwords.users.iter().cloned().collect(),
            nobody: first.unwrap_or_else(|| PasswordHash::Bcrypt(NOBODY.into())),
        }
    }

    /// The user, if this password was right some minutes ago.
    pub fn recent(&self, shown: &Shown) -> Option<Arc<str>> {
        let hash = self.hashes.get(shown.name.as_str())?;
        let tag = RECENT.tag(shown, hash)?;
        let at = *RECENT.lock().get(&tag)?;
        (at.elapsed() < PASSWORD_KEPT).then(|| shown.name.as_str().into())
    }

    /// The user, if the password is right. This takes from milliseconds to a second.
    pub fn verify(&self, shown: &Shown) -> Option<Arc<str>> {
        let known = self.hashes.get(shown.name.as_str());
        let is_right = fits(&shown.password, known.unwrap_or(&self.nobody));
        let hash = known.filter(|_| is_right)?;
        if let Some(tag) = RECENT.tag(shown, hash) {
            let mut right = RECENT.lock();
            if right.len() >= PASSWORDS_KEPT_MAX {
                right.clear();
            }
            right.insert(tag, Instant::now());
        }
        Some(shown.name.as_str().into())
    }
}

impl Recent {
    fn tag(&self, shown: &Shown, hash: &PasswordHash) -> Option<[u8; 32]> {
        let (PasswordHash::Bcrypt(hash) | PasswordHash::ShaCrypt(hash)) = hash;
        let mut context = hmac::Context::with_key(self.key.as_ref()?);
        // No name and no hash contains a colon.
        for part in [shown.name.as_bytes(), b":", hash.as_bytes(), b":", &shown.password] {
            context.update(part);
        }
        let mut tag = [0; 32];
        tag.copy_from_slice(context.sign().as_ref());
        Some(tag)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Instant>> {
        self.right.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a password has this hash. Both methods compare in constant time.
fn fits(password: &[u8], hash: &PasswordHash) -> bool {
    match hash {
        PasswordHash::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
        PasswordHash::ShaCrypt(hash) => ShaCrypt::default().verify_password(password, &**hash).is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    // Made by OpenSSL 3.0 and by crypt(3).
    const BCRYPT: &str = "$2y$05$abcdefghijklmnopqrstuufCq7KSx/yTY1N2WBDUpQoHYqabOcAn2";
    const SHA256: &str = "$5$saltsalt$2Op9/kVAQ1GN09Eemt0wtVjmvpnHswRioMKJ4ytV927";
    const SHA512: &str =
        "$6$saltsalt$4ME//p1HhMu5nePr6s5aZNqE.DY.AaQX89xLOQMcX.jgMaMFd5ktoqzU9PsNQBg50nbg5mt/Kr7kKr6TTob2F/";
    const ROUNDS: &str = "$6$rounds=1000$saltsalt$FiBN5PCSQz7PpTOT7vwGSzY2QH528hJHj.FtyQdehiyRbdxPIZydG7z9a4mOh.ZWHCU17ZsaRhe.JmCaRFZjY.";

    fn users(hashes: &[(&str, PasswordHash)]) -> Users {
        let users = hashes.iter().map(|(name, hash)| ((*name).into(), hash.clone())).collect();
        Users::new(&Passwords { users, realm: "x".to_owned() })
    }

    fn request(value: &str) -> HeaderMap {
        [(AUTHORIZATION, HeaderValue::from_str(value).unwrap())].into_iter().collect()
    }

    fn basic(user: &str, password: &str) -> Option<Shown> {
        shown(&request(&format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))))
    }

    #[test]
    fn each_method_takes_the_password_and_no_other() {
        let users = users(&[
            ("a", PasswordHash::Bcrypt(BCRYPT.into())),
            ("b", PasswordHash::ShaCrypt(SHA256.into())),
            ("c", PasswordHash::ShaCrypt(SHA512.into())),
            ("d", PasswordHash::ShaCrypt(ROUNDS.into())),
        ]);
        for (name, password) in [("a", "pass:wörd"), ("b", "pass:wörd"), ("c", "pass:wörd"), ("d", "pass")] {
            let right = basic(name, password).unwrap();
            assert_eq!(users.recent(&right), None);
            assert_eq!(users.verify(&right).as_deref(), Some(name));
            assert_eq!(users.recent(&right).as_deref(), Some(name));
            for wrong in ["", "pass:word", "pass:wörd ", "Pass"] {
                let wrong = basic(name, wrong).unwrap();
                assert_eq!((users.verify(&wrong), users.recent(&wrong)), (None, None), "{name}");
            }
        }
        assert_eq!(users.verify(&basic("e", "pass:wörd").unwrap()), None);
        assert_eq!(users.verify(&basic("", "").unwrap()), None);
    }

    #[test]
    fn the_hash_of_nobody_fits_no_password() {
        let users = users(&[]);
        assert_eq!(users.verify(&basic("a", "").unwrap()), None);
    }

    #[test]
    fn what_is_no_basic_authorization_shows_nothing() {
        let long = "x".repeat(PASSWORD_BYTES_MAX + 1);
        for value in ["", "Basic", "Basic !!", "Basic YQ==", "Bearer YTpi", "BasicYTpi"] {
            assert!(shown(&request(value)).is_none(), "{value}");
        }
        assert!(shown(&request("bAsIc  YTpi")).is_some());
        assert!(basic("a", &long).is_none());
        let mut two = request("Basic YTpi");
        two.append(AUTHORIZATION, HeaderValue::from_static("Basic YTpi"));
        assert!(shown(&two).is_none());
        assert_eq!(format!("{:?}", basic("a", "b")), "Some(Shown(hidden))");
    }
}
