//! The one place where errors become exceptions. The exceptions are Python's, in `qed.errors`.

use pyo3::import_exception;
use pyo3::prelude::*;
use qed_core::error::LogError;
use qed_core::proof::Malformed;
use qed_core::verify::VerifyError;
use qed_node::driver::SubmitError;

mod exceptions {
    use super::import_exception;

    import_exception!(qed.errors, AddedLater);
    import_exception!(qed.errors, CorruptLog);
    import_exception!(qed.errors, LogError);
    import_exception!(qed.errors, MalformedProof);
    import_exception!(qed.errors, Overloaded);
    import_exception!(qed.errors, StoreLocked);
    import_exception!(qed.errors, UnknownVersion);
    import_exception!(qed.errors, UnsupportedFormat);
    import_exception!(qed.errors, VerificationError);
    import_exception!(qed.errors, WriteRefused);
}

/// Return the exception for what a log failed with.
pub fn of_log(error: &LogError) -> PyErr {
    let message = error.to_string();
    match error {
        LogError::UnknownVersion { .. } | LogError::InvalidRange { .. } | LogError::Empty => {
            exceptions::UnknownVersion::new_err(message)
        }
        LogError::AddedLater { first, .. } => exceptions::AddedLater::new_err((message, *first)),
        LogError::Locked { .. } => exceptions::StoreLocked::new_err(message),
        LogError::UnsupportedFormat { .. } => exceptions::UnsupportedFormat::new_err(message),
        LogError::Corrupt(_) | LogError::Diverged { .. } => exceptions::CorruptLog::new_err(message),
        LogError::WriteRefused { .. } => exceptions::WriteRefused::new_err(message),
        LogError::EmptyRequest | LogError::Store { .. } => exceptions::LogError::new_err(message),
    }
}

/// Return the exception for a request that a driver did not take.
pub fn of_submit(error: &SubmitError) -> PyErr {
    let message = error.to_string();
    match error {
        SubmitError::Overloaded { .. } => exceptions::Overloaded::new_err(message),
        SubmitError::Refused { .. } => exceptions::WriteRefused::new_err(message),
        SubmitError::Empty => exceptions::LogError::new_err(message),
    }
}

/// Return the exception for a request whose write or sync failed.
pub fn of_failed_write(reason: String) -> PyErr {
    exceptions::WriteRefused::new_err(reason)
}

/// Return the exception for text or bytes that are no proof.
pub fn of_malformed(Malformed(reason): Malformed) -> PyErr {
    exceptions::MalformedProof::new_err(reason)
}

/// Return the exception for a proof that does not show what it claims.
pub fn of_verify(VerifyError { check, expected, computed }: VerifyError) -> PyErr {
    exceptions::VerificationError::new_err((check, expected, computed))
}

/// Return the exception for what the operating system refused.
pub fn of_io(error: &std::io::Error) -> PyErr {
    exceptions::LogError::new_err(error.to_string())
}

/// Return the exception for a log that was closed.
pub fn closed() -> PyErr {
    exceptions::LogError::new_err("the log is closed")
}
