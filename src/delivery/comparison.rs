//! The periodic comparison of feeds with the backplane. It finds a lost *last* event, which no
//! later event shows as missing.

use std::time::Duration;

use super::queues::Command;
use super::user::UserFeed;
use super::worker::Worker;
use crate::backplane::BusTopic;
use crate::domain::{Head, RoomId};

/// The time between two comparisons.
pub(super) const COMPARE_INTERVAL: Duration = Duration::from_secs(2);
/// The most topics in one comparison. The others are compared in the following ones.
const TOPICS_PER_COMPARISON: usize = 1000;

/// The heads of rooms: the feed's position when the log was read, and the log's own.
pub(super) type Heads = Vec<(RoomId, Head, Option<Head>)>;
/// The versions of topics: the feed's when presence was read, and presence's own.
pub(super) type Versions = Vec<(BusTopic, u64, u64)>;

impl Worker {
    /// Reads from the backplane the heads and versions of the next topics.
    pub(super) fn compare(&mut self) {
        let backplane = &self.context.backplane;
        if backplane.bus.is_lossless() || !backplane.lifecycle.is_up() {
            return;
        }
        let mut heads = Vec::new();
        let mut versions = Vec::new();
        for topic in self.next_to_compare() {
            let version = match &topic {
                BusTopic::Room(room) => {
                    let Some(feed) = self.rooms.get(room) else {
                        continue;
                    };
                    heads.extend(feed.head().map(|head| (room.clone(), head)));
                    feed.version()
                }
                BusTopic::User(user) => self.users.get(user).and_then(UserFeed::version),
                BusTopic::Nodes => None,
            };
            versions.extend(version.map(|version| (topic, version)));
        }
        // Independent of each other, so that a storm of presence calls doesn't delay the search for
        // lost messages.
        if !heads.is_empty() {
            self.read_heads(heads);
        }
        if !versions.is_empty() {
            self.read_versions(versions);
        }
    }

    /// The topics to compare now. When every topic has had its turn, the round begins again with
    /// the feeds that exist then.
    fn next_to_compare(&mut self) -> Vec<BusTopic> {
        if self.to_compare.is_empty() {
            let rooms = self.rooms.keys().cloned().map(BusTopic::Room);
            let users = self.users.keys().cloned().map(BusTopic::User);
            self.to_compare.extend(rooms.chain(users));
        }
        let rest = self.to_compare.len().saturating_sub(TOPICS_PER_COMPARISON);
        self.to_compare.split_off(rest)
    }

    /// A failure is not reported, as the next round reads again.
    fn read_heads(&self, seen: Vec<(RoomId, Head)>) {
        let log = self.context.backplane.log.clone();
        let (queues, index) = (self.context.queues().clone(), self.index);
        tokio::spawn(async move {
            let rooms: Vec<_> = seen.iter().map(|(room, _)| room.clone()).collect();
            let Ok(heads) = log.heads(&rooms).await else {
                return;
            };
            let compared = seen
                .into_iter()
                .zip(heads)
                .map(|((room, seen), actual)| (room, seen, actual))
                .collect();
            queues.send_to(index, Command::Heads(compared)).await;
        });
    }

    /// As [`Self::read_heads`].
    fn read_versions(&self, seen: Vec<(BusTopic, u64)>) {
        let presence = self.context.backplane.presence.clone();
        let (queues, index) = (self.context.queues().clone(), self.index);
        tokio::spawn(async move {
            let topics: Vec<_> = seen.iter().map(|(topic, _)| topic.clone()).collect();
            let Ok(versions) = presence.versions(&topics).await else {
                return;
            };
            let compared = seen
                .into_iter()
                .zip(versions)
                .map(|((topic, seen), actual)| (topic, seen, actual))
                .collect();
            queues.send_to(index, Command::Versions(compared)).await;
        });
    }

    pub(super) fn on_heads(&mut self, heads: Heads) {
        for (room, seen, actual) in heads {
            if let Some(feed) = self.rooms.get_mut(&room) {
                feed.on_head(&mut self.context, &seen, actual.as_ref());
            }
        }
    }

    /// Feeds with another version than the backplane's catch up. A feed that has moved since the
    /// comparison receives its changes from the bus.
    pub(super) fn on_versions(&mut self, versions: Versions) {
        for (topic, seen, actual) in versions {
            if seen == actual {
                continue;
            }
            match &topic {
                BusTopic::Room(room) => {
                    if let Some(feed) = self.rooms.get_mut(room)
                        && feed.version() == Some(seen)
                    {
                        feed.catch_up_changes(&mut self.context);
                    }
                }
                BusTopic::User(user) => {
                    if let Some(feed) = self.users.get_mut(user)
                        && feed.version() == Some(seen)
                    {
                        feed.catch_up(&mut self.context);
                    }
                }
                BusTopic::Nodes => {}
            }
        }
    }
}
