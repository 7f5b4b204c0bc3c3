//! Which logs and witnesses somebody trusts, and how many of them must have signed (C2SP tlog-policy).
//!
//! ```text
//! log <vkey> [<url>]
//! witness <name> <vkey> [<url>]
//! group <name> all|any|<k> <member>…
//! quorum <name>|none
//! ```
//!
//! Names are any bytes except space. A group is satisfied by `all`, `any` or `k` of its members, which are witnesses and groups of
//! lines above it. Each is a member of one group at most, so one witness never counts twice.

use std::collections::HashMap;

use crate::proof::Malformed;
use crate::tlog::checkpoint::Checkpoint;
use crate::tlog::key::VerifierKey;
use crate::tlog::note::{Note, VerifiedNote};
use crate::tlog::text::{Name, decimal, shown};
use crate::verify::VerifyError;

/// Maximum number of logs, and of witnesses, in a policy.
pub const MAX_PARTIES: usize = 1000;

/// The longest policy that is read, in bytes.
pub const MAX_POLICY_BYTES: usize = 1024 * 1024;

/// The name that no witness or group may have.
const NONE: &[u8] = b"none";

/// The text is not a valid policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the policy: {reason}")]
pub struct PolicyError {
    /// The line, counted from 1.
    pub line: usize,
    /// What was expected and what was found.
    pub reason: String,
}

/// A log or witness of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Party {
    /// Name in the policy. That of a log is its origin.
    pub name: Vec<u8>,
    /// Its key.
    pub key: VerifierKey,
    /// Where to submit checkpoints to a witness, or to read a log.
    pub url: Option<Vec<u8>>,
}

/// What a name of the policy stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Member {
    /// Index of a witness.
    Witness(usize),
    /// Index of a group.
    Group(usize),
}

/// A group: satisfied when `threshold` of its members are.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    threshold: usize,
    members: Vec<Member>,
}

/// A policy. Its groups are in the order of their lines, each after its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    logs: Vec<Party>,
    witnesses: Vec<Party>,
    groups: Vec<Group>,
    quorum: Option<Member>,
    retired: Vec<Retired>,
}

/// A key with which a log does not sign any more, and the largest size for which it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Retired {
    key: VerifierKey,
    max_size: u64,
}

/// How a checkpoint meets the quorum of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quorum {
    /// The policy asks for none: the signature of the log is all there is.
    NotRequired,
    /// Enough witnesses have cosigned. Times are in seconds since 1970.
    Met {
        /// The checkpoint existed at this time: the cosignatures up to then are enough.
        existed_at: u64,
        /// It was still the newest at this time: the cosignatures from then on are enough. This is the largest such time.
        confirmed_at: u64,
    },
    /// Not enough witnesses have cosigned.
    Missing,
}

/// A cosignature of a witness of the policy that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cosignature {
    /// Index of the witness in [`Policy::witnesses`].
    pub witness: usize,
    /// Its time, in seconds since 1970.
    pub time: u64,
}

/// A checkpoint that its log has signed, and that no line of a trusted key contradicts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endorsed {
    checkpoint: Checkpoint,
    note: VerifiedNote,
    cosignatures: Vec<Cosignature>,
    quorum: Quorum,
}

impl Endorsed {
    /// Return the checkpoint, with extension lines only if its log has signed them.
    #[must_use]
    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Return the note, without the lines of unknown keys.
    #[must_use]
    pub const fn note(&self) -> &VerifiedNote {
        &self.note
    }

    /// Return the cosignatures that count.
    #[must_use]
    pub fn cosignatures(&self) -> &[Cosignature] {
        &self.cosignatures
    }

    /// Return whether they are enough.
    #[must_use]
    pub const fn quorum(&self) -> Quorum {
        self.quorum
    }

    /// Return whether witnesses enough for the quorum have cosigned at `oldest` or later. True if the policy asks for none.
    #[must_use]
    pub const fn is_met_since(&self, oldest: u64) -> bool {
        match self.quorum {
            Quorum::NotRequired => true,
            Quorum::Met { confirmed_at, .. } => oldest <= confirmed_at,
            Quorum::Missing => false,
        }
    }

