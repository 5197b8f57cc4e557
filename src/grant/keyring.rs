//! The keys that a route accepts.
//!
//! What is shown is hashed, and the hash is compared with those of all secrets, each in constant time. So neither the length of a secret
//! nor which key was nearly right can be measured.

use std::net::IpAddr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use http::header::HeaderMap;

use super::bearer::{self, Several};
use crate::config::{AccessKey, ChannelPattern};

type Hash = [u8; SHA256_OUTPUT_LEN];

/// The keys of a route.
#[derive(Debug)]
pub struct Keyring {
    keys: Vec<(Vec<Hash>, AccessKey)>,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It shows no key.
    Missing,
    /// What it shows is no key of the route, or not from this address.
    Unknown,
    /// It has several Authorization fields.
    Several,
}

impl From<Several> for Refused {
    fn from(_: Several) -> Refused {
        Refused::Several
    }
}

impl Keyring {
    /// The keyring of these keys.
    pub fn new(keys: &[AccessKey]) -> Keyring {
        let hashes = |key: &AccessKey| key.secrets.iter().map(|secret| hash(secret.bytes())).collect();
        Keyring { keys: keys.iter().map(|key| (hashes(key), key.clone())).collect() }
    }

    /// The key that a request from `address` shows. `None`: the client is on a Unix socket, which no list of addresses contains.
    ///
    /// # Errors
    /// It shows none that is good.
    pub fn find(&self, headers: &HeaderMap, address: Option<IpAddr>) -> Result<&AccessKey, Refused> {
        let shown = hash(bearer::shown(headers)?.ok_or(Refused::Missing)?);
        let mut found = None;
        for (hashes, key) in &self.keys {
            for hash in hashes {
                if verify_slices_are_equal(hash, &shown).is_ok() {
                    found = Some(key);
                }
            }
        }
        found.filter(|key| is_near(key, address)).ok_or(Refused::Unknown)
    }
}

fn hash(bytes: &[u8]) -> Hash {
    let mut hash = [0; SHA256_OUTPUT_LEN];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

fn is_near(key: &AccessKey, address: Option<IpAddr>) -> bool {
    match &key.addresses {
        None => true,
        Some(networks) => address.is_some_and(|address| networks.iter().any(|network| network.contains(address))),
    }
}

/// Whether the key may publish on this channel.
pub fn may_publish(key: &AccessKey, channel: &str) -> bool {
    key.publish.as_ref().is_none_or(|patterns| is_one_of(patterns, channel))
}

fn is_one_of(patterns: &[ChannelPattern], channel: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(channel))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::AUTHORIZATION;

    use super::*;
    use crate::config::Secret;

    fn key(name: &str, secrets: &[&str], addresses: Option<&[&str]>) -> AccessKey {
        AccessKey {
            name: name.into(),
            secrets: secrets.iter().map(|secret| Secret::new(secret.as_bytes())).collect(),
            publish: Some(vec![ChannelPattern::parse("news/*").unwrap()]),
            addresses: addresses.map(|list| list.iter().map(|text| text.parse().unwrap()).collect()),
        }
    }

    fn shows(text: &str) -> HeaderMap {
        [(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {text}")).unwrap())].into_iter().collect()
    }

    #[test]
    fn each_secret_of_each_key_is_good() {
        let ring = Keyring::new(&[key("a", &["one", "two"], None), key("b", &["three"], Some(&["10.0.0.0/8"]))]);
        let name = |shown: &str, from: Option<&str>| {
            ring.find(&shows(shown), from.map(|from| from.parse().unwrap())).map(|key| &*key.name)
        };
        assert_eq!((name("one", None), name("two", None)), (Ok("a"), Ok("a")));
        assert_eq!(name("three", Some("10.1.2.3")), Ok("b"));
        assert_eq!(name("three", Some("11.1.2.3")), Err(Refused::Unknown));
        assert_eq!(name("three", None), Err(Refused::Unknown));
        for bad in ["on", "onee", "four", "One"] {
            assert_eq!(name(bad, None), Err(Refused::Unknown), "{bad}");
        }
        assert_eq!(ring.find(&HeaderMap::new(), None).err(), Some(Refused::Missing));
        // A key whose secret could not be read is never good.
        assert_eq!(Keyring::new(&[key("a", &[], None)]).find(&shows("x"), None).err(), Some(Refused::Unknown));
    }

    #[test]
    fn a_key_publishes_on_its_channels() {
        let mut key = key("a", &["one"], None);
        assert!(may_publish(&key, "news/7") && !may_publish(&key, "news") && !may_publish(&key, "user/7"));
        key.publish = None;
        assert!(may_publish(&key, "user/7"));
    }
}
