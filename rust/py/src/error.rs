//! The only place where errors become exceptions. The exceptions are those of `qed.errors`.

use pyo3::import_exception;
use pyo3::prelude::*;
use qed_core::backup::BackupError;
use qed_core::error::LogError;
use qed_core::page::PageError;
use qed_core::proof::Malformed;
use qed_core::tlog::trust_file::TrustFileError;
use qed_core::verify::VerifyError;
use qed_node::driver::SubmitError;
use qed_node::folder::FolderError;
use qed_node::outbox::Failure;
use qed_node::sign_memory::SignMemoryError;

mod exceptions {
    use super::import_exception;

    import_exception!(qed.errors, AddedLater);
    import_exception!(qed.errors, BackupError);
    import_exception!(qed.errors, CertificateError);
    import_exception!(qed.errors, CorruptLog);
    import_exception!(qed.errors, DamagedBackup);
    import_exception!(qed.errors, InternalError);
    import_exception!(qed.errors, LogError);
    import_exception!(qed.errors, LogFull);
    import_exception!(qed.errors, MalformedProof);
    import_exception!(qed.errors, MembershipRefused);
    import_exception!(qed.errors, NotLeader);
    import_exception!(qed.errors, OutcomeUnknown);
    import_exception!(qed.errors, Overloaded);
    import_exception!(qed.errors, PageError);
    import_exception!(qed.errors, PolicyError);
    import_exception!(qed.errors, SigningError);
    import_exception!(qed.errors, StoreLocked);
    import_exception!(qed.errors, Unavailable);
    import_exception!(qed.errors, UnknownVersion);
    import_exception!(qed.errors, UnsupportedFormat);
    import_exception!(qed.errors, VerificationError);
    import_exception!(qed.errors, WriteRefused);
}

/// Return the exception for an error of a log.
pub fn of_log(error: &LogError) -> PyErr {
    let message = error.to_string();
    match error {
        LogError::UnknownVersion { .. } | LogError::InvalidRange { .. } | LogError::Empty => {
            exceptions::UnknownVersion::new_err(message)
        }
        LogError::AddedLater { first, .. } => exceptions::AddedLater::new_err((message, *first)),
        LogError::Locked { .. } => exceptions::StoreLocked::new_err(message),
        LogError::UnsupportedFormat { .. } => exceptions::UnsupportedFormat::new_err(message),
        LogError::Corrupt(_) => exceptions::CorruptLog::new_err(message),
        LogError::Full { .. } => exceptions::LogFull::new_err(message),
        // Python never specifies an entry, so applying entries out of order is a bug in qed itself.
        LogError::OutOfOrder { .. } | LogError::Bug(_) => exceptions::InternalError::new_err(message),
        LogError::WriteRefused { .. } => exceptions::WriteRefused::new_err(message),
        LogError::EmptyRequest
        | LogError::Store { .. }
        | LogError::Unprotected { .. }
        | LogError::Unfinished { .. }
        | LogError::Occupied { .. } => exceptions::LogError::new_err(message),
    }
}

/// Return the exception for a page that could not be created or installed.
pub fn of_page(error: &PageError) -> PyErr {
    match error {
        PageError::Malformed(_) | PageError::Inconsistent { .. } | PageError::Diverged { .. } => {
            exceptions::PageError::new_err(error.to_string())
        }
        PageError::Log(error) => of_log(error),
    }
}

/// Return the exception for a backup that cannot be made, read or used.
pub fn of_backup(error: &BackupError) -> PyErr {
    let message = error.to_string();
    let mut cause = error;
    while let BackupError::In { cause: inner, .. } = cause {
        cause = inner;
    }
    match cause {
        BackupError::CutOff { .. } | BackupError::Damaged { .. } | BackupError::Log(LogError::Corrupt(_)) => {
            exceptions::DamagedBackup::new_err(message)
        }
        BackupError::Log(error) => of_log(error),
        BackupError::NotABackup
        | BackupError::UnsupportedFormat { .. }
        | BackupError::NoContinuation { .. }
        | BackupError::OtherLog { .. }
        | BackupError::Io(_)
        | BackupError::In { .. } => exceptions::BackupError::new_err(message),
    }
}

