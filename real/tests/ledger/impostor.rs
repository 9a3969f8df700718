//! What may stand where PostgreSQL should: something that says one thing to everybody, and a line that can be cut.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// A message of PostgreSQL's protocol.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("a short one");
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

/// An error, as a server sends it.
pub fn error(severity: &str, code: &str, text: &str) -> Vec<u8> {
    message(b'E', format!("S{severity}\0V{severity}\0C{code}\0M{text}\0\0").as_bytes())
}

/// That the connection stands, with a server of this version.
pub fn welcome(version: &str) -> Vec<u8> {
    let version = format!("server_version\0{version}\0");
    [message(b'R', &[0, 0, 0, 0]), message(b'S', version.as_bytes()), message(b'Z', b"I")].concat()
}

/// Something that accepts every connection, waits for the first bytes, says this, and no more. Returns its address.
pub async fn saying(what: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://someone:secret@{}/world", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut first = [0; 1024];
            let _ = socket.read(&mut first).await;
            let _ = socket.write_all(&what).await;
            open.push(socket);
        }
    });
    url
}

/// A line to the server that swallows its answers when it is told to.
pub struct Line {
    /// The address to use.
    pub url: String,
    mute: Arc<AtomicBool>,
    /// Connections from before this one was counted are mute for ever.
    first: Arc<AtomicUsize>,
    carrier: JoinHandle<()>,
}

impl Line {
    /// A line to the server of this address.
    pub async fn to(url: &str) -> Self {
        let (user, rest) = url.split_once('@').unwrap();
        let (server, database) = rest.split_once('/').unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{user}@{}/{database}", listener.local_addr().unwrap());
        let (server, mute, first) = (server.to_owned(), Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let carrier = tokio::spawn(carry(listener, server, mute.clone(), first.clone()));
        Self { url, mute, first, carrier }
    }

    /// From now on no answer comes through, until `false`.
    pub fn mute(&self, mute: bool) {
        self.mute.store(mute, Ordering::SeqCst);
    }

    /// No answer comes through on the connections that stand; new ones are as good as ever.
    pub fn lose_what_stands(&self) {
        self.first.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.carrier.abort();
    }
}

async fn carry(listener: TcpListener, server: String, mute: Arc<AtomicBool>, first: Arc<AtomicUsize>) {
    while let Ok((client, _)) = listener.accept().await {
        let life = first.load(Ordering::SeqCst);
        let Ok(server) = TcpStream::connect(&server).await else { continue };
        let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
            (client.into_split(), server.into_split());
        tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
        let (mute, first) = (mute.clone(), first.clone());
        let is_mute = move || mute.load(Ordering::SeqCst) || first.load(Ordering::SeqCst) > life;
        tokio::spawn(async move {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = from_server.read(&mut bytes).await {
                if !is_mute() && to_client.write_all(&bytes[..read]).await.is_err() {
                    return;
                }
            }
        });
    }
}
