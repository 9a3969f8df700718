//! Where spans go: to a collector by OTLP over HTTP (JSON), to a file with one OTLP request a line, or both.
//!
//! Invariants: nobody who tells a span waits. What waits to be sent has a bound; what finds no place, and what nobody took within the
//! patience, is dropped and counted. A collector that is away is left alone for a while.
//!
//! Deliberately absent: TLS to the collector (it stands beside the process, as an agent), and a second try of a batch.

use super::label_text;
use crate::{clock, ready::Readiness, server::Redaction};
use hyper::{
    Request, Uri,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use std::{
    fs::File,
    io::Write as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::TcpStream,
    sync::mpsc,
    time::{Instant, timeout},
};
use worldline_proto::EntityId;
use worldline_system::doors::telemetry::{
    Label, Span, SpanId, TraceId,
    otlp::{ExportTraceServiceRequest, KeyValue, Names, Written, of_process},
};

/// Spans that may wait; some seconds of a busy process.
const WAITING: usize = 8_192;
/// Spans of one request.
const BATCH: usize = 512;
/// How long a span waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// How long a collector may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long one that is away is left alone, at first and at most.
const AWAY_FIRST: Duration = Duration::from_secs(1);
const AWAY_LONGEST: Duration = Duration::from_secs(60);
/// What the process does without, while the collector is away.
const NEED: &str = "telemetry";

/// Where to, and under which names.
#[derive(Clone)]
pub struct Config {
    /// A collector's `http://HOST:PORT/v1/traces`.
    pub otlp: Option<Uri>,
    /// A file that lines are appended to.
    pub file: Option<PathBuf>,
    /// What the process is called.
    pub service: String,
    /// Where it stands.
    pub region: Option<String>,
    /// All regions of the world, in order.
    pub regions: Vec<String>,
    /// What must not be told.
    pub redaction: Redaction,
}

/// A span, with its moments by the wall clock.
struct Told {
    span: Span,
    unix_ns: (u64, u64),
}

/// What has become of spans.
#[derive(Debug, Default)]
struct Counts {
    exported: AtomicU64,
    dropped: AtomicU64,
}

/// The way out. Clones lead to the same place.
#[derive(Clone, Debug)]
pub struct Exporter {
    /// `None` asks for the end.
    waiting: mpsc::Sender<Option<Told>>,
    counts: Arc<Counts>,
}

impl Exporter {
    /// Begins to export. `None` where nothing is to be exported. Must be called inside a runtime.
    #[must_use]
    pub fn start(config: Config, ready: Readiness) -> Option<Self> {
        if config.otlp.is_none() && config.file.is_none() {
            return None;
        }
        let (waiting, told) = mpsc::channel(WAITING);
        let counts = Arc::new(Counts::default());
        let sender = Sender { config, ready, counts: counts.clone(), told, away: None };
        tokio::spawn(sender.run());
        Some(Self { waiting, counts })
    }

    /// Takes a span, or drops it. Never waits.
    pub fn tell(&self, span: Span) {
        let (now, unix_now) = (clock::now(), clock::unix_now().as_nanos());
        let unix = |at| unix_now.saturating_sub(now.since(at).as_nanos());
        let unix_ns = (unix(span.start), unix(span.end));
        if self.waiting.try_send(Some(Told { span, unix_ns })).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sends what waits, and ends; what is told from now on is dropped.
    pub async fn end(&self) {
        // Ended already: there is nothing to wait for.
        drop(self.waiting.send(None).await);
        self.waiting.closed().await;
    }

    /// How many spans have left, and how many were dropped.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.counts.exported.load(Ordering::Relaxed), self.counts.dropped.load(Ordering::Relaxed))
    }
}

impl Names for Config {
    fn label(&self, label: Label) -> String {
        label_text(label, &self.regions)
    }

    fn entity(&self, entity: EntityId) -> String {
        self.redaction.entity(entity)
    }

    fn trace(&self, trace: TraceId) -> TraceId {
        self.redaction.trace(trace)
    }

    fn span(&self, span: SpanId) -> SpanId {
        self.redaction.span(span)
    }
}

/// The task that sends.
struct Sender {
    config: Config,
    ready: Readiness,
    counts: Arc<Counts>,
    told: mpsc::Receiver<Option<Told>>,
    /// Until when the collector is left alone, and for how long the next time.
    away: Option<(Instant, Duration)>,
}

impl Sender {
    async fn run(mut self) {
        let mut file = self.open();
        let mut batch = Vec::with_capacity(BATCH);
        // What has come until every exporter is gone is still sent.
        while self.told.recv_many(&mut batch, BATCH).await > 0 {
            let until = Instant::now() + GATHER;
            while batch.len() < BATCH {
                let room = BATCH - batch.len();
                if batch.last().is_some_and(Option::is_none) {
                    break;
                }
                let more = tokio::time::timeout_at(until, self.told.recv_many(&mut batch, room));
                if !matches!(more.await, Ok(1..)) {
                    break;
                }
            }
            let last = batch.iter().any(Option::is_none);
            self.send(&mut batch, &mut file).await;
            if last {
                return;
            }
        }
    }

    fn open(&self) -> Option<File> {
        let path = self.config.file.as_ref()?;
        let opened = File::options().create(true).append(true).open(path);
        opened
            .inspect_err(
                |error| tracing::error!(path = %path.display(), "the file for traces cannot be written: {error}"),
            )
            .ok()
    }

    async fn send(&mut self, batch: &mut Vec<Option<Told>>, file: &mut Option<File>) {
        let count = batch.iter().flatten().count() as u64;
        if count == 0 {
            return batch.clear();
        }
        let spans =
            batch.drain(..).flatten().map(|told| Written::new(&told.span, told.unix_ns, &self.config)).collect();
        let region = self.config.region.as_ref().map(|region| KeyValue::text("region", region.as_str()));
        let resource = of_process(&self.config.service, region.into_iter().collect(), spans);
        let request = ExportTraceServiceRequest { resource_spans: vec![resource] };
        let Ok(mut json) = serde_json::to_string(&request) else { return };
        let mut taken = false;
        if let Some(uri) = self.config.otlp.clone()
            && self.away.is_none_or(|(until, _)| Instant::now() >= until)
        {
            match timeout(PATIENCE, post(&uri, json.clone())).await.unwrap_or_else(|_| Err("it does not answer".into()))
            {
                Ok(()) => {
                    taken = true;
                    self.away = None;
                    self.ready.restored(NEED);
                }
                Err(problem) => {
                    let wait = self.away.map_or(AWAY_FIRST, |(_, wait)| (wait * 2).min(AWAY_LONGEST));
                    self.away = Some((Instant::now() + wait, wait));
                    self.ready.degraded(
                        NEED,
                        format!("the collector of `telemetry.otlp`, {uri}, takes no traces: {problem}"),
                    );
                }
            }
        }
        if let Some(open) = file {
            json.push('\n');
            match open.write_all(json.as_bytes()) {
                Ok(()) => taken = true,
                Err(error) => {
                    tracing::error!("the file for traces cannot be written any more: {error}");
                    *file = None;
                }
            }
        }
        let counter = if taken { &self.counts.exported } else { &self.counts.dropped };
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

/// One request, on a connection of its own.
async fn post(uri: &Uri, json: String) -> Result<(), String> {
    let host = uri.host().unwrap_or_default();
    let port = uri.port_u16().unwrap_or(4_318);
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let path = match uri.path() {
        "" | "/" => "/v1/traces",
        path => path,
    };
    let request = Request::post(path)
        .header(HOST, format!("{host}:{port}"))
        .header(CONTENT_TYPE, "application/json")
        .body(json)
        .map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(|error| error.to_string());
    connection.abort();
    let status = answer?.status();
    if status.is_success() { Ok(()) } else { Err(format!("it says {status}")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };
    use worldline_proto::{CharacterId, OpNumber};
    use worldline_system::doors::telemetry::{Attribute, SpanId, Stage, TraceId};

    fn span(number: u64) -> Span {
        let character = CharacterId::new(7).expect("small");
        let trace = TraceId::of_operation(character, OpNumber(number));
        Span {
            trace,
            id: SpanId::of(trace, Stage::GatewayRouting),
            parent: Some(SpanId::of(trace, Stage::ClientAttackInput)),
            stage: Stage::GatewayRouting,
            start: clock::now(),
            end: clock::now(),
            failed: None,
            attributes: vec![("player_id", Attribute::Entity(character.entity()))],
        }
    }

    fn config() -> Config {
        Config {
            otlp: None,
            file: None,
            service: "gateway-n7".into(),
            region: Some("frankfurt".into()),
            regions: vec!["frankfurt".into()],
            redaction: Redaction::new([3; 32]),
        }
    }

    /// Takes one request and answers it so.
    async fn take_one(listener: &TcpListener, answer: &str) -> String {
        let (mut stream, _) = listener.accept().await.expect("somebody connects");
        let mut text = String::new();
        let mut bytes = [0; 4_096];
        loop {
            let read = stream.read(&mut bytes).await.expect("reads");
            text += &String::from_utf8_lossy(&bytes[..read]);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if length.is_none_or(|length: usize| body.len() >= length) {
                break;
            }
        }
        stream.write_all(format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await.expect("writes");
        text
    }

    /// Waits until so many spans have left and were dropped.
    async fn until(exporter: &Exporter, counts: (u64, u64)) {
        let reached = timeout(Duration::from_secs(60), async {
            while exporter.counts() != counts {
                tokio::task::yield_now().await;
            }
        });
        assert!(reached.await.is_ok(), "{:?}", exporter.counts());
    }

    #[tokio::test]
    async fn a_collector_gets_what_was_told_and_nobody_learns_who_it_was() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let otlp = Some(format!("http://{address}/v1/traces").parse().expect("a URL"));
        let exporter = Exporter::start(Config { otlp, ..config() }, Readiness::default()).expect("there is somewhere");
        exporter.tell(span(1));
        exporter.tell(span(2));
        let request = take_one(&listener, "200 OK").await;
        assert!(request.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("content-type: application/json"), "{request}");
        let body: Value = serde_json::from_str(request.split_once("\r\n\r\n").expect("a body").1).expect("JSON");
        let spans = body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().expect("a list");
        assert_eq!(spans.len(), 2);
        assert_eq!(spans[0]["name"], "gateway_routing");
        let started: u64 = spans[0]["startTimeUnixNano"].as_str().and_then(|t| t.parse().ok()).expect("a number");
        assert!(clock::unix_now().as_nanos() - started < 60_000_000_000, "a moment ago");
        assert!(!request.contains("character-7") && request.contains("character-x"), "{request}");
        until(&exporter, (2, 0)).await;
    }

    #[tokio::test]
    async fn a_collector_that_is_away_costs_nothing_but_the_spans_and_the_file_has_them() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let otlp: Option<Uri> = Some(format!("http://{address}").parse().expect("a URL"));
        let ready = Readiness::default();
        let exporter = Exporter::start(Config { otlp: otlp.clone(), ..config() }, ready.clone()).expect("somewhere");
        exporter.tell(span(1));
        let request = take_one(&listener, "503 Service Unavailable").await;
        assert!(request.starts_with("POST /v1/traces "), "the path of OTLP: {request}");
        ready.until_degraded(|lacks| lacks.get(NEED).is_some_and(|why| why.contains("503"))).await;
        until(&exporter, (0, 1)).await;
        drop(listener);
        let path = std::env::temp_dir().join(format!("worldline-traces-{}.jsonl", std::process::id()));
        drop(std::fs::remove_file(&path));
        let config = Config { otlp, file: Some(path.clone()), ..config() };
        let exporter = Exporter::start(config, Readiness::default()).expect("somewhere");
        for number in 0..WAITING as u64 + 100 {
            exporter.tell(span(number));
        }
        let (_, dropped) = exporter.counts();
        assert!((1..=100).contains(&dropped), "more than may wait was told at once: {dropped}");
        timeout(Duration::from_secs(60), exporter.end()).await.expect("it ends when it is asked to");
        let text = std::fs::read_to_string(&path).expect("the file is there");
        drop(std::fs::remove_file(&path));
        let of = |line| {
            let line: Value = serde_json::from_str(line).expect("each line is a request");
            line["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().map_or(0, Vec::len)
        };
        let written: usize = text.lines().map(of).sum();
        assert_eq!(written as u64, WAITING as u64 + 100 - dropped, "every one that found a place");
    }
}
