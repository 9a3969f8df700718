//! What the tests of `worldlined` stand on: the real binary as a process, a folder that goes away, and the real services.
#![allow(dead_code, reason = "each test file is a crate of its own and uses a part")]

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::{Child, Command},
    sync::watch,
    time::timeout,
};

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// A secret that must never be printed.
pub const PASSWORD: &str = "hunter2hunter2";

/// A folder that goes away with its test.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("worldlined-{name}-{}-{number}", std::process::id()));
        drop(fs::remove_dir_all(&path));
        fs::create_dir_all(&path).expect("makes a folder");
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("a path of letters").to_owned()
    }

    pub fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.path(name), text).expect("writes a file");
        self.text(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// An address whose port, on TCP and UDP, is this test's alone.
pub fn free_address() -> SocketAddr {
    worldline_ports::of_this_process().expect("a free port")
}

/// The binary, without any variable of the configuration but these.
pub fn command(arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    program(env!("CARGO_BIN_EXE_worldlined"), arguments, variables)
}

fn program(program: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WORLDLINE_") || name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    command.args(arguments).envs(variables.iter().copied()).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs the binary to its end.
pub async fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
    let output = timeout(PATIENCE, command(arguments, variables).output()).await;
    let Output { status, stdout, stderr } = output.expect("it ends in time").expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("it prints text");
    Ended { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

/// What became of a process.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// Asserts that it said these on stderr in this order.
    pub fn says_in_order(&self, told: &[&str]) {
        let mut rest = self.stderr.as_str();
        for told in told {
            let Some(at) = rest.find(told) else { panic!("{told:?} is not where it should be in:\n{}", self.stderr) };
            rest = &rest[at + told.len()..];
        }
    }

    /// Asserts that it ended so and said all of this on stderr.
    pub fn says(&self, code: i32, told: &[&str]) {
        for told in told {
            assert!(self.stderr.contains(told), "{told:?} is not in:\n{}", self.stderr);
        }
        assert_eq!(self.code, Some(code), "{self:?}");
    }
}

/// A process that runs until it is stopped.
pub struct Daemon {
    child: Child,
    lines: watch::Receiver<Vec<String>>,
    stdout: Option<tokio::task::JoinHandle<String>>,
}

impl Daemon {
    pub fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::start_program(env!("CARGO_BIN_EXE_worldlined"), arguments, variables)
    }

    pub fn start_program(name: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = program(name, arguments, variables);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("piped")).lines();
        let mut stdout = child.stdout.take().expect("piped");
        let (sender, lines) = watch::channel(Vec::new());
        tokio::spawn(async move {
            while let Ok(Some(line)) = stderr.next_line().await {
                sender.send_modify(|lines| lines.push(line));
            }
        });
        let stdout = tokio::spawn(async move {
            let mut text = String::new();
            stdout.read_to_string(&mut text).await.expect("it prints text");
            text
        });
        Self { child, lines, stdout: Some(stdout) }
    }

    /// Waits until it has logged a line with all of these.
    pub async fn logs(&self, told: &[&str]) -> String {
        let has = |line: &&String| told.iter().all(|told| line.contains(told));
        let mut lines = self.lines.clone();
        let found = timeout(PATIENCE, lines.wait_for(|lines| lines.iter().any(|line| has(&line)))).await;
        match found {
            Ok(Ok(lines)) => lines.iter().find(has).expect("it was there").clone(),
            _ => panic!("{told:?} was not logged, but:\n{}", self.logged()),
        }
    }

    /// All that it has logged.
    pub fn logged(&self) -> String {
        self.lines.borrow().join("\n")
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Sends it a signal: `TERM`.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid().try_into().expect("small")).expect("not zero");
        rustix::process::kill_process(pid, signal).expect("it is ours");
    }

    /// Waits for its end.
    pub async fn ended(mut self) -> Ended {
        let status = timeout(PATIENCE, self.child.wait()).await.expect("it ends in time").expect("it ran");
        // The end of its output comes with its end.
        drop(timeout(PATIENCE, async { while self.lines.changed().await.is_ok() {} }).await);
        let stdout = self.stdout.take().expect("taken once").await.expect("reads");
        Ended { code: status.code(), stdout, stderr: self.logged() }
    }

    /// Asks it to stop, and waits for its end.
    pub async fn stop(self) -> Ended {
        self.signal(rustix::process::Signal::TERM);
        self.ended().await
    }
}

/// An answer on HTTP: the status and the body.
pub async fn get(address: SocketAddr, path: &str) -> io::Result<(u16, serde_json::Value)> {
    let (status, body) = get_text(address, path).await?;
    Ok((status, serde_json::from_str(&body)?))
}

