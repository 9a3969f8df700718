//! The proxy of a byte stream: everything arrives, in order, as late as the way takes. What a cut withholds arrives when it is
//! mended, as TCP sends it again; the memory that it waits in is bounded, and a full one stops the sender. A loss is a stall.
//!
//! Deliberately absent: acknowledgements. Where one way alone is cut, what travels the other way arrives, though a real sender
//! would stop when it is acknowledged no more.

use super::way::Way;
use bytes::Bytes;
use std::{future::Future, io, net::SocketAddr, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

/// Bytes read at once.
const CHUNK_BYTES: usize = 16 * 1024;
/// Chunks under way in one direction; the next one is read when the first has arrived.
const CHUNKS_MAX: usize = 64;
/// Connections of one link; one more is closed at once.
const CONNECTIONS_MAX: usize = 256;

/// Bytes and when they arrive.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// When the way lets them arrive.
    pub at: Instant,
    /// What.
    pub bytes: Bytes,
}

/// Accepts connections and hands each to `carry`, until it is dropped.
///
/// # Errors
/// The listening socket is broken.
pub async fn listen<F>(here: TcpListener, carry: impl Fn(TcpStream) -> F) -> io::Result<()>
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        let (caller, _) = match here.accept().await {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error),
        };
        while connections.try_join_next().is_some() {}
        if connections.len() < CONNECTIONS_MAX {
            connections.spawn(carry(caller));
        }
    }
}

/// The callee's end of a connection that a caller has opened, and when the caller would have heard of it. The handshake
/// travels the link as everything does. `None`: nobody is there, and the caller is told so by a reset.
///
/// # Errors
/// The caller's socket is broken.
pub async fn connect(
    caller: &TcpStream,
    callee: SocketAddr,
    forth: &Way,
    back: &Way,
) -> io::Result<Option<(TcpStream, Instant)>> {
    caller.set_nodelay(true)?;
    forth.opened().await;
    sleep(forth.segment()).await;
    forth.opened().await;
    match TcpStream::connect(callee).await {
        Ok(there) => {
            there.set_nodelay(true)?;
            Ok(Some((there, Instant::now() + back.segment())))
        }
        Err(_) => {
            sleep(back.segment()).await;
            back.opened().await;
            caller.set_zero_linger()?;
            Ok(None)
        }
    }
}

/// Carries one connection, both ways, until both ends are closed or one of them breaks.
///
/// # Errors
/// An end is broken.
pub async fn carry(mut caller: TcpStream, callee: SocketAddr, forth: Arc<Way>, back: Arc<Way>) -> io::Result<()> {
    let Some((mut there, known)) = connect(&caller, callee, &forth, &back).await? else { return Ok(()) };
    let (caller_reads, caller_writes) = caller.split();
    let (there_reads, there_writes) = there.split();
    tokio::try_join!(copy(caller_reads, there_writes, &forth, known), copy(there_reads, caller_writes, &back, known),)?;
    Ok(())
}

/// Carries one direction to its end. Nothing arrives before `from`.
///
/// # Errors
/// The target is broken.
pub async fn copy(
    mut source: impl AsyncRead + Unpin,
    target: impl AsyncWrite + Unpin,
    way: &Way,
    from: Instant,
) -> io::Result<()> {
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    let read = async {
        let mut at = from;
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            // Whoever is gone without a word has closed it: what was under way still arrives.
            let length = source.read(&mut buffer).await.unwrap_or(0);
            if length == 0 {
                drop(sender);
                return Ok(());
            }
            // The order stays: nothing overtakes.
            at = at.max(Instant::now() + way.segment());
            let chunk = Chunk { at, bytes: Bytes::copy_from_slice(&buffer[..length]) };
            if sender.send(chunk).await.is_err() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
    };
    tokio::try_join!(read, deliver(receiver, target, way))?;
    Ok(())
}

