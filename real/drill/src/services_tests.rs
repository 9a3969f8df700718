use super::*;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;
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

/// One process a service.
fn members() -> Members {
    let scenario = worldline_scenarios::catalogue::find("swing").expect("in the catalogue").expect("reads");
    Members::of(&worldline_scenarios::nodes::Nodes::of(&scenario), false)
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
    let members = members();
    let starting = Services::start(&command, &folder, &members);
    tokio::select! {
        _ = starting => panic!("it never ends"),
        () = until(|| folder.path().join("up").exists()) => {}
    }
    assert!(folder.path().join("cleaned").exists());
    folder.remove().expect("removes");
}

#[tokio::test]
async fn a_service_that_ends_by_itself_is_noticed_once() {
    let script = "[ \"$1\" = start ] || exit 0\nall=\nfor name in etcd postgres nats valkey; do\n\
        sleep 100 </dev/null >/dev/null 2>&1 &\nall=$all,$name=127.0.0.1:9=$!\ndone\n\
        echo \"export WORLDLINE_TEST_SERVERS=${all#,}\"";
    let (folder, command) = scripted("services-test-ended", script);
    let members = members();
    let mut services = Services::start(&command, &folder, &members).await.expect("it starts");
    let of = |service| members.stand_in(service).expect("it has members");
    let [etcd, postgres] = [Service::Directory, Service::Ledger].map(of);
    assert_eq!([etcd, of(Service::Cache(1))].map(|node| services.ended(node, &folder)), [None, None]);
    let process = services.process(etcd).expect("it runs");
    signal_all(process.pid, Signal::KILL);
    until(|| !process.lives()).await;
    assert!(services.ended(etcd, &folder).is_some_and(|why| why.contains("etcd")));
    assert_eq!((services.ended(etcd, &folder), services.is_up(etcd)), (None, false));
    assert!(!services.kill(etcd), "it is dead already");
    assert!(services.kill(postgres));
    assert_eq!(services.ended(postgres, &folder), None, "who was killed is no surprise");
    services.stop(&folder).expect("stops");
    folder.remove().expect("removes");
}

#[tokio::test]
async fn what_is_started_again_holds_nobody_up_and_comes_one_after_the_other() {
    let script = "here=$(dirname \"$0\")\n[ \"$1\" = start ] || exit 0\nonly=$5\n\
        if [ \"$only\" = etcd ] || [ \"$only\" = postgres ]; then\n  echo \"$only\" >>\"$here/asked\"\n\
        until [ -e \"$here/go\" ]; do sleep 0.01; done\n  rm \"$here/go\"\nfi\nall=\n\
        for name in ${only:-etcd postgres nats valkey}; do\nsleep 100 </dev/null >/dev/null 2>&1 &\n\
        all=$all,$name=127.0.0.1:9=$!\ndone\necho \"export WORLDLINE_TEST_SERVERS=${all#,}\"";
    let (folder, command) = scripted("services-test-again", script);
    let members = members();
    let mut services = Services::start(&command, &folder, &members).await.expect("it starts");
    let of = |service| members.stand_in(service).expect("it has members");
    let [etcd, postgres] = [Service::Directory, Service::Ledger].map(of);
    assert!(services.kill(etcd) && services.kill(postgres));
    services.start_again(&[etcd]);
    services.start_again(&[etcd]);
    services.start_again(&[postgres]);
    let asked = || fs::read_to_string(folder.path().join("asked")).unwrap_or_default();
    for expected in ["etcd\n", "etcd\npostgres\n"] {
        assert!(services.is_at_work());
        tokio::select! {
            done = services.done() => panic!("it waits: {done:?}"),
            () = until(|| asked() == expected) => {}
        }
        // Whoever looks meanwhile sees it down, and its fellow too.
        assert!(!services.is_up(postgres) && services.is_asked_for(postgres));
        fs::write(folder.path().join("go"), "").expect("writes");
        services.done().await.expect("it starts");
    }
    assert!(services.is_up(etcd) && services.is_up(postgres) && !services.is_at_work());
    services.start_again(&[etcd]);
    assert!(!services.is_at_work(), "it runs");
    services.kill(etcd);
    services.kill(postgres);
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
    let own = std::process::id();
    let text = format!(
        "export WORLDLINE_TEST_SERVICES=/tmp/x\n\
        export WORLDLINE_TEST_SERVERS=postgres=127.0.0.1:25432=1,postgres-standby=127.0.0.1:25433={own},etcd=127.0.0.1:9\n"
    );
    let (address, process) = running(&text, "postgres-standby").expect("reads");
    assert_eq!((address.port(), process.map(|known| known.pid)), (25_433, i32::try_from(own).ok()));
    for (name, why) in [("etcd", "which process"), ("nats", "where nats is")] {
        let error = running(&text, name).expect_err("it does not say");
        assert!(error.contains(why), "{error}");
    }
    assert!(running("export WORLDLINE_TEST_SERVICES=/tmp/x\n", "etcd").is_err());
}

#[test]
fn each_member_of_a_cluster_is_a_process_that_the_command_has_a_name_for() {
    let scenario = worldline_scenarios::catalogue::find("core-region-loss").expect("in the catalogue").expect("reads");
    let nodes = worldline_scenarios::nodes::Nodes::of(&scenario);
    let members = Members::of(&nodes, true);
    assert_eq!(arguments(&members), ["--cluster", "--members", "etcd=5,postgres=3,nats=3,valkey=1"]);
    let names: Vec<_> = members.servers().filter(|server| server.service == Service::Ledger).map(name).collect();
    assert_eq!(names, ["postgres", "postgres-standby", "postgres-standby-2"]);
    let etcd: Vec<_> = members.servers().filter(|server| server.service == Service::Directory).map(name).collect();
    assert_eq!(etcd, ["etcd", "etcd-2", "etcd-3", "etcd-4", "etcd-5"]);
    assert_eq!(arguments(&Members::of(&nodes, false)), Vec::<String>::new());
}
