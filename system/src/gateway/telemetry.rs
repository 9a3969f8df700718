//! What a gateway tells of itself, every second: its sessions, and what its clients have sent and were sent. And its spans: of the
//! operations that it routes, and of some of the movements.

use super::{Gateway, Submission, Timer, session::Session};
use crate::{
    Outcome, Turn,
    doors::{
        directory::RegionId,
        telemetry::{Attribute, Label, Metric, SLOW, Span, SpanId, Stage, TraceId},
    },
    time::{Duration, Instant},
};
use alloc::vec;
use worldline_proto::{CharacterId, NodeId, OpId, OpNumber, client::DeniedReason, server::Reply};

const REPORT_PERIOD: Duration = Duration::from_secs(1);

/// What clients have sent and were sent since the last report, in bytes of payload.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bandwidth {
    pub upstream: u64,
    pub downstream: u64,
}

/// What is counted begins at nothing: a rate needs that.
pub(super) fn begin(turn: &mut Turn<'_, Submission>) {
    for metric in [Metric::GatewaySessionsOpenedTotal, Metric::GatewayDrainsTotal] {
        turn.count(metric, &[], 0);
    }
    for reason in ["busy", "draining", "protocol", "superseded", "token_expired", "token_forged", "token_revoked"] {
        turn.count(Metric::GatewayDenialsTotal, &[Label::Word(reason)], 0);
    }
}

impl Gateway {
    pub(super) fn report(&mut self, turn: &mut Turn<'_, Submission>) {
        turn.arm_in(Timer::Report, REPORT_PERIOD);
        let welcomed = self.sessions.values().filter(|session| session.welcomed).count();
        let connections = self.sessions.len() + self.greeting.len();
        turn.gauge(Metric::ClientConnectionsTotal, &[Label::Word("quic")], connections);
        turn.gauge(Metric::GatewaySessions, &[Label::Word("welcomed")], welcomed);
        turn.gauge(Metric::GatewaySessions, &[Label::Word("joining")], self.sessions.len() - welcomed);
        let Bandwidth { upstream, downstream } = core::mem::take(&mut self.bandwidth);
        turn.count(Metric::ClientBandwidthBytes, &[Label::Word("upstream")], upstream);
        turn.count(Metric::ClientBandwidthBytes, &[Label::Word("downstream")], downstream);
    }
}

/// Why a client was turned away, for a label.
pub(super) const fn word(reason: DeniedReason) -> &'static str {
    match reason {
        DeniedReason::Unspecified => "unspecified",
        DeniedReason::Protocol => "protocol",
        DeniedReason::TokenForged => "token_forged",
        DeniedReason::TokenVersion => "token_version",
        DeniedReason::TokenNotYetValid => "token_not_yet_valid",
        DeniedReason::TokenRevoked => "token_revoked",
        DeniedReason::TokenExpired => "token_expired",
        DeniedReason::Busy => "busy",
        DeniedReason::Superseded => "superseded",
        DeniedReason::Draining => "draining",
        DeniedReason::Misbehaved => "misbehaved",
    }
}

/// An operation on its way to its owner, for whoever traces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Routing {
    character: CharacterId,
    number: OpNumber,
    node: NodeId,
    op: OpId,
    parent: Option<SpanId>,
    /// The owner's region, where that is another one.
    elsewhere: Option<RegionId>,
    since: Instant,
}

impl Routing {
    pub fn new(
        character: CharacterId,
        number: OpNumber,
        (node, op): (NodeId, OpId),
        parent: Option<SpanId>,
        elsewhere: Option<RegionId>,
        since: Instant,
    ) -> Self {
        Self { character, number, node, op, parent, elsewhere, since }
    }

    fn trace(&self) -> TraceId {
        TraceId::of_operation(self.character, self.number)
    }

    fn id(&self, stage: Stage) -> SpanId {
        SpanId::at(self.trace(), stage, self.node, self.op)
    }

    /// The span that the owner's are under.
    pub fn handed_on(&self) -> SpanId {
        self.id(if self.elsewhere.is_some() { Stage::CrossRegionGrpc } else { Stage::GatewayRouting })
    }
}

impl Gateway {
    /// An operation has come back from its owner, or has not.
    pub(super) fn tell_routed(&self, routing: &Routing, outcome: &Outcome<Reply>, turn: &mut Turn<'_, Submission>) {
        let failed = match outcome {
            Outcome::Done(_) => None,
            Outcome::Refused(_) => Some("refused"),
            Outcome::Unknown => Some("unknown"),
        };
        let (trace, start, end) = (routing.trace(), routing.since, turn.now());
        let own = Attribute::Label(Label::Region(self.config.region));
        if let Some(elsewhere) = routing.elsewhere {
            let stage = Stage::CrossRegionGrpc;
            let parent = Some(routing.id(Stage::GatewayRouting));
            let attributes = vec![
                ("from_region", own),
                ("to_region", Attribute::Label(Label::Region(elsewhere))),
                ("protocol", Attribute::Label(Label::Word("gRPC/HTTP2"))),
            ];
            turn.span(|| Span { trace, id: routing.id(stage), parent, stage, start, end, failed, attributes });
        }
        let stage = Stage::GatewayRouting;
        turn.span(|| Span {
            trace,
            id: routing.id(stage),
            parent: routing.parent,
            stage,
            start,
            end,
            failed,
            attributes: vec![
                ("gateway_id", Attribute::Label(Label::Node(routing.node))),
                ("region", own),
                ("protocol", Attribute::Label(Label::Word("QUIC"))),
                ("player_id", Attribute::Entity(routing.character.entity())),
            ],
        });
    }
}

impl Session {
    /// One movement is timed at a time, and a sampled one rather than another.
    pub(super) fn time_a_movement(&mut self, sequence: u32, now: Instant) {
        let sampled = TraceId::of_movement(self.character, self.generation, sequence).is_sampled();
        if sampled || self.timed.is_none() {
            self.timed = Some((sequence, now));
        }
    }

    /// The owner's state has taken in every movement up to this.
    pub(super) fn tell_movement(&mut self, through: u32, turn: &mut Turn<'_, Submission>) {
        let Some((sequence, start)) = self.timed.take_if(|(sequence, _)| *sequence <= through) else { return };
        let trace = TraceId::of_movement(self.character, self.generation, sequence);
        let end = turn.now();
        if !trace.is_sampled() && end.since(start) <= SLOW {
            return;
        }
        let (stage, character) = (Stage::MovementUpdate, self.character);
        turn.span(|| Span {
            trace,
            id: SpanId::of(trace, stage),
            parent: None,
            stage,
            start,
            end,
            failed: None,
            attributes: vec![("player_id", Attribute::Entity(character.entity()))],
        });
    }
}
