//! What users have spent of their rates, added up in Redis: one script for each partition that has something to add to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fred::types::Value;
use futures_util::stream::{self, StreamExt};

use super::keys::{Partition, part};
use super::link::{Fault, Link};
use super::script::SPEND;
use crate::backplane::RateLimiter;
use crate::domain::{Charges, UserId};

/// Users that one script adds up: it holds Redis's only thread meanwhile.
const USERS: usize = 128;
/// Scripts under way at once.
const PIPELINE: usize = 32;

/// Adds up by this link.
pub(super) struct Sum(pub Arc<Link>);

#[async_trait]
impl RateLimiter for Sum {
    async fn charge(&self, spent: Vec<(UserId, Charges)>) -> Vec<(UserId, Charges)> {
        let mut partitions: BTreeMap<Partition, Vec<(UserId, Charges)>> = BTreeMap::new();
        for (user, debts) in spent {
            partitions
                .entry(Partition::of_user(&user))
                .or_default()
                .push((user, debts));
        }
        let mut calls: Vec<(Partition, Vec<(UserId, Charges)>)> = Vec::new();
        for (partition, spent) in partitions {
            for spent in spent.chunks(USERS) {
                calls.push((partition, spent.to_vec()));
            }
        }
        let sums = stream::iter(calls).map(|(partition, spent)| async move {
            // What can't be told is forgotten, in the users' favour: the call may have happened.
            self.add(partition, &spent).await.unwrap_or_default()
        });
        sums.buffer_unordered(PIPELINE)
            .collect::<Vec<_>>()
            .await
            .concat()
    }
}

impl Sum {
    async fn add(
        &self,
        partition: Partition,
        spent: &[(UserId, Charges)],
    ) -> Result<Vec<(UserId, Charges)>, Fault> {
        let mut args: Vec<Value> = Vec::with_capacity(spent.len() * 5);
        for (user, debts) in spent {
            args.push(part(user.as_str()).into());
            args.extend(debts.iter().map(|debt| {
                i64::try_from(debt.as_micros())
                    .unwrap_or(i64::MAX >> 12)
                    .into()
            }));
        }
        let mut answer = self.0.run(&SPEND, partition, args).await?;
        let mut known = Vec::with_capacity(spent.len());
        for (user, _) in spent {
            let mut debts = Charges::default();
            for debt in &mut debts {
                *debt = Duration::from_micros(answer.number()?);
            }
            known.push((user.clone(), debts));
        }
        Ok(known)
    }
}
