//! A server of the Redis protocol, as far as the adapter uses it: its moods are drawn.

use super::Shared;
use crate::{
    script::{between, draws, one_in, pause},
    wire::Server,
};
use madsim::task::spawn;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream};
use worldline_real::machine::Pending;
use worldline_system::{doors::entropy::Entropy, time::Duration};

/// The part of the draws for connections begins here.
const CONNECTIONS: u64 = 1_000;
/// How long an end that is not read stays.
const STUCK: Duration = Duration::from_secs(4);

#[derive(Debug)]
pub struct Redis {
    book: Shared,
    well: AtomicBool,
}

/// What becomes of a connection.
enum Mood {
    Answers,
    /// Executes, and says nothing any more.
    Silent,
}

impl Redis {
    pub fn new(book: Shared) -> Self {
        Self { book, well: AtomicBool::new(false) }
    }

    /// From now on it does what it should.
    pub fn heal(&self) {
        self.well.store(true, Ordering::Relaxed);
    }

    fn is_ill(&self, draws: &mut Entropy, one_in_times: u64) -> bool {
        one_in(draws, one_in_times) && !self.well.load(Ordering::Relaxed)
    }

    fn note(&self, what: &'static str) {
        self.book.book().note(what);
    }

    async fn serve(self: Arc<Self>, number: u64, mut draws: Entropy, pipe: DuplexStream) {
        let mut pipe = BufReader::new(pipe);
        let mut mood = Mood::Answers;
        while let Ok(Some(command)) = read(&mut pipe).await {
            if self.is_ill(&mut draws, 150) {
                self.note("a connection ended before it was executed");
                return;
            }
            if self.is_ill(&mut draws, 300) {
                self.note("a connection that nobody reads");
                return pause(STUCK).await;
            }
            if one_in(&mut draws, 20) {
                pause(between(&mut draws, Duration::ZERO, Duration::from_millis(150))).await;
            }
            if self.is_ill(&mut draws, 200) {
                self.note("a connection that is silent");
                mood = Mood::Silent;
            }
            let reply = self.execute(number, &mut draws, &command);
            if self.is_ill(&mut draws, 150) {
                self.note("a connection ended before it was answered");
                return;
            }
            if matches!(mood, Mood::Answers) && pipe.write_all(reply.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn execute(&self, connection: u64, draws: &mut Entropy, command: &[String]) -> String {
        let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        match words[..] {
            ["INFO", ..] => {
                let role = if self.is_ill(draws, 12) { "slave" } else { "master" };
                bulk(&format!("redis_version:7.2.4\r\nrole:{role}\r\ncluster_enabled:0\r\n"))
            }
            ["SCRIPT", "LOAD", text] => bulk(&format!("{:040}", text.len())),
            ["PING"] => "+PONG\r\n".to_owned(),
            ["GET", key] => match self.refuses(draws) {
                Some(error) => error,
                None => {
                    let count = self.book.book().executed(connection, counter(key));
                    bulk(&count.to_string())
                }
            },
            [eval @ ("EVALSHA" | "EVAL"), _, "1", key, ..] => {
                if eval == "EVALSHA" && self.is_ill(draws, 40) {
                    self.book.book().forgotten(counter(key));
                    return "-NOSCRIPT No matching script\r\n".to_owned();
                }
                match self.refuses(draws) {
                    Some(error) => error,
                    None => {
                        let sum = self.book.book().executed(connection, counter(key));
                        bulk(&sum.to_string())
                    }
                }
            }
            _ => "+OK\r\n".to_owned(),
        }
    }

    fn refuses(&self, draws: &mut Entropy) -> Option<String> {
        match self.is_ill(draws, 100) {
            false => None,
            true if one_in(draws, 2) => Some("-READONLY You can't write against a read only replica.\r\n".to_owned()),
            true => Some("-LOADING Redis is loading the dataset in memory\r\n".to_owned()),
        }
    }
}

impl Server for Redis {
    fn accept(self: Arc<Self>, port: u16, number: u64, pipe: DuplexStream) -> Pending<'static, ()> {
        Box::pin(async move {
            self.book.book().connected(number, port);
            let mut draws = draws(CONNECTIONS + number);
            pause(between(&mut draws, Duration::ZERO, Duration::from_millis(5))).await;
            if self.is_ill(&mut draws, 4) {
                self.note("nobody at an address");
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            if self.is_ill(&mut draws, 12) {
                self.note("nobody answers a connection");
                std::future::pending::<()>().await;
            }
            // It ends with its connection.
            drop(spawn(self.serve(number, draws, pipe)));
            Ok(())
        })
    }
}

/// The operation that a key belongs to.
fn counter(key: &str) -> u64 {
    let digits: String = key.chars().filter(char::is_ascii_digit).collect();
    digits.parse().expect("a key has its operation's number")
}

/// The next command; `None` where there is none any more.
async fn read(pipe: &mut BufReader<DuplexStream>) -> io::Result<Option<Vec<String>>> {
    let mut line = String::new();
    if pipe.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let count: usize = line.trim().strip_prefix('*').and_then(|count| count.parse().ok()).expect("a command");
    let mut command = Vec::with_capacity(count);
    for _ in 0..count {
        line.clear();
        if pipe.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        let bytes: usize = line.trim().strip_prefix('$').and_then(|bytes| bytes.parse().ok()).expect("an argument");
        let mut argument = vec![0; bytes + 2];
        pipe.read_exact(&mut argument).await?;
        argument.truncate(bytes);
        command.push(String::from_utf8(argument).expect("texts only"));
    }
    Ok(Some(command))
}
