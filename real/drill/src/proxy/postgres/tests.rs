use super::*;
use std::{net::Ipv4Addr, time::Duration};
use tokio::{io::AsyncWriteExt as _, net::TcpListener, task::JoinSet, time::timeout};

const PATIENCE: Duration = Duration::from_secs(5);

/// A message with its tag and length.
fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn statement(sql: &str) -> Vec<u8> {
    let parse = message(b'P', &[b"s\0".as_slice(), sql.as_bytes(), b"\0\0\0"].concat());
    [parse, message(b'B', b"\0s\0\0\0\0\0\0\0"), message(b'E', b"\0\0\0\0\0"), message(b'S', b"")].concat()
}

fn answer(row: &[u8], status: u8) -> Vec<u8> {
    [message(b'D', row), message(b'Z', &[status])].concat()
}

struct Link {
    caller: TcpStream,
    server: TcpStream,
    statements: Arc<Statements>,
    _tasks: JoinSet<io::Result<()>>,
}

async fn read(stream: &mut TcpStream, bytes: &[u8]) {
    let mut buffer = vec![0; bytes.len()];
    timeout(PATIENCE, stream.read_exact(&mut buffer)).await.expect("in time").expect("reads");
    assert_eq!(buffer, bytes);
}

/// A connection whose session has begun.
async fn link() -> Link {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let here = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let (address, to) = (here.local_addr().expect("bound"), listener.local_addr().expect("bound"));
    let statements = Arc::new(Statements::new(1));
    let mut tasks = JoinSet::new();
    let shared = Arc::clone(&statements);
    tasks.spawn(stream::listen(here, move |socket| {
        let way = |who| Arc::new(Way::new(Duration::ZERO, Duration::ZERO, 1, who));
        carry(socket, NodeId(7), to, (way(1), way(2)), Arc::clone(&shared))
    }));
    let mut caller = TcpStream::connect(address).await.expect("connects");
    let (mut server, _) = timeout(PATIENCE, listener.accept()).await.expect("in time").expect("accepts");
    let tls = [8_u32.to_be_bytes(), ASKS_FOR_TLS.to_be_bytes()].concat();
    caller.write_all(&tls).await.expect("writes");
    read(&mut server, &tls).await;
    server.write_all(b"N").await.expect("writes");
    read(&mut caller, b"N").await;
    let hello = [&13_u32.to_be_bytes()[..], &196_608_u32.to_be_bytes(), b"user\0"].concat();
    caller.write_all(&hello).await.expect("writes");
    read(&mut server, &hello).await;
    let ready = message(b'Z', b"I");
    server.write_all(&ready).await.expect("writes");
    read(&mut caller, &ready).await;
    Link { caller, server, statements, _tasks: tasks }
}

#[tokio::test]
async fn a_swallowed_answer_was_executed_and_nothing_follows_it() {
    let mut link = link().await;
    let ask = statement("select worldline.commit($1::text::jsonb)::text");
    link.caller.write_all(&ask).await.expect("writes");
    read(&mut link.server, &ask).await;
    link.server.write_all(&answer(b"1", b'I')).await.expect("writes");
    read(&mut link.caller, &answer(b"1", b'I')).await;
    link.statements.lose_answers(None, 1_000, 1);
    link.caller.write_all(&ask).await.expect("writes");
    read(&mut link.server, &ask).await;
    link.server.write_all(&answer(b"2", b'I')).await.expect("writes");
    assert!(timeout(Duration::from_millis(50), link.caller.read(&mut [0])).await.is_err(), "silence");
    // The caller gives up: the server hears it.
    drop(link.caller);
    assert_eq!(timeout(PATIENCE, link.server.read(&mut [0])).await.expect("in time").expect("the end"), 0);
    assert_eq!(link.statements.counts().swallowed, 1);
}

#[tokio::test]
async fn what_committed_nothing_is_answered_and_uses_nothing_up() {
    let mut link = link().await;
    link.statements.lose_answers(None, 1_000, 1);
    let commit = "select worldline.commit($1::text::jsonb)::text";
    let open = answer(b"1", b'T');
    let error = [message(b'E', b"SERROR\0C40001\0\0"), message(b'Z', b"I")].concat();
    let look = message(b'Q', b"select current_setting('synchronous_commit')\0");
    let prepare = [message(b'P', &[b"t\0", commit.as_bytes(), b"\0\0\0"].concat()), message(b'S', b"")].concat();
    let prepared = [message(b'1', b""), message(b'Z', b"I")].concat();
    for (ask, answer) in [
        (statement(commit), open),
        (statement(commit), error),
        (statement("select worldline.roster($1, $2)::text"), answer(b"1", b'I')),
        (look, answer(b"on", b'I')),
        (prepare, prepared),
    ] {
        link.caller.write_all(&ask).await.expect("writes");
        read(&mut link.server, &ask).await;
        link.server.write_all(&answer).await.expect("writes");
        read(&mut link.caller, &answer).await;
    }
    assert_eq!(link.statements.counts().swallowed, 0);
    // The statement that was prepared before is known by its name.
    let ask = [message(b'B', b"\0t\0\0\0\0\0\0\0"), message(b'E', b"\0\0\0\0\0"), message(b'S', b"")].concat();
    link.caller.write_all(&ask).await.expect("writes");
    read(&mut link.server, &ask).await;
    link.server.write_all(&answer(b"2", b'I')).await.expect("writes");
    drop(link.server);
    assert_eq!(timeout(PATIENCE, link.caller.read(&mut [0])).await.expect("in time").expect("the end"), 0);
    assert_eq!(link.statements.counts().swallowed, 1);
}

#[tokio::test]
async fn a_connection_breaks_before_or_after_its_statement() {
    let reset = async |stream: &mut TcpStream| {
        let read = timeout(PATIENCE, stream.read(&mut [0; 16])).await.expect("in time");
        assert_eq!(read.expect_err("a reset").kind(), io::ErrorKind::ConnectionReset);
    };
    let ask = statement("select worldline.commit($1::text::jsonb)::text");
    let mut link = link().await;
    link.statements.lose_connections(1_000, When::Before);
    link.caller.write_all(&ask).await.expect("writes");
    reset(&mut link.caller).await;
    reset(&mut link.server).await;
    let mut link = self::link().await;
    link.statements.lose_connections(1_000, When::After);
    link.caller.write_all(&ask).await.expect("writes");
    read(&mut link.server, &ask).await;
    link.server.write_all(&answer(b"1", b'I')).await.expect("writes");
    reset(&mut link.caller).await;
}

#[tokio::test]
async fn a_commit_is_held_back_even_if_its_caller_has_gone() {
    let mut link = link().await;
    let by = Duration::from_millis(120);
    link.statements.delay_commits(Some(NodeId(7)), by);
    let other = statement("select worldline.roster($1, $2)::text");
    link.caller.write_all(&other).await.expect("writes");
    read(&mut link.server, &other).await;
    let ask = statement("select worldline.commit($1::text::jsonb)::text");
    let begun = Instant::now();
    link.caller.write_all(&ask).await.expect("writes");
    link.caller.shutdown().await.expect("closes");
    read(&mut link.server, &ask).await;
    assert!(begun.elapsed() >= by);
}
