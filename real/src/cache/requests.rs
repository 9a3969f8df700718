//! A submission as commands of the protocol.
//!
//! Places go as the middle of their cell, so that the server's floating-point numbers fall into that cell and no other.

use super::{
    Counters,
    replies::{decode, hash},
    scripts::Script,
};
use redis::{Pipeline, ServerError, Value};
use std::fmt::Write as _;
use worldline_proto::{NodeId, OpId};
use worldline_system::{
    Outcome,
    doors::{
        cache::{Answer, Ask, Fields, Hash, HashKey, Key, Submission},
        directory::RegionId,
    },
    limits,
    rules::{grid::Cell, space::Position},
    time::{Duration, Instant},
};

/// Columns and rows of the grid in each direction.
const STEPS: f64 = (1_u64 << 26) as f64;
/// The latitude at which the grid ends, in degrees: `GEO_LAT_MAX`.
const LATITUDE_MAX: f64 = 85.051_128_78;
/// A degree on the equator of Redis' sphere, in millimetres.
const DEGREE_MM: f64 = 40_041_468_000.0 / 360.0;
/// The server looks so much farther, in thousandths and in metres, than it is asked to: it measures on a sphere.
const FARTHER: (f64, f64) = (1.001, 1.0);

/// Something for the server to do.
#[derive(Debug)]
pub(super) enum Work {
    /// What a role has asked. With the texts of scripts where the server had forgotten them.
    Ask { op: OpId, deadline: Instant, submission: Submission, forgotten: bool },
    /// The second step of [`Submission::Loads`].
    Loads { op: OpId, region: RegionId, nodes: Vec<NodeId> },
    /// Takes nodes without a load out of their region's index.
    Forget { region: RegionId, nodes: Vec<NodeId> },
    /// Deletes an entry of another type.
    Remove(String),
    /// Is anybody there?
    Ping,
}

/// What became of it.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub answer: Option<(OpId, Answer)>,
    /// To be done next.
    pub next: Option<Work>,
}

impl Done {
    pub fn answer(op: OpId, answer: Answer) -> Self {
        Self { answer: Some((op, answer)), next: None }
    }
}

/// What a server says to one command.
pub(super) type Said<'a> = Result<&'a Value, &'a ServerError>;

impl Work {
    /// Writes it into a pipeline, and says how many commands it is.
    pub fn encode(&self, scripts: &[String], pipeline: &mut Pipeline) -> usize {
        match self {
            Self::Ask { submission, forgotten, .. } => {
                encode(submission, Call { scripts, forgotten: *forgotten, pipeline });
                1
            }
            Self::Loads { region, nodes, .. } => {
                for &node in nodes {
                    pipeline.cmd("HGETALL").arg(HashKey::Load { region: *region, node }.to_string());
                }
                nodes.len()
            }
            Self::Forget { region, nodes } => {
                let nodes: Vec<String> = nodes.iter().map(NodeId::to_string).collect();
                pipeline.cmd("SREM").arg(index(*region)).arg(nodes);
                1
            }
            Self::Remove(key) => {
                pipeline.cmd("UNLINK").arg(key);
                1
            }
            Self::Ping => {
                pipeline.cmd("PING");
                1
            }
        }
    }

    /// What the server's answers mean.
    pub fn decode(self, said: &[Value], counters: &Counters) -> Done {
        match self {
            Self::Ask { op, deadline, submission, forgotten } => {
                let said = said.first().map_or(Ok(&Value::Nil), checked);
                match said {
                    Err(error) if error.code() == "NOSCRIPT" && !forgotten => {
                        let next = Some(Self::Ask { op, deadline, submission, forgotten: true });
                        Done { answer: None, next }
                    }
                    _ => decode(op, &submission, said, counters),
                }
            }
            Self::Loads { op, region, nodes } => {
                let (mut loads, mut gone) = (vec![], vec![]);
                for (node, said) in nodes.into_iter().zip(said) {
                    match hash(said, counters) {
                        Some(Hash { fields, .. }) => loads.push((node, fields)),
                        None => gone.push(node),
                    }
                }
                let next = (!gone.is_empty()).then_some(Self::Forget { region, nodes: gone });
                Done { answer: Some((op, Answer::Loads(Outcome::Done(loads)))), next }
            }
            Self::Forget { .. } | Self::Remove(_) | Self::Ping => Done::default(),
        }
    }

    /// The operation that it is for, and which answer that has.
    pub fn op(&self) -> Option<(OpId, Ask)> {
        match self {
            Self::Ask { op, submission, .. } => Some((*op, submission.into())),
            Self::Loads { op, .. } => Some((*op, Ask::Loads)),
            Self::Forget { .. } | Self::Remove(_) | Self::Ping => None,
        }
    }
}

fn checked(value: &Value) -> Said<'_> {
    match value {
        Value::ServerError(error) => Err(error),
        value => Ok(value),
    }
}

