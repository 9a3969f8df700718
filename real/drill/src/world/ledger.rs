//! The ledger of a drill: where it is, and how it begins.

use crate::processes::Failed;
use std::net::SocketAddr;
use worldline_real::ledger;
use worldline_scenarios::{format::Scenario, world};

/// The URL of these servers.
pub fn url(servers: impl IntoIterator<Item = SocketAddr>) -> String {
    let servers: Vec<String> = servers.into_iter().map(|address| address.to_string()).collect();
    format!("postgres://postgres@{}/postgres", servers.join(","))
}

/// The schema, everything journaled, and every entity as the scenario begins with it; at the primary.
///
/// # Errors
/// What PostgreSQL says.
pub async fn prepare(scenario: &Scenario, url: &str) -> Result<(), Failed> {
    use sqlx::{Connection as _, Executor as _};
    let failed = |why: String| Failed::Service(format!("the ledger cannot be prepared: {why}"));
    ledger::migrate(url).await.map_err(|problem| failed(problem.to_string()))?;
    let seed = |seed: worldline_sim::ledger::Seed| ledger::Seed {
        entity: seed.entity,
        position: seed.position,
        pinned: seed.pinned,
        hit_points: seed.hit_points,
        balance: seed.balance,
    };
    let seeds: Vec<_> = world::seeds(scenario).into_iter().map(seed).collect();
    ledger::seed(url, &seeds).await.map_err(|problem| failed(problem.to_string()))?;
    let audit = async {
        let mut connection = sqlx::PgConnection::connect(url).await?;
        connection.execute("alter database postgres set worldline.audit = 'full'").await?;
        connection.close().await?;
        // A setting of the database is that of connections made from now on.
        let mut connection = sqlx::PgConnection::connect(url).await?;
        let asked = "select current_setting('worldline.audit', true), current_setting('track_commit_timestamp', true)";
        let (audit, dated): (Option<String>, Option<String>) = sqlx::query_as(asked).fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok([("worldline.audit", audit, "full"), ("track_commit_timestamp", dated, "on")])
    };
    let settings = audit.await.map_err(|error: sqlx::Error| failed(error.to_string()))?;
    unset(&settings).map_or(Ok(()), |why| Err(failed(why)))
}

/// A setting that is not as it has to be for a journal that can be judged: name, what it is, what it has to be.
fn unset(settings: &[(&str, Option<String>, &str)]) -> Option<String> {
    let wrong = settings.iter().find(|(_, is, wanted)| is.as_deref() != Some(wanted));
    wrong.map(|(name, is, wanted)| {
        format!("`{name}` is `{}` and has to be `{wanted}`", is.as_deref().unwrap_or("unset"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_that_dates_no_commits_or_journals_only_some_is_refused() {
        let settings = |audit: Option<&str>, dated: &str| {
            let (audit, dated) = (audit.map(str::to_owned), Some(dated.to_owned()));
            unset(&[("worldline.audit", audit, "full"), ("track_commit_timestamp", dated, "on")])
        };
        assert_eq!(settings(Some("full"), "on"), None);
        let why = settings(Some("full"), "off").expect("refused");
        assert_eq!(why, "`track_commit_timestamp` is `off` and has to be `on`");
        let why = settings(None, "on").expect("refused");
        assert_eq!(why, "`worldline.audit` is `unset` and has to be `full`");
    }
}
