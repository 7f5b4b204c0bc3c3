//! Founding a new cluster on the log of another one: after a restoration, and after the loss of a majority.
//!
//! The new cluster has another name, and its only member another number, so no message, vote or page of the old cluster is accepted in
//! it. The log continues after the last entry that the old cluster wrote into it. What was to be founded is noted in a file first, and a
//! member founds it before it does anything else: a crash in between changes nothing.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use prost::Message as _;
use qed_core::acts::ActBody;
use qed_core::applied::Members;
use qed_core::durable;
use qed_core::log::Log;
use qed_core::log_id::LogId;
use raft::eraftpb::{ConfChangeV2, Entry, EntryType};
use serde::{Deserialize, Serialize};

use crate::consensus::Committed;
use crate::identity::{Identity, random, random_cluster};
use crate::member::MemberError;
use crate::member_id::MemberId;
use crate::membership::{MemberInfo, Membership};
use crate::segments::SegmentStore;
use crate::state::{State, StateError};
use crate::wal::{Bounds, Frame, Recovered, Wal};

const FILE: &str = "FOUNDING";
const FORMAT: u64 = 1;

/// Why a new cluster is founded on the log of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// The log was read from a backup.
    Restored,
    /// A majority of the members was lost.
    Recovered,
}

/// A cluster that is to be founded (FORMATS.md, "Data folder").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Founding {
    format: u64,
    /// Why.
    pub cause: Cause,
    /// The number of its member.
    pub id: MemberId,
    /// Its name.
    pub cluster: String,
    /// The act that records it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<String>,
}

impl Founding {
    /// Return a cluster with a new random name and a member with a new random number, and the act that records it.
    ///
    /// # Errors
    ///
    /// As [`random`]; or that the act is empty or too long.
    pub fn draw(cause: Cause, act: Option<String>) -> io::Result<Self> {
        let drawn = Self { format: FORMAT, cause, id: MemberId::of(random()?.max(1)), cluster: random_cluster()?, act };
        drawn.body()?;
        Ok(drawn)
    }

    /// Return the act that records it, in the form in which it is recorded.
    fn body(&self) -> io::Result<Option<ActBody>> {
        let Some(act) = &self.act else { return Ok(None) };
        let body = ActBody::new(act.as_bytes().to_vec()).ok_or_else(|| {
            let (most, found) = (ActBody::MOST_BYTES, act.len());
            io::Error::other(format!("expected an act of 1 to {most} bytes, found {found}"))
        })?;
        Ok(Some(body))
    }

    /// Return what is to be founded on the log in the data folder at `path`, if anything is.
    ///
    /// # Errors
    ///
    /// The error of the operating system, or that the file is invalid.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read(path.join(FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let founding: Self =
            serde_json::from_slice(&text).map_err(|error| io::Error::other(format!("{FILE} is damaged: {error}")))?;
        if founding.format != FORMAT {
            return Err(io::Error::other(format!("expected format {FORMAT} of {FILE}, found {}", founding.format)));
        }
        founding.body().map_err(|error| io::Error::other(format!("{FILE} is damaged: {error}")))?;
        Ok(Some(founding))
    }

    /// Save it in the data folder at `path`; durable when this returns.
    ///
    /// # Errors
    ///
    /// The error of the operating system.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let text = serde_json::to_vec(self)?;
        durable::replace(&path.join(FILE), |file| {
            file.write_all(&text)?;
            file.write_all(b"\n")
        })
    }

    /// Forget it in the data folder at `path`, once it is founded.
    ///
    /// # Errors
    ///
    /// The error of the operating system.
    pub fn forget(path: &Path) -> io::Result<()> {
        fs::remove_file(path.join(FILE))?;
        durable::sync_folder(path)
    }

    /// Found the cluster on `log` with `member` as its only member. Everything in the member's Raft log is applied first: it may have
    /// been acknowledged. Doing it again changes nothing. Durable when this returns.
    ///
    /// # Errors
    ///
    /// [`MemberError`] if the log or the Raft log cannot be read or written, or contradict each other.
    pub fn found<M: SegmentStore>(
        &self,
        log: &Arc<Log>,
        (wal, recovered): (&mut Wal<M>, &mut Recovered),
        member: MemberInfo,
    ) -> Result<Identity, MemberError> {
        let name = member.name.clone();
        let mut state = State::open(Arc::clone(log))?;
        if state.membership().cluster != self.cluster {
            apply_rest(&mut state, &recovered.entries)?;
            let old = state.membership();
            let LogId { index, term } = state.applied();
            let log_id = LogId { index: index + 1, term: term.max(recovered.hard_state.term) + 1 };
            let membership = Membership::continuing(old, self.cluster.clone(), self.id, member);
            let act = self.body().map_err(|error| MemberError::Inconsistent(error.to_string()))?;
            log.apply_members(&Members { log_id, bytes: membership.to_bytes() }, act)?;
        }
        log.sync()?;
        let LogId { index, term } = log.applied();
        let bounds = Bounds { index, term, is_reset: true };
        (recovered.hard_state.term, recovered.hard_state.vote, recovered.hard_state.commit) = (term, 0, index);
        recovered.bounds = bounds;
        recovered.entries.clear();
        let hard_state = recovered.hard_state.clone();
        wal.append(&Frame { hard_state, bounds: Some(bounds), entries: Vec::new() })?;
        Ok(Identity::of_founder(name, self.id, self.cluster.clone()))
    }
}

/// Apply the entries of a Raft log that come next, whether or not they are known to be committed.
fn apply_rest(state: &mut State, entries: &[Entry]) -> Result<(), StateError> {
    for entry in entries {
        if entry.index == state.applied().index + 1 {
            let log_id = LogId { index: entry.index, term: entry.term };
            let data = if entry.entry_type() == EntryType::EntryNormal {
                entry.data.clone()
            } else {
                let change = ConfChangeV2::decode(entry.data.as_slice());
                change.map_err(|_| StateError::UnknownEntry(entry.index))?.context
            };
            // The configuration that results is that of the old cluster, and does not matter in the new one.
            state.apply(&Committed { log_id, data, conf_state: None }, false)?;
        }
    }
    Ok(())
}