/// A command under construction.
struct Call<'a> {
    scripts: &'a [String],
    forgotten: bool,
    pipeline: &'a mut Pipeline,
}

impl<'a> Call<'a> {
    fn script(self, script: Script, keys: &[&str]) -> &'a mut Pipeline {
        let Self { scripts, forgotten, pipeline } = self;
        if forgotten {
            pipeline.cmd("EVAL").arg(script.text());
        } else {
            pipeline.cmd("EVALSHA").arg(&scripts[script as usize]);
        }
        pipeline.arg(keys.len()).arg(keys)
    }
}

fn encode(submission: &Submission, call: Call<'_>) {
    match submission {
        Submission::Read(key) => {
            call.pipeline.cmd("HGETALL").arg(key.to_string());
        }
        Submission::Write { key, fields } => {
            pairs(store(call, Script::Write, *key), fields);
        }
        Submission::Keep { key, stamp, fields } => {
            pairs(store(call, Script::Keep, *key).arg(stamp.to_string()), fields);
        }
        Submission::Increment { key, by } => {
            call.script(Script::Increment, &[&key.to_string()]).arg(millis(key.ttl())).arg(by.get());
        }
        Submission::Count(key) => {
            call.pipeline.cmd("GET").arg(key.to_string());
        }
        Submission::Get(key) => {
            call.pipeline.cmd("GET").arg(key.to_string());
        }
        Submission::Set { key, value, ttl } => {
            call.pipeline.cmd("SET").arg(key.to_string()).arg(value).arg("PX").arg(millis(*ttl));
        }
        &Submission::Delete(Key::Presence { region, member }) => {
            let [places, ends] = presence(region);
            call.script(Script::Leave, &[&places, &ends]).arg(member.to_string());
        }
        Submission::Delete(key) => {
            call.pipeline.cmd("UNLINK").arg(name(key));
        }
        &Submission::Place { region, member, at } => {
            let [places, ends] = presence(region);
            let (longitude, latitude) = middle(Cell::of(at));
            let call = call.script(Script::Place, &[&places, &ends]).arg(millis(limits::PRESENCE_TTL));
            call.arg(member.to_string()).arg(longitude).arg(latitude);
        }
        &Submission::Near { region, around, radius_mm, limit } => {
            let [places, ends] = presence(region);
            let (longitude, latitude) = degrees(around);
            let radius_m = radius_mm as f64 / 1_000.0 * FARTHER.0 + FARTHER.1;
            let call = call.script(Script::Near, &[&places, &ends]).arg(longitude).arg(latitude);
            call.arg(format!("{radius_m:.3}")).arg(limit);
        }
        &Submission::Loads(region) => {
            call.pipeline.cmd("SMEMBERS").arg(index(region));
        }
    }
}

/// The beginning of a script that writes a hash, and puts a load into its region's index.
fn store(call: Call<'_>, script: Script, key: HashKey) -> &mut Pipeline {
    let (name, ttl_ms) = (key.to_string(), millis(key.ttl()));
    match key {
        HashKey::Load { region, node } => {
            call.script(script, &[&name, &index(region)]).arg(ttl_ms).arg(node.to_string())
        }
        _ => call.script(script, &[&name]).arg(ttl_ms).arg(""),
    }
}

fn pairs(call: &mut Pipeline, fields: &Fields) {
    for (name, value) in fields {
        call.arg(name).arg(value);
    }
}

/// Whole milliseconds, rounded up: nothing lives shorter than it was said.
fn millis(span: Duration) -> u64 {
    span.as_nanos().div_ceil(1_000_000)
}

/// The set of a region's workers that have a load.
pub(super) fn index(region: RegionId) -> String {
    format!("worker_load:{}", region.0)
}

/// The two sorted sets of a region's presence: places, and ends in milliseconds of the server's clock.
fn presence(region: RegionId) -> [String; 2] {
    ["geo", "seen"].map(|set| format!("peer:{}:{set}", region.0))
}

fn name(key: &Key) -> String {
    let mut name = String::new();
    let written = match key {
        Key::Hash(key) => write!(name, "{key}"),
        Key::Counter(key) => write!(name, "{key}"),
        Key::Revoked(key) => write!(name, "{key}"),
        Key::Presence { region, .. } => write!(name, "{}", presence(*region)[0]),
    };
    written.expect("a text takes everything");
    name
}

/// Longitude and latitude of a cell's middle.
pub(super) fn middle(cell: Cell) -> (String, String) {
    let longitude = (f64::from(cell.column()) + 0.5) / STEPS * 360.0 - 180.0;
    let latitude = (f64::from(cell.row()) + 0.5) / STEPS * 2.0 * LATITUDE_MAX - LATITUDE_MAX;
    (format!("{longitude:.12}"), format!("{latitude:.12}"))
}

fn degrees(place: Position) -> (String, String) {
    (format!("{:.12}", place.x_mm as f64 / DEGREE_MM), format!("{:.12}", place.y_mm as f64 / DEGREE_MM))
}
