//! Every measurement of every engine, as a Markdown table.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::{Result, option, process};

/// Name to value, as a measurement prints them.
type Figures = BTreeMap<String, f64>;

const MEASUREMENTS: [&str; 10] =
    ["W1/1", "W1/16", "W1/100", "W1/1000", "W2/1", "W2/16", "W2/100", "W2/1000", "stall", "read"];

/// Measure and print.
///
/// # Errors
/// A measurement that fails.
pub fn print(words: &[&str]) -> Result<()> {
    let repeats: usize = option(words, "--repeats", "3").parse()?;
    let engines: Vec<&str> = option(words, "--engines", "fjall,rocksdb").split(',').collect();
    let folder = Path::new(option(words, "--folder", "/tmp/qed-lsm"));
    let mut results: BTreeMap<(&str, &str), Figures> = BTreeMap::new();
    let mut loads = Vec::new();
    for what in MEASUREMENTS {
        // The engines alternate, so that other load on the machine affects both.
        let mut runs: BTreeMap<&str, Vec<Figures>> = BTreeMap::new();
        for repeat in 0..repeats {
            for engine in &engines {
                eprintln!("{what} {engine} {}/{repeats}", repeat + 1);
                loads.push(process::load_average()?);
                runs.entry(engine).or_default().push(measure(engine, what, folder)?);
            }
        }
        results.extend(runs.into_iter().map(|(engine, runs)| ((what, engine), merge(&runs))));
    }
    print_commits(&results, &engines);
    print_reads(&results, &engines);
    loads.sort_by(f64::total_cmp);
    println!(
        "\nLoad average when a run began: median {:.1}, greatest {:.1}.",
        loads[loads.len() / 2],
        loads[loads.len() - 1]
    );
    Ok(())
}

/// Run one measurement in a fresh process and an empty folder.
fn measure(engine: &str, what: &str, folder: &Path) -> Result<Figures> {
    let folder = folder.join(engine);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let mut figures = start(engine, what, &folder)?;
    if what == "read" {
        figures.extend(start(engine, what, &folder)?);
    }
    fs::remove_dir_all(&folder)?;
    Ok(figures)
}

fn start(engine: &str, what: &str, folder: &Path) -> Result<Figures> {
    let output = Command::new(std::env::current_exe()?).args(["measure", engine, what]).arg(folder).output()?;
    if !output.status.success() {
        return Err(format!("{what} {engine}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let text = String::from_utf8(output.stdout)?;
    let mut figures = Figures::new();
    for line in text.lines() {
        let (name, value) = line.split_once(' ').ok_or("an odd line")?;
        figures.insert(name.to_owned(), value.parse()?);
    }
    Ok(figures)
}

/// Return the figures of the least disturbed run, which is the fastest, with the longest commit of all runs.
fn merge(runs: &[Figures]) -> Figures {
    let speed = |run: &Figures| run.get("events_per_s").or(run.get("scan_mb_per_s")).copied().unwrap_or(0.0);
    let mut best = runs.iter().max_by(|one, other| speed(one).total_cmp(&speed(other))).cloned().unwrap_or_default();
    for (name, value) in runs.iter().flatten().filter(|(name, _)| name.ends_with("_max_us")) {
        best.entry(name.clone()).and_modify(|longest| *longest = longest.max(*value));
    }
    best
}

fn print_commits(results: &BTreeMap<(&str, &str), Figures>, engines: &[&str]) {
    println!(
        "| workload, events a commit | engine | events/s | commit p50 / p99 / max ms | CPU µs an event | written B an event | on disk MB | peak RSS MB |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for what in MEASUREMENTS.into_iter().filter(|what| *what != "read") {
        for engine in engines {
            let figures = &results[&(what, *engine)];
            let of = |name: &str| figures.get(name).copied().unwrap_or(f64::NAN);
            println!(
                "| {} | {engine} | {:.0} | {:.2} / {:.2} / {:.0} | {:.1} | {:.0} | {:.0} | {:.0} |",
                if what == "stall" { "W2/1000, 3 M events" } else { what },
                of("events_per_s"),
                of("commit_p50_us") / 1e3,
                of("commit_p99_us") / 1e3,
                of("commit_max_us") / 1e3,
                of("cpu_us_per_event"),
                of("written_per_event"),
                of("disk_mb"),
                of("peak_resident_mb"),
            );
        }
    }
}

fn print_reads(results: &BTreeMap<(&str, &str), Figures>, engines: &[&str]) {
    println!("\n| 10 M events in tile rows | {} |", engines.join(" | "));
    println!("| --- |{}", " --- |".repeat(engines.len()));
    let lines = [
        ("fill, commits of 1000, not synced, s", "fill_s"),
        ("close, ms", "close_ms"),
        ("on disk after close, MB", "disk_mb"),
        ("on disk, B an event", "disk_per_event"),
        ("open, ms", "open_ms"),
        ("RSS after open, MB", "open_resident_mb"),
        ("random get of a tile row, p50 µs", "get_p50_us"),
        ("random get of a tile row, p99 µs", "get_p99_us"),
        ("scan of all tile rows, s", "scan_s"),
        ("scan, MB/s", "scan_mb_per_s"),
        ("RSS after scans and gets, MB", "read_resident_mb"),
    ];
    for (label, name) in lines {
        let values: Vec<String> = engines
            .iter()
            .map(|engine| {
                let value = results[&("read", *engine)].get(name).copied().unwrap_or(f64::NAN);
                if value < 10.0 { format!("{value:.2}") } else { format!("{value:.0}") }
            })
            .collect();
        println!("| {label} | {} |", values.join(" | "));
    }
}
