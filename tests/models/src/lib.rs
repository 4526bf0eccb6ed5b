//! Models of what threads share: the vm's own source, on threads and atomics that a checker schedules.
//!
//! - `tests/cell.rs`: one place of the multi-version memory, by loom: every interleaving and every order that the
//!   memory model allows.
//! - `tests/course.rs`: who works on which transaction, by shuttle: random and priority schedules.
