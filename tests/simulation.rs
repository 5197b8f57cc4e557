//! Shards, sessions and sockets in a world of chance, held against a model; the same seed is the same world.
//!
//! The tables and relays are the real ones, driven turn by turn as a shard drives them; sockets, clients, network and clock are made here.
//! Now and then all sessions go on in another process: they are written down, read, and taken up in new tables.
//! What is checked: every subscriber hears every publication of its channels since it came, once, whole, in the one order
//! of the channel, or is told why not (a close, a counter); echoes and pongs come back in order; queues keep their
//! bounds; receipts count the subscribers that were there; and in the end nothing is left of anybody.
//!
//! `PUSHD_SEED=n` runs one seed, `PUSHD_SEEDS=n` so many.

#[path = "simulation/client.rs"]
mod client;
#[path = "simulation/model.rs"]
mod model;
#[path = "simulation/random.rs"]
mod random;
#[path = "simulation/setting.rs"]
mod setting;
#[path = "simulation/socket.rs"]
mod socket;
#[path = "simulation/speech.rs"]
mod speech;
#[path = "simulation/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// How many worlds are lived through unless `PUSHD_SEEDS` says otherwise.
const SEEDS: u64 = 120;
/// How much happens in each.
const STEPS: usize = 1_500;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} takes a number, not {text:?}")))
}

fn live(seed: u64) {
    // Which shard owns a channel is a part of the world, too.
    pushd::hub::set_topic_key(0);
    let lived = catch_unwind(AssertUnwindSafe(|| {
        let mut world = world::World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        world.end_of_days();
    }));
    if let Err(panic) = lived {
        eprintln!("this was seed {seed}: PUSHD_SEED={seed} cargo test --test simulation");
        resume_unwind(panic);
    }
}

#[test]
fn whatever_happens_nobody_is_told_wrong() {
    if let Some(seed) = number("PUSHD_SEED") {
        return live(seed);
    }
    (0..number("PUSHD_SEEDS").unwrap_or(SEEDS)).for_each(live);
}
