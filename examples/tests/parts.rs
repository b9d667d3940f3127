//! The unit tests of the parts that know nothing of DataFusion, compiled alone: the library's own test binary would compile it all again.

#[path = "../src/server.rs"]
#[expect(dead_code, unreachable_pub, reason = "the rest is used by the examples")]
mod server;
#[path = "../src/pipeline/trainer.rs"]
mod trainer;
