//! Tokens of bots, and the scopes that limit them.

use std::fmt;

use uuid::Uuid;

use super::time::Timestamp;

/// A kind of acts that a bot's token may be valid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenScope {
    /// Joining rooms and reading.
    Read,
    /// Sending to rooms.
    Send,
    /// Broadcasting and publishing events.
    Publish,
    /// Opening and managing chats.
    Chats,
    /// The rights of the user's role.
    Admin,
}

impl TokenScope {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Read,
        Self::Send,
        Self::Publish,
        Self::Chats,
        Self::Admin,
    ];

    /// The scope's name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Send => "send",
            Self::Publish => "publish",
            Self::Chats => "chats",
            Self::Admin => "admin",
        }
    }

    /// The scope of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == name)
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenScopes(u8);

impl TokenScopes {
    /// All scopes: those of a user with a session.
    pub const ALL: Self = Self(31);

    /// Whether the scope is in the set.
    #[must_use]
    pub const fn contains(self, scope: TokenScope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// The scopes of the set, in one order.
    pub fn iter(self) -> impl Iterator<Item = TokenScope> {
        TokenScope::ALL
            .into_iter()
            .filter(move |scope| self.contains(*scope))
    }

    /// The set as a number, for storage.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The set with this number. Unknown scopes are left out.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & Self::ALL.0)
    }
}

impl FromIterator<TokenScope> for TokenScopes {
    fn from_iter<I: IntoIterator<Item = TokenScope>>(scopes: I) -> Self {
        let add = |bits, scope: TokenScope| bits | scope.bit();
        Self(scopes.into_iter().fold(0, add))
    }
}

impl fmt::Debug for TokenScopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// A token of a bot, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BotToken {
    /// Its id.
    pub id: Uuid,
    /// Its name, for people.
    pub name: String,
    /// The acts that it is valid for.
    pub scopes: TokenScopes,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops being valid.
    pub expires_at: Timestamp,
    /// When it was last used, to a minute.
    pub last_used_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_contains_the_scopes_that_it_was_made_of() {
        let scopes: TokenScopes = [TokenScope::Chats, TokenScope::Read].into_iter().collect();
        let names: Vec<&str> = scopes.iter().map(TokenScope::as_str).collect();
        assert_eq!(names, ["read", "chats"]);
        assert_eq!(TokenScopes::from_bits(scopes.bits()), scopes);
        assert_eq!(
            TokenScope::ALL.into_iter().collect::<TokenScopes>(),
            TokenScopes::ALL
        );
        assert_eq!(TokenScopes::from_bits(255), TokenScopes::ALL);
        for scope in TokenScope::ALL {
            assert_eq!(TokenScope::named(scope.as_str()), Some(scope));
            assert!(!TokenScopes::default().contains(scope));
        }
        assert_eq!(TokenScope::named("Read"), None);
    }
}
