//! The data folder of a member: its identity, its log and its Raft log, opened together and made to agree.

use std::io;
use std::path::Path;
use std::sync::Arc;

use qed_core::error::LogError;
use qed_core::log::Log;
use qed_core::log_id::LogId;

use crate::consensus::{KEPT_BYTES, Settings};
use crate::founding::Founding;
use crate::high_water::HighWater;
use crate::identity::{Identity, random, random_cluster};
use crate::member::{Limits, Member, MemberError};
use crate::member_id::MemberId;
use crate::membership::{MemberInfo, Membership};
use crate::metrics::Histogram;
use crate::recovery::go_on;
use crate::segments::SegmentFolder;
use crate::state::State;
use crate::wal::{Frame, Recovered, Wal};

pub(crate) const RAFT_FOLDER: &str = "raft";

/// What to do with a folder that does not belong to a cluster yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// It becomes the first member of a new cluster. Events that are already in the log are kept.
    Bootstrap,
    /// It waits to be admitted to a cluster. Its log must be empty.
    Join,
}

/// Why a data folder cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The log in it cannot be opened.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The folder cannot be read or written.
    #[error("cannot use {path}: {cause}")]
    Io {
        /// The folder.
        path: String,
        /// The error of the operating system.
        cause: io::Error,
    },
    /// Its files contradict each other.
    #[error(transparent)]
    Damaged(#[from] MemberError),
    /// It belongs to another member.
    #[error("{path} belongs to {found}, not to {wanted}")]
    Foreign {
        /// The folder.
        path: String,
        /// The member that it belongs to.
        found: String,
        /// The member that tried to open it.
        wanted: String,
    },
    /// It lacks what its only member has acknowledged.
    #[error(
        "{path} is an old copy: it ends at entry {index} in term {term}, but by the high-water file entry {} in term {} was acknowledged; put the newer folder back, or give this one up to what it holds with `qed recover` and delete the file", .noted.index, .noted.term
    )]
    Old {
        /// The folder.
        path: String,
        /// Its term.
        term: u64,
        /// Its last entry.
        index: u64,
        /// What is noted.
        noted: HighWater,
    },
    /// It is not the folder that was noted.
    #[error(
        "{path} is not the folder of the high-water file, which belongs to member {member}: put that folder back, or delete the file if this folder is to take its place"
    )]
    Unlike {
        /// The folder.
        path: String,
        /// The member that the note belongs to.
        member: MemberId,
    },
    /// It holds a log that belongs to no cluster.
    #[error(
        "{path} holds {events} events of its own, so it cannot join a cluster: start it without joining, or empty it"
    )]
    NotEmpty {
        /// The folder.
        path: String,
        /// The number of events.
        events: u64,
    },
}

/// The timing of a member, in ticks.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Ticks between heartbeats.
    pub heartbeat_ticks: usize,
    /// Ticks without a leader before an election: a random number from this to twice as many.
    pub election_ticks: usize,
    /// Ticks of silence after which a leader presumes a member dead, so that its server may return under another number.
    pub dead_ticks: usize,
}

/// The contents of a data folder.
#[derive(Debug)]
pub struct Opened {
    /// The identity of the member.
    pub identity: Identity,
    /// Its part in Raft.
    pub member: Member<SegmentFolder>,
    /// Its state, which the member's jobs change.
    pub state: State,
    /// Where the durations of syncs of its Raft log are counted.
    pub syncs: Arc<Histogram>,
}

impl Opened {
    /// Open the data folder at `path` for the member that `description` describes. The folder is created if it does not exist.
    ///
    /// # Errors
    ///
    /// [`FolderError`]. The folder is then unchanged, or as after a crash.
    pub fn open(
        path: &Path,
        description: &MemberInfo,
        beginning: Beginning,
        timing: Timing,
        batch_events: usize,
    ) -> Result<Self, FolderError> {
        Self::open_noted(path, description, beginning, (timing, batch_events), None)
    }

    /// Open a data folder as [`Self::open`] does, but check it against a note outside of it. A folder that lacks what is noted is
    /// refused if it has no other voters, and otherwise has to hear from all of them.
    ///
    /// # Errors
    ///
    /// Same as [`Self::open`], [`FolderError::Old`], [`FolderError::Unlike`].
    pub fn open_noted(
        path: &Path,
        description: &MemberInfo,
        beginning: Beginning,
        (timing, batch_events): (Timing, usize),
        noted: Option<HighWater>,
    ) -> Result<Self, FolderError> {
        let log = Arc::new(Log::open_from_image(path)?);
        let of_io = |cause| unusable(path, cause);
        let known = owner(path, description)?;
        let folder = SegmentFolder::open(&path.join(RAFT_FOLDER)).map_err(of_io)?;
        let syncs = folder.syncs();
        let (mut wal, mut recovered) = Wal::open(folder).map_err(MemberError::from)?;
        let known = match Founding::read(path).map_err(of_io)? {
            Some(founding) => {
                require_bootstrap(path, &log, beginning)?;
                Some(found(path, &log, (&mut wal, &mut recovered), description.clone(), &founding)?)
            }
            None => known,
        };
        require_noted(path, known.as_ref(), noted)?;
        let (term, index) = end_of(&log, &recovered);
        let old = noted.filter(|noted| noted.is_above(term, index));
        let identity = match known {
            Some(identity) if wal.is_new() => return Err(raft_log_is_missing(&identity)),
            Some(identity) => identity,
            None => take_over(path, &log, (&mut wal, &recovered), description, beginning)?,
        };
        let founded = if identity.is_joining || identity.cluster.is_some() {
            None
        } else {
            let cluster = random_cluster().map_err(of_io)?;
            Some(Membership::of_one(cluster, identity.id, description.clone()))
        };
        let settings = Settings {
            id: identity.id,
            election_ticks: timing.election_ticks,
            dead_ticks: timing.dead_ticks,
            heartbeat_ticks: timing.heartbeat_ticks,
            patience_ticks: old.is_none().then_some(timing.election_ticks),
            seed: random().map_err(of_io)?,
            pre_vote: true,
            check_quorum: true,
            kept_bytes: KEPT_BYTES,
        };
        let first_read = random().map_err(of_io)?;
        let limits = Limits { batch_events, election_ticks: timing.election_ticks, first_read };
        let (member, state) = go_on(log, (wal, recovered), founded, settings, limits)?;
        if let Some(noted) = old.filter(|_| state.membership().configuration.voters == [identity.id]) {
            return Err(FolderError::Old { path: path.display().to_string(), term, index, noted });
        }
        let identity = note_cluster(path, identity, state.membership()).map_err(of_io)?;
        Ok(Self { identity, member, state, syncs })
    }
}

