//! A machine's disk. The Raft log and the rows of the log are on one platter, which loses what was not synced in a power cut.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use qed_core::acts::ActBody;
use qed_core::error::LogError;
use qed_core::log::Log;
use qed_core::log_id::LogId;
use qed_core::store::{MemoryStore, Row, Store, Table, Visit, WriteBatch};
use qed_node::consensus::Committed;
use qed_node::entry::Command;
use qed_node::membership::Membership;
use qed_node::segments::SegmentStore;
use qed_node::state::State;

use crate::random::Random;

/// Small, so that segments are created and deleted all the time.
const SEGMENT_BYTES: usize = 4096;
/// The largest unit that a disk writes atomically: of a larger write, a power cut may leave any part.
const SECTOR_BYTES: usize = 64;
const NO_POWER: &str = "the power is out";

/// A disk. The software on the machine and the code that cuts the power share it.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<Platter>>);

/// What is on a disk.
#[derive(Clone, Default)]
pub struct Platter {
    segments: BTreeMap<u64, Segment>,
    /// Deleted segments that a power cut may bring back.
    deleted: Vec<(u64, Segment)>,
    batches: Vec<WriteBatch>,
    /// How many of the batches are synced, and so survive a power cut.
    synced: usize,
    noted: u64,
    /// Number of writes and syncs until the power fails; `None` if it does not fail.
    fuse: Option<u64>,
    is_lying: bool,
    /// The note of the newest published checkpoint, in a file that is replaced durably.
    kept: Option<Vec<u8>>,
}

#[derive(Clone)]
struct Segment {
    durable: Vec<u8>,
    /// Writes that are not synced yet: position and bytes.
    pending: Vec<(usize, Vec<u8>)>,
}

impl Segment {
    fn settle(&mut self) {
        for (position, bytes) in std::mem::take(&mut self.pending) {
            self.durable[position..position + bytes.len()].copy_from_slice(&bytes);
        }
    }

    /// Decide for each unsynced sector whether it reached the disk.
    fn tear(&mut self, random: &mut Random) {
        let is_prefix = random.is_hit(500);
        let mut is_over = false;
        for (position, bytes) in std::mem::take(&mut self.pending) {
            for (at, sector) in (position..).step_by(SECTOR_BYTES).zip(bytes.chunks(SECTOR_BYTES)) {
                is_over = (is_prefix && is_over) || random.is_hit(400);
                if !is_over {
                    self.durable[at..at + sector.len()].copy_from_slice(sector);
                }
            }
        }
    }
}

impl Platter {
    fn cut_power(&mut self, random: &mut Random) {
        self.fuse = None;
        self.segments.values_mut().for_each(|segment| segment.tear(random));
        // Deletions reach the disk in order.
        let revived = random.below(self.deleted.len() as u64 + 1);
        let deleted = std::mem::take(&mut self.deleted);
        self.segments.extend(deleted.into_iter().rev().take(usize::try_from(revived).unwrap()));
        let unsynced = self.batches.len() - self.synced;
        let kept = if random.is_hit(500) { 0 } else { random.below(unsynced as u64 + 1) };
        self.batches.truncate(self.synced + usize::try_from(kept).unwrap());
        self.synced = self.batches.len();
    }

    fn burn(&mut self) -> Result<(), String> {
        if let Some(left) = self.fuse {
            self.fuse = Some(left.saturating_sub(1));
            if left <= 1 {
                return Err(NO_POWER.into());
            }
        }
        Ok(())
    }
}

impl Disk {
    /// Make the power fail at the `operations`th write or sync from now on.
    pub fn light_fuse(&self, operations: u64) {
        self.0.lock().fuse = Some(operations);
    }

    /// Return whether the power has failed because the fuse has burnt down.
    pub fn is_dead(&self) -> bool {
        self.0.lock().fuse == Some(0)
    }

    /// From now on confirm every sync without doing it.
    pub fn lie(&self) {
        self.0.lock().is_lying = true;
    }

    /// Delete from the rows the log ids after `log_id`, so that it is no longer known which entries produced them.
    pub fn forget_log_ids_after(&self, log_id: LogId) {
        let platter = &mut *self.0.lock();
        for batch in &mut platter.batches {
            let mut rows = WriteBatch::default();
            for (table, (key, value)) in std::mem::take(batch) {
                let value = match table {
                    Table::Roots => {
                        // The hyper root, followed by the log id of its batch.
                        let (root, found) = value.split_at(32);
                        let is_known = !found.is_empty() && LogId::from_slice(found).unwrap() <= log_id;
                        if is_known { value } else { root.to_vec() }
                    }
                    // Acts, and where their chain ends, begin with a log id.
                    Table::Acts if LogId::from_slice(&value[..LogId::BYTES]).unwrap() > log_id => continue,
                    Table::Applied if key == b"acts" && LogId::from_slice(&value[..LogId::BYTES]).unwrap() > log_id => {
                        continue;
                    }
                    _ => value,
                };
                rows.put(table, key, value);
            }
            *batch = rows;
        }
        let mut batch = WriteBatch::default();
        batch.put(Table::Applied, b"applied", log_id.to_bytes());
        platter.batches.push(batch);
        platter.synced = platter.batches.len();
    }

    /// Cut the power: synced content is kept, and some of the rest may have reached the disk.
    pub fn cut_power(&self, random: &mut Random) {
        self.0.lock().cut_power(random);
    }

    /// Return a copy of what a power cut would leave.
    pub fn copy(&self, random: &mut Random) -> Platter {
        let mut copy = self.0.lock().clone();
        copy.cut_power(random);
        copy
    }

