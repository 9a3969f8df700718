//! The bot: plays players, each the client's role on a thread and a socket of its own, and tells what became of them.
//!
//! It ends when every player is past its `stop` and has an answer to all that it has done, or when the grace for that is
//! over, or on SIGTERM; and at once when no gateway will ever let one of them in.

mod measure;
mod player;
mod summary;

use crate::{
    Host, Inbox, clock,
    config::{self, Bot},
    history,
    hooks::Probes,
    host::{self, Counters},
    network::{self, Network},
    ready::Readiness,
    server::{Exit, Stops, Told, listen, serve},
    telemetry::{self, Exporter, Own, Telemetry},
};
use player::{Mouth, Player, Witness};
use std::{
    io::{self, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    thread::JoinHandle,
    time::Duration as Span,
};
use summary::Summary;
use tokio::{
    task::{self, JoinSet},
    time::{MissedTickBehavior, interval, timeout},
};
use worldline_system::{
    doors::Event,
    time::{Duration, Instant},
};

/// How often the bot looks whether it is over.
const LOOK_PERIOD: Span = Span::from_millis(50);
/// How long after its last `stop` a player may wait for its last inputs to be confirmed: a datagram may be lost.
const INPUT_PATIENCE: Duration = Duration::from_secs(1);
/// How long a player that is asked to end may wait for its answers.
const SIGNAL_PATIENCE: Duration = Duration::from_secs(3);
/// How long threads and sockets may take to end.
const CLOSE_PATIENCE: Span = Span::from_secs(5);

/// A player at work.
struct Playing {
    witness: Witness,
    inbox: Inbox,
    network: Arc<Network>,
    thread: JoinHandle<io::Result<()>>,
    /// When it begins nothing new any more.
    stop: Instant,
    told_to_stop: bool,
}

/// Plays, and prints what became of it. Called inside a runtime.
pub async fn run(config: Bot, json: bool) -> Exit {
    let Ok(mut stops) = Stops::listen() else {
        tracing::error!("the system gives no signals");
        return Exit::Internal;
    };
    let Bot { process, peers, identity, grace, players } = config;
    let (ready, counters, probes) = (Readiness::default(), Counters::default(), Probes::default());
    let telemetry = Telemetry::default();
    let config = telemetry::Config {
        otlp: process.traces.otlp.clone(),
        file: process.traces.file.clone(),
        service: process.name.clone(),
        region: None,
        regions: Vec::new(),
        redaction: process.redaction.clone(),
    };
    if let Some(exporter) = Exporter::start(config, ready.clone()) {
        telemetry.export_to(exporter);
    }
    let listener = match process.http {
        Some(address) => match listen(address).await {
            Ok(listener) => Some(listener),
            Err(exit) => return exit,
        },
        None => None,
    };
    let http = listener.map(|listener| {
        let told = Told {
            role: "bot",
            name: process.name.clone(),
            node: None,
            incarnation: host::next_life(clock::unix_now()),
            since: clock::now(),
            ready: ready.clone(),
            inbox: Inbox::default(),
            counters: counters.clone(),
            probes: probes.clone(),
            network: None,
            bus: None,
            cache: None,
            telemetry: telemetry.clone(),
            own: Own { name: process.name.clone(), ..Own::default() },
        };
        task::spawn(async move { serve(listener, told).await })
    });
    tracing::info!(players = players.len(), "plays");
    let any = if peers.values().all(SocketAddr::is_ipv6) {
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))
    } else {
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))
    };
    let mut playing = Vec::with_capacity(players.len());
    for config::Player { node, client } in players {
        let part = network::Part::Client;
        let network = network::Config {
            node,
            part,
            listen: any,
            peers: peers.clone(),
            identity: identity.clone(),
            client_frames_per_second: network::CLIENT_FRAMES_PER_SECOND,
        };
        let inbox = Inbox::default();
        let network = match Box::pin(Network::bind(network, inbox.clone(), ready.clone())).await {
            Ok(network) => Arc::new(network),
            Err(error) => {
                tracing::error!(player = %node, "{error}");
                return Exit::Unavailable;
            }
        };
        let witness = Witness::new(node);
        let stop = clock::now() + client.stop;
        let thread = host::desk(node).and_then(|desk| {
            let create = |folder: &std::path::PathBuf| history::Writer::create(folder, node, desk.incarnation);
            let history = process.history.as_ref().map(create).transpose()?;
            let role = Player::new(client, witness.clone());
            let doors = Mouth { network: Arc::clone(&network), witness: witness.clone() };
            let (probes, counters) = (probes.clone(), counters.clone());
            Host { role, desk, doors, inbox: inbox.clone(), history, probes, counters, telemetry: telemetry.clone() }
                .start(&node.to_string())
        });
        match thread {
            Ok(thread) => playing.push(Playing { witness, inbox, network, thread, stop, told_to_stop: false }),
            Err(error) => {
                tracing::error!(player = %node, "cannot play: {error}");
                return Exit::Internal;
            }
        }
    }
    let sound = play(&mut playing, grace, &mut stops).await;
    let witnesses: Vec<_> = playing.iter().map(|player| player.witness.clone()).collect();
    close(playing).await;
    drop(timeout(CLOSE_PATIENCE, telemetry.end()).await);
    if let Some(http) = http {
        http.abort();
    }
    let summary = Summary::of(&witnesses);
    let said = if json { summary.json().to_string() } else { summary.to_string() };
    // Where the reader has gone there is nobody to tell.
    drop(writeln!(io::stdout(), "{}", said.trim_end()));
    if sound { summary.exit() } else { Exit::Internal }
}

