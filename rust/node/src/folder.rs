//! The data folder of a member: its identity, its log and its Raft log, opened together and made to agree.

use std::io;
use std::path::Path;
use std::sync::Arc;

use qed_core::error::LogError;
use qed_core::log::Log;
use qed_core::log_id::LogId;

use crate::consensus::{KEPT_BYTES, Settings};
use crate::founding::Founding;
use crate::identity::{Identity, random, random_cluster};
use crate::member::{Limits, Member, MemberError};
use crate::membership::{MemberInfo, Membership};
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
        let log = Arc::new(Log::open(path)?);
        let of_io = |cause| unusable(path, cause);
        let known = owner(path, description)?;
        let folder = SegmentFolder::open(&path.join(RAFT_FOLDER)).map_err(of_io)?;
        let (mut wal, mut recovered) = Wal::open(folder).map_err(MemberError::from)?;
        let known = match Founding::read(path).map_err(of_io)? {
            Some(founding) => {
                require_bootstrap(path, &log, beginning)?;
                Some(found(path, &log, (&mut wal, &mut recovered), description.clone(), &founding)?)
            }
            None => known,
        };
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
            patience_ticks: Some(timing.election_ticks),
            seed: random().map_err(of_io)?,
            pre_vote: true,
            check_quorum: true,
            kept_bytes: KEPT_BYTES,
        };
        let first_read = random().map_err(of_io)?;
        let limits = Limits { batch_events, election_ticks: timing.election_ticks, first_read };
        let (member, state) = go_on(log, (wal, recovered), founded, settings, limits)?;
        let identity = note_cluster(path, identity, state.membership()).map_err(of_io)?;
        Ok(Self { identity, member, state })
    }
}

pub(crate) fn unusable(path: &Path, cause: io::Error) -> FolderError {
    FolderError::Io { path: path.display().to_string(), cause }
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