/// Writes what arrives when it arrives, and then the end.
///
/// # Errors
/// The target is broken.
pub async fn deliver(
    mut chunks: mpsc::Receiver<Chunk>,
    mut target: impl AsyncWrite + Unpin,
    way: &Way,
) -> io::Result<()> {
    while let Some(Chunk { at, bytes }) = chunks.recv().await {
        sleep_until(at).await;
        way.opened().await;
        target.write_all(&bytes).await?;
    }
    sleep(way.segment()).await;
    way.opened().await;
    target.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::way::Degraded;
    use std::{net::Ipv4Addr, time::Duration};
    use tokio::time::timeout;

    const MS: Duration = Duration::from_millis(1);
    const PATIENCE: Duration = Duration::from_secs(5);

    struct Link {
        address: SocketAddr,
        callee: TcpListener,
        forth: Arc<Way>,
        back: Arc<Way>,
        _tasks: JoinSet<io::Result<()>>,
    }

    async fn link(delay: Duration) -> Link {
        let callee = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let here = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let way = |who| Arc::new(Way::new(delay, Duration::ZERO, 1, who));
        let (forth, back) = (way(1), way(2));
        let (address, to) = (here.local_addr().expect("bound"), callee.local_addr().expect("bound"));
        let mut tasks = JoinSet::new();
        let ways = (Arc::clone(&forth), Arc::clone(&back));
        tasks.spawn(listen(here, move |caller| carry(caller, to, Arc::clone(&ways.0), Arc::clone(&ways.1))));
        Link { address, callee, forth, back, _tasks: tasks }
    }

    impl Link {
        async fn open(&self) -> (TcpStream, TcpStream) {
            let caller = TcpStream::connect(self.address).await.expect("connects");
            let (callee, _) = timeout(PATIENCE, self.callee.accept()).await.expect("in time").expect("accepts");
            (caller, callee)
        }
    }

    async fn read(stream: &mut TcpStream, length: usize) -> Vec<u8> {
        let mut buffer = vec![0; length];
        timeout(PATIENCE, stream.read_exact(&mut buffer)).await.expect("in time").expect("reads");
        buffer
    }

    #[tokio::test]
    async fn bytes_take_as_long_as_the_way_and_keep_their_order() {
        let link = link(30 * MS).await;
        let begun = Instant::now();
        let (mut caller, mut callee) = link.open().await;
        assert!(begun.elapsed() >= 30 * MS, "the handshake travels too");
        for byte in 0..100 {
            caller.write_all(&[byte]).await.expect("writes");
        }
        assert_eq!(read(&mut callee, 100).await, (0..100).collect::<Vec<u8>>());
        assert!(begun.elapsed() >= 60 * MS);
        callee.write_all(b"answer").await.expect("writes");
        assert_eq!(read(&mut caller, 6).await, b"answer");
        assert!(begun.elapsed() >= 90 * MS);
        drop(callee);
        assert_eq!(timeout(PATIENCE, caller.read(&mut [0])).await.expect("in time").expect("the end"), 0);
    }

    #[tokio::test]
    async fn a_cut_withholds_and_its_end_delivers_everything() {
        let link = link(Duration::ZERO).await;
        let (mut caller, mut callee) = link.open().await;
        caller.write_all(b"a").await.expect("writes");
        assert_eq!(read(&mut callee, 1).await, b"a");
        link.forth.cut(1);
        caller.write_all(b"b").await.expect("writes");
        // The way back is open: by its answer the caller knows that the proxy has had its time.
        callee.write_all(b"x").await.expect("writes");
        assert_eq!(read(&mut caller, 1).await, b"x");
        assert!(timeout(20 * MS, callee.read(&mut [0])).await.is_err(), "nothing gets through");
        caller.write_all(b"c").await.expect("writes");
        link.forth.mend(1);
        assert_eq!(read(&mut callee, 2).await, b"bc");
    }

    #[tokio::test]
    async fn a_loss_is_a_stall_and_the_order_stays() {
        let link = link(Duration::ZERO).await;
        let (mut caller, mut callee) = link.open().await;
        caller.write_all(b"a").await.expect("writes");
        assert_eq!(read(&mut callee, 1).await, b"a");
        let begun = Instant::now();
        link.back.degrade(1, Degraded { loss_permille: 1_000, ..Degraded::default() });
        callee.write_all(b"b").await.expect("writes");
        // It is under way as soon as it is read: the forward way, whose loss has ended, delivers at once.
        assert!(timeout(150 * MS, caller.read(&mut [0])).await.is_err(), "it is sent again, and again");
        link.back.mend(1);
        callee.write_all(b"c").await.expect("writes");
        let mut both = [0; 2];
        timeout(Duration::from_secs(30), caller.read_exact(&mut both)).await.expect("in time").expect("reads");
        assert_eq!((&both, begun.elapsed() >= 200 * MS), (b"bc", true));
    }

    #[tokio::test]
    async fn a_withheld_stream_stops_its_sender_instead_of_filling_the_memory() {
        let link = link(Duration::ZERO).await;
        let (mut caller, _callee) = link.open().await;
        link.forth.cut(1);
        let megabyte = vec![0; 1 << 20];
        let flood = async {
            for _ in 0..64 {
                caller.write_all(&megabyte).await.expect("writes");
            }
        };
        assert!(timeout(Duration::from_millis(300), flood).await.is_err(), "64 MiB were taken in");
        assert!(!link.back.is_cut());
    }

    #[tokio::test]
    async fn nobody_there_is_a_reset() {
        let link = link(Duration::ZERO).await;
        drop(link.callee);
        let mut caller = TcpStream::connect(link.address).await.expect("the proxy is there");
        let read = timeout(PATIENCE, caller.read(&mut [0])).await.expect("in time");
        assert_eq!(read.expect_err("a reset").kind(), io::ErrorKind::ConnectionReset);
    }
}
