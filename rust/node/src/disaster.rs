//! After a disaster: a log from a backup, and a cluster from one of its members.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use qed_core::audit::Audit;
use qed_core::backup::{BackupError, Cursor, Reach, read_all};
use qed_core::entry_audit::AuditError;
use qed_core::entry_restoration::EntryRestoration;
use qed_core::error::LogError;
use qed_core::log::Log;
use qed_core::log_id::LogId;
use qed_core::page::Page;
use qed_core::restoration::Restoration;

use crate::folder::{FolderError, RAFT_FOLDER, found, unusable};
use crate::founding::{Cause, Founding};
use crate::identity::Identity;
use crate::member::MemberError;
use crate::membership::{MemberInfo, Membership};
use crate::segments::SegmentFolder;
use crate::state::State;
use crate::wal::{Recovered, Wal};

/// Called with the number of events so far; may stop the work with a value.
pub type Progress<'a, B> = dyn FnMut(u64) -> ControlFlow<B> + 'a;

/// Check backups, each of which continues the one before it, by building both trees from them: every root in them is compared. Return
/// their end, or the value that `progress` stops with.
///
/// # Errors
///
/// [`BackupError`] names the first difference.
pub fn verify<B>(paths: &[PathBuf], progress: &mut Progress<'_, B>) -> Result<ControlFlow<B, Cursor>, BackupError> {
    let mut audit = Audit::default();
    read_all(paths, &mut |page| {
        require_memberships(page)?;
        audit.append(page)?;
        Ok(progress(page.reach().extent.len))
    })
}

/// A log that was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// How far it is.
    pub reach: Reach,
    /// The cluster that the first server on it will found.
    pub founding: Founding,
}

/// Read backups, each of which continues the one before it, into the new data folder at `path`. The first server that opens it founds a
/// new cluster, and records that by `act`. Return the log, or the value that `progress` stops with.
///
/// # Errors
///
/// [`BackupError`]; the folder is then empty, as before.
pub fn restore<B>(
    paths: &[PathBuf],
    path: &Path,
    act: Option<String>,
    progress: &mut Progress<'_, B>,
) -> Result<ControlFlow<B, Restored>, BackupError> {
    let founding = Founding::draw(Cause::Restored, act).map_err(BackupError::Io)?;
    let mut restoration = Restoration::begin(path)?;
    let read = read_all(paths, &mut |page| {
        require_memberships(page)?;
        restoration.append(page)?;
        Ok(progress(page.reach().extent.len))
    });
    let end = match read? {
        ControlFlow::Break(value) => return Ok(ControlFlow::Break(value)),
        ControlFlow::Continue(end) => end,
    };
    restoration.complete()?;
    publish(restoration, &founding, path)?;
    Ok(ControlFlow::Continue(Restored { reach: end.reach, founding }))
}

/// Let the folder at `path` be opened as a log, on which the first server founds a cluster.
fn publish(restoration: Restoration, founding: &Founding, path: &Path) -> Result<(), BackupError> {
    founding.write(path).map_err(BackupError::Io)?;
    Ok(restoration.publish()?)
}

/// A new data folder that is being filled with the entries that a log has published. The first server that opens it founds a new cluster.
/// If this is dropped before it is complete, the folder is left empty.
#[derive(Debug)]
pub struct Rebuilding {
    path: PathBuf,
    founding: Founding,
    entries: EntryRestoration,
}

impl Rebuilding {
    /// Begin to fill the folder at `path`. The new cluster records that by `act`.
    ///
    /// # Errors
    ///
    /// [`BackupError`] if the folder cannot be filled, as it is not empty, or the act cannot be recorded.
    pub fn begin(path: &Path, act: Option<String>) -> Result<Self, BackupError> {
        let founding = Founding::draw(Cause::Restored, act).map_err(BackupError::Io)?;
        Ok(Self { path: path.into(), founding, entries: EntryRestoration::begin(path)? })
    }

    /// Return the number of entries that were appended.
    #[must_use]
    pub fn next_entry(&self) -> u64 {
        self.entries.next_entry()
    }

    /// Append the next entry of a tree of `size`.
    ///
    /// # Errors
    ///
    /// As [`EntryRestoration::append`].
    pub fn append(&mut self, entry: &[u8], size: u64) -> Result<(), AuditError> {
        self.entries.append(entry, size)
    }

