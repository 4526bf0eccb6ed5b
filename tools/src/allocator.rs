//! The node's allocator: threads hand blocks and transactions to one another, which the system's does slowly.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay`, which the bindings do not name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// How long free memory is kept before the system gets it back.
const PURGE_DELAY_MS: core::ffi::c_long = 10_000;

/// Keeps what a block leaves free for the next one. With the usual 10 ms each block faults its memory in again,
/// which is a fifth of the time of a block of token transfers (`cargo bench -p bench --bench modes token-spread`).
#[expect(unsafe_code, reason = "the allocator's options have no safe interface")]
pub(crate) fn keep_memory() {
    // SAFETY: the option takes any number, and no other thread is running yet.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, PURGE_DELAY_MS) };
}
