//! What most scenarios start from: three nodes on one Redis, each with a proxy between, and clients on all of them.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;

use crate::crowd::Part;
use crate::lab::redis::Redis;
use crate::lab::{Crowd, Lab, Node, PATIENCE, Proxy, eventually};

/// Nodes and clients.
pub struct Stage {
    /// First, as it is the first to go.
    pub crowd: Crowd,
    pub nodes: Vec<Node>,
    /// Between each node and Redis.
    pub ways: Vec<Proxy>,
    pub rooms: Vec<String>,
}

/// How many of what.
#[derive(Clone, Copy)]
pub struct Size {
    pub nodes: usize,
    pub clients_a_node: usize,
    pub rooms: usize,
    /// Official clients of each of three versions.
    pub official: usize,
    /// The mean time between two messages of one sender.
    pub pace: Duration,
}

impl Size {
    /// What most scenarios take.
    pub fn usual(lab: &Lab) -> Self {
        Self {
            nodes: 3,
            clients_a_node: lab.pick(40, 100),
            rooms: lab.pick(4, 8),
            official: lab.pick(2, 5),
            pace: Duration::from_millis(400),
        }
    }
}

impl Stage {
    /// Three nodes on that Redis, and clients who are all there.
    pub async fn usual(lab: &mut Lab, redis: &Redis) -> anyhow::Result<Self> {
        let size = Size::usual(lab);
        Self::on(lab, redis, size).await
    }

    /// So many on that Redis.
    pub async fn on(lab: &mut Lab, redis: &Redis, size: Size) -> anyhow::Result<Self> {
        let (mut nodes, mut ways) = (Vec::new(), Vec::new());
        for index in 0..size.nodes {
            let way = Proxy::to(redis.port).await?;
            nodes.push(
                lab.node(
                    &format!("node-{index}"),
                    &format!("redis://{}", way.address),
                    &[],
                )
                .await?,
            );
            ways.push(way);
        }
        Self::populate(lab, nodes, ways, size).await
    }

    /// On nodes that reach Redis by themselves.
    pub async fn at(lab: &mut Lab, url: &str, size: Size) -> anyhow::Result<Self> {
        let nodes = lab.nodes(size.nodes, url).await?;
        Self::populate(lab, nodes, Vec::new(), size).await
    }

    /// Fills nodes with clients: a third of them send; every tenth user has a second client on the next node; three on each node
    /// watch users of all nodes.
    pub async fn populate(
        lab: &mut Lab,
        nodes: Vec<Node>,
        ways: Vec<Proxy>,
        size: Size,
    ) -> anyhow::Result<Self> {
        let rooms: Vec<String> = (0..size.rooms)
            .map(|index| format!("room-{index}"))
            .collect();
        let doors: Vec<SocketAddr> = nodes.iter().map(|node| node.address).collect();
        let mut crowd = lab.crowd()?;
        for home in 0..nodes.len() {
            for index in 0..size.clients_a_node {
                let part = Part {
                    name: format!("c{home}-{index}"),
                    user: user(home, index),
                    rooms: vec![
                        rooms[index % rooms.len()].clone(),
                        rooms[(index + 1) % rooms.len()].clone(),
                    ],
                    doors: doors.clone(),
                    home,
                    pace: (index % 3 == 0).then_some(size.pace),
                    measures: index % 5 == 1,
                    ..Part::default()
                };
                if index % 10 == 0 {
                    crowd.add(Part {
                        name: format!("c{home}-{index}-twin"),
                        home: (home + 1) % nodes.len(),
                        pace: None,
                        ..part.clone()
                    });
                }
                crowd.add(part);
            }
        }
        crowd.add_fleet(
            "js-",
            size.official,
            &rooms[..2.min(rooms.len())],
            &doors,
            size.pace,
            &lab.dir,
        )?;
        crowd.add_poster("poster", &rooms, &doors, size.pace)?;
        crowd.all_back(PATIENCE).await.context("at the start")?;
        // Only now, so that nobody is seen to come.
        let watched: Vec<String> = (0..nodes.len())
            .flat_map(|home| (0..size.clients_a_node.min(20)).map(move |index| user(home, index)))
            .collect();
        for home in 0..nodes.len() {
            for index in 0..3 {
                crowd.add(Part {
                    name: format!("w{home}-{index}"),
                    user: format!("watcher-{home}-{index}"),
                    watches: watched.clone(),
                    doors: doors.clone(),
                    home,
                    ..Part::default()
                });
            }
        }
        crowd
            .all_back(PATIENCE)
            .await
            .context("the watchers at the start")?;
        Ok(Self {
            crowd,
            nodes,
            ways,
            rooms,
        })
    }

