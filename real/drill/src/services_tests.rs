use super::*;
use std::os::unix::fs::PermissionsExt as _;
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(10);

/// A drill's folder, and this script in it as the command.
fn scripted(name: &str, script: &str) -> (Folder, PathBuf) {
    let folder = Folder::create(name, 1).expect("a folder");
    let command = folder.path().join("services.sh");
    fs::write(&command, format!("#!/bin/sh\n{script}\n")).expect("writes");
    fs::set_permissions(&command, fs::Permissions::from_mode(0o755)).expect("its own file");
    (folder, command)
}

async fn until(holds: impl Fn() -> bool) {
    let waits = async {
        while !holds() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waits).await.expect("in time");
}

#[tokio::test]
async fn a_start_that_is_given_up_is_asked_to_stop_and_cleans_up() {
    let script = "here=$(dirname \"$0\")\n[ \"$1\" = start ] || exit 0\n\
        trap 'echo clean >\"$here/cleaned\"; exit 130' TERM\necho up >\"$here/up\"\nwhile :; do sleep 0.01; done";
    let (folder, command) = scripted("services-test-given-up", script);
    let starting = Services::start(&command, &folder, 1);
    tokio::select! {
        _ = starting => panic!("it never ends"),
        () = until(|| folder.path().join("up").exists()) => {}
    }
    assert!(folder.path().join("cleaned").exists());
    folder.remove().expect("removes");
}

#[tokio::test]
async fn a_service_that_ends_by_itself_is_noticed_once() {
    let script = "[ \"$1\" = start ] || exit 0\nfor name in ETCD POSTGRES NATS VALKEY; do\n\
        sleep 100 </dev/null >/dev/null 2>&1 &\necho \"export WORLDLINE_TEST_$name=http://127.0.0.1:9\"\n\
        echo \"export WORLDLINE_TEST_${name}_PID=$!\"\ndone";
    let (folder, command) = scripted("services-test-ended", script);
    let mut services = Services::start(&command, &folder, 2).await.expect("it starts");
    assert_eq!([Service::Directory, Service::Cache(1)].map(|service| services.ended(service, &folder)), [None, None]);
    let etcd = services.process(Service::Directory).expect("it runs");
    signal_all(etcd.pid, Signal::KILL);
    until(|| !etcd.lives()).await;
    assert!(services.ended(Service::Directory, &folder).is_some_and(|why| why.contains("etcd")));
    assert_eq!((services.ended(Service::Directory, &folder), services.is_up(Service::Directory)), (None, false));
    assert!(!services.kill(Service::Directory), "it is dead already");
    assert!(services.kill(Service::Ledger));
    assert_eq!(services.ended(Service::Ledger, &folder), None, "who was killed is no surprise");
    services.stop(&folder).expect("stops");
    folder.remove().expect("removes");
}

#[test]
fn a_crash_of_postgres_is_read_from_its_log_and_an_interruption_is_none() {
    let log = "LOG:  database system was interrupted; last known up at 2026-01-01\n\
        LOG:  database system was not properly shut down; automatic recovery in progress\n\
        LOG:  server process (PID 7) was terminated by signal 11: Segmentation fault\n\
        LOG:  all server processes terminated; reinitializing\n";
    assert_eq!(crashes(log).count(), 2);
}

#[test]
fn what_the_command_prints_is_read() {
    let text = "export WORLDLINE_TEST_SERVICES=/tmp/x\n\
        export WORLDLINE_TEST_POSTGRES=postgres://postgres@127.0.0.1:25432/postgres\n\
        export WORLDLINE_TEST_ETCD=http://127.0.0.1:22379\n";
    let own = std::process::id();
    let text = format!("{text}export WORLDLINE_TEST_POSTGRES_PID={own}\n");
    let variables = variables(&text);
    let postgres = running(&variables, "WORLDLINE_TEST_POSTGRES").expect("reads");
    assert_eq!((postgres.address.port(), postgres.process.map(|known| known.pid)), (25_432, i32::try_from(own).ok()));
    let error = running(&variables, "WORLDLINE_TEST_ETCD").expect_err("no process");
    assert!(error.contains("WORLDLINE_TEST_ETCD_PID"), "{error}");
}
