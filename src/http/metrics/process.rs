//! What this process uses, under the names that every Prometheus client gives it.
//!
//! Read from /proc whenever the page is asked for; elsewhere than on Linux there is none, and the names are absent. A crate
//! that knows other systems too would bring bindgen along.

/// Linux tells processor time in hundredths of a second on every architecture Rust's tier one has.
const TICKS: u64 = 100;

/// Sets the gauges to what is used right now.
pub(super) fn collect() {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    if let Some(seconds) = cpu_seconds(&read("stat")) {
        metrics::counter!("process_cpu_seconds_total").absolute(seconds);
    }
    let status = read("status");
    if let Some(kilobytes) = field(&status, "VmRSS:") {
        metrics::gauge!("process_resident_memory_bytes").set(kilobytes * 1024.0);
    }
    if let Some(kilobytes) = field(&status, "VmSize:") {
        metrics::gauge!("process_virtual_memory_bytes").set(kilobytes * 1024.0);
    }
    if let Some(threads) = field(&status, "Threads:") {
        metrics::gauge!("process_threads").set(threads);
    }
    if let Some(most) = field(&read("limits"), "Max open files") {
        metrics::gauge!("process_max_fds").set(most);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        metrics::gauge!("process_open_fds").set(open.count() as f64);
    }
}

/// Returns the first number after `name` at the beginning of a line.
fn field(text: &str, name: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Returns user and system time of a `stat` line; the name in it may hold spaces and parentheses.
fn cpu_seconds(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_texts_are_read() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 1234 567 0 0 20 0 9 0 100 1000 200";
        assert_eq!(cpu_seconds(stat), Some(18));
        assert_eq!(cpu_seconds("7 (herald) S 1"), None);
        let status = "Name:\therald\nVmSize:\t  2048 kB\nVmRSS:\t  512 kB\nThreads:\t9\n";
        assert_eq!((field(status, "VmRSS:"), field(status, "Threads:")), (Some(512.0), Some(9.0)));
        assert_eq!(
            field("Max open files            1024                 524288               files\n", "Max open files"),
            Some(1024.0)
        );
        assert_eq!(field("Max open files            unlimited", "Max open files"), None);
    }
}
