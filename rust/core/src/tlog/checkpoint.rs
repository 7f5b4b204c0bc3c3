//! Checkpoints: the name of a log, its size and its root as text (C2SP tlog-checkpoint).
//!
//! ```text
//! log.example.com/qed-spec
//! 5
//! j4Vx4OZuOgXfIBYtNAJI4NzmwiApIg6C4wB54PA76sA=
//! ```
//!
//! More lines may follow, the *extension lines*. qed writes none, keeps those of others as they are, and interprets none. Ed25519 signs
//! them; ML-DSA-44 does not. So [`VerifiedNote::checkpoint`](crate::tlog::note::VerifiedNote::checkpoint) gives them only if the
//! Ed25519 key of the log has signed.

use std::fmt;

use crate::hash::Digest;
use crate::proof::Malformed;
use crate::tlog::merkle::TreeHead;
use crate::tlog::text::{Name, decimal, digest_from_base64, plain_text, to_base64};

/// What the text of a log's note says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The name of the log.
    pub origin: Name,
    /// Its size and root.
    pub head: TreeHead,
    extensions: Vec<String>,
}

impl Checkpoint {
    /// Return the checkpoint without extension lines.
    #[must_use]
    pub const fn new(origin: Name, head: TreeHead) -> Self {
        Self { origin, head, extensions: Vec::new() }
    }

    /// Return the checkpoint that `text` spells.
    ///
    /// # Errors
    ///
    /// [`Malformed`] unless `text` is exactly what [`ToString`] gives for a checkpoint.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        Claim::parse(text)?.into_checkpoint()
    }

    /// Return the extension lines.
    #[must_use]
    pub fn extensions(&self) -> &[String] {
        &self.extensions
    }

    /// Return the checkpoint without its extension lines.
    pub(super) fn without_extensions(self) -> Self {
        Self::new(self.origin, self.head)
    }
}

/// What the text of a checkpoint says, even if no tree has that size and root: size 0 may have any root.
///
/// A log can sign such a text, and a witness tells a false signature from a true one over nonsense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) origin: Name,
    pub(super) size: u64,
    pub(super) root: Digest,
    pub(super) extensions: Vec<String>,
}

impl Claim {
    /// Return the claim that `text` spells.
    ///
    /// # Errors
    ///
    /// [`Malformed`] unless `text` has the grammar of a checkpoint, and a size of at most `MAX_NUMBER`.
    pub(super) fn parse(text: &str) -> Result<Self, Malformed> {
        let body = plain_text(text.as_bytes())?
            .strip_suffix('\n')
            .ok_or_else(|| Malformed::because("expected a checkpoint that ends in a line feed"))?;
        let mut lines = body.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(Malformed::because("expected origin, size and root as the lines of a checkpoint"));
        };
        let (origin, size, root) = (Name::parse(origin)?, decimal(size)?, digest_from_base64(root)?);
        let extensions: Vec<_> = lines.map(String::from).collect();
        if extensions.iter().any(String::is_empty) {
            return Err(Malformed::because("expected extension lines in the checkpoint, found an empty line"));
        }
        Ok(Self { origin, size, root, extensions })
    }

    /// Return the checkpoint, if a tree can have this size and root.
    pub(super) fn into_checkpoint(self) -> Result<Checkpoint, Malformed> {
        let Self { origin, size, root, extensions } = self;
        Ok(Checkpoint { origin, head: TreeHead::new(size, root)?, extensions })
    }
}

impl From<&Checkpoint> for Claim {
    fn from(checkpoint: &Checkpoint) -> Self {
        let Checkpoint { origin, head, extensions } = checkpoint;
        Self { origin: origin.clone(), size: head.size(), root: *head.root(), extensions: extensions.clone() }
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let root = to_base64(self.head.root().as_bytes());
        write!(f, "{}\n{}\n{root}\n", self.origin, self.head.size())?;
        self.extensions.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}
