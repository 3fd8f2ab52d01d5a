//! The middleware around the routes. `router.rs` has its order.

pub(super) mod address_rate;
pub(super) mod encoded_body;
pub(super) mod origin;
pub(super) mod request_id;
pub(super) mod request_log;
pub(super) mod security_headers;