    /// Let the folder be opened as a log, and return that. Durable when this returns.
    ///
    /// # Errors
    ///
    /// [`BackupError`]; the folder is then empty, as before.
    pub fn complete(self) -> Result<Restored, BackupError> {
        let Self { path, founding, entries } = self;
        let (restoration, extent) = entries.complete()?;
        publish(restoration, &founding, &path)?;
        let reach = Reach { extent, ..Reach::default() };
        Ok(Restored { reach, founding })
    }
}

/// An undecodable membership would look like damage of the folder's own disk.
fn require_memberships(page: &Page) -> Result<(), LogError> {
    let invalid = page.members.iter().find(|members| Membership::from_bytes(&members.bytes).is_none());
    let Some(members) = invalid else { return Ok(()) };
    Err(LogError::Corrupt(format!("the membership of entry {} cannot be read", members.log_id.index)))
}

/// A stopped member of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survivor {
    /// Its name.
    pub name: String,
    /// The name of its cluster.
    pub cluster: String,
    /// Members of that cluster.
    pub members: usize,
    /// How far its log is.
    pub reach: Reach,
    /// The last entry in its Raft log, from which the log can go further.
    pub last: LogId,
}

struct OpenSurvivor {
    log: Arc<Log>,
    wal: Wal<SegmentFolder>,
    recovered: Recovered,
    member: MemberInfo,
    found: Survivor,
}

impl OpenSurvivor {
    fn open(path: &Path) -> Result<Self, FolderError> {
        let of_io = |cause| unusable(path, cause);
        let nobody = || MemberError::Inconsistent("expected the folder of a member, found no file MEMBER in it".into());
        let name = Identity::read(path).map_err(of_io)?.ok_or_else(nobody)?.name;
        let log = Arc::new(Log::open(path)?);
        let folder = SegmentFolder::open(&path.join(RAFT_FOLDER)).map_err(of_io)?;
        let (wal, recovered) = Wal::open(folder).map_err(MemberError::from)?;
        let state = State::open(Arc::clone(&log)).map_err(MemberError::from)?;
        let membership = state.membership();
        let stranger = || MemberError::Inconsistent(format!("{name} is not a member of any cluster yet"));
        let member = membership.members.values().find(|member| member.name == name).cloned().ok_or_else(stranger)?;
        let reach = reach_of(&log)?;
        let last =
            recovered.entries.last().map_or(reach.log_id, |entry| LogId { index: entry.index, term: entry.term });
        let (cluster, members) = (membership.cluster.clone(), membership.members.len());
        let found = Survivor { name, cluster, members, reach, last: last.max(reach.log_id) };
        Ok(Self { log, wal, recovered, member, found })
    }
}

fn reach_of(log: &Log) -> Result<Reach, LogError> {
    Ok(Reach { extent: log.extent_at(log.len())?, log_id: log.applied(), acts: log.acts_end() })
}

/// Return the member in the data folder at `path`, and how far its log is.
///
/// # Errors
///
/// [`FolderError`] if it is no member's folder, cannot be read, or is in use.
pub fn survey(path: &Path) -> Result<Survivor, FolderError> {
    OpenSurvivor::open(path).map(|survivor| survivor.found)
}

/// Make the member in the data folder at `path` the only one of a new cluster. Return the cluster, and how far its log is.
///
/// # Errors
///
/// [`FolderError`]. If the new cluster was not founded, the next call or the next start does that.
pub fn recover(path: &Path, act: Option<String>) -> Result<(Founding, Reach), FolderError> {
    let of_io = |cause| unusable(path, cause);
    let OpenSurvivor { log, mut wal, mut recovered, member, .. } = OpenSurvivor::open(path)?;
    let founding = if let Some(founding) = Founding::read(path).map_err(of_io)? {
        founding
    } else {
        let founding = Founding::draw(Cause::Recovered, act).map_err(of_io)?;
        founding.write(path).map_err(of_io)?;
        founding
    };
    found(path, &log, (&mut wal, &mut recovered), member, &founding)?;
    Ok((founding, reach_of(&log)?))
}

#[cfg(test)]
mod tests;
