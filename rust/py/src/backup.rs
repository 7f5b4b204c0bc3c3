//! Backups: writing them into files, checking them, and reading them into new data folders.

use std::ops::ControlFlow;
use std::path::PathBuf;

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;
use qed_core::backup::{self as core, BackupError, Cursor, Reach};
use qed_node::disaster;

use crate::auditing::{Finding, append_bundles, finding_of};
use crate::error;
use crate::progress::reporting;
use crate::proofs::Digest;

/// What a backup says about itself.
#[pyclass(frozen, module = "qed._qed")]
pub struct Backup {
    /// Name of the log.
    #[pyo3(get)]
    log: String,
    /// Name of the member that made it.
    #[pyo3(get)]
    node_id: String,
    /// Version of its software.
    #[pyo3(get)]
    software: String,
    /// Seconds since 1970.
    #[pyo3(get)]
    created_s: u64,
    /// Identity of the backup that it continues.
    #[pyo3(get)]
    base: Option<Digest>,
    /// Its own identity.
    #[pyo3(get)]
    identity: Digest,
    /// Events in the backups that it continues.
    #[pyo3(get)]
    start_events: u64,
    /// Events in all of them.
    #[pyo3(get)]
    events: u64,
    /// History root of the last event; zeros if there is none.
    #[pyo3(get)]
    history_digest: Digest,
    /// Hyper root of the last event; zeros if there is none.
    #[pyo3(get)]
    hyper_digest: Digest,
    /// The last applied entry.
    #[pyo3(get)]
    index: u64,
    /// Length of the file.
    #[pyo3(get)]
    size_bytes: u64,
    cursor: Cursor,
}

#[pymethods]
impl Backup {
    /// Return what the backup in a file says about itself; only `verify_backups` shows whether that is true.
    #[staticmethod]
    #[pyo3(signature = (path, /))]
    fn read(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let summary = py.detach(|| core::Summary::of(&path)).map_err(|error| error::of_backup(&error))?;
        let core::Summary { header, end, size_bytes } = summary;
        let Reach { extent, log_id, .. } = end.reach;
        Ok(Self {
            log: header.origin.log,
            node_id: header.origin.node_id,
            software: header.origin.software,
            created_s: header.origin.created_s,
            base: header.base.map(Digest),
            identity: Digest(end.chain),
            start_events: header.start.extent.len,
            events: extent.len,
            history_digest: Digest(extent.history_digest),
            hyper_digest: Digest(extent.hyper_digest),
            index: log_id.index,
            size_bytes,
            cursor: end,
        })
    }

    /// Return where a further backup continues this one.
    fn cursor<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.cursor.to_bytes())
    }
}

/// Return the cursor in `bytes`.
pub fn cursor_in(bytes: &[u8]) -> PyResult<Cursor> {
    Cursor::from_bytes(bytes).ok_or_else(|| error::of_backup_cursor(bytes.len()))
}

/// A backup on its way into a file.
#[pyclass(frozen, module = "qed._qed")]
pub struct BackupFile(Mutex<Option<core::BackupFile>>);

impl BackupFile {
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&mut core::BackupFile) -> Result<T, BackupError> + Send,
    ) -> PyResult<T> {
        let called = py.detach(|| self.0.lock().as_mut().map(call));
        called.ok_or_else(error::closed)?.map_err(|error| error::of_backup(&error))
    }
}

#[pymethods]
impl BackupFile {
    /// Open a file, which is created if it does not exist; an unfinished backup in it is kept up to its last whole frame.
    #[staticmethod]
    #[pyo3(signature = (path, /))]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let opened = py.detach(|| core::BackupFile::open(&path));
        opened.map(|file| Self(Mutex::new(Some(file)))).map_err(|error| error::of_backup(&error))
    }

    /// Return the name of the log, once the backup has begun.
    fn log(&self, py: Python<'_>) -> PyResult<Option<String>> {
        self.with(py, |file| Ok(file.header().map(|header| header.origin.log.clone())))
    }

    /// Return the identity of the backup that this one continues.
    fn base(&self, py: Python<'_>) -> PyResult<Option<Digest>> {
        self.with(py, |file| Ok(file.header().and_then(|header| header.base).map(Digest)))
    }

    /// Return where to continue the backup, once it has begun.
    fn cursor(&self, py: Python<'_>) -> PyResult<Option<Py<PyBytes>>> {
        let cursor = self.with(py, |file| Ok(file.cursor()))?;
        Ok(cursor.map(|cursor| PyBytes::new(py, &cursor.to_bytes()).unbind()))
    }

    /// Return how many events the log has after the part of the backup that is in the file.
    fn events(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, |file| Ok(file.cursor().map_or(0, |cursor| cursor.reach.extent.len)))
    }

    /// Return whether the backup is whole.
    fn is_whole(&self, py: Python<'_>) -> PyResult<bool> {
        self.with(py, |file| Ok(file.is_whole()))
    }

    /// Append what has arrived of the backup.
    #[pyo3(signature = (data, /))]
    fn write(&self, py: Python<'_>, data: PyBackedBytes) -> PyResult<()> {
        self.with(py, |file| file.write(&data))
    }

    /// Sync the whole backup and rename it; durable on return. The file is closed, whatever comes of it.
    #[pyo3(signature = (path, new_path, /))]
    fn finish(&self, py: Python<'_>, path: PathBuf, new_path: PathBuf) -> PyResult<()> {
        let finished = py.detach(|| self.0.lock().take().map(|file| file.finish(&path, &new_path)));
        finished.ok_or_else(error::closed)?.map_err(|error| error::of_backup(&error))
    }

    /// Close the file as it is: opening it again continues the backup.
    fn close(&self, py: Python<'_>) {
        py.detach(|| drop(self.0.lock().take()));
    }
}

