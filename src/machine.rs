//! What the machine offers this process: cores and memory, as far as affinity, control groups and limits let it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::{fs, thread};

/// Memory of this machine, in bytes, as this process may use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// What is installed.
    pub total: u64,
    /// What can be taken now without swapping: the least of what the system has available and what every limit leaves.
    pub available: u64,
    /// What sets `available`, in words: `MemAvailable`, the control group with its limit, or the limit of the address space.
    pub bound_by: String,
}

/// The number of physical cores that this process may run on, at least 1: those of its affinity mask, each counted once
/// however many hardware threads it has, and no more than its control group grants.
pub fn cores() -> usize {
    let granted = thread::available_parallelism().map_or(1, usize::from);
    let physical = allowed_cpus().map(|cpus| distinct_cores(Path::new("/sys"), &cpus));
    physical.filter(|n| *n > 0).map_or(granted, |n| n.min(granted)).max(1)
}

/// The number of hardware threads that this process may run on, at least 1.
pub fn hardware_threads() -> usize {
    allowed_cpus()
        .map_or_else(|| thread::available_parallelism().map_or(1, usize::from), |cpus| cpus.len().max(1))
}

#[cfg(target_os = "linux")]
fn allowed_cpus() -> Option<Vec<usize>> {
    let set = rustix::thread::sched_getaffinity(None).ok()?;
    Some((0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}

#[cfg(not(target_os = "linux"))]
fn allowed_cpus() -> Option<Vec<usize>> {
    None
}

/// The number of (package, core) pairs among these CPUs; a CPU whose topology the system does not tell counts as a core.
fn distinct_cores(sys: &Path, cpus: &[usize]) -> usize {
    let id =
        |cpu: usize, file: &str| read_u64(&sys.join(format!("devices/system/cpu/cpu{cpu}/topology/{file}")));
    let cores: HashSet<_> = cpus
        .iter()
        .map(|cpu| match (id(*cpu, "physical_package_id"), id(*cpu, "core_id")) {
            (Some(package), Some(core)) => (Some(package), core),
            _ => (None, *cpu as u64),
        })
        .collect();
    cores.len()
}

/// The memory of this machine; none where the system does not tell.
#[cfg(target_os = "linux")]
pub fn memory() -> Option<Memory> {
    let mut memory = memory_under(Path::new("/"))?;
    if let Some(limit) = rustix::process::getrlimit(rustix::process::Resource::As).current {
        let used = fs::read_to_string("/proc/self/statm").ok()?;
        let pages: u64 = used.split_whitespace().next()?.parse().ok()?;
        let left = limit.saturating_sub(pages.saturating_mul(rustix::param::page_size() as u64));
        if left < memory.available {
            memory.available = left;
            memory.bound_by = "the limit of the address space (ulimit -v)".into();
        }
    }
    Some(memory)
}

/// The memory of this machine; none where the system does not tell.
#[cfg(not(target_os = "linux"))]
pub fn memory() -> Option<Memory> {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let (total, available) = (system.total_memory(), system.available_memory());
    (total > 0).then(|| Memory { total, available, bound_by: "the system's available memory".into() })
}

/// Read `/proc/meminfo` and the limits of the control groups above this process, below `root`.
#[cfg(target_os = "linux")]
fn memory_under(root: &Path) -> Option<Memory> {
    let meminfo = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let kib = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
    };
    let total = kib("MemTotal")?;
    let available = kib("MemAvailable").or_else(|| kib("MemFree"))?;
    let mut memory = Memory { total, available, bound_by: "MemAvailable".into() };
    for (limit, left, group) in group_limits(root) {
        if left < memory.available {
            memory.available = left;
            memory.bound_by = format!("the memory limit of the control group {group} ({limit} bytes)");
        }
    }
    Some(memory)
}

/// For every control group above this process that has a limit: the limit, what it leaves, and the group's path.
///
/// What a group has in inactive page cache is given back before the limit strikes, so it counts as left.
#[cfg(target_os = "linux")]
fn group_limits(root: &Path) -> Vec<(u64, u64, String)> {
    let Ok(groups) = fs::read_to_string(root.join("proc/self/cgroup")) else { return Vec::new() };
    let mut limits = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (mount, names) = if controllers.is_empty() {
            ("sys/fs/cgroup", ["memory.max", "memory.current", "inactive_file"])
        } else if controllers.split(',').any(|c| c == "memory") {
            (
                "sys/fs/cgroup/memory",
                ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"],
            )
        } else {
            continue;
        };
        let mount = root.join(mount);
        // In a container the path may be the host's, which is not mounted: its own group is then the mount itself.
        let mut group = PathBuf::from(path.trim_start_matches('/'));
        loop {
            let folder = mount.join(&group);
            if let (Some(limit), Some(used)) =
                (read_u64(&folder.join(names[0])), read_u64(&folder.join(names[1])))
            {
                let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
                let cache =
                    stat.lines().find_map(|line| line.strip_prefix(names[2])?.trim().parse::<u64>().ok());
                let used = used.saturating_sub(cache.unwrap_or(0));
                limits.push((limit, limit.saturating_sub(used), format!("/{}", group.display())));
            }
            if !group.pop() {
                break;
            }
        }
    }
    limits
}

