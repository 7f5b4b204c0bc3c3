//! Checking what a log has published: its tiles against a checkpoint, and its entries by replaying them.
//!
//! Everything that hashes is detached, and works on bytes that stay where Python has them.

use parking_lot::{Mutex, RwLock};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use qed_core::entry_audit::{self, AuditError};
use qed_core::hash::merkle_leaves;
use qed_core::integers::usize_from;
use qed_core::proof::{Malformed, Snapshot as CoreSnapshot};
use qed_core::tlog::entry::{BatchEnd, Entry};
use qed_core::tlog::evidence::{Charge, Leaf, ProvenLeaf};
use qed_core::tlog::tile::{Content, FULL_WIDTH, TilePath, Tiles, bundle_from_bytes, tile_from_bytes, tile_to_bytes};
use qed_core::tlog::verified_tiles::{VerifiedTiles, edge_of};
use qed_core::verify::VerifyError;

use crate::error;
use crate::evidence::Evidence;
use crate::log::TilePath as PyTilePath;
use crate::proofs::{Digest, Snapshot};
use crate::trust::{Checkpoint, SignedReceipt, TlogProof, TrustFile};

/// Return the paths of the tiles of a tree of `size` entries that are not full, from level 0 up.
#[pyfunction]
#[pyo3(signature = (size, /))]
pub fn edge_paths(size: u64) -> Vec<PyTilePath> {
    edge_of(size).into_iter().map(PyTilePath).collect()
}

/// Tiles of the tree of one checkpoint, each verified before it is used.
#[pyclass(frozen, module = "qed._qed")]
pub struct TileTree {
    #[pyo3(get)]
    checkpoint: Py<Checkpoint>,
    tiles: RwLock<VerifiedTiles>,
}

#[pymethods]
impl TileTree {
    /// Return the tree of a checkpoint with the tiles of `edge_paths`; raise `VerificationError` unless they lead to its root.
    #[new]
    #[pyo3(signature = (checkpoint, edge, /))]
    fn new(checkpoint: Py<Checkpoint>, edge: Vec<PyBackedBytes>) -> PyResult<Self> {
        let head = checkpoint.get().head();
        let paths = edge_of(head.size());
        let hashes = paths.iter().zip(&edge).map(|(path, bytes)| tile_from_bytes(bytes, path.width()));
        let hashes = hashes.collect::<Result<_, _>>().map_err(error::of_malformed)?;
        let tiles = VerifiedTiles::new(head, hashes).map_err(error::of_verify)?;
        Ok(Self { checkpoint, tiles: RwLock::new(tiles) })
    }

    /// Return the path of a tile of the tree, or None.
    #[pyo3(signature = (level, index, /))]
    fn path_of(&self, level: u8, index: u64) -> Option<PyTilePath> {
        self.tiles.read().path_of(level, index).map(PyTilePath)
    }

    /// Return the path of a bundle of the tree, or None.
    #[pyo3(signature = (index, /))]
    fn bundle_path(&self, index: u64) -> Option<PyTilePath> {
        let width = self.tiles.read().path_of(0, index)?.width();
        TilePath::new(Content::Entries, index, width).ok().map(PyTilePath)
    }

    /// Return the tiles to add before the bundle or the tile of level 0 with this number can be verified, topmost first.
    #[pyo3(signature = (index, /))]
    fn missing_above(&self, index: u64) -> Vec<PyTilePath> {
        self.tiles.read().missing_above(index).into_iter().map(PyTilePath).collect()
    }

    /// Return the tiles to add before `root_at` can be asked, topmost first.
    #[pyo3(signature = (size, /))]
    fn missing_for_root(&self, size: u64) -> Vec<PyTilePath> {
        self.tiles.read().missing_for_root(size).into_iter().map(PyTilePath).collect()
    }

