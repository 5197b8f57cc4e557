//! The resources of a process according to `/proc`: processor time and memory.

use std::fs;

/// A tick of `/proc/stat` and `/proc/PID/stat`, in nanoseconds: 10 ms, as user space sees it on all common
/// architectures.
const TICK: u64 = 10_000_000;

/// Processor time that the process has used, in nanoseconds. It is exact if the kernel has the number, otherwise in
/// ticks.
pub fn cpu(pid: u32) -> Option<u64> {
    exact_cpu(pid).filter(|time| *time > 0).or_else(|| ticks(pid))
}

/// The time of all its current threads. Threads that have ended are not included.
fn exact_cpu(pid: u32) -> Option<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let Ok(text) = fs::read_to_string(task.ok()?.path().join("schedstat")) else { continue };
        sum += text.split_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(sum)
}

fn ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The fields after the name, which may contain anything: user and system time are fields 14 and 15, and the name is
    // field 2.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut field = || fields.next()?.parse::<u64>().ok();
    Some((field()? + field()?) * TICK)
}

/// Resident memory of the process, in bytes. It is summed up page by page if the kernel permits that. Otherwise the
/// kernel's counter is used, which may be wrong by some dozens of pages for each processor.
pub fn resident(pid: u32) -> Option<u64> {
    let figure = |file: &str, name: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
    };
    figure("smaps_rollup", "Rss:").or_else(|| figure("status", "VmRSS:"))
}

/// Processor time used by all processes on all processors, in nanoseconds.
pub fn busy() -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
    let figures: Vec<u64> = fields.filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal
    let [user, nice, system, _, _, irq, softirq, ..] = figures[..] else { return None };
    Some((user + nice + system + irq + softirq) * TICK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resources_of_this_process_are_found() {
        let pid = std::process::id();
        assert!(resident(pid).unwrap() > 1 << 18);
        assert!(busy().unwrap() > 0);
        assert!(ticks(pid).is_some());
        // Threads of other tests may end meanwhile, and their time is no longer in `cpu`. It stays in `ticks`.
        let before = ticks(pid).unwrap();
        while ticks(pid).unwrap() == before {
            std::hint::black_box((0..1_000_000_u64).fold(0, |sum, n| std::hint::black_box(sum ^ n)));
        }
        assert!(ticks(pid).unwrap() > before && cpu(pid).unwrap() > 0);
        assert_eq!((cpu(u32::MAX), resident(u32::MAX)), (None, None));
    }
}
