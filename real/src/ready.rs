//! Whether a process can do its work, and if not, what it waits for: `/ready` and the log say so. And what it does without,
//! though it would do better with it: it is ready, but degraded, and `/health` says so.

use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::watch;

/// What a process needs, by name, and what is wrong with each. Clones share one list.
#[derive(Clone, Debug, Default)]
pub struct Readiness(
    Arc<watch::Sender<BTreeMap<&'static str, Option<String>>>>,
    Arc<watch::Sender<BTreeMap<&'static str, String>>>,
);

impl Readiness {
    /// `need` is as it should be.
    pub fn fulfilled(&self, need: &'static str) {
        if self.set(need, None) {
            tracing::info!(need, "ready");
        }
    }

    /// `need` is missing: what is wrong, where, and what would be right. Logged when it is news.
    pub fn missing(&self, need: &'static str, problem: impl ToString) {
        let problem = problem.to_string();
        if self.set(need, Some(problem.clone())) {
            tracing::warn!(need, problem, "not ready");
        }
    }

    /// The process does without `what`, and why. Logged when it is news.
    pub fn degraded(&self, what: &'static str, problem: impl ToString) {
        let problem = problem.to_string();
        if self.1.send_if_modified(|lacks| lacks.insert(what, problem.clone()).as_ref() != Some(&problem)) {
            tracing::warn!(what, problem, "degraded");
        }
    }

    /// The process has `what` again.
    pub fn restored(&self, what: &'static str) {
        if self.1.send_if_modified(|lacks| lacks.remove(what).is_some()) {
            tracing::info!(what, "no longer degraded");
        }
    }

    /// What the process does without, and why.
    #[must_use]
    pub fn degradations(&self) -> BTreeMap<&'static str, String> {
        self.1.borrow().clone()
    }

    /// Waits until what it does without is as `state` wants it.
    pub async fn until_degraded(&self, state: impl Fn(&BTreeMap<&'static str, String>) -> bool) {
        let mut lacks = self.1.subscribe();
        lacks.wait_for(|lacks| state(lacks)).await.expect("the sender is borrowed");
    }

    /// What is missing, by need. Empty: the process is ready.
    #[must_use]
    pub fn problems(&self) -> BTreeMap<&'static str, String> {
        problems(&self.0.borrow())
    }

    /// Waits until what is missing is as `state` wants it.
    pub async fn until(&self, state: impl Fn(&BTreeMap<&'static str, String>) -> bool) {
        let mut needs = self.0.subscribe();
        needs.wait_for(|needs| state(&problems(needs))).await.expect("the sender is borrowed");
    }

    /// Whether `need` was looked at and is as it should be.
    #[must_use]
    pub fn is_fulfilled(&self, need: &str) -> bool {
        self.0.borrow().get(need).is_some_and(Option::is_none)
    }

    /// Whether this was news.
    fn set(&self, need: &'static str, problem: Option<String>) -> bool {
        self.0.send_if_modified(|needs| needs.insert(need, problem.clone()).as_ref() != Some(&problem))
    }
}

fn problems(needs: &BTreeMap<&'static str, Option<String>>) -> BTreeMap<&'static str, String> {
    needs.iter().filter_map(|(need, problem)| Some((*need, problem.clone()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_hears_of_it() {
        let ready = Readiness::default();
        ready.missing("ledger", "nobody answers");
        let waiting = tokio::spawn({
            let ready = ready.clone();
            async move { ready.until(|problems| problems.is_empty()).await }
        });
        ready.fulfilled("ledger");
        waiting.await.expect("it ends");
    }

    #[test]
    fn a_process_is_ready_when_nothing_is_missing() {
        let ready = Readiness::default();
        ready.missing("ledger", "nobody answers at 127.0.0.1:5432");
        assert!(!ready.is_fulfilled("directory"), "nobody has looked");
        ready.fulfilled("directory");
        assert!(ready.is_fulfilled("directory") && !ready.is_fulfilled("ledger"));
        assert_eq!(ready.problems(), BTreeMap::from([("ledger", "nobody answers at 127.0.0.1:5432".to_owned())]));
        ready.fulfilled("ledger");
        assert!(ready.problems().is_empty());
    }
}
