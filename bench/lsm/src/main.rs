//! Which LSM store: fjall and RocksDB measured on the rows a log writes, and killed while they write.
//!
//! `qed-lsm table` runs every measurement of every engine in a separate process and prints a Markdown table; `qed-lsm torture` kills a
//! writer again and again and looks for lost acknowledged events. README.md has the results and the conclusions.

mod engines;
mod layout;
mod measure;
mod process;
mod random;
mod store;
mod table;
mod torture;

use std::error::Error;
use std::process::ExitCode;

/// The error of any step; only its text is used.
pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const USAGE: &str = "\
usage: qed-lsm table [--repeats 3] [--engines fjall,rocksdb] [--folder /tmp/qed-lsm]
       qed-lsm torture ENGINE [--cycles 300] [--layout W1|W2] [--folder /tmp/qed-lsm]
(measure, writer and check are what these two start)";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<()> {
    match words {
        ["table", rest @ ..] => table::print(rest),
        ["torture", engine, rest @ ..] => torture::run(engine, rest),
        ["measure", engine, what, folder] => measure::run(engine, what, folder.as_ref()),
        ["writer", engine, layout, folder, acknowledged] => {
            torture::write(engine, layout, folder.as_ref(), acknowledged.parse()?)
        }
        ["check", engine, layout, folder, acknowledged] => {
            torture::check(engine, layout, folder.as_ref(), acknowledged.parse()?)
        }
        _ => Err(USAGE.into()),
    }
}

/// Return the value after `name` in `words`, or `default`.
fn option<'a>(words: &[&'a str], name: &str, default: &'a str) -> &'a str {
    words.iter().position(|word| *word == name).and_then(|at| words.get(at + 1)).copied().unwrap_or(default)
}
