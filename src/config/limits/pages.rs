//! The limits of static pages and of the access log.

use std::time::Duration;

/// Smaller files are not compressed while they are sent, in bytes: the header alone takes half a kilobyte.
pub const COMPRESS_BYTES_MIN: u64 = 1024;
/// Larger files are not compressed while they are sent, in bytes. Compressing this much takes a blocking thread some 100 ms. Most
/// pages of a site are far smaller.
pub const COMPRESS_BYTES_MAX: u64 = 4 << 20;
/// The size of the cache of compressed files of the process, in bytes. When it is full, it is emptied.
pub const COMPRESSED_BYTES_MAX: usize = 32 << 20;
/// How long it may take until a new compressed file beside a cached one is noticed. A changed or a deleted one is noticed at once.
pub const SIBLINGS_KEPT: Duration = Duration::from_secs(1);

/// The longest target, referrer or user agent in a line of the access log, in bytes. A longer one is cut.
pub const ACCESS_FIELD_BYTES_MAX: usize = 4096;
/// How many lines wait for the disk, in bytes. 4 MiB are some 20,000 lines. Further ones are dropped and counted.
pub const ACCESS_BYTES_MAX: usize = 4 << 20;

/// The longest file of passwords, in bytes: some ten thousand users.
pub const PASSWORD_FILE_BYTES_MAX: u64 = 1 << 20;
/// The longest password that is compared, in bytes. bcrypt uses 72 of them, but SHA-crypt takes longer for a longer one.
pub const PASSWORD_BYTES_MAX: usize = 512;
/// The highest cost of bcrypt: a comparison takes a second.
pub const BCRYPT_COST_MAX: u32 = 14;
/// The most rounds of SHA-crypt: a comparison takes a second.
pub const SHA_CRYPT_ROUNDS_MAX: u32 = 1_000_000;
/// How long a password that was right need not be compared again.
pub const PASSWORD_KEPT: Duration = Duration::from_secs(300);
/// How many such passwords are remembered. When they are more, all are forgotten.
pub const PASSWORDS_KEPT_MAX: usize = 1024;
/// How many passwords are compared at once in the process: wrong ones must not take all processors.
pub const PASSWORD_CHECKS_MAX: usize = 2;
/// How many more requests wait for that. Further ones are answered with 503.
pub const PASSWORD_WAITERS_MAX: usize = 64;
