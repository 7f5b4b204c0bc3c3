//! `Log`: both trees on top of one store. It appends atomic commit batches, answers with proofs, and checks itself.
//!
//! The store holds the log itself, a map from version to event digest, and the hyper root after each commit batch. Both trees are
//! rebuilt whenever the log is opened, and their hyper root must equal the stored one. [`Log::open`] builds them from all events, so that is an
//! audit; [`Log::open_from_image`] takes most from a file, and [`Log::audit`] reads the events later.

use std::ops::ControlFlow;
use std::path::Path;

use parking_lot::{Mutex, RwLock};

use crate::acts::{self, ChainEnd};
use crate::applied;
pub use crate::batch::{Added, Request};
use crate::batch::{Draft, Placed, put_digests, require_events};
use crate::disk::DiskStore;
use crate::entry_rows::put_tiles;
use crate::entry_tail::EntryTail;
use crate::error::LogError;
use crate::hash::Digest;
use crate::hyper::PathEnd;
use crate::integers::usize_from;
use crate::leaf_cache::LeafCache;
use crate::log_id::LogId;
use crate::proof::{AbsenceProof, Answer, IncrementalProof, LaterOccurrence, MembershipProof, Neighbour, Snapshot};
use crate::replay;
use crate::rows::{self, Rows};
use crate::start::Start;
use crate::store::{MemoryStore, Store, Table, WriteBatch};
use crate::tree_image::ImageState;
use crate::trees::{NewEvents, RootsOf, Trees, TreesChange};

/// A tamper-evident log. Any number of threads may request proofs while one thread appends.
pub struct Log {
    pub(crate) store: Box<dyn Store>,
    /// Changed only by the holder of `writer`, and only for events that are durable: synced by the store, or committed by a majority.
    pub(crate) trees: RwLock<Trees>,
    pub(crate) writer: Mutex<Writer>,
    /// Length and applied entry after the last batch. Readable without `writer`, so reading it never waits for a batch that is being
    /// hashed.
    progress: Mutex<Progress>,
    pub(crate) leaf_cache: LeafCache,
    pub(crate) tail: Mutex<EntryTail>,
    pub(crate) image: ImageState,
}

/// Progress of a log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    /// The number of events.
    pub(crate) len: u64,
    /// The last entry of the replicated log whose outcome is in the store.
    pub(crate) applied: LogId,
    /// Where the chain of acts ends.
    pub(crate) acts: ChainEnd,
}

/// State that only appending needs.
#[derive(Default)]
pub(crate) struct Writer {
    /// The digests of the last tile, if it is not full.
    pub(crate) tail: Vec<Digest>,
    /// The last entry of the replicated log whose outcome is in the store; the default if the log is not replicated.
    pub(crate) applied: LogId,
    /// Where the chain of acts ends.
    pub(crate) acts: ChainEnd,
    /// Why writes are refused and what to do about it; `None` if they are not refused.
    pub(crate) refusal: Option<String>,
}

