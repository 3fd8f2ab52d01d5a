//! The ids of published rows.

use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

use crate::store::OutboxId;

/// The id of the entry that a row becomes. The same at every attempt, and that of no other row.
///
/// Numbers alone don't tell rows apart for ever: a copy of a database may give them again. So the time
/// of the first claim, by the database's clock, is a part of the id.
pub(super) fn of_row(deployment: Uuid, row: OutboxId, first_claimed: i64) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(b"hubbub outbox");
    hash.update(deployment.as_bytes());
    hash.update(row.to_be_bytes());
    hash.update(first_claimed.to_be_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_follows_from_the_deployment_the_row_and_its_first_claim() {
        let (one, other) = (Uuid::new_v4(), Uuid::new_v4());
        assert_eq!(of_row(one, 1, 7), of_row(one, 1, 7));
        assert_ne!(of_row(one, 1, 7), of_row(one, 2, 7));
        assert_ne!(of_row(one, 1, 7), of_row(one, 1, 8));
        assert_ne!(of_row(one, 1, 7), of_row(other, 1, 7));
        assert_eq!(of_row(one, 1, 7).get_version_num(), 8);
    }
}
