//! How much this process may have: file descriptors, and with them connections, and memory.
//!
//! Asked once when the server starts; memory is then looked at once a second. It reads what Linux tells in `/proc` and
//! `/sys/fs/cgroup`: elsewhere there are only the limits of the install file.

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::interval;

use crate::config::install::Limits;
use crate::entrypoint::{Admission, Pressure};

/// File descriptors for files, the log and what comes and goes.
const RESERVE: u64 = 32;

/// What a worker needs for itself.
const OF_A_WORKER: u64 = 4;

const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Raises the limit of file descriptors as far as the system lets us, and decides how many connections may be open. To be
/// called when the listeners are bound.
pub(super) fn admission(limits: &Limits, workers: usize) -> Arc<Admission> {
    let connections = match limits.connections {
        0 => descriptors().map(|limit| connections_within(limit, open_descriptors(), workers)),
        configured => Some(configured),
    };
    if let Some(connections) = connections {
        tracing::debug!(connections, "connections at most");
    }
    let of_a_client = (limits.connections_per_client > 0).then_some(limits.connections_per_client);
    Admission::new(connections, of_a_client)
}

/// Looks at memory for as long as somebody asks for admission.
pub(super) async fn watch_memory(limits: Limits, admission: Weak<Admission>) {
    let ceiling = match limits.memory {
        0 => memory_of_cgroup(),
        megabytes => Some(megabytes.saturating_mul(1 << 20)),
    };
    if let Some(ceiling) = ceiling {
        tracing::debug!(megabytes = ceiling >> 20, "memory at most");
    }
    let mut looks = interval(LOOK_INTERVAL);
    let mut before = Pressure::None;
    loop {
        looks.tick().await;
        let Some(admission) = admission.upgrade() else { return };
        let resident = ceiling.and_then(|_| resident_memory());
        let of_memory = match (resident, ceiling) {
            (Some(resident), Some(ceiling)) => pressure(resident, ceiling),
            _ => Pressure::None,
        };
        let of_connections = if admission.is_nearly_full() { Pressure::High } else { Pressure::None };
        admission.press(of_memory.max(of_connections));
        if of_memory > before {
            let megabytes = resident.unwrap_or_default() >> 20;
            match of_memory {
                Pressure::Critical => tracing::error!(megabytes, "memory runs out: requests are refused"),
                _ => tracing::warn!(megabytes, "memory is short: connections are not kept"),
            }
        }
        before = of_memory;
    }
}

fn pressure(resident: u64, ceiling: u64) -> Pressure {
    let hundredths = resident.saturating_mul(100) / ceiling.max(1);
    match hundredths {
        95.. => Pressure::Critical,
        90.. => Pressure::High,
        _ => Pressure::None,
    }
}

/// Each client may need a connection to a server.
fn connections_within(descriptors: u64, open: u64, workers: usize) -> usize {
    let spent = open + RESERVE + OF_A_WORKER * workers as u64;
    usize::try_from(descriptors.saturating_sub(spent) / 2).unwrap_or(usize::MAX).max(1)
}

/// The limit of this process, raised to what it may be.
#[cfg(unix)]
fn descriptors() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Where the system does not let us, it stays as it is.
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    }
}

#[cfg(not(unix))]
const fn descriptors() -> Option<u64> {
    None
}

fn open_descriptors() -> u64 {
    std::fs::read_dir("/proc/self/fd").map_or(RESERVE, |open| open.count() as u64)
}

/// Bytes.
fn resident_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes << 10)
}

/// What the container may have, or the service.
fn memory_of_cgroup() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let root = Path::new("/sys/fs/cgroup");
    // In a container its own group is the root; the last one is of the first version.
    let files =
        [root.join(path).join("memory.max"), root.join("memory.max"), root.join("memory/memory.limit_in_bytes")];
    // `max` is no number, and the first version has a very large one for it.
    let limit: u64 = files.iter().find_map(|file| std::fs::read_to_string(file).ok())?.trim().parse().ok()?;
    (limit < 1 << 50).then_some(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_short_before_it_is_gone() {
        for (resident, ceiling, expected) in [
            (0, 100, Pressure::None),
            (89, 100, Pressure::None),
            (90, 100, Pressure::High),
            (94, 100, Pressure::High),
            (95, 100, Pressure::Critical),
            (1000, 100, Pressure::Critical),
            (1, 0, Pressure::Critical),
        ] {
            assert_eq!(pressure(resident, ceiling), expected, "{resident} of {ceiling}");
        }
    }

    #[test]
    fn half_of_the_descriptors_are_for_clients() {
        for (descriptors, open, workers, expected) in
            [(1024, 40, 2, 472), (256, 40, 2, 88), (64, 40, 2, 1), (0, 0, 1, 1), (1 << 20, 40, 64, 524_124)]
        {
            assert_eq!(connections_within(descriptors, open, workers), expected, "{descriptors}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_system_tells() {
        assert!(resident_memory().is_some_and(|bytes| bytes > 1 << 20));
        assert!(open_descriptors() > 2);
        assert!(descriptors().is_none_or(|limit| limit > 2));
    }
}