    /// Verify a tile by the one above it, and keep it; raise `VerificationError` if it is another.
    #[pyo3(signature = (path, content, /))]
    fn add(&self, py: Python<'_>, path: PyRef<'_, PyTilePath>, content: &[u8]) -> PyResult<()> {
        let path = path.0;
        py.detach(|| {
            let hashes = tile_from_bytes(content, path.width())?;
            self.tiles.write().add(&path, hashes)
        })
        .map_err(error::of_verify)
    }

    /// Verify a tile by the one above it; raise `VerificationError` if it is another.
    #[pyo3(signature = (path, content, /))]
    fn verify_tile(&self, py: Python<'_>, path: PyRef<'_, PyTilePath>, content: &[u8]) -> PyResult<()> {
        let path = path.0;
        py.detach(|| {
            let hashes = tile_from_bytes(content, path.width())?;
            self.tiles.read().verify(&path, &hashes)
        })
        .map_err(error::of_verify)
    }

    /// Verify that a bundle has the entries of the tree; raise `VerificationError` if it has others.
    #[pyo3(signature = (index, content, /))]
    fn verify_bundle(&self, py: Python<'_>, index: u64, content: &[u8]) -> PyResult<()> {
        py.detach(|| self.tiles.read().verify_bundle(index, content)).map_err(error::of_verify)
    }

    /// Return the root of the first `size` entries.
    #[pyo3(signature = (size, /))]
    fn root_at(&self, size: u64) -> PyResult<Digest> {
        self.tiles.read().root_at(size).map(Digest).map_err(error::of_verify)
    }

    /// Return the hash of an entry. Its tile of level 0 was added before.
    #[pyo3(signature = (index, /))]
    fn leaf(&self, index: u64) -> PyResult<Digest> {
        self.leaf_at(index).map(Digest).map_err(error::of_verify)
    }

    /// Return the evidence that this tree has an entry that is wrong. Its tile of level 0 was added before.
    #[pyo3(signature = (finding, entry, /, *, found_at = None, sources = Vec::new()))]
    fn invalid_entry(
        &self,
        finding: PyRef<'_, Finding>,
        entry: Vec<u8>,
        found_at: Option<u64>,
        sources: Vec<String>,
    ) -> PyResult<Evidence> {
        let index = finding.0.index;
        let proof = self.tiles.read().inclusion(index).map_err(error::of_verify)?;
        let note = self.checkpoint.get().to_note().map_err(error::of_malformed)?;
        let a = ProvenLeaf { note, leaf: Leaf::Entry(entry), proof };
        let charge = Charge::InvalidEntry { index, a, replay: finding.0.replay };
        Evidence::about(&[self.checkpoint.get()], charge, found_at, sources).map_err(error::of_malformed)
    }

    /// Return the evidence that a receipt has another entry at an index than this tree; its tile of level 0 was added before. Raise
    /// `VerificationError` unless the receipt verifies.
    #[pyo3(signature = (receipt, index, trust, /, *, now, sources = Vec::new()))]
    fn other_entry(
        &self,
        py: Python<'_>,
        receipt: PyRef<'_, SignedReceipt>,
        index: u64,
        trust: PyRef<'_, TrustFile>,
        now: u64,
        sources: Vec<String>,
    ) -> PyResult<Evidence> {
        let shown = receipt.shown(py, &trust, now)?;
        let leaf = receipt.0.proven_leaf(index).map_err(error::of_malformed)?;
        let own = (self.checkpoint.get(), self.proven_leaf(index)?);
        Evidence::of_leaves(index, (shown.checkpoint.get(), leaf), own, Some(now), sources)
    }

    /// Return the evidence that two trees of one log differ at an index. Its tiles of level 0 were added to both before.
    #[pyo3(signature = (other, index, /, *, found_at = None, sources = Vec::new()))]
    fn same_index(
        &self,
        other: PyRef<'_, Self>,
        index: u64,
        found_at: Option<u64>,
        sources: Vec<String>,
    ) -> PyResult<Evidence> {
        let own = (self.checkpoint.get(), self.proven_leaf(index)?);
        let others = (other.checkpoint.get(), other.proven_leaf(index)?);
        Evidence::of_leaves(index, own, others, found_at, sources)
    }