/// Return the exception for bytes that are no place in a backup.
pub fn of_backup_cursor(length: usize) -> PyErr {
    exceptions::BackupError::new_err(format!("expected a place in a backup, found {length} bytes of something else"))
}

/// Return the exception for a request that a driver did not accept.
pub fn of_submit(error: &SubmitError) -> PyErr {
    let message = error.to_string();
    match error {
        SubmitError::Overloaded { .. } => exceptions::Overloaded::new_err(message),
        SubmitError::Refused { .. } => exceptions::WriteRefused::new_err(message),
        SubmitError::Empty => exceptions::LogError::new_err(message),
    }
}

/// Return the exception for a data folder that cannot be opened.
pub fn of_folder(error: &FolderError) -> PyErr {
    let message = error.to_string();
    match error {
        FolderError::Log(error) => of_log(error),
        FolderError::Damaged(_) => exceptions::CorruptLog::new_err(message),
        FolderError::Io { .. }
        | FolderError::Foreign { .. }
        | FolderError::NotEmpty { .. }
        | FolderError::Old { .. }
        | FolderError::Unlike { .. } => exceptions::LogError::new_err(message),
    }
}

/// Return the exception for a request or query that failed.
pub fn of_failure(failure: &Failure) -> PyErr {
    let message = failure.to_string();
    match failure {
        Failure::NotLeader => exceptions::NotLeader::new_err(message),
        Failure::Busy => exceptions::Unavailable::new_err(message),
        Failure::Inadmissible(_) => exceptions::MembershipRefused::new_err(message),
        Failure::Unknown => exceptions::OutcomeUnknown::new_err(message),
        Failure::WriteFailed(_) => exceptions::WriteRefused::new_err(message),
        Failure::Unanswered(error) => of_log(error),
        Failure::PageRefused(error) => of_page(error),
    }
}

/// Return the exception for the number 0, which is not a valid member number.
pub fn no_member() -> PyErr {
    exceptions::MembershipRefused::new_err("expected the number of a member, found 0")
}

/// Return the exception for text or bytes that are not a valid proof.
pub fn of_malformed(Malformed(reason): Malformed) -> PyErr {
    exceptions::MalformedProof::new_err(reason)
}

/// Return the exception for a key that cannot be used, or cannot be made as asked.
pub fn of_key(Malformed(reason): Malformed) -> PyErr {
    exceptions::CertificateError::new_err(reason)
}

/// Return the exception for a file that is not a trust file.
pub fn of_trust_file(error: &TrustFileError) -> PyErr {
    exceptions::PolicyError::new_err(error.to_string())
}

/// Return the exception for a proof that does not show what it claims.
pub fn of_verify(VerifyError { check, expected, computed }: VerifyError) -> PyErr {
    exceptions::VerificationError::new_err((check, expected, computed))
}

/// Return the exception for a sign memory that cannot be used.
pub fn of_sign_memory(error: SignMemoryError) -> PyErr {
    match error {
        SignMemoryError::Io(error) => error.into(),
        SignMemoryError::InUse | SignMemoryError::Damaged(_) | SignMemoryError::Contradiction { .. } => {
            exceptions::SigningError::new_err(error.to_string())
        }
    }
}

/// Return the exception for an error of the operating system.
pub fn of_io(error: &std::io::Error) -> PyErr {
    exceptions::LogError::new_err(error.to_string())
}

/// Return the exception for a log that was opened by the process that this process was forked from.
pub fn forked(opener: u32) -> PyErr {
    exceptions::LogError::new_err(format!(
        "expected a log that this process opened, found one that process {opener} opened: open it again in this process"
    ))
}

/// Return the exception for a log that was closed.
pub fn closed() -> PyErr {
    exceptions::LogError::new_err("the log is closed")
}
