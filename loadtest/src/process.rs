//! CPU and memory of processes, from the process table of Linux.

/// What a set of processes has used.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// User and system time, seconds.
    pub cpu_secs: f64,
    /// Resident memory, bytes.
    pub resident_bytes: u64,
}

/// Clock ticks per second of `/proc/PID/stat`; fixed at 100 for user space on Linux.
const TICKS: f64 = 100.0;

/// Adds up what the processes have used; one that is gone counts nothing.
pub fn usage(pids: &[u32]) -> Usage {
    pids.iter().filter_map(|pid| read(*pid)).fold(Usage::default(), |sum, one| Usage {
        cpu_secs: sum.cpu_secs + one.cpu_secs,
        resident_bytes: sum.resident_bytes + one.resident_bytes,
    })
}

fn read(pid: u32) -> Option<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in brackets and may hold spaces.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok());
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let resident = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kib: u64 = resident.split_whitespace().next()?.parse().ok()?;
    Some(Usage { cpu_secs: (ticks(11)? + ticks(12)?) / TICKS, resident_bytes: kib * 1024 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_a_missing_one_nothing() {
        assert!(usage(&[std::process::id()]).resident_bytes > 0);
        assert_eq!(usage(&[u32::MAX]), Usage::default());
    }
}
