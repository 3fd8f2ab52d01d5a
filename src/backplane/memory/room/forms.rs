//! The newest forms of the room's changed messages, as long as the log has an announcement that points
//! to them.

use std::collections::BTreeMap;

use crate::backplane::Entry;
use crate::backplane::message_form;
use crate::domain::{Amendment, MessageForm, Timestamp};

/// Forms by the numbers of their messages. An announcement is newer than its message, so the log has
/// trimmed the message by the time at which the last announcement is trimmed.
#[derive(Debug, Default)]
pub(super) struct Forms {
    forms: BTreeMap<u64, MessageForm>,
    /// The last announcement of each message, by the message.
    last: BTreeMap<u64, u64>,
    /// The message of each last announcement.
    targets: BTreeMap<u64, u64>,
}

impl Forms {
    /// Makes the form of an announcement the newest one. `seq` and `at` are those of the announcement.
    pub fn amend(&mut self, amendment: &Amendment, seq: u64, at: Timestamp) -> &MessageForm {
        let target = amendment.form.position.seq;
        if let Some(earlier) = self.last.insert(target, seq) {
            self.targets.remove(&earlier);
        }
        self.targets.insert(seq, target);
        let form = message_form::amend(self.forms.remove(&target), amendment, seq, at);
        self.forms.entry(target).or_insert(form)
    }

    /// The newest form of a message, as it is announced.
    pub fn get(&self, seq: u64) -> Option<&MessageForm> {
        self.forms.get(&seq)
    }

    /// Gives an entry that is read the newest form of its message.
    pub fn resolve(&self, entry: &mut Entry) {
        if !self.forms.is_empty() {
            message_form::resolve(std::slice::from_mut(entry), &self.forms);
        }
    }

    /// Removes the forms of which the log has no announcement any more. `oldest`: the first `seq` that it
    /// has.
    #[inline]
    pub fn trim(&mut self, oldest: u64) {
        while let Some(first) = self.targets.first_entry()
            && *first.key() < oldest
        {
            let target = first.remove();
            self.last.remove(&target);
            self.forms.remove(&target);
        }
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Epoch, FormContent, Head};

    fn amendment(target: u64) -> Amendment {
        let epoch = Epoch::trusted("e1");
        Amendment {
            raises_version: true,
            form: MessageForm {
                position: Head { epoch, seq: target },
                at: Timestamp(0),
                version: target,
                edited_at: None,
                content: FormContent::Edited("{}".into()),
                reactions: None,
            },
        }
    }

    #[test]
    fn a_form_is_kept_until_its_last_announcement_is_trimmed() {
        let mut forms = Forms::default();
        for (seq, target) in [(3, 1), (4, 2), (5, 1)] {
            forms.amend(&amendment(target), seq, Timestamp(seq));
        }
        for (oldest, kept) in [(4, vec![1, 2]), (5, vec![1]), (6, vec![])] {
            forms.trim(oldest);
            let targets: Vec<u64> = forms.forms.keys().copied().collect();
            assert_eq!(targets, kept, "{oldest}");
        }
        assert!(forms.last.is_empty() && forms.targets.is_empty());
    }
}