/// Waits for the end of every player. `false` where a player's thread has died.
async fn play(playing: &mut [Playing], grace: Duration, stops: &mut Stops) -> bool {
    let mut looks = interval(LOOK_PERIOD);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asked: Option<Instant> = None;
    loop {
        tokio::select! {
            signal = stops.next() => {
                tracing::info!(signal, "stops");
                asked.get_or_insert(clock::now());
            }
            _ = looks.tick() => {}
        }
        let now = clock::now();
        let last_stop = playing.iter().map(|player| player.stop).max().unwrap_or(now);
        let out_of_patience = match asked {
            Some(asked) => now.since(asked) >= SIGNAL_PATIENCE,
            None => now >= last_stop && now.since(last_stop) >= grace,
        };
        for player in playing.iter_mut().filter(|player| !player.told_to_stop) {
            if player.thread.is_finished() {
                tracing::error!(player = %player.witness.node, "its thread has died");
                return false;
            }
            let over = {
                let measure = player.witness.measure();
                let answered = measure.unacknowledged() == 0;
                let confirmed = measure.unconfirmed() == 0 || now.since(player.stop) >= INPUT_PATIENCE;
                let due = asked.is_some() || (now >= player.stop && confirmed);
                measure.hopeless() || (due && answered)
            };
            // What was measured is taken when it stops; so a session that goes on would go on losing.
            if over || out_of_patience {
                player.inbox.reserved(Event::Stop);
                player.told_to_stop = true;
            }
        }
        if playing.iter().all(|player| player.told_to_stop) {
            return true;
        }
    }
}

/// Ends threads, then sockets.
async fn close(playing: Vec<Playing>) {
    let mut ends = JoinSet::new();
    for Playing { inbox, network, thread, told_to_stop, witness, .. } in playing {
        if !told_to_stop {
            inbox.reserved(Event::Stop);
        }
        ends.spawn(async move {
            if let Ok(Ok(Err(error))) =
                task::spawn_blocking(move || thread.join()).await.map(|ended| ended.map_err(drop))
            {
                tracing::error!(player = %witness.node, "the history cannot be written: {error}");
            }
            network.close().await;
        });
    }
    let all = async { while ends.join_next().await.is_some() {} };
    if timeout(CLOSE_PATIENCE, all).await.is_err() {
        tracing::warn!("some players have not ended within {CLOSE_PATIENCE:?}");
    }
}
