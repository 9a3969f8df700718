//! The proxy of a datagram link: a socket that stands for the callee, and for each socket that calls there one that stands
//! for the caller. What a way loses is gone; what it delays may be overtaken.

use super::way::{Fate, Way};
use bytes::Bytes;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, btree_map::Entry},
    io,
    net::SocketAddr,
    sync::Arc,
};
use tokio::{
    net::UdpSocket,
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// The largest datagram there is.
const DATAGRAM_BYTES_MAX: usize = 65_535;
/// Datagrams under way in one direction; one more is lost, as in a full queue of a router.
const UNDER_WAY_MAX: usize = 8_192;
/// Sockets that call through one proxy; the one that has been silent for longest makes room for another.
const CALLERS_MAX: usize = 64;
/// Datagrams from one caller that wait for its task.
const WAITING_MAX: usize = 1_024;

/// Carries datagrams between whoever sends to `here` and the callee, until it is dropped.
///
/// # Errors
/// The socket that stands for the callee is broken. A callee that is not there is no error.
pub async fn carry(here: UdpSocket, callee: SocketAddr, forth: Arc<Way>, back: Arc<Way>) -> io::Result<()> {
    let here = Arc::new(here);
    let mut callers: BTreeMap<SocketAddr, (u64, mpsc::Sender<Bytes>)> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    let mut heard = 0;
    loop {
        let (length, from) = match here.recv_from(&mut buffer).await {
            Ok(received) => received,
            // What an earlier datagram to a dead caller came to; not about this socket.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) => return Err(error),
        };
        heard += 1;
        while tasks.try_join_next().is_some() {}
        callers.retain(|_, (_, caller)| !caller.is_closed());
        if !callers.contains_key(&from) && callers.len() >= CALLERS_MAX {
            let silent = callers.iter().min_by_key(|(_, (last, _))| *last).map(|(&address, _)| address);
            silent.and_then(|address| callers.remove(&address));
        }
        let (last, queue) = match callers.entry(from) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let there = UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
                there.connect(callee).await?;
                let (sender, receiver) = mpsc::channel(WAITING_MAX);
                let (there, here) = (Arc::new(there), Arc::clone(&here));
                tasks.spawn(caller(receiver, there, here, from, Arc::clone(&forth), Arc::clone(&back)));
                new.insert((heard, sender))
            }
        };
        *last = heard;
        // A full queue loses what comes.
        let _ = queue.try_send(Bytes::copy_from_slice(&buffer[..length]));
    }
}

/// Carries the datagrams of one caller, both ways.
async fn caller(
    mut sent: mpsc::Receiver<Bytes>,
    there: Arc<UdpSocket>,
    here: Arc<UdpSocket>,
    address: SocketAddr,
    forth: Arc<Way>,
    back: Arc<Way>,
) {
    let (mut out, mut home) = (UnderWay::default(), UnderWay::default());
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        tokio::select! {
            biased;
            bytes = sent.recv() => match bytes {
                Some(bytes) => out.leave(&forth, bytes),
                None => return,
            },
            // A callee that is not there answers with an error; the caller hears nothing, and what comes later may arrive.
            received = there.recv(&mut buffer) => if let Ok(length) = received {
                home.leave(&back, Bytes::copy_from_slice(&buffer[..length]));
            },
            bytes = out.arrive() => drop(there.send(&bytes).await),
            bytes = home.arrive() => drop(here.send_to(&bytes, address).await),
        }
    }
}

/// What is under way in one direction.
#[derive(Default)]
struct UnderWay {
    queue: BinaryHeap<Reverse<(Instant, u64, Bytes)>>,
    left: u64,
}

impl UnderWay {
    fn leave(&mut self, way: &Way, bytes: Bytes) {
        let Fate(copies) = way.datagram();
        for delay in copies.into_iter().flatten() {
            if self.queue.len() < UNDER_WAY_MAX {
                self.left += 1;
                self.queue.push(Reverse((Instant::now() + delay, self.left, bytes.clone())));
            }
        }
    }

    /// Waits for the next that arrives. Nothing is lost if the future is dropped.
    async fn arrive(&mut self) -> Bytes {
        match self.queue.peek() {
            Some(Reverse((at, ..))) => sleep_until(*at).await,
            None => std::future::pending().await,
        }
        self.queue.pop().map(|Reverse((.., bytes))| bytes).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::Ipv4Addr, time::Duration};
    use tokio::time::timeout;

    const MS: Duration = Duration::from_millis(1);
    const PATIENCE: Duration = Duration::from_secs(5);

    struct Link {
        caller: UdpSocket,
        callee: UdpSocket,
        forth: Arc<Way>,
        back: Arc<Way>,
        _tasks: JoinSet<io::Result<()>>,
    }

    async fn link(delay: Duration) -> Link {
        let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
        let (caller, callee, here) =
            (bind().await.expect("a port"), bind().await.expect("a port"), bind().await.expect("a port"));
        let way = |who| Arc::new(Way::new(delay, Duration::ZERO, 1, who));
        let (forth, back) = (way(1), way(2));
        caller.connect(here.local_addr().expect("bound")).await.expect("connects");
        let mut tasks = JoinSet::new();
        tasks.spawn(carry(here, callee.local_addr().expect("bound"), Arc::clone(&forth), Arc::clone(&back)));
        Link { caller, callee, forth, back, _tasks: tasks }
    }

    async fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 64];
        let received = timeout(PATIENCE, socket.recv_from(&mut buffer)).await.expect("in time");
        let (length, from) = received.expect("receives");
        (buffer[..length].to_vec(), from)
    }

    #[tokio::test]
    async fn a_round_trip_takes_the_delay_of_both_ways() {
        let link = link(40 * MS).await;
        let begun = Instant::now();
        link.caller.send(b"ping").await.expect("sends");
        let (bytes, from) = receive(&link.callee).await;
        assert_eq!(bytes, b"ping");
        assert!(begun.elapsed() >= 40 * MS);
        link.callee.send_to(b"pong", from).await.expect("sends");
        assert_eq!(receive(&link.caller).await.0, b"pong");
        assert!(begun.elapsed() >= 80 * MS);
    }

    #[tokio::test]
    async fn one_way_is_cut_and_the_other_is_not() {
        let link = link(Duration::ZERO).await;
        link.caller.send(b"before").await.expect("sends");
        let (_, from) = receive(&link.callee).await;
        link.back.cut(1);
        link.callee.send_to(b"lost", from).await.expect("sends");
        link.caller.send(b"forth").await.expect("sends");
        assert_eq!(receive(&link.callee).await.0, b"forth");
        link.back.mend(1);
        link.callee.send_to(b"found", from).await.expect("sends");
        assert_eq!(receive(&link.caller).await.0, b"found", "what was sent during the cut is gone");
        link.forth.cut(2);
        link.caller.send(b"lost").await.expect("sends");
        // Both go through the same task: when the second has come, the first would have.
        link.callee.send_to(b"still", from).await.expect("sends");
        assert_eq!(receive(&link.caller).await.0, b"still");
        link.forth.mend(2);
        link.caller.send(b"again").await.expect("sends");
        assert_eq!(receive(&link.callee).await.0, b"again");
    }
}
