//! The signature of a question: `t=1700000000,v1=HEX`, the HMAC-SHA256 of the time, a dot and the body. With several secrets there are
//! several `v1`, so that the backend may know the old or the new one.

use std::fmt::Write;

use aws_lc_rs::hmac;

use crate::config::Secret;

/// The signature of `body` at `seconds` since 1970.
pub fn signature(secrets: &[Secret], seconds: u64, body: &[u8]) -> String {
    let mut text = format!("t={seconds}");
    for secret in secrets {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.bytes());
        let mut context = hmac::Context::with_key(&key);
        context.update(format!("{seconds}.").as_bytes());
        context.update(body);
        text.push_str(",v1=");
        for byte in context.sign().as_ref() {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_secret_signs() {
        // printf '1700000000.{}' | openssl dgst -sha256 -hmac secret
        let [one, two] = [b"secret", b"other!"].map(|secret| Secret::new(secret));
        let one_alone = signature(std::slice::from_ref(&one), 1_700_000_000, b"{}");
        assert_eq!(one_alone.len(), "t=1700000000,v1=".len() + 64);
        let both = signature(&[one, two], 1_700_000_000, b"{}");
        assert!(both.starts_with(&one_alone) && both.matches(",v1=").count() == 2);
        assert_eq!(signature(&[], 7, b""), "t=7");
    }
}