    /// Lets everybody send, for so long.
    pub async fn load_for(&mut self, time: Duration) -> anyhow::Result<()> {
        self.crowd.speak(true).await?;
        tokio::time::sleep(time).await;
        Ok(())
    }

    /// All clients of all nodes but this one, watchers and members of rooms, are far from the fault.
    pub fn calm_but(&self, home: usize) {
        self.calm(|part| part.home != home);
    }

    /// All clients stay where they are.
    pub fn calm_all(&self) {
        self.calm(|_| true);
    }

    fn calm(&self, far: impl Fn(&Part) -> bool) {
        let members = self.crowd.members.iter().enumerate();
        self.crowd.calm(
            members
                .filter(|(_, member)| far(&member.part))
                .map(|(index, _)| index),
        );
    }

    /// The users of a node who have no other connection than those to it, official clients included.
    pub fn users_alone_on(&self, home: usize) -> Vec<String> {
        let own = self
            .alone_on(home)
            .into_iter()
            .map(|index| self.crowd.members[index].part.user.clone());
        let fleets = self.crowd.fleets.iter().flat_map(|fleet| &fleet.homes);
        let nodes = self.nodes.len();
        own.chain(
            fleets
                .filter(|(_, door)| door % nodes == home)
                .map(|(user, _)| user.clone()),
        )
        .collect()
    }

    /// Everybody falls silent and is told what is still owed; a node that runs is asked how things are.
    pub async fn settle(&mut self, lab: &mut Lab) -> anyhow::Result<()> {
        let node = self
            .nodes
            .iter()
            .find(|node| node.runs())
            .context("no node runs")?;
        let took = self.crowd.settle(node).await?;
        lab.figure("settled after", format!("{:.1} s", took.as_secs_f64()));
        Ok(())
    }

    /// Everybody falls silent for a moment, and gets what is still owed.
    pub async fn rest(&mut self) -> anyhow::Result<()> {
        let node = self
            .nodes
            .iter()
            .find(|node| node.runs())
            .context("no node runs")?;
        self.crowd.rest(node).await?;
        Ok(())
    }

    /// Waits until every node can serve; how long that took.
    pub async fn all_ready(&self, patience: Duration) -> anyhow::Result<Duration> {
        let began = tokio::time::Instant::now();
        for node in self.nodes.iter().filter(|node| node.runs()) {
            eventually(&format!("{} is ready", node.name), patience, async || {
                node.is_ready().await
            })
            .await?;
        }
        Ok(began.elapsed())
    }

    /// Indices of the clients of a node who are their users' only ones.
    pub fn alone_on(&self, home: usize) -> Vec<usize> {
        let members = self.crowd.members.iter().enumerate();
        members
            .filter(|(_, member)| member.part.home == home && member.part.watches.is_empty())
            .filter(|(_, member)| {
                self.crowd
                    .members
                    .iter()
                    .filter(|other| other.part.user == member.part.user)
                    .count()
                    == 1
            })
            .map(|(index, _)| index)
            .collect()
    }
}

/// The name of a user.
pub fn user(home: usize, index: usize) -> String {
    format!("u{home}-{index}")
}