    /// Replace the content by that of a copy.
    pub fn put_back(&self, copy: &Platter) {
        self.0.lock().clone_from(copy);
    }

    /// Keep the note of a published checkpoint.
    pub fn keep(&self, note: Vec<u8>) {
        self.0.lock().kept = Some(note);
    }

    /// Return the note that is kept.
    pub fn kept(&self) -> Option<Vec<u8>> {
        self.0.lock().kept.clone()
    }

    /// Return a disk of its own with all that was written to this one.
    pub fn twin(&self) -> Self {
        Self(Arc::new(Mutex::new(self.0.lock().clone())))
    }

    /// Replace the content by that of another disk.
    pub fn replace(&self, other: &Self) {
        let content = other.0.lock().clone();
        *self.0.lock() = content;
    }

    /// End the process: everything that was written can still be read, but unsynced content may be lost later.
    pub fn end_process(&self) {
        self.0.lock().fuse = None;
    }

    /// Return the rows as a start finds them.
    pub fn rows(&self) -> Rows {
        let rows = MemoryStore::new();
        for batch in &self.0.lock().batches {
            rows.write(batch.clone()).unwrap();
        }
        Rows { disk: self.clone(), rows }
    }
}

impl SegmentStore for Disk {
    fn segment_bytes(&self) -> usize {
        SEGMENT_BYTES
    }

    fn list(&mut self) -> Result<Vec<u64>, String> {
        Ok(self.0.lock().segments.keys().copied().collect())
    }

    fn read(&mut self, segment: u64) -> Result<Vec<u8>, String> {
        let mut found = self.0.lock().segments[&segment].clone();
        found.settle();
        Ok(found.durable)
    }

    fn create(&mut self, segment: u64, size_bytes: usize) -> Result<(), String> {
        let mut platter = self.0.lock();
        platter.burn()?;
        platter.segments.insert(segment, Segment { durable: vec![0; size_bytes], pending: Vec::new() });
        platter.deleted.clear();
        Ok(())
    }

    fn write(&mut self, segment: u64, position: usize, bytes: &[u8]) -> Result<(), String> {
        let mut platter = self.0.lock();
        let segment = platter.segments.get_mut(&segment).unwrap();
        assert!(position + bytes.len() <= segment.durable.len(), "a write must not go beyond the end of its segment");
        segment.pending.push((position, bytes.to_vec()));
        platter.burn()
    }

    fn sync(&mut self, segment: u64) -> Result<(), String> {
        let mut platter = self.0.lock();
        platter.burn()?;
        if !platter.is_lying {
            platter.segments.get_mut(&segment).unwrap().settle();
        }
        Ok(())
    }

    fn delete(&mut self, segment: u64) -> Result<(), String> {
        let mut platter = self.0.lock();
        platter.burn()?;
        let deleted = platter.segments.remove(&segment).unwrap();
        platter.deleted.push((segment, deleted));
        Ok(())
    }

    fn note(&mut self, _frames: u64) -> Result<(), String> {
        Ok(())
    }

    /// The only fault here is a power cut, after which a note need not be there.
    fn noted(&mut self) -> u64 {
        0
    }
}

#[test]
fn a_power_cut_takes_no_act_back_that_was_applied() {
    let act = |text: &str| ActBody::new(text.into()).unwrap();
    for seed in 0..20 {
        let disk = Disk::default();
        let mut state = State::open(Arc::new(Log::over(Box::new(disk.rows())).unwrap())).unwrap();
        state.bootstrap(Membership::default()).unwrap();
        let commands = [Command::Act(act("key made")), Command::Members(Vec::new(), Some(act("admitted b")))];
        for (index, command) in (2..).zip(commands) {
            let log_id = LogId { index, term: 1 };
            state.apply(&Committed { log_id, data: command.to_bytes(), conf_state: None }, false).unwrap();
            disk.cut_power(&mut Random::new(seed));
            let found = Log::over(Box::new(disk.rows())).unwrap();
            assert_eq!((found.applied(), found.acts_end()), (log_id, state.log().acts_end()), "seed {seed}");
        }
    }
}

/// The rows of a log. After a power cut, a prefix of the batches is left.
pub struct Rows {
    disk: Disk,
    rows: MemoryStore,
}

fn failed(cause: String) -> LogError {
    LogError::Store { action: "write".into(), cause }
}

impl Store for Rows {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, LogError> {
        self.rows.get(table, key)
    }

    fn first_in(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, LogError> {
        self.rows.first_in(table, from, to)
    }

    fn last_in(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, LogError> {
        self.rows.last_in(table, from, to)
    }

    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), LogError> {
        self.rows.scan(table, from, visit)
    }

    fn write(&self, batch: WriteBatch) -> Result<(), LogError> {
        let mut platter = self.disk.0.lock();
        platter.batches.push(batch.clone());
        platter.burn().map_err(failed)?;
        self.rows.write(batch)
    }

    fn sync(&self) -> Result<(), LogError> {
        let mut platter = self.disk.0.lock();
        platter.burn().map_err(failed)?;
        if !platter.is_lying {
            platter.synced = platter.batches.len();
        }
        Ok(())
    }

    fn note_durable(&self, len: u64) -> Result<(), LogError> {
        let mut platter = self.disk.0.lock();
        if !platter.is_lying {
            platter.noted = len;
        }
        Ok(())
    }

    fn noted_durable(&self) -> u64 {
        self.disk.0.lock().noted
    }
}
