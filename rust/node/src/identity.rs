//! The identity of a data folder: a random number that no other folder ever has.
//!
//! A vote is a promise, and a lost disk has forgotten its promises. So the folder identifies a member, not its name: a member that
//! returns under its old name with an empty folder has a new number, and the cluster removes the old one.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use qed_core::durable;
use serde::{Deserialize, Serialize};

use crate::member_id::MemberId;

const FILE: &str = "MEMBER";
const FORMAT: u64 = 1;

/// The member that a data folder belongs to (FORMATS.md, "Data folder").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The format of this file.
    format: u64,
    /// Its number among the members.
    pub id: MemberId,
    /// Its name.
    pub name: String,
    /// The cluster that it was admitted to.
    pub cluster: Option<String>,
    /// Whether it was created to join a cluster: it must never start one of its own.
    pub is_joining: bool,
}

impl Identity {
    /// Return the identity in the data folder at `path`, if it has one.
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
        let identity: Self =
            serde_json::from_slice(&text).map_err(|error| io::Error::other(format!("{FILE} is damaged: {error}")))?;
        if identity.format != FORMAT {
            return Err(io::Error::other(format!(
                "expected format {FORMAT} of {FILE}, found {}: open the folder with the version of qed that wrote it, or with a newer one",
                identity.format
            )));
        }
        Ok(Some(identity))
    }

    /// Return a new random identity.
    ///
    /// # Errors
    ///
    /// Same as [`random`].
    pub fn draw(name: &str, is_joining: bool) -> io::Result<Self> {
        Ok(Self { format: FORMAT, id: MemberId::of(random()?.max(1)), name: name.into(), cluster: None, is_joining })
    }

    /// Return the identity of the only member of a new cluster.
    #[must_use]
    pub const fn of_founder(name: String, id: MemberId, cluster: String) -> Self {
        Self { format: FORMAT, id, name, cluster: Some(cluster), is_joining: false }
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
}

/// Return a random number.
///
/// # Errors
///
/// The error of the operating system if it cannot provide one.
pub fn random() -> io::Result<u64> {
    getrandom::u64().map_err(io::Error::other)
}

/// Return a new name for a cluster: 32 hexadecimal digits.
///
/// # Errors
///
/// Same as [`random`].
pub fn random_cluster() -> io::Result<String> {
    Ok(format!("{:016x}{:016x}", random()?, random()?))
}