    /// Return the proof of an entry, as a file that needs no tiles. The tiles above it were added before. Nothing is verified.
    #[pyo3(signature = (index, entry, /))]
    fn proof(&self, index: u64, entry: Vec<u8>) -> PyResult<TlogProof> {
        let path = self.tiles.read().inclusion(index).map_err(error::of_verify)?;
        let note = self.checkpoint.get().to_note().map_err(error::of_malformed)?;
        TlogProof::of(Some(entry), index, path, note).map_err(error::of_malformed)
    }
}

impl TileTree {
    fn leaf_at(&self, index: u64) -> Result<qed_core::hash::Digest, VerifyError> {
        let full = u64::from(FULL_WIDTH);
        let place = usize_from(index % full);
        let tiles = self.tiles.read();
        let hashes = (&*tiles).tile(0, index / full, u16::try_from(place + 1).unwrap_or(FULL_WIDTH))?;
        hashes.get(place).copied().ok_or_else(|| Malformed("expected a leaf in its tile, found none".into()).into())
    }

    fn proven_leaf(&self, index: u64) -> PyResult<ProvenLeaf> {
        let leaf = Leaf::Hash(self.leaf_at(index).map_err(error::of_verify)?);
        let proof = self.tiles.read().inclusion(index).map_err(error::of_verify)?;
        Ok(ProvenLeaf { note: self.checkpoint.get().to_note().map_err(error::of_malformed)?, leaf, proof })
    }
}

/// What is wrong with an entry that a log has signed.
#[pyclass(frozen, module = "qed._qed")]
pub struct Finding(entry_audit::Finding);

#[pymethods]
impl Finding {
    /// Index of the entry.
    #[getter]
    const fn index(&self) -> u64 {
        self.0.index
    }

    /// The first and last version of the batch that was replayed, or None if the entry is wrong by itself.
    #[getter]
    fn replay(&self) -> Option<(u64, u64)> {
        self.0.replay.map(|replay| (replay.from, replay.to))
    }

    /// What was expected and what was found.
    #[getter]
    fn reason(&self) -> &str {
        &self.0.reason
    }

    fn __repr__(&self) -> String {
        format!("<Finding index={} {:?}>", self.0.index, self.0.reason)
    }
}

/// The log that published entries lead to, in memory.
#[pyclass(frozen, module = "qed._qed")]
pub struct EntryAudit(Mutex<entry_audit::EntryAudit>);

#[pymethods]
impl EntryAudit {
    #[new]
    fn new() -> Self {
        Self(Mutex::new(entry_audit::EntryAudit::default()))
    }

    /// The number of entries that were appended.
    #[getter]
    fn next_entry(&self) -> u64 {
        self.0.lock().next_entry()
    }

    /// The number of entries up to the last batch that ended.
    #[getter]
    fn replayed(&self) -> u64 {
        self.0.lock().replayed()
    }

    /// The history root and the hyper root after the last batch that ended, or None.
    #[getter]
    fn end(&self) -> Option<(Digest, Digest)> {
        let end = self.0.lock().end().copied();
        end.map(|BatchEnd { history_digest, hyper_digest }| (Digest(history_digest), Digest(hyper_digest)))
    }

    /// The root of the tree over the entries that were replayed.
    #[getter]
    fn root(&self) -> Digest {
        Digest(self.0.lock().root())
    }

    /// Return the latest version of an event among the entries that were replayed, or None.
    #[pyo3(signature = (event, /))]
    fn find(&self, event: PyRef<'_, Digest>) -> PyResult<Option<u64>> {
        self.0.lock().find(&event.0).map_err(|failure| error::of_log(&failure))
    }

