//! A process whose services are missing, foreign or refuse it stays up where waiting helps, says what is wrong and where, and
//! ends in order.

mod common;

use common::{Daemon, NOBODY, World, database, drop_database, free_address, get, run, service, slices};
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{Duration, interval, timeout},
};

/// Passes bytes on to `to`, for as long as the test runs.
async fn forward(listen: SocketAddr, to: String) {
    let listener = TcpListener::bind(listen).await.expect("a free port");
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let to = to.clone();
            tokio::spawn(async move {
                if let Ok(mut target) = TcpStream::connect(to).await {
                    drop(tokio::io::copy_bidirectional(&mut from, &mut target).await);
                }
            });
        }
    });
}

/// The host and port of a URL.
fn place(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

#[tokio::test]
async fn a_replica_is_ready_once_the_ledger_has_told_how_every_boss_stands_and_only_degraded_without_the_bus() {
    let url = database("replica").await;
    run(&["migrate", "--ledger", &url], &[]).await.says(0, &[]);
    let listen = free_address();
    let world = World::new("replica", &format!("http://{NOBODY}"), &url, &[(9, listen)]).await;
    let http = free_address();
    let bus = format!("nats://{NOBODY}");
    let arguments = world.server("replica", 9, listen, http);
    let daemon = Daemon::start(&slices(&arguments), &[("WORLDLINE_BUS", &bus)]);
    let body = until_ready(http, 503).await;
    assert!(body["problems"]["directory"].is_null(), "it has no directory: {body}");
    daemon.logs(&["\"need\":\"ledger\"", "\"event\":\"ready\""]).await;
    let problems = until_ready(http, 503).await["problems"].clone();
    assert!(problems["globals"].as_str().is_some_and(|why| why.contains("migrate --seed")), "{problems}");
    run(&["migrate", "--config", &world.config, "--seed"], &[]).await.says(0, &[]);
    until_ready(http, 200).await;
    let (_, health) = get(http, "/health").await.expect("it answers");
    assert_eq!((health["role"].as_str(), health["ready"].as_bool()), (Some("replica"), Some(true)), "{health}");
    assert!(health["degraded"]["bus"].as_str().is_some_and(|why| why.contains(NOBODY)), "{health}");
    let ended = daemon.stop().await;
    ended.says(0, &[]);
    ended.says_in_order(&["\"signal\":\"SIGTERM\"", "the role has stopped", "ends"]);
    drop_database(&url).await;
}

/// Waits until `/ready` answers with this status.
async fn until_ready(http: SocketAddr, status: u16) -> serde_json::Value {
    let mut last = None;
    let mut looks = interval(Duration::from_millis(50));
    let reached = timeout(common::PATIENCE, async {
        loop {
            looks.tick().await;
            match get(http, "/ready").await {
                Ok((code, body)) if code == status => return body,
                other => last = Some(other),
            }
        }
    })
    .await;
    reached.unwrap_or_else(|_| panic!("/ready was never {status}, but {last:?}"))
}

#[tokio::test]
async fn without_its_services_a_process_lives_says_what_is_missing_and_stops_when_asked() {
    let world = World::new(
        "missing",
        &format!("http://{NOBODY}"),
        &format!("postgres://me@{NOBODY}/x"),
        &[(7, free_address())],
    )
    .await;
    for command in ["worker", "gateway", "orchestrator"] {
        let http = free_address();
        let arguments = match command {
            "orchestrator" => world.process(command, 3, http),
            _ => world.server(command, 7, free_address(), http),
        };
        let cache = format!("redis://{NOBODY}");
        let daemon = Daemon::start(&slices(&arguments), &[("WORLDLINE_CACHE", &cache)]);
        daemon.logs(&["starts as"]).await;
        daemon.logs(&["\"need\":\"ledger\"", NOBODY]).await;
        daemon.logs(&["\"need\":\"directory\"", NOBODY]).await;
        let (status, ready) = get(http, "/ready").await.expect("it answers");
        assert_eq!((status, ready["ready"].as_bool()), (503, Some(false)), "{ready}");
        for need in ["ledger", "directory"] {
            let problem = ready["problems"][need].as_str().unwrap_or_else(|| panic!("no {need} in {ready}"));
            assert!(problem.contains(NOBODY), "{problem}");
        }
        assert!(ready["problems"]["cache"].is_null(), "nobody needs a cache: {ready}");
        let (status, health) = get(http, "/health").await.expect("it answers");
        assert_eq!((status, health["role"].as_str(), health["ready"].as_bool()), (200, Some(command), Some(false)));
        assert!(health["degraded"]["cache"].as_str().is_some_and(|why| why.contains(NOBODY)), "{health}");
        assert!(health["host"]["events"].is_u64() && health["inbox"]["length"].is_u64(), "{health}");
        let ended = daemon.stop().await;
        ended.says(0, &[]);
        ended.says_in_order(&["\"signal\":\"SIGTERM\"", "the role has stopped", "ends"]);
    }
}

#[tokio::test]
async fn a_service_that_comes_later_is_found() {
    let url = database("later").await;
    run(&["migrate", "--ledger", &url], &[]).await.says(0, &[]);
    let (ledger, directory) = (free_address(), free_address());
    let behind = url.replace(place(&url), &ledger.to_string());
    let world = World::new("later", &format!("http://{directory}"), &behind, &[]).await;
    let http = free_address();
    let daemon = Daemon::start(&slices(&world.process("orchestrator", 3, http)), &[]);
    until_ready(http, 503).await;
    forward(ledger, place(&url).to_owned()).await;
    forward(directory, place(&service("WORLDLINE_TEST_ETCD")).to_owned()).await;
    assert_eq!(until_ready(http, 200).await["problems"], serde_json::json!({}));
    daemon.stop().await.says(0, &["the role has stopped"]);
    drop_database(&url).await;
}

#[tokio::test]
async fn credentials_that_the_ledger_refuses_are_told_without_the_password() {
    let url = service("WORLDLINE_TEST_POSTGRES_GUARDED").replace("open%20sesame", common::PASSWORD);
    let world = World::new("credentials", &format!("http://{NOBODY}"), &url, &[]).await;
    let http = free_address();
    let daemon = Daemon::start(&slices(&world.process("orchestrator", 3, http)), &[("WORLDLINE_LOG", "debug")]);
    let line = daemon.logs(&["not ready", "\"need\":\"ledger\"", "guarded", place(&url)]).await;
    assert!(line.contains("user"), "{line}");
    let (status, ready) = get(http, "/ready").await.expect("it answers");
    assert_eq!(status, 503, "{ready}");
    let ended = daemon.stop().await;
    ended.says(0, &[]);
    assert!(!ended.stderr.contains(common::PASSWORD), "{}", ended.stderr);
}

#[tokio::test]
async fn a_ledger_without_our_schema_ends_the_process_with_what_to_run() {
    let url = database("schemaless").await;
    let world = World::new("schemaless", &format!("http://{NOBODY}"), &url, &[]).await;
    let arguments = world.process("orchestrator", 3, free_address());
    let told = ["run `worldlined migrate`", "the role has stopped"];
    Daemon::start(&slices(&arguments), &[]).ended().await.says(78, &told);
    run(&["migrate", "--config", &world.config, "--check"], &[]).await.says(78, &["run `worldlined migrate`"]);
    let seeded = run(&["migrate", "--config", &world.config, "--seed"], &[]).await;
    seeded.says(0, &[]);
    assert!(seeded.stdout.contains("8 are new"), "{}", seeded.stdout);
    run(&["migrate", "--config", &world.config, "--check"], &[]).await.says(0, &[]);
    let again = run(&["migrate", "--config", &world.config, "--seed"], &[]).await;
    assert!(again.stdout.contains("already") && again.stdout.contains("0 are new"), "{}", again.stdout);
    drop_database(&url).await;
}

#[tokio::test]
async fn a_foreign_schema_of_our_name_ends_the_process_and_is_left_alone() {
    use sqlx::Connection as _;
    let url = database("foreign").await;
    let mut connection = sqlx::PgConnection::connect(&url).await.expect("it is there");
    let theirs = "create schema worldline; create table worldline.theirs (id int)";
    sqlx::raw_sql(theirs).execute(&mut connection).await.expect("it may");
    let world = World::new("foreign", &format!("http://{NOBODY}"), &url, &[]).await;
    let arguments = world.process("orchestrator", 3, free_address());
    Daemon::start(&slices(&arguments), &[]).ended().await.says(78, &["is not this program's", "another database"]);
    run(&["migrate", "--config", &world.config], &[]).await.says(78, &["is not this program's"]);
    let tables = sqlx::query("select from pg_tables where schemaname = 'worldline'").fetch_all(&mut connection).await;
    assert_eq!(tables.expect("reads").len(), 1);
    drop(connection);
    drop_database(&url).await;
}

#[tokio::test]
async fn garbage_on_the_http_port_harms_nobody_else() {
    let world = World::new("garbage", &format!("http://{NOBODY}"), &format!("postgres://me@{NOBODY}/x"), &[]).await;
    let http = free_address();
    let daemon = Daemon::start(&slices(&world.process("orchestrator", 3, http)), &[]);
    daemon.logs(&["starts as"]).await;
    let mut silent = Vec::new();
    for _ in 0..1_000 {
        silent.push(TcpStream::connect(http).await.expect("it accepts"));
    }
    // Not even a probe with the usual patience of a second notices them.
    let probed = timeout(Duration::from_secs(1), get(http, "/health")).await;
    assert_eq!(probed.expect("it answers at once").expect("it answers").0, 200);
    for garbage in [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"GET", b"\0\0\0\0\r\n\r\n", &[0xff; 100_000]] {
        let mut stream = TcpStream::connect(http).await.expect("it accepts");
        drop(stream.write_all(garbage).await);
        drop(stream.shutdown().await);
        // Whatever it says, it closes: a half request is not waited for.
        let mut answer = Vec::new();
        drop(timeout(common::PATIENCE, stream.read_to_end(&mut answer)).await.expect("it closes in time"));
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(get(http, "/health").await.expect("it answers").0, 200);
    let last = silent.last_mut().expect("a thousand");
    let mut nothing = Vec::new();
    drop(timeout(common::PATIENCE, last.read_to_end(&mut nothing)).await.expect("who says nothing is not kept"));
    daemon.stop().await.says(0, &[]);
}

#[tokio::test]
async fn nobody_owns_what_was_never_claimed_and_a_missing_directory_is_named() {
    let missing = run(&["who-owns", "boss-77", "--directory", &format!("http://{NOBODY}")], &[]).await;
    missing.says(69, &[NOBODY]);
    let etcd = service("WORLDLINE_TEST_ETCD");
    let nobody = run(&["who-owns", "boss-77", "--directory", &etcd], &[]).await;
    nobody.says(1, &[]);
    assert!(nobody.stdout.contains("boss-77: nobody owns it"), "{}", nobody.stdout);
}

#[tokio::test]
async fn a_cache_that_cannot_be_asked_who_is_near_is_named() {
    let world = World::new("near", &format!("http://{NOBODY}"), &format!("postgres://me@{NOBODY}/x"), &[]).await;
    let cache = format!("redis://{NOBODY}");
    let asks = ["near", "0", "0", "--config", &world.config, "--region", "virginia", "--cache", &cache];
    run(&asks, &[]).await.says(69, &[NOBODY]);
}

#[tokio::test]
async fn a_process_that_cannot_write_its_history_ends_and_says_so() {
    let world = World::new("history", &format!("http://{NOBODY}"), &format!("postgres://me@{NOBODY}/x"), &[]).await;
    let history = world.folder.text("history");
    let mut arguments = world.process("orchestrator", 3, free_address());
    arguments.extend(["--history".to_owned(), history]);
    // The kernel refuses the file's growth, as on a full disk.
    let script = "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\"";
    let mut shell = vec!["-c".to_owned(), script.to_owned(), env!("CARGO_BIN_EXE_worldlined").to_owned()];
    shell.append(&mut arguments);
    let ended = Daemon::start_program("sh", &slices(&shell), &[]).ended().await;
    ended.says(70, &["the history cannot be written", "\"code\":70"]);
}

#[tokio::test]
async fn a_bot_whose_gateway_is_not_there_says_so() {
    let world =
        World::new("lonely", &format!("http://{NOBODY}"), &format!("postgres://me@{NOBODY}/x"), &[(7, free_address())])
            .await;
    let play = ["bot", "--config", &world.config, "--character", "1", "--stop", "500ms", "--json"];
    let ended = run(&play, &[]).await;
    ended.says(1, &[]);
    let summary: serde_json::Value = serde_json::from_str(&ended.stdout).expect("a summary");
    assert_eq!((summary["players"].as_u64(), summary["joined"].as_u64()), (Some(1), Some(0)), "{summary}");
    let why = summary["troubled"][0]["why"].as_str().expect("a reason");
    assert!(why.contains("never played") && why.contains("n7"), "{why}");
}
