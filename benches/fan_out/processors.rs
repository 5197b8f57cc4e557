//! One processor for the server and one for the generator, so that they do not compete.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The first two processors this process may use.
pub fn two_processors() -> Option<(usize, usize)> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).ok()?;
    let mut numbers = (0..CpuSet::count()).filter(|&number| allowed.is_set(number) == Ok(true));
    Some((numbers.next()?, numbers.next()?))
}

/// Restricts this process, and those it starts, to one processor.
pub fn pin(processor: Option<usize>) -> Result<(), String> {
    let Some(processor) = processor else { return Ok(()) };
    let mut set = CpuSet::new();
    let pinned = set.set(processor).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
    pinned.map_err(|errno| format!("cannot run on processor {processor} alone: {errno}"))
}
