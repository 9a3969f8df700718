//! Tokens and sessions at a gateway: who is let in, and when a session ends whose token does not count any more.

use super::*;
use worldline_proto::{
    client::gateway_frame::Frame,
    server::{PerformReply, PerformStatus, Released, ReleasedReason},
};
use worldline_system::{
    digest::digest,
    doors::{
        cache::{Hash, RevokedKey},
        ledger::Standing,
    },
    time::{Duration, Instant},
};

/// The timer of the regular question.
const STANDING: u8 = 5;

fn login_of(bench: &Bench<Gateway>) -> (OpId, u64) {
    let asked = bench.asked_ledger();
    let [(op, ToLedger::Login { issued_unix_ms, .. })] = asked[..] else { panic!("{asked:?} is no login") };
    (op, issued_unix_ms)
}

/// The gateway asks how its sessions stand.
fn asks(bench: &mut Bench<Gateway>) -> OpId {
    bench.timer(STANDING);
    let asked = bench.asked_ledger();
    let [(op, ToLedger::Standing { ref characters })] = asked[..] else { panic!("{asked:?} is no question") };
    assert_eq!(characters[..], [character()]);
    op
}

fn stands(generation: u64, tokens_valid_from_unix_ms: u64) -> Answer {
    let generation = Generation(generation);
    Answer::Standing(Outcome::Done(vec![Standing { character: character(), generation, tokens_valid_from_unix_ms }]))
}

/// Whether an input of the player is passed on to its owner.
fn passes(bench: &mut Bench<Gateway>, sequence: u32) -> bool {
    let payload = Payload::from(&*Input { sequence, x_mm: 0, y_mm: 0 }.encode());
    bench.network(FromNetwork::Datagram { connection: CLIENT, payload });
    !bench.asked_network().is_empty()
}

fn denied(bench: &Bench<Gateway>) -> Option<DeniedReason> {
    match bench.told_client()[..] {
        [Frame::Denied(denied)] => Some(DeniedReason::try_from(denied.reason).expect("a reason")),
        _ => None,
    }
}

#[test]
fn what_the_cache_knows_as_revoked_is_denied_early_and_what_it_does_not_know_the_ledger_decides() {
    let mut bench = gateway();
    bench.hello(KEY, u64::MAX);
    let [(revoked, ToCache::Get(RevokedKey(token))), (last, ToCache::Read(_))] = bench.asked_cache()[..] else {
        panic!("{:?}", bench.outbox)
    };
    assert_eq!(token, digest(&token_of(KEY, u64::MAX)));
    assert!(bench.asked_ledger().is_empty(), "the cache comes first");
    bench.cache(revoked, Said::Got(Outcome::Done(Some("1".into()))));
    assert_eq!(denied(&bench), Some(DeniedReason::TokenRevoked));
    assert!(bench.asked_ledger().is_empty());
    bench.cache(last, Said::Read(Outcome::Unknown));
    assert!(bench.asked_ledger().is_empty(), "its answer comes too late");

    for nothing in [Outcome::Done(None), Outcome::Unknown, Outcome::Refused(Refusal::Unreachable)] {
        let mut bench = gateway();
        bench.hello(KEY, u64::MAX);
        let [(revoked, _), (last, _)] = bench.asked_cache()[..] else { panic!("{:?}", bench.outbox) };
        bench.cache(revoked, Said::Got(nothing));
        assert!(bench.asked_ledger().is_empty(), "one hint is to come");
        bench.cache(last, Said::Read(Outcome::Done(None)));
        let (login, issued) = login_of(&bench);
        assert_eq!(issued, ISSUED_UNIX_MS, "the ledger is told what the token says");
        bench.ledger(login, Answer::LoggedIn(Outcome::Refused(Refusal::TokenRevoked)));
        assert_eq!(denied(&bench), Some(DeniedReason::TokenRevoked));
        let spread = |(_, asked): &(OpId, ToCache)| matches!(asked, ToCache::Set { key, .. } if key.0 == token);
        assert!(bench.asked_cache().iter().any(spread), "the next one is told early");
        assert_eq!(bench.role.sessions(), 0);
    }
}

