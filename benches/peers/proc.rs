//! What Linux tells of a process: processor time and memory.
//!
//! Reads /proc; the benchmark runs on Linux only.

use std::time::Duration;

/// Clock ticks a second: what every Linux tells its processes.
const TICKS: f64 = 100.0;

/// Returns the user and system time of a process or thread (its folder in /proc), in seconds. Exact to a hundredth.
pub fn cpu_seconds(folder: &str) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("{folder}/stat")).ok()?;
    // The name in brackets may hold anything.
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    let ticks = |position: usize| fields.get(position)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS)
}

/// Returns the most memory a process ever had in use, in kB.
pub fn peak_kb(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.split_whitespace().next()?.parse().ok()
}

/// Returns the load averages.
pub fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// Returns the share of the machine's processors that was busy during `pause`.
pub async fn busy_during(pause: Duration) -> f64 {
    let before = machine();
    tokio::time::sleep(pause).await;
    let after = machine();
    let (Some(before), Some(after)) = (before, after) else { return 0.0 };
    let (busy, idle) = (after.0 - before.0, after.1 - before.1);
    busy / (busy + idle).max(1.0)
}

/// Returns the ticks that all processors together have been busy and idle since the start of the machine.
fn machine() -> Option<(f64, f64)> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let ticks: Vec<f64> = stat.lines().next()?.split_whitespace().skip(1).filter_map(|it| it.parse().ok()).collect();
    let idle = ticks.get(3)? + ticks.get(4)?;
    Some((ticks.iter().take(8).sum::<f64>() - idle, idle))
}
