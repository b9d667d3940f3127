//! Tests of the names as a whole. The small ones of one module lie beside it.

mod audit;
mod concurrent;
mod model;
mod rules;
mod world;
