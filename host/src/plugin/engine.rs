//! The engine that runs components, with room for their instances, and its clock.
//!
//! `plugin` has one for the process; `compiler` makes one that runs nothing.

use std::sync::Arc;
use std::thread::available_parallelism;

use anyhow::Context;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::limits::{MEMORY_AT_MOST, TICK};
use super::{Host, opaque};

/// Instances of all plugins and workers together.
const INSTANCES: u32 = 1000;
/// Places that instances have left, and that wait for another one of the same plugin, for each core. Where there are as many,
/// an instance of another plugin takes the one that has waited longest, and not a new one: each place that was ever used
/// stays in memory, in part, and each version of a plugin that comes would use new ones.
const PLACES_KEPT: u32 = 24;
/// The engine divides places by cores, but not further than this.
const CORES_APART: usize = 16;

pub(super) fn engine() -> anyhow::Result<Engine> {
    let cores = available_parallelism().map_or(1, |cores| cores.get().min(CORES_APART) as u32);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(INSTANCES)
        .total_core_instances(INSTANCES * 4)
        .total_memories(INSTANCES)
        .total_tables(INSTANCES * 2)
        .total_stacks(INSTANCES)
        .max_unused_warm_slots(PLACES_KEPT * cores)
        .table_elements(100_000)
        .max_memory_size(MEMORY_AT_MOST)
        // No page stays with its place: one that does, if only because it was read, is copied when the next instance writes
        // to it, and each copy interrupts all other cores. A plugin that works through its memory and is dropped, again and
        // again, would double what 99 of 100 requests of others take. A new instance costs 10 µs more, in JavaScript 130.
        .linear_memory_keep_resident(0)
        .table_keep_resident(64 << 10);
    let mut config = code();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    // The pool reserves address space, which a container may limit: allocating on demand needs none.
    Engine::new(&config)
        .or_else(|_| Engine::new(config.allocation_strategy(InstanceAllocationStrategy::OnDemand)))
        .map_err(opaque)
        .context("starting the WebAssembly engine")
}

/// Moves the engine's epoch for as long as the host lives.
pub(super) fn tick(host: &Arc<Host>) {
    let host = Arc::downgrade(host);
    std::thread::Builder::new()
        .name("plugin-ticks".to_owned())
        .spawn(move || {
            while let Some(host) = host.upgrade() {
                host.engine.increment_epoch();
                drop(host);
                #[expect(clippy::disallowed_methods, reason = "this thread does nothing but wait")]
                std::thread::sleep(TICK);
            }
        })
        .expect("a process that cannot start a thread cannot serve");
}

/// For code that other engines of ours run: it reserves nothing for instances.
pub(super) fn compiling_engine() -> anyhow::Result<Engine> {
    Engine::new(&code()).map_err(opaque).context("starting the WebAssembly compiler")
}

/// What code depends on.
fn code() -> Config {
    let mut config = Config::new();
    config.concurrency_support(false).epoch_interruption(true);
    config
}
