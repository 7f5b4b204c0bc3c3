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
use crate::tlog::text::{decimal, shown};
use crate::verify::VerifyError;

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
    pub url: Option<String>,
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
}

/// How a checkpoint meets the quorum of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quorum {
    /// The policy asks for none: the signature of the log is all there is.
    NotRequired,
    /// Enough witnesses have cosigned, all by this time, in seconds since 1970: the smallest such time.
    Met {
        /// The checkpoint existed at this time.
        existed_at: u64,
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
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// The note, without the lines of unknown keys.
    pub note: VerifiedNote,
    /// The cosignatures that count.
    pub cosignatures: Vec<Cosignature>,
    /// Whether they are enough.
    pub quorum: Quorum,
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
        Ok(Self { logs: reading.logs, witnesses: reading.witnesses, groups: reading.groups, quorum })
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

    /// Return whether the policy asks for witnesses.
    #[must_use]
    pub const fn has_quorum(&self) -> bool {
        self.quorum.is_some()
    }

    /// Verify the note of a checkpoint.
    ///
    /// `latest` is the latest time that a cosignature may have: the current time and what clocks may differ by.
    ///
    /// 1. The origin is a log of the policy.
    /// 2. A key of this log has signed. No line of a key of the policy fails.
    /// 3. Cosignatures with time 0 or after `latest` count for nothing. The others are compared with the quorum.
    ///
    /// A missing quorum is not an error of the note; the caller decides on [`Endorsed::quorum`].
    ///
    /// # Errors
    ///
    /// [`VerifyError`] names the check that failed.
    pub fn verify(&self, note: &Note, latest: u64) -> Result<Endorsed, VerifyError> {
        // 1.
        let origin = note.claimed_origin();
        if !self.logs.iter().any(|log| log.key.name().as_str() == origin) {
            let expected = "a log of the policy".into();
            return Err(VerifyError { check: "origin", expected, computed: shown(origin) });
        }
        // 2.
        let keys: Vec<_> = self.logs.iter().chain(&self.witnesses).map(|party| party.key.clone()).collect();
        let note = note.verify(&keys)?;
        let checkpoint = note.checkpoint()?;
        // 3.
        let cosignatures = self.cosignatures(&note, latest);
        let quorum = self.quorum_of(&cosignatures);
        Ok(Endorsed { checkpoint, note, cosignatures, quorum })
    }

    /// Return whether witnesses enough for the quorum have cosigned at `oldest` or later. True if the policy asks for none.
    #[must_use]
    pub fn is_met_since(&self, cosignatures: &[Cosignature], oldest: u64) -> bool {
        self.quorum.is_none_or(|quorum| self.is_satisfied(quorum, |time| time >= oldest, cosignatures))
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
        let enough_at = |end: &u64| self.is_satisfied(quorum, |time| time <= *end, cosignatures);
        times.into_iter().find(enough_at).map_or(Quorum::Missing, |existed_at| Quorum::Met { existed_at })
    }

    /// Return whether `member` is satisfied by the cosignatures whose time `counts`. Groups are in an order in which each comes after
    /// its members, so this needs no recursion, whose depth the policy would decide.
    fn is_satisfied(&self, member: Member, counts: impl Fn(u64) -> bool, cosignatures: &[Cosignature]) -> bool {
        let mut witnesses = vec![false; self.witnesses.len()];
        for cosignature in cosignatures.iter().filter(|cosignature| counts(cosignature.time)) {
            if let Some(has_cosigned) = witnesses.get_mut(cosignature.witness) {
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
        if fields.first().is_none_or(|field| field.starts_with(b"#")) {
            return Ok(());
        }
        if fields.iter().any(|field| field.starts_with(b"#")) {
            return Err(Malformed::because("expected a comment on a line of its own, found # behind other fields"));
        }
        match &*fields {
            [b"log", vkey] => self.log(vkey, None),
            [b"log", vkey, url] => self.log(vkey, Some(url)),
            [b"witness", name, vkey] => self.witness(name, vkey, None),
            [b"witness", name, vkey, url] => self.witness(name, vkey, Some(url)),
            [b"group", name, threshold, members @ ..] => self.group(name, threshold, members),
            [b"quorum", name] => self.quorum(name),
            [keyword, ..] => Err(Malformed::because(format!(
                "expected log, witness, group or quorum with its fields, found {} with {}",
                printable(keyword),
                fields.len() - 1
            ))),
            [] => Ok(()),
        }
    }

    fn log(&mut self, vkey: &[u8], url: Option<&[u8]>) -> Result<(), Malformed> {
        let key = read_key(vkey)?;
        if !key.kind().is_for_logs() {
            return Err(Malformed::because(format!("expected a key of a log, of kind 01 or 06, found {key:?}")));
        }
        require_new(&self.logs, &key)?;
        require_apart(&self.witnesses, &key)?;
        self.logs.push(Party { name: key.name().as_str().into(), key, url: url.map(read_url).transpose()? });
        Ok(())
    }

    fn witness(&mut self, name: &[u8], vkey: &[u8], url: Option<&[u8]>) -> Result<(), Malformed> {
        let key = read_key(vkey)?;
        if !key.kind().has_time() {
            return Err(Malformed::because(format!("expected a key of a witness, of kind 04 or 06, found {key:?}")));
        }
        require_new(&self.witnesses, &key)?;
        require_apart(&self.logs, &key)?;
        self.define(name, Member::Witness(self.witnesses.len()))?;
        self.witnesses.push(Party { name: name.into(), key, url: url.map(read_url).transpose()? });
        Ok(())
    }

    fn group(&mut self, name: &[u8], threshold: &[u8], members: &[&[u8]]) -> Result<(), Malformed> {
        let count = members.len();
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

fn read_url(url: &[u8]) -> Result<String, Malformed> {
    let text = std::str::from_utf8(url).ok().filter(|url| url.is_ascii());
    let rest = text.and_then(|url| url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")));
    match (text, rest) {
        (Some(url), Some(rest)) if !rest.is_empty() => Ok(url.into()),
        _ => Err(Malformed::because(format!(
            "expected a URL that begins with https:// or http://, found {}",
            printable(url)
        ))),
    }
}

/// Refuse a public key that is listed already, under whatever name.
fn require_new(parties: &[Party], key: &VerifierKey) -> Result<(), Malformed> {
    match parties.iter().find(|party| party.key.public_key() == key.public_key()) {
        None => Ok(()),
        Some(party) => Err(Malformed::because(format!(
            "expected each public key once, found that of {} again as {:?}+{}",
            printable(&party.name),
            key.name(),
            key.id()
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