/// A file that holds one decimal number; none where it is absent or says `max`.
fn read_u64(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// A folder with these files in it.
    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const MEMINFO: (&str, &str) =
        ("proc/meminfo", "MemTotal:  8192 kB\nMemFree: 100 kB\nMemAvailable:  4096 kB\n");

    #[test]
    fn without_limits_it_is_what_the_system_has_available() {
        let root =
            tree(&[MEMINFO, ("proc/self/cgroup", "0::/user\n"), ("sys/fs/cgroup/user/memory.max", "max\n")]);
        let memory = memory_under(root.path()).unwrap();
        assert_eq!(
            (memory.total, memory.available, memory.bound_by.as_str()),
            (8 << 20, 4 << 20, "MemAvailable")
        );
    }

    #[test]
    fn the_tightest_group_above_the_process_binds_and_its_page_cache_counts_as_free() {
        let root = tree(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/memory.max", "1000000\n"),
            ("sys/fs/cgroup/a/memory.current", "600000\n"),
            ("sys/fs/cgroup/a/memory.stat", "anon 1\ninactive_file 100000\nactive_file 5\n"),
            ("sys/fs/cgroup/a/b/memory.max", "900000\n"),
            ("sys/fs/cgroup/a/b/memory.current", "100\n"),
        ]);
        let memory = memory_under(root.path()).unwrap();
        assert_eq!(memory.available, 500_000);
        assert!(memory.bound_by.contains("/a (1000000 bytes)"), "{}", memory.bound_by);
    }

    #[test]
    fn version_1_groups_count_too_also_where_only_the_mount_is_seen() {
        let root = tree(&[
            MEMINFO,
            ("proc/self/cgroup", "3:cpu:/x\n2:memory,hugetlb:/docker/abc\n0::/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "2097152\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "1048576\n"),
        ]);
        assert_eq!(memory_under(root.path()).unwrap().available, 1 << 20);
    }

    #[test]
    fn two_hardware_threads_of_a_core_count_once() {
        let file = |cpu: usize, name: &str| format!("devices/system/cpu/cpu{cpu}/topology/{name}");
        let files: Vec<(String, &str)> = [(0, "0"), (1, "1"), (2, "0"), (3, "1")]
            .iter()
            .flat_map(|(cpu, core)| {
                [(file(*cpu, "physical_package_id"), "0"), (file(*cpu, "core_id"), *core)]
            })
            .collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (p.as_str(), *t)).collect();
        let root = tree(&files);
        assert_eq!(distinct_cores(root.path(), &[0, 1, 2, 3]), 2);
        assert_eq!(distinct_cores(root.path(), &[0, 2]), 1);
        assert_eq!(distinct_cores(root.path(), &[0, 9]), 2, "an unknown CPU counts as a core");
    }

    #[test]
    fn this_machine_tells() {
        assert!(cores() >= 1 && cores() <= hardware_threads());
        let memory = memory().unwrap();
        assert!(memory.available > 0 && memory.total >= 1 << 20);
    }
}