pub(crate) fn unusable(path: &Path, cause: io::Error) -> FolderError {
    FolderError::Io { path: path.display().to_string(), cause }
}

/// A folder of another member, such as an empty one, lacks everything that is noted.
fn require_noted(path: &Path, known: Option<&Identity>, noted: Option<HighWater>) -> Result<(), FolderError> {
    match noted {
        Some(HighWater { member, .. }) if known.is_none_or(|known| known.id != member) => {
            Err(FolderError::Unlike { path: path.display().to_string(), member })
        }
        _ => Ok(()),
    }
}

/// Return the term of a member, and its last entry.
fn end_of(log: &Log, recovered: &Recovered) -> (u64, u64) {
    let (applied, last) = (log.applied(), recovered.entries.last().map_or(0, |entry| entry.index));
    (recovered.hard_state.term.max(applied.term), last.max(recovered.bounds.index).max(applied.index))
}

/// Return the identity in the folder, if there is one; fail if it belongs to another member.
fn owner(path: &Path, description: &MemberInfo) -> Result<Option<Identity>, FolderError> {
    let found = Identity::read(path).map_err(|cause| unusable(path, cause))?;
    match found {
        Some(identity) if identity.name != description.name => Err(FolderError::Foreign {
            path: path.display().to_string(),
            found: identity.name,
            wanted: description.name.clone(),
        }),
        found => Ok(found),
    }
}

/// The votes of a member cannot be reconstructed, so a lost Raft log is an error.
fn raft_log_is_missing(identity: &Identity) -> FolderError {
    let name = &identity.name;
    MemberError::Inconsistent(format!(
        "the Raft log of {name} is missing; have {name} removed from its cluster, and empty the folder to join as a new member"
    ))
    .into()
}

/// Create an identity for the member in a folder that has none.
fn take_over(
    path: &Path,
    log: &Log,
    (wal, recovered): (&mut Wal<SegmentFolder>, &Recovered),
    description: &MemberInfo,
    beginning: Beginning,
) -> Result<Identity, FolderError> {
    let of_io = |cause| unusable(path, cause);
    if *recovered != Recovered::default() || log.applied() != LogId::default() {
        let reason = "it holds the log of a member, but the file with its identity is missing";
        return Err(MemberError::Inconsistent(reason.into()).into());
    }
    require_bootstrap(path, log, beginning)?;
    // An identity with an empty Raft log means that the Raft log was lost, so the first frame is written before the identity.
    if wal.is_new() {
        wal.append(&Frame::default()).map_err(MemberError::from)?;
    }
    let identity = Identity::draw(&description.name, beginning == Beginning::Join).map_err(of_io)?;
    identity.write(path).map_err(of_io)?;
    Ok(identity)
}

/// A log of its own cannot become that of another cluster.
fn require_bootstrap(path: &Path, log: &Log, beginning: Beginning) -> Result<(), FolderError> {
    if beginning == Beginning::Join && !log.is_empty() {
        return Err(FolderError::NotEmpty { path: path.display().to_string(), events: log.len() });
    }
    Ok(())
}

/// Found a cluster on the log in the folder, and give the folder to its member. After a crash in between, this is done again.
pub(crate) fn found(
    path: &Path,
    log: &Arc<Log>,
    raft_log: (&mut Wal<SegmentFolder>, &mut Recovered),
    member: MemberInfo,
    founding: &Founding,
) -> Result<Identity, FolderError> {
    let of_io = |cause| unusable(path, cause);
    let identity = founding.found(log, raft_log, member)?;
    identity.write(path).map_err(of_io)?;
    Founding::forget(path).map_err(of_io)?;
    Ok(identity)
}

/// Save the name of the cluster in the identity once it is known.
fn note_cluster(path: &Path, mut identity: Identity, membership: &Membership) -> io::Result<Identity> {
    if identity.cluster.is_none() && !membership.cluster.is_empty() {
        identity.cluster = Some(membership.cluster.clone());
        identity.write(path)?;
    }
    Ok(identity)
}

#[cfg(test)]
mod tests;
