//! Networks: ranges of addresses, as `10.0.0.0/8`, `2001:db8::/32`, or one address.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A range of addresses (RFC 4632, section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u32,
}

impl Network {
    /// Whether `address` is in the range. An IPv4 address that is written as one of IPv6 counts as that of IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (bits, own, width) = match (address.to_canonical(), self.address) {
            (IpAddr::V4(address), IpAddr::V4(own)) => (address.to_bits().into(), own.to_bits().into(), 32),
            (IpAddr::V6(address), IpAddr::V6(own)) => (address.to_bits(), own.to_bits(), 128),
            _ => return false,
        };
        let differing: u128 = bits ^ own;
        differing.checked_shr(width - self.prefix).unwrap_or(0) == 0
    }
}

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Network, &'static str> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| "write `10.0.0.0/8`, `2001:db8::/32`, or one address")?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let number = |text: &str| text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
        let prefix = prefix.map_or(Some(width), number).filter(|prefix| *prefix <= width);
        let prefix = prefix.ok_or("after the slash is the number of bits that are fixed: at most 32, for IPv6 128")?;
        let network = Network { address, prefix };
        let lowest = match address {
            IpAddr::V4(own) => IpAddr::V4((own.to_bits() & u32::MAX.checked_shl(32 - prefix).unwrap_or(0)).into()),
            IpAddr::V6(own) => IpAddr::V6((own.to_bits() & u128::MAX.checked_shl(128 - prefix).unwrap_or(0)).into()),
        };
        if lowest == address { Ok(network) } else { Err("the address has bits behind the ones that are fixed") }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_its_range() {
        for (network, address, inside) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("0.0.0.0/0", "::1", false),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "::1", true),
            ("::1", "::1", true),
        ] {
            let found: Network = network.parse().unwrap();
            assert_eq!(found.contains(address.parse().unwrap()), inside, "{network} {address}");
        }
        for bad in ["", "x", "10.0.0.0/33", "::/129", "10.0.0.1/8", "10.0.0.0/+8", "10.0.0.0/", "010.0.0.0/8", "::1/64"]
        {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }
}
