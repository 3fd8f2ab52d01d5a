//! Users' rate limits across nodes: charges are summed in Redis, one script per partition.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fred::types::Value;
use futures_util::stream::{self, StreamExt};

use super::fault::Fault;
use super::keys::{Partition, encode_name};
use super::link::Link;
use super::script::CHARGE;
use crate::backplane::RateLimiter;
use crate::domain::{Charges, UserId};

/// Users in one call: a script occupies Redis's only thread.
const USERS_PER_CALL: usize = 128;
/// Concurrent calls.
const CONCURRENT_CALLS: usize = 32;

pub(super) struct RedisRateLimiter(pub Arc<Link>);

#[async_trait]
impl RateLimiter for RedisRateLimiter {
    async fn charge(&self, charges: Vec<(UserId, Charges)>) -> Vec<(UserId, Charges)> {
        let mut partitions: BTreeMap<Partition, Vec<(UserId, Charges)>> = BTreeMap::new();
        for (user, charges) in charges {
            partitions
                .entry(Partition::of_user(&user))
                .or_default()
                .push((user, charges));
        }
        let mut calls: Vec<(Partition, Vec<(UserId, Charges)>)> = Vec::new();
        for (partition, charges) in partitions {
            for charges in charges.chunks(USERS_PER_CALL) {
                calls.push((partition, charges.to_vec()));
            }
        }
        let sums = stream::iter(calls).map(|(partition, charges)| async move {
            // Charges that can't be reported are dropped, in the users' favour: the call may have
            // taken effect.
            self.add(partition, &charges).await.unwrap_or_default()
        });
        sums.buffer_unordered(CONCURRENT_CALLS)
            .collect::<Vec<_>>()
            .await
            .concat()
    }
}

impl RedisRateLimiter {
    /// Adds charges in one partition; returns the sums.
    async fn add(
        &self,
        partition: Partition,
        charges: &[(UserId, Charges)],
    ) -> Result<Vec<(UserId, Charges)>, Fault> {
        let mut args: Vec<Value> = Vec::with_capacity(charges.len() * 5);
        for (user, charges) in charges {
            args.push(encode_name(user.as_str()).into());
            args.extend(charges.iter().map(|charge| micros(*charge)));
        }
        let mut reply = self.0.run(&CHARGE, partition, args).await?;
        let mut sums = Vec::with_capacity(charges.len());
        for (user, _) in charges {
            let mut sum = Charges::default();
            for kind in &mut sum {
                *kind = Duration::from_micros(reply.number()?);
            }
            sums.push((user.clone(), sum));
        }
        Ok(sums)
    }
}

/// A charge as an argument of the script; bounded so that Lua represents it exactly.
fn micros(charge: Duration) -> Value {
    i64::try_from(charge.as_micros())
        .unwrap_or(i64::MAX >> 12)
        .into()
}