/// A planned batch, ready to become part of the log.
pub(crate) struct Landing<'a> {
    /// The version of its first event.
    pub(crate) base: u64,
    pub(crate) digests: &'a [Digest],
    /// The changes to the log's trees, planned on their current state.
    pub(crate) change: TreesChange,
    /// The rows of the batch, except those of its digests.
    pub(crate) rows: WriteBatch,
    /// In a replicated log, the entry that produced the batch. The replicated log keeps that entry until this log is synced.
    pub(crate) log_id: Option<LogId>,
    /// Where the chain of acts ends from here on, if the rows hold acts.
    pub(crate) acts: Option<ChainEnd>,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Log {
    /// Open the log in the data folder at `path`, created if it does not exist.
    ///
    /// # Errors
    ///
    /// The errors of [`DiskStore::open`] and [`Self::over`].
    pub fn open(path: &Path) -> Result<Self, LogError> {
        Self::over(Box::new(DiskStore::open(path)?))
    }

    /// Like [`Self::open`], but take the trees from the tree image if there is one. The caller must have [`Self::audit`] read the events that this
    /// does not read.
    ///
    /// # Errors
    ///
    /// Those of [`Self::open`].
    pub fn open_from_image(path: &Path) -> Result<Self, LogError> {
        let store = DiskStore::open(path)?;
        let start = Start::of_image(&store)?;
        Self::of(Box::new(store), start)
    }

    /// Return an empty log in memory, which is lost when the process ends.
    ///
    /// # Errors
    ///
    /// The errors of [`Self::over`].
    pub fn in_memory() -> Result<Self, LogError> {
        Self::over(Box::new(MemoryStore::new()))
    }

    /// Open the log in `store`, building both trees.
    ///
    /// # Errors
    ///
    /// [`LogError::Corrupt`] if rows are missing or malformed, if the log is shorter than it once was, if its events do not lead to the
    /// hyper root that was acknowledged last, or if the newest act is not the one that was noted.
    pub fn over(store: Box<dyn Store>) -> Result<Self, LogError> {
        let start = Start::of_rows(store.as_ref())?;
        Self::of(store, start)
    }

    fn of(store: Box<dyn Store>, start: Start) -> Result<Self, LogError> {
        let Start { trees, tail, tiles, image } = start;
        if !tiles.is_empty() {
            // Not synced: what a crash loses is computed again.
            store.write(tiles)?;
        }
        let (found, noted) = (trees.len(), store.noted_durable());
        if found < noted {
            return Err(LogError::Corrupt(format!("it holds {found} events, but {noted} were acknowledged")));
        }
        let applied = applied::last_applied(store.as_ref())?;
        let acts = acts::end(store.as_ref())?;
        if acts.log_id.index > applied.index {
            let reason = format!("the last act is of entry {}, but entry {applied} was applied last", acts.log_id);
            return Err(LogError::Corrupt(reason));
        }
        let writer = Mutex::new(Writer { tail, applied, acts, refusal: None });
        let progress = Mutex::new(Progress { len: found, applied, acts });
        Ok(Self {
            store,
            trees: RwLock::new(trees),
            writer,
            progress,
            leaf_cache: LeafCache::default(),
            tail: Mutex::default(),
            image: ImageState::new(image),
        })
    }

    /// Return the progress of the log, without waiting for a batch in progress.
    pub(crate) fn progress(&self) -> Progress {
        *self.progress.lock()
    }

    /// Make the progress of `writer` visible.
    pub(crate) fn publish(&self, writer: &Writer) {
        *self.progress.lock() = Progress { len: self.len(), applied: writer.applied, acts: writer.acts };
    }

    /// Return the number of events: the versions are `0..len`.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.trees.read().len()
    }

    /// Return whether there is no event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Append the events of `requests` as one commit batch and return the outcome of each.
    ///
    /// When this returns, everything is durable. A crash before that leaves either the whole batch or nothing of it. The snapshots of
    /// the added events share one hyper root. If a digest occurs several times in one request, the hyper tree shows the first of
    /// them; if it occurs in several requests, the tree shows the one in the last of those requests.
    ///
    /// # Errors
    ///
    /// [`LogError::EmptyRequest`] if a request contains no event; nothing is changed. [`LogError::Store`] if the batch could not be
    /// written or synced: it is then unknown whether it is on disk, and every later call fails with [`LogError::WriteRefused`]. On a
    /// replica, every call fails with [`LogError::WriteRefused`]: only [`Self::apply`] may change it.
    pub fn append(&self, requests: &[Request]) -> Result<Vec<Added>, LogError> {
        require_events(requests)?;
        let mut writer = self.writer.lock();
        if writer.applied != LogId::default() {
            let reason = "it is a replica in a cluster; add the events through the leader of the cluster".into();
            return Err(LogError::WriteRefused { reason });
        }
        self.commit(&mut writer, requests, RootsOf::Events, None)
    }

    /// Append the events of `requests` as the outcome of the entry at `log_id` of a replicated log.
    ///
    /// Like [`Self::append`], but nothing is synced: the replicated log keeps the entry until [`Self::sync`] has returned, and
    /// applies it again if a crash lost it here. Equal logs that apply equal entries stay equal.
    ///
    /// # Errors
    ///
    /// The errors of [`Self::append`]; [`LogError::OutOfOrder`] if `log_id` is not after [`Self::applied`].
    pub fn apply(&self, log_id: LogId, requests: &[Request]) -> Result<Vec<Added>, LogError> {
        self.apply_with(log_id, requests, RootsOf::Events)
    }

    /// Like [`Self::apply`], for a caller that does not need snapshots. This saves most of the hashing.
    ///
    /// # Errors
    ///
    /// Same as [`Self::apply`].
    pub fn apply_silently(&self, log_id: LogId, requests: &[Request]) -> Result<(), LogError> {
        self.apply_with(log_id, requests, RootsOf::Batches).map(drop)
    }

    fn apply_with(&self, log_id: LogId, requests: &[Request], wanted: RootsOf) -> Result<Vec<Added>, LogError> {
        require_events(requests)?;
        let mut writer = self.writer.lock();
        writer.require_after(log_id)?;
        self.commit(&mut writer, requests, wanted, Some(log_id))
    }

    fn commit(
        &self,
        writer: &mut Writer,
        requests: &[Request],
        wanted: RootsOf,
        log_id: Option<LogId>,
    ) -> Result<Vec<Added>, LogError> {
        writer.require_usable()?;
        let draft = self.draft(requests)?;
        if draft.digests.is_empty() {
            let added = self.answers(&draft, wanted, None)?;
            if let Some(log_id) = log_id {
                self.write_applied(writer, log_id, WriteBatch::default())?;
                self.publish(writer);
            }
            return Ok(added);
        }
        let (base, digests) = (draft.base, draft.digests.as_slice());
        let digest_at = |version| self.digest_at(version, base, digests);
        // This only reads the trees, so proofs can be served meanwhile; no other thread changes them while `writer` is held.
        let (shown, repeats) = (draft.entries(), draft.repeats());
        let new = NewEvents { digests, shown: &shown, repeats: &repeats, earlier_ends: &[] };
        let change = self.trees.read().plan(new, wanted, &digest_at)?;
        let added = self.answers(&draft, wanted, Some(&change))?;
        let rows = draft.rows(&change, log_id);
        self.land(writer, Landing { base, digests, change, rows, log_id, acts: None })?;
        Ok(added)
    }

    /// Make a batch part of the log. The order of the steps matters in a crash:
    ///
    /// 1. Its rows are written, all of them or none. A crash before this leaves nothing of the batch. After a crash from here on, the
    ///    batch is either there as a whole or lost as a whole; a replicated log then applies it again.
    /// 2. A batch that is not replicated is synced, so nothing becomes visible that a crash could undo.
    /// 3. The trees change, which makes the whole batch visible to proofs at once.
    /// 4. The watermark is raised to the number of synced events. It may be lower than that number, but never higher.
    ///
    /// If a step fails or panics, rows and trees may differ, so nothing may be written until the log is opened again.
    pub(crate) fn land(&self, writer: &mut Writer, landing: Landing<'_>) -> Result<(), LogError> {
        let Landing { base, digests, change, mut rows, log_id, acts } = landing;
        let tail = put_digests(&mut rows, base, &writer.tail, digests);
        put_tiles(&mut rows, change.full_tiles());
        let is_synced_here = log_id.is_none();
        let steps = || {
            self.store.write(rows)?;
            if is_synced_here {
                self.store.sync()?;
            }
            self.trees.write().apply(change);
            if is_synced_here {
                self.store.note_durable(base + digests.len() as u64)?;
            }
            Ok(())
        };
        // If a step panics, this stays in place.
        writer.refusal = Some("an earlier batch was interrupted; open the log again".into());
        let landed = steps();
        writer.refusal = None;
        writer.or_refuse(landed)?;
        (writer.tail, writer.applied) = (tail, log_id.unwrap_or(writer.applied));
        writer.acts = acts.unwrap_or(writer.acts);
        self.publish(writer);
        Ok(())
    }

    /// Answer whether the log contains the event `digest`, as of `version`; as of the last version if `version` is `None` or beyond
    /// the log.
    ///
    /// # Errors
    ///
    /// [`LogError::Empty`] if the log has no events; [`LogError::AddedLater`] if the event was first added after `version`, in which
    /// case neither its presence nor its absence can be proven; [`LogError::Corrupt`] and [`LogError::Store`] if rows cannot be read.
    pub fn prove(&self, digest: &Digest, version: Option<u64>) -> Result<Answer, LogError> {
        let rows = Rows::of(self.store.as_ref());
        let (current, path, end) = {
            let trees = self.trees.read();
            let current = trees.len().checked_sub(1).ok_or(LogError::Empty)?;
            let (path, end) = trees.hyper().path(digest);
            (current, path, end)
        };
        let query = version.map_or(current, |version| version.min(current));
        match end {
            PathEnd::Leaf { version } if rows.digest(version)? == *digest => {
                self.member(digest, [current, query, version], path, &rows).map(Answer::Member)
            }
            other => self.absent(digest, [current, query], path, other, &rows).map(Answer::Absent),
        }
    }

    fn member(
        &self,
        digest: &Digest,
        [current, query, latest]: [u64; 3],
        hyper_path: Vec<Digest>,
        rows: &Rows<'_>,
    ) -> Result<MembershipProof, LogError> {
        let actual = if latest <= query { latest } else { self.earlier_occurrence(digest, query, latest)? };
        let group = |version| rows.group(version);
        let trees = self.trees.read();
        let history_path = trees.history().membership_path(actual, query, &group)?;
        let later = if latest == actual {
            None
        } else {
            let history_path = trees.history().membership_path(latest, current, &group)?;
            Some(LaterOccurrence { version: latest, history_path })
        };
        Ok(MembershipProof {
            key_digest: *digest,
            current_version: current,
            query_version: query,
            actual_version: actual,
            hyper_path,
            history_path,
            later,
        })
    }

    fn absent(
        &self,
        digest: &Digest,
        [current, query]: [u64; 2],
        hyper_path: Vec<Digest>,
        end: PathEnd,
        rows: &Rows<'_>,
    ) -> Result<AbsenceProof, LogError> {
        let neighbour = match end {
            PathEnd::Empty => None,
            PathEnd::Leaf { version } => {
                let group = |version| rows.group(version);
                let history_path = self.trees.read().history().membership_path(version, current, &group)?;
                Some(Neighbour { key_digest: rows.digest(version)?, version, history_path })
            }
        };
        Ok(AbsenceProof { key_digest: *digest, current_version: current, query_version: query, hyper_path, neighbour })
    }

    /// Prove that the log at `end` extends the log at `start`.
    ///
    /// # Errors
    ///
    /// [`LogError::Empty`], [`LogError::InvalidRange`], [`LogError::UnknownVersion`] if the log does not contain the range;
    /// [`LogError::Corrupt`] and [`LogError::Store`] if rows cannot be read.
    pub fn prove_incremental(&self, start: u64, end: u64) -> Result<IncrementalProof, LogError> {
        if start > end {
            return Err(LogError::InvalidRange { start, end });
        }
        let rows = Rows::of(self.store.as_ref());
        let trees = self.trees.read();
        require_known(end, trees.len())?;
        let audit_path = trees.history().incremental_path(start, end, &|version| rows.group(version))?;
        Ok(IncrementalProof { start, end, audit_path })
    }

    /// Return the snapshot of `version` exactly as it was acknowledged.
    ///
    /// # Errors
    ///
    /// [`LogError::UnknownVersion`] or [`LogError::Empty`] if there is no such version; [`LogError::Corrupt`] and [`LogError::Store`]
    /// if rows cannot be read.
    pub fn snapshot(&self, version: u64) -> Result<Snapshot, LogError> {
        let rows = Rows::of(self.store.as_ref());
        let trees = self.trees.read();
        require_known(version, trees.len())?;
        let history_digest = trees.history().root(version, &|version| rows.group(version))?;
        drop(trees);
        let hyper_digest = rows.hyper_root(version)?;
        Ok(Snapshot { event_digest: rows.digest(version)?, history_digest, hyper_digest, version })
    }

    /// Rebuild both trees from the log, one commit batch at a time, and compare every acknowledged hyper root, the history root, and
    /// every row of occurrences and repeats; then follow the chain of acts. Log ids and memberships are not compared: no other row
    /// determines them. `progress` is called with the number of events checked so far. It may stop the check with a value, which is
    /// then returned.
    ///
    /// # Errors
    ///
    /// [`LogError::Corrupt`] names the first row that differs; [`LogError::Store`] if one cannot be read.
    pub fn check<B>(&self, progress: &mut dyn FnMut(u64) -> ControlFlow<B>) -> Result<ControlFlow<B>, LogError> {
        acts::check(self.store.as_ref(), self.progress().acts)?;
        let (len, history_root) = {
            let trees = self.trees.read();
            let rows = Rows::of(self.store.as_ref());
            let Some(last) = trees.len().checked_sub(1) else { return Ok(ControlFlow::Continue(())) };
            (trees.len(), trees.history().root(last, &|version| rows.group(version))?)
        };
        match replay::check(self.store.as_ref(), len, progress)? {
            ControlFlow::Break(value) => Ok(ControlFlow::Break(value)),
            ControlFlow::Continue(replayed) => {
                rows::require_same("the history root", &history_root, &replayed).map(ControlFlow::Continue)
            }
        }
    }

    /// Write `batch` together with the fact that everything up to `log_id` is applied.
    pub(crate) fn write_applied(
        &self,
        writer: &mut Writer,
        log_id: LogId,
        mut batch: WriteBatch,
    ) -> Result<(), LogError> {
        writer.require_usable()?;
        applied::put_applied(&mut batch, log_id);
        writer.or_refuse(self.store.write(batch))?;
        writer.applied = log_id;
        Ok(())
    }

    /// Choose the version of every event to be added, or find the existing version that answers for it.
    fn draft(&self, requests: &[Request]) -> Result<Draft, LogError> {
        let mut draft = Draft::new(self.len(), requests);
        for (number, request) in requests.iter().enumerate() {
            let first = draft.end();
            let mut versions = Vec::with_capacity(request.digests.len());
            for digest in &request.digests {
                let known = if request.if_absent { self.first_of(digest, &draft)? } else { None };
                versions.push(known.unwrap_or_else(|| draft.assign(digest, number)));
            }
            draft.placed.push(Placed { versions, added: first..draft.end() });
        }
        Ok(draft)
    }

    /// Return the first version of an event that is in the log or in the batch being drafted.
    fn first_of(&self, digest: &Digest, draft: &Draft) -> Result<Option<u64>, LogError> {
        let found = self.trees.read().hyper().find(digest, &|version| self.stored_digest(version))?;
        if let Some(latest) = found {
            return self.first_occurrence(digest, latest).map(Some);
        }
        Ok(draft.shown.get(digest).map(|shown| shown.first))
    }

    /// Return the outcome of each request, unless the caller does not want them; `change` is the planned change, or `None` if nothing
    /// is added. Snapshots of earlier batches are read from the store, so this is done before anything is written: an unreadable row
    /// must not fail a batch that is already durable.
    fn answers(&self, draft: &Draft, wanted: RootsOf, change: Option<&TreesChange>) -> Result<Vec<Added>, LogError> {
        if wanted == RootsOf::Batches {
            return Ok(Vec::new());
        }
        let new = change.map_or_else(Vec::new, |change| draft.snapshots(change));
        let in_batch = |version: u64| new.get(usize_from(version.checked_sub(draft.base)?)).copied();
        let find = |&version: &u64| in_batch(version).map_or_else(|| self.snapshot(version), Ok);
        let added = |placed: &Placed| {
            let snapshots = placed.versions.iter().map(find).collect::<Result<_, _>>()?;
            Ok(Added { snapshots, added: placed.added.clone() })
        };
        draft.placed.iter().map(added).collect()
    }

    pub(crate) fn digest_at(&self, version: u64, base: u64, new: &[Digest]) -> Result<Digest, LogError> {
        rows::pending(version, base, new).map_or_else(|| self.stored_digest(version), Ok)
    }

    fn stored_digest(&self, version: u64) -> Result<Digest, LogError> {
        Rows::of(self.store.as_ref()).digest(version)
    }

    /// Return the last occurrence at or before `query` of an event whose newest occurrence, `latest`, is after `query`.
    fn earlier_occurrence(&self, digest: &Digest, query: u64, latest: u64) -> Result<u64, LogError> {
        let found = self.store.last_in(
            Table::Occurrences,
            &rows::occurrence_key(digest, 0),
            &rows::occurrence_key(digest, query),
        )?;
        match found {
            Some((key, _)) => Ok(rows::occurrence_in(&key)?.1),
            None => Err(LogError::AddedLater { first: self.first_occurrence(digest, latest)?, asked: query }),
        }
    }

    fn first_occurrence(&self, digest: &Digest, latest: u64) -> Result<u64, LogError> {
        let (from, to) = (rows::occurrence_key(digest, 0), rows::occurrence_key(digest, u64::MAX));
        let found = self.store.first_in(Table::Occurrences, &from, &to)?;
        // Rows of repeats in the batch of the latest occurrence have later versions than it.
        found.map_or(Ok(latest), |(key, _)| Ok(rows::occurrence_in(&key)?.1.min(latest)))
    }
}

impl Writer {
    pub(crate) fn require_usable(&self) -> Result<(), LogError> {
        self.refusal.as_ref().map_or(Ok(()), |reason| Err(LogError::WriteRefused { reason: reason.clone() }))
    }

    /// Require that an entry is applied once, after all entries before it.
    pub(crate) fn require_after(&self, log_id: LogId) -> Result<(), LogError> {
        if log_id > self.applied && log_id.term >= self.applied.term {
            return Ok(());
        }
        Err(LogError::OutOfOrder { given: log_id, applied: self.applied })
    }

    /// Pass on the outcome of a write. After a failure refuse all writes, because the content of the disk is unknown.
    pub(crate) fn or_refuse<T>(&mut self, outcome: Result<T, LogError>) -> Result<T, LogError> {
        outcome.inspect_err(|error| self.refusal = Some(format!("{error}; fix the cause, then open the log again")))
    }
}

fn require_known(asked: u64, len: u64) -> Result<(), LogError> {
    match len {
        0 => Err(LogError::Empty),
        _ if asked < len => Ok(()),
        _ => Err(LogError::UnknownVersion { asked, len }),
    }
}
