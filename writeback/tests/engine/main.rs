//! The engine from outside, in a world that can be turned against it. One binary: each would compile much of the engine's generic code and
//! link all of it again.

mod attributes;
mod backlog;
mod conditions;
mod convert;
mod datasets;
mod drafts;
mod files;
mod folder;
mod grounds;
mod listings;
mod packs;
mod persist;
mod policies;
mod regressions;
mod residence;
mod resume;
mod simulation;
mod small;
mod support;
mod tiers;
mod together;
mod touched;
mod withheld;
