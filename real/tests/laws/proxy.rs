//! A TCP proxy between callers and a service that can be cut, slowed or half-closed, or lose what goes one way.

use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::Runtime,
    sync::watch,
    time::sleep,
};
use worldline_laws::Fault;

/// How much longer what is sent over a slow link takes, each way.
const SLOW: Duration = Duration::from_millis(80);

/// What it does with what it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Through,
    /// Connections end, and none is made.
    Cut,
    /// What the service says is lost.
    Deaf,
    /// What the callers say is lost.
    Mute,
    /// Everything takes [`SLOW`] longer.
    Slow,
    /// The callers are told that nothing more will come, and what they say arrives.
    HalfClosed,
}

/// The proxy; it lives as long as the runtime. Whenever a fault ends, so do the connections that it has befallen.
pub struct Proxy {
    pub address: SocketAddr,
    way: watch::Sender<Way>,
}

impl Proxy {
    pub fn new(runtime: &Runtime, to: SocketAddr) -> Self {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let way = watch::channel(Way::Through).0;
        let ways = way.clone();
        runtime.spawn(async move {
            while let Ok((here, _)) = listener.accept().await {
                tokio::spawn(carry(here, to, ways.subscribe()));
            }
        });
        Self { address, way }
    }

    /// Whether the fault is one of links.
    pub fn befall(&self, fault: Fault) -> bool {
        let way = match fault {
            Fault::Cut => Way::Cut,
            Fault::LoseAnswers => Way::Deaf,
            Fault::LoseRequests => Way::Mute,
            Fault::Slow => Way::Slow,
            Fault::HalfClose => Way::HalfClosed,
            Fault::Heal => Way::Through,
            Fault::Kill | Fault::Stop => return false,
        };
        self.way.send_replace(way);
        true
    }
}

async fn carry(here: TcpStream, to: SocketAddr, mut way: watch::Receiver<Way>) {
    if *way.borrow_and_update() == Way::Cut {
        return;
    }
    let Ok(there) = TcpStream::connect(to).await else { return };
    // Answers are small, and wait for nobody.
    drop((here.set_nodelay(true), there.set_nodelay(true)));
    let ((from_caller, to_caller), (from_service, to_service)) = (here.into_split(), there.into_split());
    let (asks, answers) = (way.clone(), way.clone());
    let ended = async {
        // A connection that something befell does not recover with the link.
        let mut befallen = false;
        loop {
            if way.changed().await.is_err() {
                return;
            }
            match *way.borrow_and_update() {
                Way::Cut => return,
                Way::Through if befallen => return,
                Way::Through | Way::Slow => {}
                Way::Deaf | Way::Mute | Way::HalfClosed => befallen = true,
            }
        }
    };
    let back = async {
        let half_closed = one_way(from_service, to_caller, answers, Way::Deaf).await;
        if half_closed {
            // What the service says is heard by nobody; it is not told.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = ended => {}
        _ = one_way(from_caller, to_service, asks, Way::Mute) => {}
        () = back => {}
    }
}

/// Carries one direction until it ends. `true` where it ends because the link was half-closed.
async fn one_way(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut way: watch::Receiver<Way>, loses: Way) -> bool {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let answers = loses == Way::Deaf;
        let half_closed = async {
            // The sender lives as long as the proxy.
            drop(way.wait_for(|way| *way == Way::HalfClosed && answers).await);
        };
        let count = tokio::select! {
            biased;
            () = half_closed => {
                drop(to.shutdown().await);
                // Reads on, so that the service is not held up.
                while from.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
                return true;
            }
            read = from.read(&mut bytes) => read.unwrap_or(0),
        };
        let now = *way.borrow();
        if now == Way::Slow {
            sleep(SLOW).await;
        }
        if count == 0 || now != loses && to.write_all(&bytes[..count]).await.is_err() {
            return false;
        }
    }
}
