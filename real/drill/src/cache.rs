//! A region's Valkey as the drill itself speaks to it, past all links: what it takes away from it, and what it spoils.

use crate::faults::Loss;
use redis::{AsyncConnectionConfig, Client, aio::MultiplexedConnection};
use std::{net::SocketAddr, time::Duration};
use worldline_scenarios::draw::{self, Draw};

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Keys of one look.
const KEYS: usize = 1_000;
/// Looks at most: what comes meanwhile is not chased for ever.
const LOOKS_MAX: usize = 1_000;

/// Takes or spoils entries, drawn from this seed; of how many.
///
/// # Errors
/// What Valkey says.
pub async fn lose(address: SocketAddr, loss: Loss, seed: u64) -> redis::RedisResult<usize> {
    let patience =
        AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE)).set_connection_timeout(Some(PATIENCE));
    let client = Client::open(format!("redis://{address}"))?;
    let mut connection = client.get_multiplexed_async_connection_with_config(&patience).await?;
    let (permille, spoils) = match loss {
        Loss::All => {
            let count = redis::cmd("DBSIZE").query_async(&mut connection).await?;
            redis::cmd("FLUSHALL").query_async::<()>(&mut connection).await?;
            return Ok(count);
        }
        Loss::Some(permille) => (permille, false),
        Loss::Types(permille) => (permille, true),
    };
    let keys = keys(&mut connection).await?;
    let drawn = (0..).zip(keys).filter(|(n, _)| draw::below(seed, Draw::Request, *n, 1_000) < u64::from(permille));
    let mut count = 0;
    for (_, key) in drawn {
        let kind: String = redis::cmd("TYPE").arg(&key).query_async(&mut connection).await?;
        let mut both = redis::pipe();
        both.atomic().del(&key).ignore();
        if spoils {
            match kind.as_str() {
                "string" => both.rpush(&key, "none of ours").ignore(),
                _ => both.set(&key, "none of ours").ignore(),
            };
        }
        both.query_async::<()>(&mut connection).await?;
        count += 1;
    }
    Ok(count)
}

/// Every key that there is, in order.
async fn keys(connection: &mut MultiplexedConnection) -> redis::RedisResult<Vec<Vec<u8>>> {
    let (mut all, mut cursor) = (Vec::new(), 0_u64);
    for _ in 0..LOOKS_MAX {
        let look = redis::cmd("SCAN").arg(cursor).arg("COUNT").arg(KEYS).query_async(connection).await?;
        let (next, mut keys): (u64, Vec<Vec<u8>>) = look;
        all.append(&mut keys);
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}
