use super::*;
use etcd_client::{Client, Compare, CompareOp, Txn, TxnOp};
use std::{future::Future, time::Duration};
use tokio::{net::TcpListener, task::JoinSet, time::timeout};

const PATIENCE: Duration = Duration::from_secs(5);
const ONE: NodeId = NodeId(7);

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("in time")
}

struct Link {
    address: SocketAddr,
    server: TcpListener,
    transactions: Arc<Transactions>,
    tasks: JoinSet<io::Result<()>>,
}

async fn link() -> Link {
    let bind = || TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0));
    let (server, here) = (bind().await.expect("a port"), bind().await.expect("a port"));
    let (address, to) = (here.local_addr().expect("bound"), server.local_addr().expect("bound"));
    let transactions = Arc::new(Transactions::default());
    let (mut tasks, shared) = (JoinSet::new(), Arc::clone(&transactions));
    tasks.spawn(stream::listen(here, move |socket| {
        let way = |who| Arc::new(Way::new(Duration::ZERO, Duration::ZERO, 1, who));
        carry(socket, ONE, to, (way(1), way(2)), Arc::clone(&shared))
    }));
    Link { address, server, transactions, tasks }
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("short");
    [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
}

/// The beginning of a transaction that compares the version of the key `k`.
const BEGIN: &[u8] = &[0, 0, 0, 0, 9, 0x0a, 7, 0x10, 0, 0x1a, 1, b'k'];

#[tokio::test]
async fn what_is_begun_behind_the_last_that_passes_does_not_arrive_however_they_are_mixed() {
    let link = link().await;
    link.transactions.end_behind(ONE, 1);
    let mut caller = in_time(TcpStream::connect(link.address)).await.expect("connects");
    let (mut server, _) = in_time(link.server.accept()).await.expect("accepts");
    let watch = frame(DATA, 0, 3, &[0, 0, 0, 0, 5, 0x0a, 3, 0x0a, 1, b'/']);
    let (first, rest) = (frame(DATA, 0, 5, BEGIN), frame(DATA, END_STREAM, 5, &[0x20, 0]));
    let (begun, ended) = (frame(DATA, 0, 7, BEGIN), frame(DATA, END_STREAM, 7, &[0x20, 0]));
    let ping = frame(6, 0, 0, &[0; 8]);
    let sent = [PREFACE, &watch, &first, &begun, &ended, &rest, &ping].concat();
    for piece in sent.chunks(5) {
        caller.write_all(piece).await.expect("writes");
    }
    let arrives = [PREFACE, &watch, &first, &rest, &ping].concat();
    let mut came = vec![0; arrives.len()];
    in_time(server.read_exact(&mut came)).await.expect("reads");
    assert_eq!(came, arrives);
    assert_eq!(in_time(link.transactions.due()).await, ONE);
    server.write_all(b"whatever").await.expect("writes");
    in_time(caller.read_exact(&mut [0; 8])).await.expect("answers pass as they are");
}

#[tokio::test]
async fn what_is_no_http_2_ends_its_connection_and_no_other() {
    let mut link = link().await;
    let mut caller = in_time(TcpStream::connect(link.address)).await.expect("connects");
    caller.write_all(b"GET / HTTP/1.1\r\nHost: etcd\r\n\r\n").await.expect("writes");
    let (mut server, _) = in_time(link.server.accept()).await.expect("accepts");
    assert_eq!(in_time(server.read(&mut [0])).await.expect("an end"), 0, "nothing has passed");
    assert!(link.tasks.try_join_next().is_none(), "the next one is taken in");
    let too_long = [PREFACE, &[0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1]].concat();
    let mut frames = Frames { buffer: too_long[..].into(), begun: false };
    assert!(matches!(frames.next(), Ok(Some(Err(_)))) && frames.next().is_err());
}

/// What a server is sent, without an answer but its settings, until `holds`.
async fn until(server: &mut TcpStream, frames: &mut Frames, holds: impl Fn(&Frame) -> bool) -> Vec<Frame> {
    let mut all = Vec::new();
    loop {
        while let Some(next) = frames.next().expect("HTTP/2") {
            let Ok(frame) = next else { continue };
            let found = holds(&frame);
            all.push(frame);
            if found {
                return all;
            }
        }
        assert!(in_time(server.read_buf(&mut frames.buffer)).await.expect("reads") > 0, "it has ended: {all:?}");
    }
}

#[tokio::test]
async fn etcds_own_client_is_ended_behind_its_first_transaction_whatever_else_it_asks() {
    let link = link().await;
    link.transactions.end_behind(ONE, 1);
    let url = format!("http://{}", link.address);
    let client = in_time(Client::connect([url], None)).await.expect("a client");
    let mut asking = JoinSet::new();
    let mut get = client.clone();
    asking.spawn(async move { get.get("/worldline/leader", None).await.map(drop) });
    let (mut server, _) = in_time(link.server.accept()).await.expect("accepts");
    server.write_all(&frame(4, 0, 0, &[])).await.expect("writes");
    let mut frames = Frames::default();
    let read = until(&mut server, &mut frames, |frame| frame.kind == DATA).await;
    let read = read.last().expect("it was asked for").data().to_vec();
    assert!(read.ends_with(b"/worldline/leader"), "{read:?}");
    let mut grant = client.clone();
    asking.spawn(async move { grant.lease_grant(10, None).await.map(drop) });
    until(&mut server, &mut frames, |frame| frame.kind == DATA).await;
    for name in ["first", "second"] {
        let mut client = client.clone();
        asking.spawn(async move {
            let compare = Compare::version("/worldline/leader", CompareOp::Greater, 0);
            let puts: Vec<_> = (0..400).map(|n| TxnOp::put(format!("/worldline/{name}/{n}"), "value", None)).collect();
            client.txn(Txn::new().when([compare]).and_then(puts)).await.map(drop)
        });
        if name == "first" {
            let all =
                until(&mut server, &mut frames, |frame| frame.kind == DATA && frame.flags & END_STREAM != 0).await;
            let bytes: usize = all.iter().map(|frame| frame.data().len()).sum();
            assert!(bytes > 400 * 20, "all of it has arrived: {bytes} bytes");
        }
    }
    assert_eq!(in_time(link.transactions.due()).await, ONE);
    asking.abort_all();
    drop((client, asking));
    let mut left = Vec::new();
    let _ = in_time(server.read_to_end(&mut left)).await;
    frames.buffer.extend_from_slice(&left);
    while let Some(next) = frames.next().expect("HTTP/2") {
        let carries = next.as_ref().is_ok_and(|frame| frame.kind == DATA && !frame.data().is_empty());
        assert!(!carries, "nothing of the second arrives: {next:?}");
    }
}
