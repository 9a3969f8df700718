//! turmoil: one tokio runtime a host, stepped by ticks of a millisecond.

use common::{PING, PONG, arguments, cpu_s, fold, frame, parse, report, wall_s};
use std::{cell::Cell, rc::Rc, time::Duration};
use turmoil::{Builder, net::UdpSocket};

async fn echo(node: usize, n: usize, messages: Rc<Cell<u64>>, hash: Rc<Cell<u64>>) -> turmoil::Result {
    let socket = UdpSocket::bind("0.0.0.0:9").await?;
    tokio::time::sleep(Duration::from_millis(1)).await;
    let next = (turmoil::lookup(format!("n{}", (node + 1) % n)), 9);
    socket.send_to(&frame(PING, 0), next).await?;
    let mut buffer = [0; 64];
    loop {
        let (_, from) = socket.recv_from(&mut buffer).await?;
        let (kind, sequence) = parse(&buffer);
        messages.set(messages.get() + 1);
        let at_ns = turmoil::sim_elapsed().unwrap_or_default().as_nanos() as u64;
        hash.set(fold(hash.get(), at_ns, node as u64, sequence));
        match kind {
            PING => socket.send_to(&frame(PONG, sequence), from).await?,
            _ => socket.send_to(&frame(PING, sequence + 1), next).await?,
        };
    }
}

fn main() {
    let (n, seconds) = arguments();
    let (messages, hash) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let mut sim = Builder::new()
        .rng_seed(42)
        .simulation_duration(Duration::from_secs(1_000_000))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(10))
        .build();
    for i in 0..n {
        let counted = (messages.clone(), hash.clone());
        sim.host(format!("n{i}"), move || echo(i, n, counted.0.clone(), counted.1.clone()));
    }
    let (begin, begin_cpu) = (wall_s(), cpu_s());
    while cpu_s() - begin_cpu < seconds {
        for _ in 0..10 {
            sim.step().expect("hosts run for ever");
        }
    }
    report("turmoil", n, (wall_s() - begin, cpu_s() - begin_cpu), messages.get(), hash.get());
    std::process::exit(0);
}
