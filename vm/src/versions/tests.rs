//! What a reader finds, whoever writes meanwhile.
