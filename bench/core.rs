//! Speed and size of a log without a server: `cargo bench -p qed-core -- [EVENTS]`, 1,000,000 by default.
//!
//! Prints one line per number: what, measured, unit. The limit is the hash rate of two cores that do nothing else.

#![allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark may stop at the first thing that goes wrong"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use qed_core::bulk_proof::{BulkKeys, BulkProof, MAX_BULK_KEYS};
use qed_core::bulk_verify::verify_bulk_proof;
use qed_core::entry_prover::EntryProver;
use qed_core::hash::{Digest, hyper_inner};
use qed_core::log::{Log, Request};
use qed_core::proof::Answer;
use qed_core::tlog::bundle::{Saved, SignedBundle};
use qed_core::tlog::checkpoint::Checkpoint;
use qed_core::tlog::claim::Level;
use qed_core::tlog::key::KeyKind;
use qed_core::tlog::note::Note;
use qed_core::tlog::signing::SigningKey;
use qed_core::tlog::text::Name;
use qed_core::tlog::trust_file::TrustFile;
use qed_core::verify::{verify_absence, verify_incremental, verify_membership};

const BULK: u64 = 1000;
const BULKS_TIMED: u64 = 200;

fn main() {
    let events = std::env::args().skip(1).find_map(|text| text.parse().ok()).unwrap_or(1_000_000);
    let folder = std::env::temp_dir().join(format!("qed-bench-core-{}", std::process::id()));
    let compression_ns = compression_ns();
    report("one SHA-256 compression", compression_ns, "ns");
    let per_event = compressions_per_event(events);
    report("compressions an event needs", per_event, "");
    let limit = 2e9 / (per_event * compression_ns);
    report("limit of two cores", limit, "events/s");

    let log = Log::open(&folder).expect("open");
    let filled = timed(|| append(&log, 0, events));
    report("filling, bulks of 1,000, each synced", events as f64 / filled.as_secs_f64(), "events/s");
    let mut slowest = Duration::ZERO;
    let appended = timed(|| {
        for bulk in 0..BULKS_TIMED {
            slowest = slowest.max(timed(|| append(&log, events + bulk * BULK, BULK)));
        }
    });
    let rate = (BULKS_TIMED * BULK) as f64 / appended.as_secs_f64();
    report("append on the filled log", rate, "events/s");
    report("append, part of the limit", 100.0 * rate / limit, "%");
    report("slowest bulk", slowest.as_secs_f64() * 1e3, "ms");
    proofs(&log);
    report("resident", resident_mb(), "MB");

    drop(log);
    let opened = Instant::now();
    let log = Log::open(&folder).expect("reopen");
    report("open", opened.elapsed().as_secs_f64() * 1e3, "ms");
    // The journal holds what is still in the store's memory; the rest is permanent.
    report("disk an event", disk_bytes(&folder) as f64 / log.len() as f64, "B");
    drop(log);
    std::fs::remove_dir_all(&folder).expect("remove");
}

fn event(i: u64) -> Digest {
    Digest::of_event(format!("event {i}").as_bytes())
}

fn append(log: &Log, first: u64, count: u64) {
    for start in (first..first + count).step_by(BULK as usize) {
        let digests = (start..(start + BULK).min(first + count)).map(event).collect();
        log.append(&[Request { digests, if_absent: false }]).expect("append");
    }
}

