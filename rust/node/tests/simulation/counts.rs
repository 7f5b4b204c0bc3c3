//! How often things happened in runs: what never happens breaks no invariant.

use std::fmt;
use std::ops::AddAssign;

/// What happened in the runs. If these counts are low, the runs prove nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Append requests that were answered.
    pub appends: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Pages that were installed.
    pub pages: u64,
    /// Changes of the membership: the number of different memberships in all states.
    pub changes: u64,
    /// Crashed processes.
    pub crashes: u64,
    /// Leaders that crashed after they had sent entries, and before these were synced.
    pub cuts_after_sending: u64,
    /// Disks that were lost.
    pub losses: u64,
    /// Network partitions.
    pub partitions: u64,
    /// Old copies of disks that were put back.
    pub rollbacks: u64,
    /// Signatures of checkpoints.
    pub signatures: u64,
    /// Receipts that were handed out, one an event.
    pub receipts: u64,
    /// Machines that crashed while they signed, by the step that was the last.
    pub crashes_signing: [u64; SIGN_STEPS.len()],
    /// Flipped bits that kept a member from signing.
    pub flips: u64,
    /// How often all disks were lost, and copies put back.
    pub restores: u64,
    /// Leaders that found that their log does not continue what was signed.
    pub halts: u64,
}

/// The steps of signing after which a machine may crash.
#[derive(Debug, Clone, Copy)]
pub enum SignStep {
    /// Entries are committed, and not applied here.
    Committed,
    /// Entries are applied, and not signed.
    Applied,
    /// A row of the sign memory is written, and not synced.
    Written,
    /// The row is synced.
    Synced,
    /// The checkpoint is signed.
    Signed,
    /// Receipts or the published checkpoint are handed out.
    Answered,
}

const SIGN_STEPS: [&str; 6] = [
    "crashes after commit",
    "crashes before signing",
    "crashes with a torn memory",
    "crashes with a synced memory",
    "crashes with a signature",
    "crashes after receipts",
];

impl Counts {
    /// Return each count with its name.
    pub fn named(self) -> Vec<(&'static str, u64)> {
        let Self { appends, reads, pages, changes, crashes, losses, partitions, rollbacks, .. } = self;
        let Self { cuts_after_sending, signatures, receipts, crashes_signing, flips, restores, halts, .. } = self;
        let mut named = vec![
            ("appends", appends),
            ("reads", reads),
            ("pages", pages),
            ("memberships", changes),
            ("crashes", crashes),
            ("crashes between sending and sync", cuts_after_sending),
            ("lost disks", losses),
            ("partitions", partitions),
            ("rollbacks", rollbacks),
            ("signatures", signatures),
            ("receipts", receipts),
            ("flipped bits", flips),
            ("restores", restores),
            ("halted leaders", halts),
        ];
        named.extend(SIGN_STEPS.into_iter().zip(crashes_signing));
        named
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.appends += other.appends;
        self.reads += other.reads;
        self.pages += other.pages;
        self.changes += other.changes;
        self.crashes += other.crashes;
        self.cuts_after_sending += other.cuts_after_sending;
        self.losses += other.losses;
        self.partitions += other.partitions;
        self.rollbacks += other.rollbacks;
        self.signatures += other.signatures;
        self.receipts += other.receipts;
        self.crashes_signing.iter_mut().zip(other.crashes_signing).for_each(|(sum, count)| *sum += count);
        self.flips += other.flips;
        self.restores += other.restores;
        self.halts += other.halts;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named: Vec<_> = self.named().into_iter().map(|(name, count)| format!("{count} {name}")).collect();
        f.write_str(&named.join(", "))
    }
}
