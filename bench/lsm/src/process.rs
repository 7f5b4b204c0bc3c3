//! What the operating system reports about this process and about a folder.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::Result;

/// Return a field of `/proc/self/<file>`, in bytes.
///
/// # Errors
/// A kernel that does not report it.
fn field(file: &str, name: &str) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/self/{file}"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .ok_or_else(|| format!("no {name} in {file}"))?;
    let number: f64 = line.split_whitespace().next().ok_or("an empty field")?.parse()?;
    Ok(if line.ends_with("kB") { number * 1024.0 } else { number })
}

/// Return the resident memory now.
pub fn resident_bytes() -> Result<f64> {
    field("status", "VmRSS")
}

/// Return the peak of the resident memory.
pub fn peak_resident_bytes() -> Result<f64> {
    field("status", "VmHWM")
}

/// Return how much this process has caused to be written to disk.
pub fn written_bytes() -> Result<f64> {
    field("io", "write_bytes")
}

/// Return the processor time this process has used, all threads, in seconds.
pub fn cpu_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit_once(')').ok_or("an odd stat line")?.1;
    let ticks =
        after_name.split_whitespace().skip(11).take(2).map(str::parse::<f64>).sum::<std::result::Result<f64, _>>()?;
    Ok(ticks / 100.0)
}

/// Return how many threads have wanted to run over the last minute.
pub fn load_average() -> Result<f64> {
    let text = fs::read_to_string("/proc/loadavg")?;
    Ok(text.split_whitespace().next().ok_or("an odd load average")?.parse()?)
}

/// Return the disk usage of `folder`: blocks, not lengths, because preallocated files are sparse.
pub fn disk_bytes(folder: &Path) -> Result<f64> {
    let mut sum = 0.0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        sum += if metadata.is_dir() { disk_bytes(&entry.path())? } else { metadata.blocks() as f64 * 512.0 };
    }
    Ok(sum)
}
