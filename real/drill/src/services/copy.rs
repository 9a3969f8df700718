//! A copy of a primary of PostgreSQL that goes on meanwhile.

use crate::{command::Running, processes::Failed};
use sqlx::{Connection as _, PgConnection};
use std::{fmt::Display, fs, net::SocketAddr, os::unix::fs::PermissionsExt as _, path::Path};

/// Has this run while the primary knows that it is copied, and puts what the primary says of it into the copy.
///
/// # Errors
/// The primary does not answer, or what the command says.
pub async fn told(primary: SocketAddr, copies: Running, label: &Path) -> Result<(), Failed> {
    fn failed(why: impl Display) -> Failed {
        Failed::Service(format!("PostgreSQL cannot be copied: {why}"))
    }
    let url = format!("postgres://postgres@{primary}/postgres");
    let mut connection = PgConnection::connect(&url).await.map_err(failed)?;
    // Nobody waits until the next checkpoint comes by itself.
    sqlx::query("select pg_backup_start('a member that returns', true)")
        .execute(&mut connection)
        .await
        .map_err(failed)?;
    copies.await?;
    let asked = "select labelfile from pg_backup_stop(false)";
    let said: String = sqlx::query_scalar(asked).fetch_one(&mut connection).await.map_err(failed)?;
    connection.close().await.map_err(failed)?;
    fs::write(label, said).map_err(failed)?;
    // Who starts it may be another user than this.
    fs::set_permissions(label, fs::Permissions::from_mode(0o666)).map_err(failed)
}
