//! The number of connections of each address, if the configuration limits it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// The bits of an IPv6 address that identify a network. A customer can choose the other 64 freely, so they are ignored.
const IPV6_NETWORK: u128 = !0 << 64;

/// The counts. All shards share them, and reloads keep them.
#[derive(Debug, Clone, Default)]
pub struct Addresses(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection that is counted for its address. The count is lowered when this is dropped.
#[derive(Debug)]
pub struct CountedAddress {
    addresses: Addresses,
    network: IpAddr,
}

impl Addresses {
    /// Counts a connection for `address`, if it has fewer than `max`.
    pub fn join(&self, address: IpAddr, max: usize) -> Option<CountedAddress> {
        let network = match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & IPV6_NETWORK)),
            address @ IpAddr::V4(_) => address,
        };
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(network).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(CountedAddress { addresses: self.clone(), network })
    }
}

impl Drop for CountedAddress {
    fn drop(&mut self) {
        let mut counts = self.addresses.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_limited_by_ipv4_address_and_by_ipv6_network() {
        let addresses = Addresses::default();
        let join = |address: &str| addresses.join(address.parse().unwrap(), 1);
        let first = join("192.0.2.1").unwrap();
        assert!(join("192.0.2.1").is_none());
        assert!(join("::ffff:192.0.2.1").is_none());
        let _other = join("192.0.2.2").unwrap();
        drop(first);
        let _again = join("192.0.2.1").unwrap();
        let six = join("2001:db8::1").unwrap();
        assert!(join("2001:db8::ffff:1").is_none());
        let _next = join("2001:db8:0:1::1").unwrap();
        drop(six);
        assert_eq!(addresses.0.lock().unwrap().len(), 3);
    }
}
