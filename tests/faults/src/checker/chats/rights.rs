//! The rights that nodes granted, and the rows that stayed in the outbox.

use super::super::faults::{FaultKind, Faults};
use super::super::stats::Stats;
use super::ChatHistory;
use crate::history::chats::ChatFact;

pub(super) struct RightCheck<'r, 'a> {
    pub history: &'r ChatHistory<'a>,
    pub faults: &'r mut Faults,
    pub stats: &'r mut Stats,
}

impl RightCheck<'_, '_> {
    pub fn check(self) {
        for (at, fact) in self.history.others.iter().copied() {
            match fact {
                ChatFact::ReadAfterRemoval {
                    chat,
                    user,
                    node,
                    status,
                } => {
                    self.stats.reads_refused += u64::from(*status == 404);
                    if *status < 400 && *status != 0 {
                        self.faults.add(FaultKind::WrongRight, at, || {
                            format!(
                                "node-{node} answered {user} with {status} to a request for the \
                                 messages of {chat}, a second after its removal"
                            )
                        });
                    }
                }
                ChatFact::FinalRight {
                    chat,
                    user,
                    node,
                    request,
                    granted,
                } => {
                    if *granted {
                        self.stats.rights_granted += 1;
                    } else {
                        self.stats.rights_refused += 1;
                    }
                    let is_member = self.history.members.contains_key(&(&**chat, &**user));
                    if is_member != *granted {
                        self.faults.add(FaultKind::WrongRight, at, || {
                            format!(
                                "node-{node}: {request} of {user} in {chat} is granted: {granted}; \
                                 a member: {is_member}"
                            )
                        });
                    }
                }
                ChatFact::LeftInOutbox { row, kind, failed } => {
                    self.faults.add(FaultKind::LeftInOutbox, at, || {
                        format!("row {row}, {kind}, failed: {failed}")
                    });
                }
                _ => {}
            }
        }
    }
}