    /// Return whether the note has extension lines that its log has not signed. They deserve a warning.
    #[must_use]
    pub fn has_unsigned_extensions(&self) -> bool {
        self.checkpoint.to_string() != self.note.text()
    }
}

impl Policy {
    /// Return the policy in `bytes`.
    ///
    /// # Errors
    ///
    /// [`PolicyError`] names the first line that is wrong: it has a byte that no policy may have or an unknown keyword, repeats a
    /// name or a public key, uses a name that no line above defines or that is in a group already, or puts a comment behind
    /// something else; or the quorum is missing.
    pub fn parse(bytes: &[u8]) -> Result<Self, PolicyError> {
        if bytes.len() > MAX_POLICY_BYTES {
            let reason = format!("expected a policy of at most {MAX_POLICY_BYTES} bytes, found {}", bytes.len());
            return Err(PolicyError { line: 1, reason });
        }
        let mut reading = Reading::default();
        let mut line = 0;
        for text in bytes.split_inclusive(|byte| *byte == b'\n') {
            line += 1;
            reading.line(text).map_err(|Malformed(reason)| PolicyError { line, reason })?;
        }
        let missing = || PolicyError { line: line + 1, reason: "expected a quorum line, found the end".into() };
        let QuorumLine(quorum) = reading.quorum.ok_or_else(missing)?;
        let Reading { logs, witnesses, groups, .. } = reading;
        Ok(Self { logs, witnesses, groups, quorum, retired: Vec::new() })
    }

    /// Return the policy with a key with which one of its logs has signed up to `max_size`, and does not sign any more.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the key is not of a kind for logs, its name is not that of a log of the policy, or it is in the policy already.
    pub fn with_retired(mut self, key: VerifierKey, max_size: u64) -> Result<Self, Malformed> {
        require_for_log(&key)?;
        if !self.logs.iter().any(|log| log.key.name() == key.name()) {
            return Err(Malformed::because(format!("expected a key of a log of the policy, found {key:?}")));
        }
        let known = self.logs.iter().map(|log| &log.key).chain(self.retired.iter().map(|retired| &retired.key));
        require_new(known, &key)?;
        self.retired.push(Retired { key, max_size });
        Ok(self)
    }

    /// Return the logs.
    #[must_use]
    pub fn logs(&self) -> &[Party] {
        &self.logs
    }

    /// Return the witnesses.
    #[must_use]
    pub fn witnesses(&self) -> &[Party] {
        &self.witnesses
    }