    /// Append verified bundles of a tree of `size`, from bundle `first` on; return what is wrong with the first entry that is. Entries that
    /// were appended before are skipped.
    #[pyo3(signature = (first, bundles, size, /))]
    fn append(&self, py: Python<'_>, first: u64, bundles: Vec<PyBackedBytes>, size: u64) -> PyResult<Option<Finding>> {
        let appended = py.detach(|| {
            let mut audit = self.0.lock();
            append_bundles(audit.next_entry(), first, &bundles, size, &mut |entry| audit.append(entry, size))
        });
        finding_of(appended)
    }
}

/// Why bundles could not be appended.
pub enum Failure {
    Audit(AuditError),
    Malformed(Malformed),
}

/// Return what is wrong with an entry, or raise what else went wrong.
pub fn finding_of(appended: Result<(), Failure>) -> PyResult<Option<Finding>> {
    match appended {
        Ok(()) => Ok(None),
        Err(Failure::Audit(AuditError::Found(finding))) => Ok(Some(Finding(finding))),
        Err(Failure::Audit(AuditError::Log(failure))) => Err(error::of_log(&failure)),
        Err(Failure::Malformed(malformed)) => Err(error::of_malformed(malformed)),
    }
}

/// Append the entries of bundles of a tree of `size`, from bundle `first` on, by `append`. Those before entry `next` are skipped.
pub fn append_bundles(
    mut next: u64,
    first: u64,
    bundles: &[PyBackedBytes],
    size: u64,
    append: &mut dyn FnMut(&[u8]) -> Result<(), AuditError>,
) -> Result<(), Failure> {
    let full = u64::from(FULL_WIDTH);
    let wrong = |found: u64| Failure::Malformed(Malformed(format!("expected the next entry, found entry {found}")));
    for (number, bundle) in (first..).zip(bundles) {
        let start = number * full;
        let width = u16::try_from(size.saturating_sub(start).min(full)).unwrap_or(FULL_WIDTH);
        let skipped = next.checked_sub(start).ok_or_else(|| wrong(start))?;
        let entries = bundle_from_bytes(bundle, width).map_err(Failure::Malformed)?;
        for entry in entries.into_iter().skip(usize_from(skipped)) {
            append(entry).map_err(Failure::Audit)?;
            next += 1;
        }
    }
    Ok(())
}

/// Return the entries of a bundle as their bytes.
#[pyfunction]
#[pyo3(signature = (content, width, /))]
pub fn bundle_entries(content: &[u8], width: u16) -> PyResult<Vec<Vec<u8>>> {
    let entries = bundle_from_bytes(content, width).map_err(error::of_malformed)?;
    Ok(entries.into_iter().map(<[u8]>::to_vec).collect())
}

/// Return the tile of level 0 above the entries of a bundle.
#[pyfunction]
#[pyo3(signature = (content, width, /))]
pub fn bundle_hashes(content: &[u8], width: u16) -> PyResult<Vec<u8>> {
    let entries = bundle_from_bytes(content, width).map_err(error::of_malformed)?;
    Ok(tile_to_bytes(&merkle_leaves(&entries)))
}

/// What a log has published about one version.
#[pyclass(frozen, module = "qed._qed")]
pub struct LogEntry(Entry);

#[pymethods]
impl LogEntry {
    /// Return the entry in its bytes; raise `MalformedProof` if there is none.
    #[staticmethod]
    #[pyo3(signature = (content, /))]
    fn parse(content: &[u8]) -> PyResult<Self> {
        Entry::from_bytes(content).map(Self).map_err(error::of_malformed)
    }

    /// The version.
    #[getter]
    const fn version(&self) -> u64 {
        self.0.version
    }

    /// Digest of the event.
    #[getter]
    fn event_digest(&self) -> Digest {
        Digest(self.0.event_digest)
    }

    /// The snapshot of the version, if its commit batch ends here, or None.
    #[getter]
    fn snapshot(&self) -> Option<Snapshot> {
        let Entry { version, event_digest, batch_end, .. } = self.0;
        batch_end.map(|BatchEnd { history_digest, hyper_digest }| {
            Snapshot(CoreSnapshot { event_digest, history_digest, hyper_digest, version })
        })
    }
}
