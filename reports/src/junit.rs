//! JUnit: a test suite a scenario, a test case a seed.

use crate::{Outcome, RunResult, ScenarioResult, SuiteResult};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use std::time::Duration;

/// The file's content. `command` gives the command that replays a run.
///
/// # Errors
/// What the serializer says.
pub fn xml(suite: &SuiteResult, command: &dyn Fn(&RunResult) -> String) -> Result<String, quick_junit::SerializeError> {
    let mut report = Report::new("worldline");
    report.set_time(Duration::from_nanos(suite.wall_ns));
    for scenario in &suite.scenarios {
        report.add_test_suite(test_suite(scenario, &suite.revision, command));
    }
    report.to_string()
}

fn test_suite(scenario: &ScenarioResult, revision: &str, command: &dyn Fn(&RunResult) -> String) -> TestSuite {
    let mut suite = TestSuite::new(scenario.name.as_str());
    suite.add_property(("revision", revision));
    suite.set_time(Duration::from_nanos(scenario.runs.iter().map(|run| run.wall_ns).sum()));
    for run in &scenario.runs {
        suite.add_test_case(test_case(run, command));
    }
    if let Some(twice) = &scenario.nondeterminism {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
        status.set_message(format!("seed {} gave {:016x} and {:016x}", twice.seed, twice.first, twice.second));
        status.set_type("not-deterministic");
        suite.add_test_case(TestCase::new("deterministic", status));
    }
    suite
}

fn test_case(run: &RunResult, command: &dyn Fn(&RunResult) -> String) -> TestCase {
    let status = match run.outcome() {
        Outcome::Held => TestCaseStatus::success(),
        Outcome::Unprovoked => {
            let mut status = TestCaseStatus::skipped();
            let why: Vec<_> = run.skipped().iter().map(|one| format!("fault {}: {}", one.fault, one.why)).collect();
            status.set_message(why.join("; "));
            status
        }
        _ => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            let (kind, message) = match (&run.violation, run.misses.first()) {
                (Some(violation), _) => {
                    (&violation.invariant, format!("{}: {}", violation.invariant, violation.sentence))
                }
                (None, Some(miss)) => (&miss.name, format!("{}: {}", miss.name, miss.sentence)),
                (None, None) => unreachable!("a run that did not hold says why"),
            };
            status.set_type(kind.as_str()).set_message(message).set_description(command(run));
            status
        }
    };
    let mut case = TestCase::new(format!("seed {}", run.seed), status);
    case.set_classname(format!("worldline.{}", run.scenario));
    case.set_time(Duration::from_nanos(run.wall_ns));
    case
}