    /// Return the names under which one group counts several keys, although more than one member must have signed: the owner of these
    /// keys counts as several witnesses.
    #[must_use]
    pub fn counted_twice(&self) -> Vec<&Name> {
        let mut names: Vec<_> =
            self.groups.iter().filter(|group| group.threshold > 1).flat_map(|g| self.repeated(g)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Return the names that more than one witness of a group has.
    fn repeated(&self, group: &Group) -> Vec<&Name> {
        let witness = |member: &Member| match *member {
            Member::Witness(i) => self.witnesses.get(i).map(|witness| witness.key.name()),
            Member::Group(_) => None,
        };
        let names: Vec<_> = group.members.iter().filter_map(witness).collect();
        names
            .iter()
            .enumerate()
            .filter(|(i, name)| names.iter().take(*i).any(|other| other == *name))
            .map(|(_, name)| *name)
            .collect()
    }

    /// Return the names of witnesses whose public key is that of a log: they are the log itself.
    #[must_use]
    pub fn witnesses_of_themselves(&self) -> Vec<&Name> {
        let is_log = |key: &VerifierKey| self.logs.iter().any(|log| log.key.public_key() == key.public_key());
        self.witnesses.iter().map(|witness| &witness.key).filter(|key| is_log(key)).map(VerifierKey::name).collect()
    }

    /// Return whether the policy asks for witnesses.
    #[must_use]
    pub const fn has_quorum(&self) -> bool {
        self.quorum.is_some()
    }

    /// Return whether these witnesses, by their indices in [`Self::witnesses`], are enough for the quorum. Any are if the policy asks for
    /// none.
    #[must_use]
    pub fn is_quorum(&self, witnesses: &[usize]) -> bool {
        self.quorum.is_none_or(|quorum| self.is_satisfied(quorum, witnesses.iter().copied()))
    }

    /// Verify the note of a checkpoint.
    ///
    /// `latest` is the latest time that a cosignature may have: the current time and what clocks may differ by.
    ///
    /// 1. The log has signed, as in [`Self::verify_log`].
    /// 2. Enough witnesses have cosigned, if the policy asks for any.
    ///
    /// # Errors
    ///
    /// [`VerifyError`] names the check that failed.
    pub fn verify(&self, note: &Note, latest: u64) -> Result<Endorsed, VerifyError> {
        // 1.
        let endorsed = self.verify_log(note, latest)?;
        // 2.
        if endorsed.quorum == Quorum::Missing {
            let expected = "cosignatures enough for the policy".into();
            let computed = format!("{} that count", endorsed.cosignatures.len());
            return Err(VerifyError { check: "quorum", expected, computed });
        }
        Ok(endorsed)
    }

    /// Verify the note of a checkpoint for which cosignatures may still be missing.
    ///
    /// 1. The origin is a log of the policy.
    /// 2. A key of this log has signed. No line of a key of the policy fails. A retired key counts up to its size only.
    /// 3. Cosignatures with time 0 or after `latest` count for nothing. The others are compared with the quorum, which gives
    ///    [`Endorsed::quorum`].
    ///
    /// # Errors
    ///
    /// [`VerifyError`] names the check that failed.
    pub fn verify_log(&self, note: &Note, latest: u64) -> Result<Endorsed, VerifyError> {
        // 1.
        let origin = note.claimed_origin();
        if !self.logs.iter().any(|log| log.key.name().as_str() == origin) {
            let expected = "a log of the policy".into();
            return Err(VerifyError { check: "origin", expected, computed: shown(origin) });
        }
        // 2.
        let parties = self.logs.iter().chain(&self.witnesses).map(|party| &party.key);
        let keys: Vec<_> = parties.chain(self.retired.iter().map(|retired| &retired.key)).cloned().collect();
        let note = note.verify(&keys)?;
        let size = Checkpoint::parse(note.text())?.head.size();
        let retired = self.retired.iter().filter(|retired| size <= retired.max_size).map(|retired| &retired.key);
        let logs: Vec<_> = self.logs.iter().map(|log| &log.key).chain(retired).cloned().collect();
        let checkpoint = note.checkpoint(&logs)?;
        // 3.
        let cosignatures = self.cosignatures(&note, latest);
        let quorum = self.quorum_of(&cosignatures);
        Ok(Endorsed { checkpoint, note, cosignatures, quorum })
    }

    fn cosignatures(&self, note: &VerifiedNote, latest: u64) -> Vec<Cosignature> {
        let of = |(witness, party): (usize, &Party)| {
            let line = note.lines().iter().find(|line| *line.key() == party.key)?;
            let time = line.time().filter(|time| (1..=latest).contains(time))?;
            Some(Cosignature { witness, time })
        };
        self.witnesses.iter().enumerate().filter_map(of).collect()
    }

    fn quorum_of(&self, cosignatures: &[Cosignature]) -> Quorum {
        let Some(quorum) = self.quorum else { return Quorum::NotRequired };
        let mut times: Vec<_> = cosignatures.iter().map(|cosignature| cosignature.time).collect();
        times.sort_unstable();
        let is_met = |counts: &dyn Fn(u64) -> bool| {
            let counting = cosignatures.iter().filter(|cosignature| counts(cosignature.time));
            self.is_satisfied(quorum, counting.map(|cosignature| cosignature.witness))
        };
        let up_to = |end: &u64| is_met(&|time| time <= *end);
        let from = |start: &u64| is_met(&|time| time >= *start);
        match (times.iter().copied().find(up_to), times.iter().rev().copied().find(from)) {
            (Some(existed_at), Some(confirmed_at)) => Quorum::Met { existed_at, confirmed_at },
            _ => Quorum::Missing,
        }
    }

    /// Return whether `member` is satisfied by these witnesses. Groups are in an order in which each comes after its members, so this
    /// needs no recursion, whose depth the policy would decide.
    fn is_satisfied(&self, member: Member, cosigning: impl Iterator<Item = usize>) -> bool {
        let mut witnesses = vec![false; self.witnesses.len()];
        for witness in cosigning {
            if let Some(has_cosigned) = witnesses.get_mut(witness) {
                *has_cosigned = true;
            }
        }
        let mut groups: Vec<bool> = Vec::with_capacity(self.groups.len());
        let holds = |member: &Member, groups: &[bool]| match *member {
            Member::Witness(i) => witnesses.get(i).copied().unwrap_or(false),
            Member::Group(i) => groups.get(i).copied().unwrap_or(false),
        };
        for group in &self.groups {
            let satisfied = group.members.iter().filter(|member| holds(member, &groups)).count();
            groups.push(satisfied >= group.threshold);
        }
        holds(&member, &groups)
    }
}

/// The lines of a policy that were read.
#[derive(Default)]
struct Reading {
    logs: Vec<Party>,
    witnesses: Vec<Party>,
    groups: Vec<Group>,
    /// Each name, and whether it is in a group already.
    names: HashMap<Vec<u8>, (Member, bool)>,
    quorum: Option<QuorumLine>,
}

/// What a quorum line says: a member, or none.
struct QuorumLine(Option<Member>);

impl Reading {
    fn line(&mut self, line: &[u8]) -> Result<(), Malformed> {
        let line = line
            .strip_suffix(b"\n")
            .ok_or_else(|| Malformed::because("expected a line feed at the end of the line"))?;
        if let Some(byte) = line.iter().find(|byte| !matches!(byte, b'\t' | 0x20..=0x7e | 0x80..)) {
            return Err(Malformed::because(format!("expected text, found the control character {byte:#04x}")));
        }
        let fields: Vec<_> =
            line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|field| !field.is_empty()).collect();
        let Some((keyword, values)) = fields.split_first().filter(|(keyword, _)| !keyword.starts_with(b"#")) else {
            return Ok(());
        };
        if values.iter().any(|field| field.starts_with(b"#")) {
            return Err(Malformed::because("expected a comment on a line of its own, found # behind other fields"));
        }
        match (*keyword, values) {
            (b"log", [vkey]) => self.log(vkey, None),
            (b"log", [vkey, url]) => self.log(vkey, Some(url)),
            (b"witness", [name, vkey]) => self.witness(name, vkey, None),
            (b"witness", [name, vkey, url]) => self.witness(name, vkey, Some(url)),
            (b"group", [name, threshold, members @ ..]) => self.group(name, threshold, members),
            (b"quorum", [name]) => self.quorum(name),
            (keyword, values) => Err(Malformed::because(format!(
                "expected log, witness, group or quorum with its fields, found {} with {}",
                printable(keyword),
                values.len()
            ))),
        }
    }

    fn log(&mut self, vkey: &[u8], url: Option<&[u8]>) -> Result<(), Malformed> {
        let key = read_key(vkey)?;
        require_for_log(&key)?;
        require_room(&self.logs)?;
        require_new(self.logs.iter().map(|log| &log.key), &key)?;
        require_apart(&self.witnesses, &key)?;
        self.logs.push(Party { name: key.name().as_str().into(), key, url: url.map(read_url).transpose()? });
        Ok(())
    }

    fn witness(&mut self, name: &[u8], vkey: &[u8], url: Option<&[u8]>) -> Result<(), Malformed> {
        let key = read_key(vkey)?;
        if !key.kind().has_time() {
            return Err(Malformed::because(format!("expected a key of a witness, of kind 04 or 06, found {key:?}")));
        }
        require_room(&self.witnesses)?;
        require_new(self.witnesses.iter().map(|witness| &witness.key), &key)?;
        require_apart(&self.logs, &key)?;
        self.define(name, Member::Witness(self.witnesses.len()))?;
        self.witnesses.push(Party { name: name.into(), key, url: url.map(read_url).transpose()? });
        Ok(())
    }

    fn group(&mut self, name: &[u8], threshold: &[u8], members: &[&[u8]]) -> Result<(), Malformed> {
        let count = members.len();
        if count == 0 {
            return Err(Malformed::because("expected the members of a group, found none"));
        }
        let threshold = match threshold {
            b"all" => count,
            b"any" => 1,
            number => usize::try_from(decimal(&String::from_utf8_lossy(number))?).unwrap_or(usize::MAX),
        };
        if !(1..=count).contains(&threshold) {
            return Err(Malformed::because(format!(
                "expected all, any or 1 to {count} of {count} members, found {threshold}"
            )));
        }
        let members = members.iter().map(|member| self.join(member)).collect::<Result<_, _>>()?;
        self.define(name, Member::Group(self.groups.len()))?;
        self.groups.push(Group { threshold, members });
        Ok(())
    }

    fn quorum(&mut self, name: &[u8]) -> Result<(), Malformed> {
        if self.quorum.is_some() {
            return Err(Malformed::because("expected one quorum line, found a second one"));
        }
        self.quorum = Some(QuorumLine(match name {
            NONE => None,
            name => Some(self.names.get(name).ok_or_else(|| undefined(name))?.0),
        }));
        Ok(())
    }

    /// Note what a name stands for.
    fn define(&mut self, name: &[u8], member: Member) -> Result<(), Malformed> {
        if name == NONE {
            return Err(Malformed::because("expected a name other than none, which is reserved"));
        }
        match self.names.insert(name.into(), (member, false)) {
            None => Ok(()),
            Some(_) => Err(Malformed::because(format!("expected a new name, found {} again", printable(name)))),
        }
    }

    /// Put the owner of a name into a group.
    fn join(&mut self, name: &[u8]) -> Result<Member, Malformed> {
        let (member, has_group) = self.names.get_mut(name).ok_or_else(|| undefined(name))?;
        if std::mem::replace(has_group, true) {
            return Err(Malformed::because(format!("expected members of no other group, found {}", printable(name))));
        }
        Ok(*member)
    }
}

fn read_key(vkey: &[u8]) -> Result<VerifierKey, Malformed> {
    std::str::from_utf8(vkey).map_err(|cause| Malformed::because(format!("expected a key in UTF-8: {cause}")))?.parse()
}

/// Return the bytes of a URL, which nobody but its reader interprets.
fn read_url(url: &[u8]) -> Result<Vec<u8>, Malformed> {
    let has_scheme = |scheme: &[u8]| {
        url.split_at_checked(scheme.len())
            .is_some_and(|(start, rest)| start.eq_ignore_ascii_case(scheme) && !rest.is_empty())
    };
    if has_scheme(b"https://") || has_scheme(b"http://") {
        return Ok(url.into());
    }
    let found = printable(url);
    Err(Malformed::because(format!("expected a URL that begins with https:// or http://, found {found}")))
}

fn require_for_log(key: &VerifierKey) -> Result<(), Malformed> {
    if key.kind().is_for_logs() {
        return Ok(());
    }
    Err(Malformed::because(format!("expected a key of a log, of kind 01 or 06, found {key:?}")))
}

fn require_room(parties: &[Party]) -> Result<(), Malformed> {
    if parties.len() < MAX_PARTIES {
        return Ok(());
    }
    Err(Malformed::because(format!("expected at most {MAX_PARTIES} logs and {MAX_PARTIES} witnesses, found more")))
}

/// Refuse a public key that is listed already, under whatever name, and a key with the name and id of another.
fn require_new<'a>(mut known: impl Iterator<Item = &'a VerifierKey>, key: &VerifierKey) -> Result<(), Malformed> {
    let is_same = |other: &&VerifierKey| {
        other.public_key() == key.public_key() || (other.name(), other.id()) == (key.name(), key.id())
    };
    match known.find(is_same) {
        None => Ok(()),
        Some(other) => Err(Malformed::because(format!(
            "expected each public key once, and each name and id once, found {key:?} after {other:?}"
        ))),
    }
}

/// Refuse a name for both a log and a witness: the line of one could be taken for that of the other.
fn require_apart(parties: &[Party], key: &VerifierKey) -> Result<(), Malformed> {
    if parties.iter().any(|party| party.key.name() == key.name()) {
        let expected = "other names for logs than for witnesses";
        return Err(Malformed::because(format!("expected {expected}, found {:?} for both", key.name())));
    }
    Ok(())
}

fn undefined(name: &[u8]) -> Malformed {
    Malformed::because(format!("expected a name that a line above defines, found {}", printable(name)))
}

fn printable(name: &[u8]) -> String {
    shown(&String::from_utf8_lossy(name))
}
