//! madsim: async tasks on a simulated network of UDP sockets.

use common::{PING, PONG, arguments, cpu_s, fold, frame, parse, report, wall_s};
use madsim::{
    net::UdpSocket,
    runtime::{Handle, Runtime},
    time,
};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

fn address(node: usize) -> SocketAddr {
    let ip = Ipv4Addr::new(10, (node / 62_500) as u8, (node / 250 % 250) as u8, (node % 250 + 1) as u8);
    SocketAddr::new(IpAddr::V4(ip), 9)
}

async fn echo(node: usize, n: usize, begin: time::Instant, messages: Arc<AtomicU64>, hash: Arc<AtomicU64>) {
    let socket = UdpSocket::bind("0.0.0.0:9").await.expect("the port is free");
    time::sleep(Duration::from_millis(1)).await;
    let next = address((node + 1) % n);
    socket.send_to(next, &frame(PING, 0)).await.expect("sent");
    let mut buffer = [0; 64];
    loop {
        let (_, from) = socket.recv_from(&mut buffer).await.expect("received");
        let (kind, sequence) = parse(&buffer);
        messages.fetch_add(1, Relaxed);
        let at_ns = (time::Instant::now() - begin).as_nanos() as u64;
        hash.store(fold(hash.load(Relaxed), at_ns, node as u64, sequence), Relaxed);
        let sent = match kind {
            PING => socket.send_to(from, &frame(PONG, sequence)).await,
            _ => socket.send_to(next, &frame(PING, sequence + 1)).await,
        };
        sent.expect("sent");
    }
}

fn main() {
    let (n, seconds) = arguments();
    let (messages, hash) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let runtime = Runtime::with_seed_and_config(42, Default::default());
    let counted = (messages.clone(), hash.clone());
    let (begin, begin_cpu) = (wall_s(), cpu_s());
    runtime.block_on(async move {
        let start = time::Instant::now();
        for i in 0..n {
            let node = Handle::current().create_node().name(format!("n{i}")).ip(address(i).ip()).build();
            node.spawn(echo(i, n, start, counted.0.clone(), counted.1.clone()));
        }
        // Nodes beyond a thousand have much to do between two looks at the clock.
        let look = Duration::from_millis(if n > 1_000 { 5 } else { 50 });
        while cpu_s() - begin_cpu < seconds {
            time::sleep(look).await;
        }
    });
    report("madsim", n, (wall_s() - begin, cpu_s() - begin_cpu), messages.load(Relaxed), hash.load(Relaxed));
    std::process::exit(0);
}
