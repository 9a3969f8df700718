//! The telemetry door in the simulator: a meter a node, and what only the kernel can measure.
//!
//! Invariant: nothing here is read by anything that a run consists of. It is no part of the trace hash, and no event comes of it.
//!
//! Deliberately absent: memory (a simulated node has none of its own) and the loss of one gateway's packets (the counters of the
//! core have that of the whole network).

use crate::core::Core;
use worldline_proto::NodeId;
use worldline_system::{
    doors::telemetry::{Label, Meter, Metric, Reports, Span, labels, ratio},
    time::{Duration, Instant},
};

/// What was measured of each node, and the spans of all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Telemetry {
    nodes: Vec<Measured>,
    /// `None` while nobody listens. With where each was told; its times are virtual.
    spans: Option<Vec<(NodeId, Span)>>,
}

#[derive(Clone, Debug, Default)]
struct Measured {
    /// Boxed: most nodes are clients, and tell nothing.
    meter: Option<Box<Meter>>,
    busy: Duration,
}

impl Telemetry {
    /// A node more.
    pub fn add_node(&mut self) {
        self.nodes.push(Measured::default());
    }

    /// A node's meter.
    pub fn meter(&mut self, node: NodeId) -> &mut Meter {
        self.nodes[node.0 as usize].meter.get_or_insert_default()
    }

    /// A node has computed for so long.
    pub fn spent(&mut self, node: NodeId, spent: Duration) {
        self.nodes[node.0 as usize].busy += spent;
    }

    /// Whether anybody listens to spans.
    pub const fn traced(&self) -> bool {
        self.spans.is_some()
    }
}

impl Core {
    /// A node's meter, for what a service model or the network measures at it.
    pub fn meter(&mut self, node: NodeId) -> &mut Meter {
        self.telemetry.meter(node)
    }

    /// What the node's role has told in its turn, which took so long.
    pub(crate) fn take_reports(&mut self, node: NodeId, turn: Duration) {
        let reports = &mut self.desks[node.0 as usize].telemetry;
        reports.hand_to(self.telemetry.meter(node), turn);
        let (now, local) = (self.now, self.nodes[node.0 as usize].clock.local(self.now));
        let virtual_time = |at: Instant| Instant::from_nanos(now.as_nanos().saturating_sub(local.since(at).as_nanos()));
        if let Some(spans) = &mut self.telemetry.spans {
            let told = reports.take_spans().into_iter();
            spans.extend(told.map(|span| {
                let (start, end) = (virtual_time(span.start), virtual_time(span.end));
                (node, Span { start, end, ..span })
            }));
        }
    }

    /// Listens to spans from the next turn of every node on.
    pub(crate) fn listen(&mut self) {
        self.telemetry.spans.get_or_insert_default();
        self.desks.iter_mut().for_each(|desk| desk.telemetry = Reports::traced(true));
    }

    /// Takes the spans that were told so far.
    pub(crate) fn take_spans(&mut self) -> Vec<(NodeId, Span)> {
        self.telemetry.spans.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The meters of all nodes that have one, with how busy each was so far.
    pub(crate) fn meters(&self) -> Vec<(NodeId, Meter)> {
        let elapsed = self.now.as_nanos();
        let nodes = (0..).map(NodeId).zip(&self.telemetry.nodes);
        let told = nodes.filter(|(_, measured)| measured.meter.is_some() || measured.busy > Duration::ZERO);
        told.map(|(node, measured)| {
            let mut meter = measured.meter.as_deref().cloned().unwrap_or_default();
            if measured.busy > Duration::ZERO {
                let share = ratio(measured.busy.as_nanos(), elapsed);
                meter.set(Metric::WorkerCpuUsage, labels(&[Label::Word("role")]), share);
            }
            (node, meter)
        })
        .collect()
    }
}