#[test]
fn a_session_whose_token_is_revoked_ends_though_its_player_only_moves() {
    let mut bench = gateway();
    bench.play();
    assert!(passes(&mut bench, 1));
    let question = asks(&mut bench);
    bench.ledger(question, stands(6, 0));
    assert!(passes(&mut bench, 2), "it stands");
    let question = asks(&mut bench);
    bench.ledger(question, stands(7, ISSUED_UNIX_MS + 1));
    assert_eq!(denied(&bench), Some(DeniedReason::TokenRevoked));
    assert!(!passes(&mut bench, 3));
    assert_eq!(bench.role.sessions(), 0);
}

#[test]
fn a_session_that_another_one_has_superseded_elsewhere_is_told_so() {
    let mut bench = gateway();
    bench.play();
    let question = asks(&mut bench);
    bench.ledger(question, stands(7, ISSUED_UNIX_MS));
    assert_eq!(denied(&bench), Some(DeniedReason::Superseded), "its token was issued in time");
}

#[test]
fn while_the_ledger_is_silent_a_session_acts_for_a_bounded_time_and_goes_on_when_it_answers() {
    let mut bench = gateway();
    bench.play();
    bench.now = bench.now + limits::SESSION_TRUST - Duration::from_millis(1);
    assert!(passes(&mut bench, 1));
    let question = asks(&mut bench);
    bench.ledger(question, Answer::Standing(Outcome::Unknown));
    bench.now = bench.now + Duration::from_millis(1);
    assert!(!passes(&mut bench, 2), "nobody knows whether it stands");
    bench.receive(client_frame::Frame::Perform(Perform {
        number: 3,
        action: wire::encode_attack(character().into()),
        span: 0,
    }));
    assert!(bench.called().is_empty());
    let asked = asks(&mut bench);
    assert!(matches!(bench.told_client()[..], [Frame::Notice(notice)] if notice.suspended), "its client is told");
    bench.now = bench.now + Duration::from_secs(1);
    bench.ledger(asked, stands(6, 0));
    assert!(matches!(bench.told_client()[..], [Frame::Notice(notice)] if !notice.suspended));
    assert!(passes(&mut bench, 3));
}

#[test]
fn a_session_ends_when_its_token_expires_by_a_clock_that_does_not_step() {
    let mut bench = gateway();
    let wall_ms = |bench: &Bench<Gateway>| bench.now.as_nanos() / 1_000_000;
    let expires = wall_ms(&bench) + 10_000;
    bench.hello(KEY, expires);
    let attach = bench.login_until_attach();
    bench.attached(attach, 0);
    // Back: it would never end by this clock.
    bench.wall_behind = Duration::from_millis(900);
    bench.now = Instant::from_nanos((expires - 1) * 1_000_000);
    assert!(passes(&mut bench, 1));
    bench.timer(STANDING);
    assert_eq!(denied(&bench), None);
    bench.now = Instant::from_nanos(expires * 1_000_000);
    assert!(!passes(&mut bench, 2));
    bench.timer(STANDING);
    assert_eq!(denied(&bench), Some(DeniedReason::TokenExpired));
}

#[test]
fn who_bears_a_revoked_token_does_not_end_the_session_of_who_bears_a_good_one() {
    let mut bench = gateway();
    bench.play();
    let other = ConnectionId(77);
    bench.network(FromNetwork::Accepted { connection: other, from: NodeId(101) });
    let hello = Hello { protocol: wire::PROTOCOL, token: token_of(KEY, u64::MAX - 1) };
    bench.receive_on(other, client_frame::Frame::Hello(hello));
    bench.nothing_cached();
    let (login, _) = login_of(&bench);
    bench.ledger(login, Answer::LoggedIn(Outcome::Refused(Refusal::TokenRevoked)));
    assert!(bench.told_client().is_empty());
    assert!(passes(&mut bench, 1), "the session plays on");
}

