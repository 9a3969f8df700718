//! The spans of a simulated run as OTLP in JSON, a resource a node. Times are virtual: nanoseconds since the run's beginning stand where
//! a process writes Unix time. Nobody in a simulated world is a person: characters are written as they are.

use crate::{
    format::Scenario,
    nodes::{Kind, Nodes},
};
use std::collections::BTreeMap;
use worldline_proto::{EntityId, NodeId};
use worldline_system::doors::telemetry::{
    Label, Span,
    otlp::{ExportTraceServiceRequest, KeyValue, Names, Written, of_process},
};

struct Simulated<'a> {
    scenario: &'a Scenario,
    nodes: Nodes,
}

impl Names for Simulated<'_> {
    fn label(&self, label: Label) -> String {
        match label {
            Label::None => String::new(),
            Label::Word(word) => word.to_owned(),
            Label::Region(region) => {
                let region = self.scenario.regions.get(usize::from(region.0));
                region.map_or_else(String::new, |region| region.name.clone())
            }
            Label::Node(node) => self.nodes.name(node).to_owned(),
        }
    }

    fn entity(&self, entity: EntityId) -> String {
        entity.to_string()
    }
}

/// One `ExportTraceServiceRequest` with all of them.
///
/// # Errors
/// None that these types can cause; whatever the serializer says.
pub fn json(scenario: &Scenario, spans: &[(NodeId, Span)]) -> Result<String, serde_json::Error> {
    let names = Simulated { scenario, nodes: Nodes::of(scenario) };
    let mut of: BTreeMap<NodeId, Vec<Written>> = BTreeMap::new();
    for (node, span) in spans {
        let times = (span.start.as_nanos(), span.end.as_nanos());
        of.entry(*node).or_default().push(Written::new(span, times, &names));
    }
    let resource = |(node, spans)| {
        let region = match names.nodes.kind(node) {
            Some(
                Kind::Worker(region, _)
                | Kind::Gateway(region, _)
                | Kind::Replica(region)
                | Kind::Player(region, _)
                | Kind::Double(region, _),
            ) => scenario.regions.get(region).map(|region| region.name.clone()),
            _ => None,
        };
        let further = region.map(|region| KeyValue::text("region", region)).into_iter().collect();
        of_process(names.nodes.name(node), further, spans)
    };
    let request = ExportTraceServiceRequest { resource_spans: of.into_iter().map(resource).collect() };
    serde_json::to_string(&request).map(|json| json + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{format, run};
    use std::collections::{BTreeMap, BTreeSet};
    use worldline_system::doors::telemetry::{SpanId, Stage};

    /// One player in Singapore, whose character stands in Frankfurt, strikes the boss there.
    const ATTACK: &str = r#"
name = "attack"
summary = "one blow across regions"
duration = "8s"
settle = "10s"

[[world.region]]
name = "singapore"
place = "singapore"
workers = 1
gateways = 1
travellers = 1

[[world.region]]
name = "frankfurt"
place = "frankfurt"
workers = 2
gateways = 1

[[world.boss]]
name = "boss-1"
region = "frankfurt"
hit_points = 100000
purse = 1000000

[workload]
moves_per_second = 20
attack_every = "2s"
target = "boss-1"
"#;

    fn spans(seed: u64) -> (Scenario, Vec<(NodeId, Span)>) {
        let scenario = format::parse("attack.toml", ATTACK).expect("reads");
        let mut spans = Vec::new();
        let listening = run::Options { spans: Some(&mut spans), ..run::Options::default() };
        let listened = run::seed(&scenario, seed, listening);
        let alone = run::seed(&scenario, seed, run::Options::default());
        assert_eq!(listened.hash(), alone.hash(), "a run is the same whether anybody listens or not");
        (scenario, spans)
    }

    #[test]
    fn a_blow_across_regions_is_seven_spans_of_one_trace_each_under_the_right_one() {
        let (_, spans) = spans(1);
        let mut traces: BTreeMap<_, Vec<&Span>> = BTreeMap::new();
        for (_, span) in
            spans.iter().filter(|(_, span)| !matches!(span.stage, Stage::MovementUpdate | Stage::OwnershipMigration))
        {
            traces.entry(span.trace).or_default().push(span);
        }
        assert!(traces.len() >= 3, "a blow every two seconds");
        use Stage::{
            ClientAttackInput, ClientReconciliation, CrossRegionGrpc, DbTransaction, GatewayRouting, NatsBroadcast,
            WorkerCombatSimulation,
        };
        let parents = [
            (ClientAttackInput, None),
            (GatewayRouting, Some(ClientAttackInput)),
            (CrossRegionGrpc, Some(GatewayRouting)),
            (WorkerCombatSimulation, Some(CrossRegionGrpc)),
            (DbTransaction, Some(WorkerCombatSimulation)),
            (NatsBroadcast, Some(WorkerCombatSimulation)),
            (ClientReconciliation, Some(NatsBroadcast)),
        ];
        let hit = traces.values().filter(|spans| spans.iter().any(|span| span.stage == NatsBroadcast));
        let mut seen = 0;
        for spans in hit {
            seen += 1;
            let told: BTreeSet<_> = spans.iter().map(|span| span.stage.name()).collect();
            assert_eq!((spans.len(), told.len()), (7, 7), "{spans:#?}");
            let ids: BTreeSet<_> = spans.iter().map(|span| span.id).collect();
            assert_eq!(ids.len(), 7);
            for (stage, parent) in parents {
                let span = spans.iter().find(|span| span.stage == stage).expect("seven names");
                let above = span.parent.map(|id| spans.iter().find(|span| span.id == id).expect("in the trace"));
                assert_eq!(above.map(|span| span.stage), parent, "the parent of {}", stage.name());
                assert!(span.start <= span.end && above.is_none_or(|above| above.start <= span.start), "{spans:#?}");
                assert_eq!(span.failed, None);
            }
        }
        assert!(seen >= 3, "of {} traces", traces.len());
    }

    /// Its owner could not publish it: the relay tells the same span, under the blow itself.
    #[test]
    fn a_fact_that_the_relay_publishes_has_its_span_once_beside_the_attempts_that_failed() {
        let scenario = crate::catalogue::find("bus-down").expect("in the catalogue").expect("reads");
        let orchestrators = Nodes::of(&scenario).those(|kind| matches!(kind, Kind::Orchestrator(_)));
        let mut spans = Vec::new();
        let _run = run::seed(&scenario, 1, run::Options { spans: Some(&mut spans), ..run::Options::default() });
        let broadcasts = || spans.iter().filter(|(_, span)| span.stage == Stage::NatsBroadcast);
        let relayed = |node: NodeId, span: &Span| orchestrators.contains(&node) && span.failed.is_none();
        let mut seen = 0;
        for (_, span) in broadcasts().filter(|(node, span)| relayed(*node, span)) {
            seen += 1;
            let of = |stage| SpanId::of(span.trace, stage);
            let (blow, stored) = (of(Stage::ClientAttackInput), of(Stage::NatsBroadcast));
            assert_eq!((span.parent, span.id), (Some(blow), stored));
            let attempts: Vec<_> = broadcasts().filter(|(_, other)| other.trace == span.trace).collect();
            assert!(attempts.iter().any(|(_, other)| other.failed.is_some()), "its owner had tried: {attempts:?}");
            for (_, attempt) in &attempts {
                assert_eq!(attempt.id == stored, attempt.failed.is_none(), "{attempts:?}");
            }
        }
        assert!(seen > 10, "{seen} facts were relayed while the bus was away and behind it");
    }

    #[test]
    fn what_is_written_has_hexadecimal_ids_and_times_as_texts() {
        let (scenario, spans) = spans(2);
        let json: serde_json::Value = serde_json::from_str(&json(&scenario, &spans).expect("writes")).expect("JSON");
        let resources = json["resourceSpans"].as_array().expect("a list");
        let client = resources
            .iter()
            .find(|resource| resource["resource"]["attributes"][0]["value"]["stringValue"] == "player:1");
        let span = &client.expect("the player told something")["scopeSpans"][0]["spans"][0];
        let hexadecimal = |text: &serde_json::Value, digits| {
            let text = text.as_str().expect("a text");
            assert!(text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit()), "{text}");
        };
        hexadecimal(&span["traceId"], 32);
        hexadecimal(&span["spanId"], 16);
        assert_eq!(span["parentSpanId"], serde_json::Value::Null, "the first has none");
        let time =
            |name: &str| span[name].as_str().and_then(|text| text.parse::<u64>().ok()).expect("a number as text");
        assert!(time("startTimeUnixNano") < time("endTimeUnixNano"), "{span}");
    }
}
