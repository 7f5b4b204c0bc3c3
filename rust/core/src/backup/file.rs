//! A backup on its way into a file.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufReader, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::reader::{LINE_BYTES_MOST, Sequence, read_frame, read_line};
use super::{BackupError, Cursor, HEAD_BYTES, Header, first_line, require_regular};
use crate::durable;
use crate::hash::{DIGEST_BYTES, Digest};

/// Only the owner may read it: whoever can read a digest can guess its event if few events are possible.
const FILE_MODE: u32 = 0o600;

/// A backup that is being written, frame by frame. What a crash leaves can be continued.
#[derive(Debug)]
pub struct BackupFile {
    file: File,
    /// The frames so far, once there is a first line.
    sequence: Option<Sequence>,
    /// What has arrived of the next frame.
    pending: Vec<u8>,
}

impl BackupFile {
    /// Open the file at `path`, which is created if it does not exist. An unfinished backup in it is kept up to its last whole frame.
    ///
    /// # Errors
    ///
    /// [`BackupError::Io`] if it cannot be read or written, or another process is writing it. [`BackupError::UnsupportedFormat`] if a newer
    /// build began it.
    pub fn open(path: &Path) -> Result<Self, BackupError> {
        let options = File::options().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path);
        let mut file = options.map_err(BackupError::Io)?;
        require_regular(&file.metadata().map_err(BackupError::Io)?)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => BackupError::Io(io::Error::other("another process is writing it")),
            TryLockError::Error(error) => BackupError::Io(error),
        })?;
        let sequence = whole_frames(&mut file)?;
        let length = sequence.as_ref().map_or(0, |sequence| sequence.offset);
        file.set_len(length).and_then(|()| file.seek(SeekFrom::End(0))).map_err(BackupError::Io)?;
        Ok(Self { file, sequence, pending: Vec::new() })
    }

    /// Return what the backup says about itself, once that has been written.
    #[must_use]
    pub fn header(&self) -> Option<&Header> {
        self.sequence.as_ref().and_then(|sequence| sequence.header.as_ref())
    }

    /// Return where to continue the stream, if it has begun.
    #[must_use]
    pub fn cursor(&self) -> Option<Cursor> {
        self.sequence.as_ref().filter(|sequence| sequence.header.is_some()).map(|sequence| sequence.at)
    }

    /// Return whether the backup is whole.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.sequence.as_ref().is_some_and(|sequence| sequence.is_over)
    }

    /// Append what has arrived of the stream.
    ///
    /// # Errors
    ///
    /// [`BackupError::Damaged`] if it was changed on its way; [`BackupError::Io`] if it cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.pending.extend_from_slice(bytes);
        let mut used = 0;
        while let Some(length) = self.accept(used)? {
            used += length;
        }
        if let Some(whole) = self.pending.get(..used) {
            self.file.write_all(whole).map_err(BackupError::Io)?;
        }
        self.pending.drain(..used);
        Ok(())
    }

    /// Accept the line or frame at `from` in what is pending; return its length, or nothing while it is not whole.
    fn accept(&mut self, from: usize) -> Result<Option<usize>, BackupError> {
        let pending = self.pending.get(from..).unwrap_or_default();
        let Some(sequence) = &mut self.sequence else {
            let line = pending.iter().position(|byte| *byte == b'\n').map(|end| end + 1);
            if line.is_none() && pending.len() < LINE_BYTES_MOST {
                return Ok(None);
            }
            let line = line.and_then(|length| pending.get(..length)).ok_or(BackupError::NotABackup)?;
            self.sequence = Some(Sequence::after(line)?);
            return Ok(Some(line.len()));
        };
        let Some((head, rest)) = pending.split_first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let length = sequence.length(*head)?;
        let Some((body, rest)) = rest.split_at_checked(length) else { return Ok(None) };
        let Some((hash, _)) = rest.split_first_chunk::<DIGEST_BYTES>() else { return Ok(None) };
        sequence.accept(*head, body, Digest::new(*hash))?;
        Ok(Some(HEAD_BYTES + length + DIGEST_BYTES))
    }

    /// Give the finished backup its name `path`, in the folder that it is in. Durable when this returns.
    ///
    /// # Errors
    ///
    /// [`BackupError::CutOff`] if its end has not arrived; [`BackupError::Io`] if it cannot be written.
    pub fn finish(self, from: &Path, path: &Path) -> Result<(), BackupError> {
        if !self.is_whole() || !self.pending.is_empty() {
            let begun = || Sequence::after(first_line().as_bytes());
            return Err(self.sequence.map_or_else(begun, Ok)?.cut_off());
        }
        let named = || {
            self.file.sync_all()?;
            fs::rename(from, path)?;
            durable::sync_folder(
                path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")),
            )
        };
        named().map_err(BackupError::Io)
    }
}

/// Return the whole frames at the beginning of a file, or nothing if it has no header yet.
fn whole_frames(file: &mut File) -> Result<Option<Sequence>, BackupError> {
    let mut input = BufReader::new(file);
    let line = read_line(&mut input)?;
    if !line.ends_with(b"\n") && first_line().as_bytes().starts_with(&line) {
        return Ok(None);
    }
    let mut sequence = Sequence::after(&line)?;
    while !sequence.is_over {
        let accepted = read_frame(&mut input, &sequence)
            .and_then(|(head, body, hash)| sequence.accept(head, &body, hash).map(|_| ()));
        match accepted {
            Ok(()) => {}
            // A crash leaves half a frame, or after a power cut anything at all.
            Err(BackupError::CutOff { .. } | BackupError::Damaged { .. }) => break,
            Err(error) => return Err(error),
        }
    }
    // Without its header it is begun again, with the line.
    Ok(Some(sequence).filter(|sequence| sequence.header.is_some()))
}