/// Asks over HTTP: the status, and the body as it is.
pub async fn get_text(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        io::Result::Ok(answer)
    };
    let answer = timeout(PATIENCE, exchange).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status, body.to_owned()))
}

/// The address of a real service, or a failure that says how to have one.
pub fn service(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set; start the services first: eval \"$(ci/services start)\""))
}

/// A database of its own on the real PostgreSQL, dropped with the test's process unless it fails.
pub async fn database(name: &str) -> String {
    use sqlx::Connection as _;
    let server = service("WORLDLINE_TEST_POSTGRES");
    let (base, _) = server.rsplit_once('/').expect("a URL with a database");
    let database = format!("{name}_{}", std::process::id());
    let mut connection = sqlx::PgConnection::connect(&server).await.expect("PostgreSQL of ci/services answers");
    for statement in [format!("drop database if exists {database} with (force)"), format!("create database {database}")]
    {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await.expect("it may");
    }
    format!("{base}/{database}")
}

/// Drops what [`database`] made.
pub async fn drop_database(url: &str) {
    use sqlx::Connection as _;
    let (_, database) = url.rsplit_once('/').expect("a URL with a database");
    let server = service("WORLDLINE_TEST_POSTGRES");
    let mut connection = sqlx::PgConnection::connect(&server).await.expect("PostgreSQL of ci/services answers");
    let statement = format!("drop database if exists {database} with (force)");
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await.expect("it may");
}

/// A world file with two regions and a boss, and what every process of it needs but for services.
pub struct World {
    pub folder: Folder,
    pub config: String,
}

/// An address where nobody listens.
pub const NOBODY: &str = "127.0.0.1:1";

impl World {
    /// With certificates for these nodes. Its services are these.
    pub async fn new(name: &str, directory: &str, ledger: &str, peers: &[(u32, SocketAddr)]) -> Self {
        let folder = Folder::new(name);
        folder.write("world.toml", WORLD);
        folder.write("token.key", &"5a".repeat(32));
        let nodes = peers.iter().map(|(node, _)| node.to_string()).collect::<Vec<_>>().join(",");
        let mut cert = vec!["cert", "--host", "localhost,127.0.0.1", "--out"];
        let certs = folder.text("certs");
        cert.push(&certs);
        if !nodes.is_empty() {
            cert.extend(["--node", &nodes]);
        }
        run(&cert, &[]).await.says(0, &[]);
        let peers = peers.iter().map(|(node, address)| format!("{node} = \"{address}\"\n")).collect::<String>();
        let text = format!(
            "world = \"world.toml\"\ndirectory = [\"{directory}\"]\nledger = \"{ledger}\"\ntoken_key = \"token.key\"\n\
             [tls]\nca = \"certs/ca.pem\"\n[peers]\n{peers}"
        );
        let config = folder.write("worldline.toml", &text);
        Self { folder, config }
    }

    /// The arguments of a process of this world that listens, in Frankfurt where that is asked for.
    pub fn server(&self, command: &str, node: u32, listen: SocketAddr, http: SocketAddr) -> Vec<String> {
        let mut arguments = self.listener(command, node, listen, http);
        if command != "replica" {
            arguments.extend(["--region".into(), "frankfurt".into()]);
        }
        arguments
    }

    /// The same, of a region that is still to be said.
    pub fn listener(&self, command: &str, node: u32, listen: SocketAddr, http: SocketAddr) -> Vec<String> {
        let mut arguments = self.process(command, node, http);
        arguments.extend(["--listen".into(), listen.to_string()]);
        let file = |extension| self.folder.text(&format!("certs/n{node}.{extension}"));
        arguments.extend(["--tls-certificate".into(), file("pem"), "--tls-key".into(), file("key")]);
        arguments
    }

    /// The arguments of a process of this world that does not listen.
    pub fn process(&self, command: &str, node: u32, http: SocketAddr) -> Vec<String> {
        let (node, http) = (node.to_string(), http.to_string());
        [command, "--config", &self.config, "--node", &node, "--http", &http].map(str::to_owned).to_vec()
    }
}

/// The same as slices.
pub fn slices(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

pub const WORLD: &str = "\
[[region]]
name = \"frankfurt\"
npcs = 2

[[region]]
name = \"virginia\"

[[boss]]
name = \"boss-1\"
region = \"frankfurt\"
hit_points = 10_000_000
purse = 1_000_000

[[character]]
first = 1
count = 5
region = \"frankfurt\"
";

/// Whether a file is readable by its user only.
pub fn is_private(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).expect("it is there").permissions().mode() & 0o077 == 0
}
