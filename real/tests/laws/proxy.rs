//! A TCP proxy between callers and a service that can be cut, or lose what goes one way.

use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::Runtime,
    sync::watch,
};
use worldline_laws::Fault;

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
                Way::Through => {}
                Way::Deaf | Way::Mute => befallen = true,
            }
        }
    };
    tokio::select! {
        () = ended => {}
        () = one_way(from_caller, to_service, asks, Way::Mute) => {}
        () = one_way(from_service, to_caller, answers, Way::Deaf) => {}
    }
}

async fn one_way(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, way: watch::Receiver<Way>, loses: Way) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(count) = from.read(&mut bytes).await {
        let lost = *way.borrow() == loses;
        if count == 0 || !lost && to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
