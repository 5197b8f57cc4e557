//! Shards, sessions and sockets in random worlds, compared with a model. The same seed makes the same world.
//!
//! The tables and relays are the real ones, and take turns as in a shard. Sockets, clients, network and clock are simulated.
//! Sometimes all sessions are handed over to another process: they are written, read, and taken up in new tables.
//!
//! Some hubs have history: their clients vanish and return, and continue from a position. So what each channel keeps is checked, too.
//!
//! Checked are: every subscriber receives every publication of its channels since its subscription, once, complete, and in the
//! order of the channel, or else a close or a counter shows why not; a client that continues from a position receives exactly what is
//! kept and what comes after it, or is told of a gap exactly if it has missed something; echoes and pongs arrive in order; queues
//! keep their limits; receipts count the subscribers; a message whose key is known is not published again; and in the end no
//! session, channel or member is left.
//!
//! `PUSHD_SEED=n` runs the seed `n`, `PUSHD_SEEDS=n` runs `n` seeds.

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
#[path = "simulation/subscription.rs"]
mod subscription;
#[path = "simulation/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// How many worlds run by default.
const SEEDS: u64 = 120;
/// How many steps each of them takes.
const STEPS: usize = 1_500;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} takes a number, not {text:?}")))
}

fn run(seed: u64) {
    // The owners of channels must depend on the seed only.
    pushd::hub::set_topic_key(0);
    let result = catch_unwind(AssertUnwindSafe(|| {
        let mut world = world::World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        world.finish();
    }));
    if let Err(panic) = result {
        eprintln!("this was seed {seed}: PUSHD_SEED={seed} cargo test --test simulation");
        resume_unwind(panic);
    }
}

#[test]
fn every_client_receives_what_the_model_expects() {
    if let Some(seed) = number("PUSHD_SEED") {
        return run(seed);
    }
    (0..number("PUSHD_SEEDS").unwrap_or(SEEDS)).for_each(run);
}
