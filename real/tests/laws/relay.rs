//! A UDP relay between clients and a gateway that loses, delays, doubles and reorders packets, each by its number.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};
use tokio::{net::UdpSocket, sync::watch, time::sleep};
use worldline_laws::network::Weather;

/// How much longer a packet takes in slow weather.
const SLOW: Duration = Duration::from_millis(100);
/// And one that others overtake.
const OVERTAKEN: Duration = Duration::from_millis(20);
/// The largest packet.
const PACKET_BYTES: usize = 2_048;

/// Where a packet goes, by which socket.
#[derive(Clone)]
struct Way {
    socket: Arc<UdpSocket>,
    /// `None`: to where the socket is connected.
    to: Option<SocketAddr>,
    to_gateway: bool,
}

impl Way {
    async fn send(&self, packet: &[u8]) {
        // What the system has no room for is lost, as any packet may be.
        drop(match self.to {
            Some(to) => self.socket.send_to(packet, to).await,
            None => self.socket.send(packet).await,
        });
    }

    /// The fate of packet `n`: how often it arrives, and how late.
    fn fate(&self, weather: Weather, n: u32) -> (u32, Duration) {
        match weather {
            Weather::Fair => (1, Duration::ZERO),
            Weather::Cut => (0, Duration::ZERO),
            Weather::CutToGateway => (u32::from(!self.to_gateway), Duration::ZERO),
            Weather::CutToClients => (u32::from(self.to_gateway), Duration::ZERO),
            Weather::Slow => (1, SLOW),
            Weather::Lossy => (u32::from(!matches!(n % 10, 0 | 3 | 4)), Duration::ZERO),
            Weather::Doubling => (1 + u32::from(n.is_multiple_of(2)), Duration::ZERO),
            Weather::Reordering if n.is_multiple_of(3) => (1, OVERTAKEN),
            Weather::Reordering => (1, Duration::ZERO),
        }
    }

    async fn pass(&self, weather: Weather, n: u32, packet: &[u8]) {
        let (times, after) = self.fate(weather, n);
        for _ in 0..times {
            if after.is_zero() {
                self.send(packet).await;
            } else {
                let (way, packet) = (self.clone(), packet.to_vec());
                tokio::spawn(async move {
                    sleep(after).await;
                    way.send(&packet).await;
                });
            }
        }
    }
}

/// Carries packets between whoever sends here and one address. It lives as long as the runtime.
pub async fn relay(to: SocketAddr, weather: watch::Receiver<Weather>) -> SocketAddr {
    let outer = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let address = outer.local_addr().unwrap();
    tokio::spawn(async move {
        let mut ways: BTreeMap<SocketAddr, Way> = BTreeMap::new();
        let mut packet = vec![0; PACKET_BYTES];
        let mut n = 0;
        while let Ok((len, from)) = outer.recv_from(&mut packet).await {
            if let Entry::Vacant(vacant) = ways.entry(from) {
                let inner = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                inner.connect(to).await.unwrap();
                let back = Way { socket: outer.clone(), to: Some(from), to_gateway: false };
                tokio::spawn(carry_back(inner.clone(), back, weather.clone()));
                vacant.insert(Way { socket: inner, to: None, to_gateway: true });
            }
            n += 1;
            let now = *weather.borrow();
            ways[&from].pass(now, n, &packet[..len]).await;
        }
    });
    address
}

async fn carry_back(from: Arc<UdpSocket>, way: Way, weather: watch::Receiver<Weather>) {
    let mut packet = vec![0; PACKET_BYTES];
    let mut n = 0;
    while let Ok(len) = from.recv(&mut packet).await {
        n += 1;
        let now = *weather.borrow();
        way.pass(now, n, &packet[..len]).await;
    }
}