fn proofs(log: &Log) {
    let (len, rounds) = (log.len(), 20_000);
    let picks: Vec<_> = (0..rounds).map(|i| (i * 2_654_435_761_u64) % len).collect();
    let last = log.snapshot(len - 1).expect("snapshot");
    let ask = |digest: &Digest| log.prove(digest, None).expect("prove");
    let (present, absent): (Vec<_>, Vec<_>) = picks.iter().map(|&i| (event(i), event(i + 10 * len))).unzip();
    present.iter().for_each(|digest| drop(ask(digest)));
    per_call("prove membership", &present, |digest| drop(ask(digest)));
    per_call("prove absence", &absent, |digest| drop(ask(digest)));
    let members: Vec<_> = present.iter().map(|digest| (digest, ask(digest))).collect();
    let absents: Vec<_> = absent.iter().map(|digest| (digest, ask(digest))).collect();
    let (hyper, history) = (last.hyper_root(), [last.history_root()]);
    per_call("verify membership", &members, |(digest, answer)| {
        let Answer::Member(proof) = answer else { panic!("absent") };
        verify_membership(digest, proof, None, &hyper, &history).expect("verify");
    });
    per_call("verify absence", &absents, |(digest, answer)| {
        let Answer::Absent(proof) = answer else { panic!("member") };
        verify_absence(digest, proof, None, &hyper, &history).expect("verify");
    });
    let sizes = members.iter().map(|(_, answer)| match answer {
        Answer::Member(proof) => proof.to_bytes().len(),
        Answer::Absent(_) => panic!("absent"),
    });
    report("compact membership proof, largest", sizes.max().expect("proofs") as f64, "B");
    bulk_proofs(log, &present, &absent);
    per_call("prove incremental", &picks, |&start| drop(log.prove_incremental(start, len - 1).expect("prove")));
    let start = log.snapshot(len / 3).expect("snapshot");
    let proof = log.prove_incremental(len / 3, len - 1).expect("prove");
    per_call("verify incremental", &picks, |_| {
        verify_incremental(&proof, &start.history_root(), &history[0]).expect("verify");
    });
    per_call("snapshot of a past version", &picks, |&version| {
        assert_eq!(log.snapshot(version).expect("snapshot").version, version)
    });
    witnessed(log);
}

/// Prove and verify a thousand keys at once: any events, events that were added together, and absent ones.
fn bulk_proofs(log: &Log, present: &[Digest], absent: &[Digest]) {
    let last = log.snapshot(log.len() - 1).expect("snapshot");
    let (hyper, history) = (last.hyper_root(), last.history_root());
    let together: Vec<_> = (log.len() / 3..).take(MAX_BULK_KEYS).map(event).collect();
    for (what, digests) in [("any", present), ("together", &together), ("absent", absent)] {
        let bulks = digests.chunks(MAX_BULK_KEYS).take(20).map(|keys| BulkKeys::new(keys.to_vec()).expect("keys"));
        let bulks: Vec<_> = bulks.collect();
        let proofs: Vec<_> = bulks.iter().map(|keys| (keys, log.prove_bulk(keys).expect("prove"))).collect();
        per_call(&format!("prove 1,000 keys, {what}"), &bulks, |keys| drop(log.prove_bulk(keys).expect("prove")));
        per_call(&format!("verify 1,000 keys, {what}"), &proofs, |(keys, proof)| {
            drop(verify_bulk_proof(keys, proof, &hyper, Some(&history)).expect("verify"));
        });
        let largest = |size: &dyn Fn(&BulkProof) -> usize| {
            proofs.iter().map(|(_, proof)| size(proof)).max().expect("proofs") as f64 / MAX_BULK_KEYS as f64
        };
        report(&format!("compact proof of 1,000 keys, {what}"), largest(&|proof| proof.to_bytes().len()), "B a key");
        report(&format!("the same as JSON, {what}"), largest(&|proof| proof.to_json().len()), "B a key");
        let texts: Vec<_> = proofs.iter().map(|(_, proof)| proof.to_json()).collect();
        per_call(&format!("read the JSON, {what}"), &texts, |text| {
            drop(BulkProof::from_json(text.as_bytes()).expect("read"));
        });
    }
}

