//! A TCP proxy between callers and a service that can be cut, slowed or half-closed, or lose what goes one way.

use crate::messages::Protocol;
use crate::place::Place;
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
use worldline_laws::{
    Fault,
    script::{Line, Trouble, Way as Direction},
};

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
    /// What passes decides.
    Scripted(Line),
}

/// The proxy; it lives as long as the runtime. Whenever a fault ends, so do the connections that it has befallen.
pub struct Proxy {
    pub address: SocketAddr,
    protocol: Protocol,
    way: watch::Sender<Way>,
}

impl Proxy {
    pub fn new(runtime: &Runtime, to: SocketAddr) -> Self {
        Self::speaking(Protocol::Other, runtime, to)
    }

    /// Of a link whose messages it knows: scripts are for these.
    pub fn speaking(protocol: Protocol, runtime: &Runtime, to: SocketAddr) -> Self {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let way = watch::channel(Way::Through).0;
        let ways = way.clone();
        runtime.spawn(async move {
            while let Ok((here, _)) = listener.accept().await {
                tokio::spawn(carry(here, to, protocol, ways.subscribe()));
            }
        });
        Self { address, protocol, way }
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
            Fault::Scripted(line) if self.protocol != Protocol::Other => Way::Scripted(line),
            Fault::Kill | Fault::Stop | Fault::Scripted(_) => return false,
        };
        self.way.send_replace(way);
        true
    }
}

async fn carry(here: TcpStream, to: SocketAddr, protocol: Protocol, mut way: watch::Receiver<Way>) {
    if *way.borrow_and_update() == Way::Cut {
        return;
    }
    let Ok(there) = TcpStream::connect(to).await else { return };
    // Answers are small, and wait for nobody.
    drop((here.set_nodelay(true), there.set_nodelay(true)));
    let ((from_caller, to_caller), (from_service, to_service)) = (here.into_split(), there.into_split());
    let asks = OneWay::new(from_caller, to_service, way.clone(), (Direction::ToService, protocol));
    let answers = OneWay::new(from_service, to_caller, way.clone(), (Direction::ToCaller, protocol));
    let ended = async {
        // A connection that something befell does not recover with the link.
        let mut befallen = matches!(*way.borrow(), Way::Scripted(_));
        loop {
            if way.changed().await.is_err() {
                return;
            }
            match *way.borrow_and_update() {
                Way::Cut => return,
                Way::Through if befallen => return,
                Way::Through | Way::Slow => {}
                Way::Deaf | Way::Mute | Way::HalfClosed | Way::Scripted(_) => befallen = true,
            }
        }
    };
    tokio::select! {
        () = ended => {}
        () = asks.carry() => {}
        () = answers.carry() => {}
    }
}

/// One direction of one connection.
struct OneWay {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    way: watch::Receiver<Way>,
    place: Place,
}

impl OneWay {
    fn new(
        from: OwnedReadHalf,
        to: OwnedWriteHalf,
        way: watch::Receiver<Way>,
        (direction, protocol): (Direction, Protocol),
    ) -> Self {
        Self { from, to, way, place: Place::new(direction, protocol) }
    }

    /// Until it ends, and the connection with it.
    async fn carry(mut self) {
        let mut bytes = vec![0; 64 * 1024];
        let answers = self.place.direction == Direction::ToCaller;
        loop {
            let half_closed = async {
                // The sender lives as long as the proxy.
                drop(self.way.wait_for(|way| *way == Way::HalfClosed && answers).await);
            };
            let count = tokio::select! {
                biased;
                () = half_closed => return self.half_close(&mut bytes).await,
                read = self.from.read(&mut bytes) => read.unwrap_or(0),
            };
            if count == 0 {
                return;
            }
            let now = *self.way.borrow();
            let written = match now {
                Way::Deaf if answers => Ok(()),
                Way::Mute if !answers => Ok(()),
                Way::Scripted(line) => match self.scripted(line, &bytes[..count]).await {
                    Some(Trouble::HalfClose) => return self.half_close(&mut bytes).await,
                    Some(Trouble::Reset) => {
                        let both: [&TcpStream; 2] = [self.from.as_ref(), self.to.as_ref()];
                        both.iter().for_each(|socket| drop(socket.set_zero_linger()));
                        return;
                    }
                    Some(_) => return,
                    None => Ok(()),
                },
                _ => {
                    if now == Way::Slow {
                        sleep(SLOW).await;
                    }
                    let all = self.place.pass(&bytes[..count]);
                    self.to.write_all(&all).await
                }
            };
            if written.is_err() {
                return;
            }
        }
    }

    /// Lets pass what the line lets pass. What has come to its end, if it has.
    async fn scripted(&mut self, line: Line, bytes: &[u8]) -> Option<Trouble> {
        let passed = self.place.follow(line, bytes);
        if self.to.write_all(&passed.at_once).await.is_err() {
            return Some(Trouble::Cut);
        }
        if !passed.late.is_empty() {
            sleep(SLOW).await;
            if self.to.write_all(&passed.late).await.is_err() {
                return Some(Trouble::Cut);
            }
        }
        passed.met.then_some(line.trouble)
    }

    /// Whoever hears what goes this way is told that nothing more comes.
    async fn half_close(mut self, bytes: &mut [u8]) {
        drop(self.to.shutdown().await);
        // Reads on, so that who speaks is not held up; that nobody hears it is not told.
        while self.from.read(bytes).await.is_ok_and(|count| count > 0) {}
        std::future::pending::<()>().await;
    }
}
