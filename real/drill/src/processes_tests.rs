use super::*;

/// A process that runs this shell script; where its log is.
fn shell(name: &str, script: &str) -> Process {
    let log = std::env::temp_dir().join(format!("worldline-drill-process-{name}-{}.log", std::process::id()));
    drop(fs::remove_file(&log));
    let arguments = vec!["-c".to_owned(), script.to_owned()];
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let mut process = Process::new(name, Path::new("/bin/sh"), arguments, log, nowhere);
    process.start().expect("a shell");
    process
}

/// Waits until its log says this.
async fn says(process: &Process, what: &str) {
    let said = async {
        while !fs::read_to_string(&process.log).is_ok_and(|log| log.contains(what)) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), said).await.expect("it says so");
}

#[tokio::test]
async fn a_process_that_stops_in_order_is_no_complaint_and_another_is_quoted() {
    let patience = Duration::from_secs(10);
    let mut good = shell("good", "trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done");
    says(&good, "up").await;
    assert_eq!(good.stop(patience).await, None);
    let mut bad = shell("bad", "trap 'echo it hurts; exit 70' TERM; echo up; while :; do sleep 0.01; done");
    says(&bad, "up").await;
    let complaint = bad.stop(patience).await.expect("a complaint");
    assert!(complaint.contains("code 70") && complaint.contains("it hurts"), "{complaint}");
    let mut deaf = shell("deaf", "trap '' TERM; echo up; while :; do sleep 0.01; done");
    says(&deaf, "up").await;
    let complaint = deaf.stop(Duration::from_millis(50)).await.expect("a complaint");
    assert!(complaint.contains("was killed") && !deaf.is_up(), "{complaint}");
    for process in [good, bad, deaf] {
        fs::remove_file(&process.log).expect("it has a log");
    }
}

#[tokio::test]
async fn who_ends_by_itself_is_found_unless_it_had_nothing_more_to_do() {
    let ended = async |process: &mut Process| {
        timeout(Duration::from_secs(10), async {
            loop {
                match process.ended() {
                    Some(ended) => return ended,
                    None => sleep(Duration::from_millis(5)).await,
                }
            }
        })
        .await
        .expect("it ends")
    };
    let mut server = shell("server", "exit 0");
    assert!(ended(&mut server).await.expect_err("nobody asked it to").contains("ended by itself with code 0"));
    let mut player = shell("player", "exit 1").that_ends();
    assert_eq!(ended(&mut player).await, Ok(()));
    let mut broken = shell("broken", "exit 70").that_ends();
    assert!(ended(&mut broken).await.is_err());
    let mut waits = shell("waits", "echo up; sleep 100");
    says(&waits, "up").await;
    assert!(waits.signal(Signal::STOP) && !waits.signal(Signal::STOP), "once it is stopped, stopping it is nothing");
    assert_eq!((waits.kill().await, waits.kill().await), (Ok(true), Ok(false)));
    assert!(!waits.signal(Signal::STOP), "and who is dead cannot be stopped");
    assert_eq!((waits.is_up(), waits.ended()), (false, None), "who was killed is no surprise");
    // Nobody has looked since it ended.
    let mut panics = shell("panics", "echo up; exit 101");
    says(&panics, "up").await;
    let gone = async {
        while !matches!(panics.child.as_mut().map(Child::try_wait), Some(Ok(Some(_)))) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), gone).await.expect("it ends");
    assert!(panics.kill().await.expect_err("that is no kill").contains("ended by itself with code 101"));
    for process in [server, player, broken, waits, panics] {
        fs::remove_file(&process.log).expect("it has a log");
    }
}

#[tokio::test]
async fn a_signal_reaches_all_descendants() {
    let mut parent = shell("parent", "sh -c 'echo inner $$; while :; do sleep 0.01; done' & wait");
    says(&parent, "inner").await;
    let log = fs::read_to_string(&parent.log).expect("it has a log");
    let inner: i32 = log.split_whitespace().nth(1).and_then(|pid| pid.parse().ok()).expect("a pid");
    let outer = i32::try_from(parent.child.as_ref().and_then(Child::id).expect("it runs")).expect("a pid");
    signal_all(outer, Signal::KILL);
    // Who ended it is all the same here.
    drop(parent.kill().await);
    let gone = async {
        while processes().any(|(pid, _)| pid == inner) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), gone).await.expect("the inner one is gone too");
    fs::remove_file(&parent.log).expect("it has a log");
}
