//! A client by hand: when it comes back, and when it stays away.

mod bench;

use bench::Bench;
use prost::Message as _;
use worldline_proto::{
    CharacterId, ConnectionId, NodeId,
    client::{Denied, DeniedReason, GatewayFrame, gateway_frame::Frame},
};
use worldline_system::{
    client::{Client, Conduct, Config},
    doors::{
        Event,
        network::{CloseReason, Event as FromNetwork, StreamClass, Submission as ToNetwork},
    },
    knobs::Knobs,
    time::Duration,
};

const CONNECTION: ConnectionId = ConnectionId(1);
const GATEWAYS: [NodeId; 2] = [NodeId(5), NodeId(6)];

/// Whom it turns to, if it does.
fn turns_to(bench: &Bench<Client>) -> Option<NodeId> {
    bench.asked_network().iter().find_map(|submission| match submission {
        ToNetwork::Connect { to, .. } => Some(*to),
        _ => None,
    })
}

/// A client that has said hello to its first gateway.
fn client() -> Bench<Client> {
    let mut bench = Bench::new(Client::new(Config {
        character: CharacterId::new(1).expect("in range"),
        token: vec![1, 2, 3],
        gateways: GATEWAYS.to_vec(),
        start: Duration::ZERO,
        stop: Duration::from_secs(3_600),
        moves_every: Duration::ZERO,
        attacks_every: Duration::ZERO,
        target: None,
        conduct: Conduct::Honest,
        knobs: Knobs::default(),
    }));
    bench.give(Event::Started);
    bench.pass(Duration::ZERO);
    let asked = bench.asked_network();
    let [ToNetwork::Connect { op, to }] = asked[..] else { panic!("{asked:?}") };
    assert_eq!(to, GATEWAYS[0]);
    bench.network(FromNetwork::Opened { op, connection: CONNECTION });
    bench
}

fn says(reason: DeniedReason) -> FromNetwork {
    let frame = GatewayFrame { frame: Some(Frame::Denied(Denied { reason: reason.into() })) };
    let payload = frame.encode_to_vec()[..].into();
    FromNetwork::Received { connection: CONNECTION, class: StreamClass::Control, payload }
}

const fn closes(reason: CloseReason) -> FromNetwork {
    FromNetwork::Closed { connection: CONNECTION, reason }
}

#[test]
fn who_was_sent_away_does_not_come_back_whichever_word_of_it_arrives() {
    for told in [says(DeniedReason::Misbehaved), says(DeniedReason::TokenRevoked), closes(CloseReason::Barred)] {
        let mut bench = client();
        bench.network(told.clone());
        assert!(bench.role.barred(), "{told:?}");
        bench.pass(Duration::from_secs(3_600));
        assert_eq!(turns_to(&bench), None, "{told:?}");
    }
}

#[test]
fn who_was_turned_away_for_another_reason_goes_to_the_next_gateway() {
    for told in [
        says(DeniedReason::Busy),
        says(DeniedReason::TokenExpired),
        closes(CloseReason::Closed),
        closes(CloseReason::Reset),
        closes(CloseReason::Superseded),
    ] {
        let mut bench = client();
        bench.network(told.clone());
        assert!(!bench.role.barred(), "{told:?}");
        bench.pass(Duration::from_secs(3_600));
        assert_eq!(turns_to(&bench), Some(GATEWAYS[1]), "{told:?}");
    }
}
