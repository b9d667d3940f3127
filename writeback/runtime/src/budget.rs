//! Memory and disk counted in bytes: the permit comes before the queue, travels with the work and returns on drop.
