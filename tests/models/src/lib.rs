//! Models that are explored by checkers. What threads share: the vm's own source, on threads and atomics that a
//! checker schedules. What validators say: the engine's own rules, among Byzantine validators.
//!
//! - `tests/cell.rs`: one place of the multi-version memory, by loom: every interleaving and every order that the
//!   memory model allows.
//! - `tests/course.rs`: who works on which transaction, by shuttle: random and priority schedules.
//! - `tests/voting`: the rules of voting, by stateright: every vote, timer, certificate and restart in any order;
//!   `MUTATIONS.md` lists the bugs that it finds when they are planted.
