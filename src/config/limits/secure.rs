//! The bounds of TLS and of secrets.

use std::time::Duration;

/// The longest file of a certificate or its key. A chain of five certificates has some 10 KiB.
pub const CERTIFICATE_BYTES_MAX: usize = 256 << 10;
/// How many certificates a server may have. Each handshake looks through their names.
pub const CERTIFICATES_MAX: usize = 100;
/// A certificate that expires so soon is warned of. Renewal usually happens a month before.
pub const CERTIFICATE_EXPIRY_SOON: Duration = Duration::from_secs(14 * 86_400);
/// How often the files of certificates are looked at. It costs a `stat` for each.
pub const CERTIFICATE_WATCH: Duration = Duration::from_secs(5);
/// How long a handshake of TLS may take. A slow phone needs two seconds.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A step of a handshake of TLS counts as so many requests in a turn. A signature takes 0.1 to 1 ms, and must not delay deliveries.
pub const TLS_HANDSHAKE_WEIGHT: usize = 20;
/// How often a connection is read at once without anything in it for the protocol above: a handshake takes four, each of some 4 KiB.
pub const TLS_EMPTY_READS_MAX: usize = 64;
/// Encrypted bytes of a connection that wait because the kernel accepts no more, as plain bytes.
pub const TLS_UNSENT_BYTES_MAX: usize = 64 << 10;

/// The longest secret, in bytes. The longest that is of use is a few hundred, and it must fit into a header field.
pub const SECRET_BYTES_MAX: usize = 4 << 10;
/// A shorter secret is warned of: 256 bits, as many as the hashes that they are used with (RFC 7518, section 3.2).
pub const SECRET_BYTES_SHORT: usize = 32;
/// The longest token. Proxies and servers accept some 8 KiB in a header field.
pub const TOKEN_BYTES_MAX: usize = 8 << 10;
/// The largest file of public keys.
pub const TOKEN_KEYS_BYTES_MAX: usize = 256 << 10;
/// How many secrets of one key are good at once. Each is compared with each request. Two are needed while one replaces another.
pub const SECRETS_MAX: usize = 4;
