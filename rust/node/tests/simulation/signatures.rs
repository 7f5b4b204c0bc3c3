//! Everything that the log has signed, whoever signed it: it must be one history, whatever disks lose and operators put back.

use std::collections::BTreeMap;
use std::convert::Infallible;

use qed_core::hash::{Digest, merkle_inner};
use qed_core::log::Log;
use qed_core::tlog::checkpoint::Checkpoint;
use qed_core::tlog::entry::Entry;
use qed_core::tlog::key::KeyKind;
use qed_core::tlog::merkle::{Subtrees, TreeHead, consistency, inclusion, verify_consistency, verify_inclusion};
use qed_core::tlog::note::{Line, Note};
use qed_core::tlog::receipt::SignedReceipt;
use qed_core::tlog::signing::SigningKey;
use qed_core::tlog::text::Name;
use qed_core::tlog::trust_file::TrustFile;

use crate::invariants::{Violation, require};

const ORIGIN: &str = "log.example.com/simulated";
const SEED: [u8; 32] = [7; 32];

/// *No two checkpoints of one size have two roots.*
pub const ONE_ROOT: &str = "one root a size";
/// *Each signed tree extends those before it.*
pub const ONE_HISTORY: &str = "signed trees extend each other";
/// *Every receipt is on every later signed tree.*
pub const RECEIPTS: &str = "receipts are on every later tree";

/// The signatures of the log, and the receipts that rest on them. Nothing takes them back.
pub struct Signatures {
    key: SigningKey,
    trust: TrustFile,
    heads: BTreeMap<u64, TreeHead>,
    /// The leaves of the largest signed tree.
    leaves: Leaves,
    receipts: Vec<(u64, Entry)>,
    /// Number of signatures.
    pub count: u64,
}

impl Signatures {
    /// Return those of a log that has signed nothing.
    pub fn new() -> Self {
        let key = SigningKey::from_seed(Name::of_log(ORIGIN).unwrap(), KeyKind::Ed25519, &SEED).unwrap();
        let trust = TrustFile::parse(format!("log {}\nquorum none\n", key.verifier()).as_bytes()).unwrap();
        Self { key, trust, heads: BTreeMap::new(), leaves: Leaves::default(), receipts: Vec::new(), count: 0 }
    }

    /// Return the checkpoint with a tree head.
    pub fn checkpoint(&self, head: TreeHead) -> Checkpoint {
        Checkpoint::new(self.key.verifier().name().clone(), head)
    }

    /// Return the size of the largest signed tree.
    pub fn largest(&self) -> Option<u64> {
        self.heads.last_key_value().map(|(&size, _)| size)
    }

    /// Return the number of receipts that were handed out.
    pub const fn receipts(&self) -> u64 {
        self.receipts.len() as u64
    }

    /// Sign a checkpoint for a member whose log is `log`.
    pub fn sign(&mut self, id: u64, checkpoint: &Checkpoint, log: &Log) -> Result<Line, Violation> {
        let head = checkpoint.head;
        let known = *self.heads.entry(head.size()).or_insert(head);
        require(known == head, ONE_ROOT, || {
            format!("member {id} signs {} at {} entries, but {} was signed", head.root(), head.size(), known.root())
        })?;
        let entries =
            log.entries(self.leaves.len().min(head.size())..head.size()).map_err(|error| broken(id, &error))?;
        self.leaves.extend(entries.iter().map(Entry::leaf));
        // Of the trees between two signed ones, none is signed yet, so the neighbours show all.
        let before = self.heads.range(..head.size()).next_back().map(|(_, head)| *head);
        let after = self.heads.range(head.size() + 1..).next().map(|(_, head)| *head);
        for (old, new) in before.map(|before| (before, head)).into_iter().chain(after.map(|after| (head, after))) {
            self.require_extends(&old, &new).map_err(|found| Violation {
                invariant: ONE_HISTORY,
                found: format!("member {id} signs {} entries: {found}", head.size()),
            })?;
        }
        self.count += 1;
        Ok(self.key.sign(checkpoint, 0).unwrap())
    }

    fn require_extends(&self, old: &TreeHead, new: &TreeHead) -> Result<(), String> {
        let proof = consistency(&self.leaves, old.size(), new.size()).unwrap();
        verify_consistency(old, new, &proof).map_err(|error| error.to_string())
    }

    /// Return the checkpoint in a note, if the log has signed it.
    pub fn endorsed(&self, note: &Note, now: u64) -> Option<Checkpoint> {
        self.trust.endorse(note, now).ok().map(|endorsed| endorsed.checkpoint().clone())
    }

    /// Record a receipt that a client got from a member.
    pub fn hand_out(&mut self, id: u64, receipt: &SignedReceipt, now: u64) -> Result<(), Violation> {
        let shown = receipt.verify(None, &self.trust, now).map_err(|error| Violation {
            invariant: "receipts verify",
            found: format!("member {id} gave {receipt:?}: {error}"),
        })?;
        let size = shown.endorsed().checkpoint().head.size();
        self.receipts.extend(shown.entries().iter().map(|entry| (size, *entry)));
        Ok(())
    }

    /// Check every receipt against every later signed tree.
    pub fn require_receipts(&self) -> Result<(), Violation> {
        for (size, entry) in &self.receipts {
            for head in self.heads.range(size..).map(|(_, head)| head) {
                let path = inclusion(&self.leaves, entry.version, head.size()).unwrap();
                verify_inclusion(&entry.leaf(), entry.version, &path, head).map_err(|error| Violation {
                    invariant: RECEIPTS,
                    found: format!(
                        "version {} of {size} entries, in the tree of {}: {error}",
                        entry.version,
                        head.size()
                    ),
                })?;
            }
        }
        Ok(())
    }
}

/// The complete subtrees over some leaves: `levels[l][i]` is over the `2^l` leaves from `i * 2^l` on.
#[derive(Default)]
struct Leaves {
    levels: Vec<Vec<Digest>>,
}

impl Leaves {
    fn len(&self) -> u64 {
        self.levels.first().map_or(0, |leaves| leaves.len() as u64)
    }

    fn extend(&mut self, leaves: impl Iterator<Item = Digest>) {
        for leaf in leaves {
            let mut node = leaf;
            for level in 0.. {
                if self.levels.len() == level {
                    self.levels.push(Vec::new());
                }
                self.levels[level].push(node);
                let [.., left, right] = self.levels[level].as_slice() else { break };
                if self.levels[level].len() % 2 == 1 {
                    break;
                }
                node = merkle_inner(left, right);
            }
        }
    }
}

impl Subtrees for Leaves {
    type Error = Infallible;

    fn subtree(&self, level: u32, index: u64) -> Result<Digest, Infallible> {
        Ok(self.levels[level as usize][usize::try_from(index).unwrap()])
    }
}

fn broken(id: u64, error: &dyn std::error::Error) -> Violation {
    Violation { invariant: "states keep working", found: format!("member {id}: {error}") }
}