/// Check backups, each of which continues the one before it, by building both trees from them.
#[pyfunction]
#[pyo3(signature = (paths, /, *, progress = None))]
pub fn verify_backups(py: Python<'_>, paths: Vec<PathBuf>, progress: Option<Py<PyAny>>) -> PyResult<()> {
    let mut report = reporting(progress);
    let verified = py.detach(|| disaster::verify(&paths, &mut report));
    match verified.map_err(|error| error::of_backup(&error))? {
        ControlFlow::Continue(_) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// A cluster that is founded on an old log.
#[pyclass(frozen, get_all, module = "qed._qed")]
pub struct Founding {
    /// Its name.
    cluster: String,
    /// Events in the log.
    events: u64,
    /// The last entry in it.
    index: u64,
}

impl Founding {
    fn of(disaster::Restored { reach, founding }: disaster::Restored) -> Self {
        Self { cluster: founding.cluster, events: reach.extent.len, index: reach.log_id.index }
    }
}

/// Read backups, each of which continues the one before it, into a new data folder. The first server on it founds a cluster, and
/// records `act`.
#[pyfunction]
#[pyo3(signature = (paths, folder, /, *, act, progress = None))]
pub fn restore_backups(
    py: Python<'_>,
    paths: Vec<PathBuf>,
    folder: PathBuf,
    act: String,
    progress: Option<Py<PyAny>>,
) -> PyResult<Founding> {
    let mut report = reporting(progress);
    let restored = py.detach(|| disaster::restore(&paths, &folder, Some(act), &mut report));
    match restored.map_err(|error| error::of_backup(&error))? {
        ControlFlow::Continue(restored) => Ok(Founding::of(restored)),
        ControlFlow::Break(error) => Err(error),
    }
}

/// A new data folder that is being filled with the entries that a log has published.
#[pyclass(frozen, module = "qed._qed")]
pub struct Rebuilding(Mutex<Option<disaster::Rebuilding>>);

#[pymethods]
impl Rebuilding {
    /// Begin to fill a folder, which must not exist or must be empty. The first server on it founds a cluster, and records `act`.
    #[new]
    #[pyo3(signature = (folder, /, *, act))]
    fn new(py: Python<'_>, folder: PathBuf, act: String) -> PyResult<Self> {
        let begun = py.detach(|| disaster::Rebuilding::begin(&folder, Some(act)));
        begun.map(|begun| Self(Mutex::new(Some(begun)))).map_err(|error| error::of_backup(&error))
    }

    /// The number of entries that were appended.
    #[getter]
    fn next_entry(&self) -> PyResult<u64> {
        self.0.lock().as_ref().map(disaster::Rebuilding::next_entry).ok_or_else(error::closed)
    }

    /// Append verified bundles of a tree of `size`, from bundle `first` on; return what is wrong with the first entry that is. Entries that
    /// were appended before are skipped.
    #[pyo3(signature = (first, bundles, size, /))]
    fn append(&self, py: Python<'_>, first: u64, bundles: Vec<PyBackedBytes>, size: u64) -> PyResult<Option<Finding>> {
        let appended = py.detach(|| {
            let mut open = self.0.lock();
            let rebuilding = open.as_mut()?;
            let next = rebuilding.next_entry();
            Some(append_bundles(next, first, &bundles, size, &mut |entry| rebuilding.append(entry, size)))
        });
        finding_of(appended.ok_or_else(error::closed)?)
    }

    /// Let the folder be opened as a log, which is durable on return. It is empty, as before, if this fails.
    fn complete(&self, py: Python<'_>) -> PyResult<Founding> {
        let completed = py.detach(|| self.0.lock().take().map(disaster::Rebuilding::complete));
        let restored = completed.ok_or_else(error::closed)?.map_err(|error| error::of_backup(&error))?;
        Ok(Founding::of(restored))
    }

    /// Leave the folder empty, as before, unless it is complete.
    fn close(&self, py: Python<'_>) {
        py.detach(|| drop(self.0.lock().take()));
    }
}

/// A stopped member of a cluster.
#[pyclass(frozen, get_all, module = "qed._qed")]
pub struct Survivor {
    /// Its name.
    name: String,
    /// The name of its cluster.
    cluster: String,
    /// How many members that has.
    members: usize,
    /// Events in its log.
    events: u64,
    /// The last entry that it has.
    index: u64,
    /// The term of that.
    term: u64,
}

/// Return the member in a data folder, and how far its log is.
#[pyfunction]
#[pyo3(signature = (folder, /))]
pub fn survey(py: Python<'_>, folder: PathBuf) -> PyResult<Survivor> {
    let survivor = py.detach(|| disaster::survey(&folder)).map_err(|error| error::of_folder(&error))?;
    let disaster::Survivor { name, cluster, members, reach, last } = survivor;
    Ok(Survivor { name, cluster, members, events: reach.extent.len, index: last.index, term: last.term })
}

/// Make the member in a data folder the only one of a new cluster, and record `act`.
#[pyfunction]
#[pyo3(signature = (folder, /, *, act))]
pub fn recover(py: Python<'_>, folder: PathBuf, act: String) -> PyResult<Founding> {
    let recovered = py.detach(|| disaster::recover(&folder, Some(act))).map_err(|error| error::of_folder(&error))?;
    let (founding, Reach { extent, log_id, .. }) = recovered;
    Ok(Founding { cluster: founding.cluster, events: extent.len, index: log_id.index })
}
