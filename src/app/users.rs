//! The administration of users without a node.

use std::sync::Arc;

pub(crate) use crate::features::accounts::{SignUp, UserAdministration, UserPatch};
use crate::store::sql::SqlStore;

/// The administration of the users in this store.
pub(crate) fn user_administration(store: SqlStore) -> UserAdministration {
    UserAdministration::new(Arc::new(store))
}
