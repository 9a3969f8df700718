//! How many connections of strangers come from one address: none of them takes all the places.
//!
//! Of IPv6 the first 64 bits count: the rest of them is its holder's to choose.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

#[derive(Clone)]
pub(super) struct Addresses {
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
    each: usize,
}

impl Addresses {
    pub fn new(each: usize) -> Self {
        Self { taken: Arc::default(), each }
    }

    /// A seat for one more from this address, if it has not as many as it may.
    pub fn take(&self, address: IpAddr) -> Option<Seat> {
        let address = place_of(address);
        let mut taken = self.taken();
        let seats = taken.entry(address).or_default();
        if *seats >= self.each {
            return None;
        }
        *seats += 1;
        Some(Seat { addresses: self.clone(), address })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // Nothing panics while it holds the lock: what is inside is whole.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

/// One connection from an address, until it is dropped.
pub(super) struct Seat {
    addresses: Addresses,
    address: IpAddr,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.addresses.taken();
        if let Some(seats) = taken.get_mut(&self.address) {
            *seats -= 1;
            if *seats == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_has_its_seats_and_takes_nobody_elses() {
        let addresses = Addresses::new(2);
        let mut seats: Vec<_> = (0..2).filter_map(|_| addresses.take(ip("10.0.0.1"))).collect();
        assert_eq!(seats.len(), 2);
        assert!(addresses.take(ip("10.0.0.1")).is_none() && addresses.take(ip("::ffff:10.0.0.1")).is_none());
        let other = addresses.take(ip("10.0.0.2"));
        assert!(other.is_some());
        seats.pop();
        assert!(addresses.take(ip("10.0.0.1")).is_some(), "one was given back");
        drop((seats, other));
        assert!(addresses.taken().is_empty(), "nothing is kept of who has gone");
    }

    #[test]
    fn a_holder_of_many_addresses_is_one() {
        let addresses = Addresses::new(1);
        let seat = addresses.take(ip("2001:db8::1"));
        assert!(seat.is_some() && addresses.take(ip("2001:db8::ffff:2")).is_none());
        assert!(addresses.take(ip("2001:db8:0:1::1")).is_some(), "another's");
    }
}