/// Verify a bundle whose checkpoint the log and two witnesses have signed, with Ed25519.
fn witnessed(log: &Log) {
    let key = |name: &str, kind, seed| {
        SigningKey::from_seed(Name::parse(name).expect("a name"), kind, &[seed; 32]).expect("a key")
    };
    let (signer, witnesses) =
        (key("log.example.com", KeyKind::Ed25519, 1), [2, 3].map(|seed| (seed, format!("w{seed}"))));
    let witnesses = witnesses.map(|(seed, name)| key(&name, KeyKind::Cosignature, seed));
    let checkpoint = Checkpoint::new(signer.verifier().name().clone(), log.tree_head().expect("head"));
    let lines = witnesses.iter().map(|witness| witness.sign(&checkpoint, 1).expect("line"));
    let lines = std::iter::once(signer.sign(&checkpoint, 0).expect("line")).chain(lines).collect();
    let note = Note::new(&checkpoint.to_string(), lines).expect("note");
    let [first, second] = witnesses.map(|witness| witness.verifier().to_string());
    let policy =
        format!("log {}\nwitness a {first}\nwitness b {second}\ngroup g all a b\nquorum g\n", signer.verifier());
    let trust = TrustFile::parse(policy.as_bytes()).expect("policy");

    let (digest, last) = (event(7), log.len() - 1);
    let answer = log.prove(&digest, None).expect("prove");
    let prover = EntryProver::new(log, log.len()).expect("prover");
    let runs = vec![prover.run(&(last..last + 1)).expect("run")];
    let saved = Saved::Membership { digest, version: None, answer };
    let bundle = SignedBundle::new(saved, runs, note).expect("bundle");
    let text = bundle.to_json();
    per_call("decode a witnessed bundle", &[(); 2_000], |()| {
        drop(SignedBundle::from_json(text.as_bytes()).expect("read"))
    });
    per_call("verify a witnessed bundle", &[(); 2_000], |()| {
        let shown = bundle.verify(&trust, 1).expect("verify");
        assert!(matches!(shown.level(), Level::Witnessed { .. }));
        let (snapshots, saved) = (shown.snapshots(), bundle.saved());
        let Saved::Membership { answer: Answer::Member(proof), .. } = saved else { panic!("another bundle") };
        let (hyper, history) = (snapshots[0].hyper_root(), [snapshots[0].history_root()]);
        verify_membership(&digest, proof, None, &hyper, &history).expect("verify");
    });
}

fn per_call<T>(what: &str, inputs: &[T], mut call: impl FnMut(&T)) {
    let took = timed(|| inputs.iter().for_each(&mut call));
    report(what, took.as_secs_f64() * 1e6 / inputs.len() as f64, "us");
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn compression_ns() -> f64 {
    let (mut node, position, rounds) = (event(0), [7; 34], 2_000_000);
    let took = timed(|| (0..rounds).for_each(|_| node = hyper_inner(&node, &node, &position)));
    assert_ne!(node, event(0));
    took.as_secs_f64() * 1e9 / f64::from(rounds) / 2.0
}

/// The hashes that the construction needs: a history leaf and one node per level, half of them partial; a hyper leaf, and at each of the
/// 24 levels that are always written out, the nodes above a bulk's leaves, which are shared near the root.
fn compressions_per_event(events: u64) -> f64 {
    let history = 1.0 + 1.5 * f64::from(u64::BITS - events.leading_zeros());
    let nodes = |depth: i32| 2_f64.powi(depth) * (1.0 - (1.0 - 2_f64.powi(-depth)).powf(BULK as f64));
    let hyper = 2.0 + 2.0 * (0..24).map(nodes).sum::<f64>() / BULK as f64;
    history + hyper
}

fn resident_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).expect("size").parse::<f64>().expect("number") / 1024.0
}

fn disk_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = std::fs::read_dir(folder).expect("folder").map(|entry| entry.expect("entry"));
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => disk_bytes(&entry.path()),
        Ok(found) => found.blocks() * 512,
        Err(_) => 0,
    };
    entries.map(size).sum()
}

fn report(what: &str, value: f64, unit: &str) {
    println!("{what:<40} {value:>14.2} {unit}");
}
