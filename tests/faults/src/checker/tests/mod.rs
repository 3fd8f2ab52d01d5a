//! The checker's own tests: good histories that it must accept, and for every rule some that it must not.

mod form;
mod members;
mod order;
mod random;
mod rooms;
mod status;
mod tale;