#[test]
fn a_newer_session_ends_the_older_one_once_the_ledger_has_begun_it() {
    let mut bench = gateway();
    bench.play();
    let other = ConnectionId(77);
    bench.network(FromNetwork::Accepted { connection: other, from: NodeId(101) });
    let hello = Hello { protocol: wire::PROTOCOL, token: token_of(KEY, u64::MAX) };
    bench.receive_on(other, client_frame::Frame::Hello(hello));
    assert!(passes(&mut bench, 1), "it is not admitted yet");
    bench.receive_on(other, client_frame::Frame::Farewell(Default::default()));
    assert!(passes(&mut bench, 2));

    let third = ConnectionId(78);
    bench.network(FromNetwork::Accepted { connection: third, from: NodeId(102) });
    let hello = Hello { protocol: wire::PROTOCOL, token: token_of(KEY, u64::MAX) };
    bench.receive_on(third, client_frame::Frame::Hello(hello));
    bench.nothing_cached();
    let (login, _) = login_of(&bench);
    let session = Login { generation: Generation(7), applied_through: Default::default() };
    bench.ledger(login, Answer::LoggedIn(Outcome::Done(session)));
    assert_eq!(denied(&bench), Some(DeniedReason::Superseded));
}

#[test]
fn who_is_told_by_an_owner_that_its_session_has_ended_learns_from_the_ledger_why() {
    for (answer, why) in [
        (stands(7, ISSUED_UNIX_MS + 1), DeniedReason::TokenRevoked),
        (stands(7, 0), DeniedReason::Superseded),
        (Answer::Standing(Outcome::Unknown), DeniedReason::Superseded),
    ] {
        let mut bench = gateway();
        bench.play();
        let action = wire::encode_attack(character().into());
        bench.receive(client_frame::Frame::Perform(Perform { number: 3, action, span: 0 }));
        let (op, _) = bench.called().remove(0);
        let reply = PerformReply { status: PerformStatus::Superseded.into(), result: None };
        bench.network(FromNetwork::Answered { op, outcome: Outcome::Done(Reply::Perform(reply)).into() });
        assert!(bench.told_client().is_empty());
        let (question, asked) = bench.asked_ledger().remove(0);
        assert!(matches!(asked, ToLedger::Standing { .. }));
        assert!(!passes(&mut bench, 9), "it has ended, whatever for");
        bench.ledger(question, answer);
        assert_eq!(denied(&bench), Some(why));
    }
}

#[test]
fn a_cached_owner_saves_the_directory_and_a_wrong_one_costs_only_time() {
    let mut bench = gateway();
    bench.play();
    let [(_, ToCache::Write { ref fields, .. })] = bench.asked_cache()[..] else { panic!("where it plays is written") };
    let written = Hash { stamp: None, fields: fields.clone() };
    bench.network(FromNetwork::Closed { connection: CLIENT, reason: CloseReason::Closed });
    bench.network(FromNetwork::Accepted { connection: CLIENT, from: NodeId(100) });
    bench.hello(KEY, u64::MAX);
    for (op, asked) in bench.asked_cache() {
        let answer = match asked {
            ToCache::Read(_) => Said::Read(Outcome::Done(Some(written.clone()))),
            _ => Said::Got(Outcome::Done(None)),
        };
        bench.cache(op, answer);
    }
    let (login, _) = login_of(&bench);
    let session = Login { generation: Generation(7), applied_through: Default::default() };
    bench.ledger(login, Answer::LoggedIn(Outcome::Done(session)));
    assert!(bench.asked_directory().is_empty());
    let (attach, _) = bench.called().remove(0);
    bench.network(FromNetwork::Answered { op: attach, outcome: Outcome::Refused(Refusal::NotServing).into() });
    bench.pass(limits::RETRY_MAX);
    assert_eq!(bench.asked_directory().len(), 1, "now it asks the directory");
}

#[test]
fn who_its_owner_sends_away_is_told_why_and_the_session_is_closed() {
    let mut bench = gateway();
    bench.play();
    let sent_away = |generation| {
        let (character, reason) = (character().entity().get(), ReleasedReason::Misbehaved.into());
        let message = Some(peer_message::Message::Released(Released { character, generation, reason }));
        FromNetwork::Received { connection: LINK, class: StreamClass::Control, payload: PeerMessage { message }.into() }
    };
    bench.network(sent_away(5));
    assert_eq!(denied(&bench), None, "an earlier session");
    bench.network(sent_away(6));
    assert_eq!(denied(&bench), Some(DeniedReason::Misbehaved));
    let closed = |s: &ToNetwork| matches!(s, ToNetwork::Close { connection: CLIENT, reason: CloseReason::Barred });
    assert!(bench.asked_network().iter().any(closed), "the close itself says that it need not come back");
    assert!(!passes(&mut bench, 9));
}
