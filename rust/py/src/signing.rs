//! The keys with which logs and witnesses sign.

use pyo3::prelude::*;
use qed_core::tlog::key::KeyKind;
use qed_core::tlog::signing;
use qed_core::tlog::text::Name;

use crate::error;

/// A private key with which a log or a witness signs checkpoints. Only `to_secret_text` shows it.
#[pyclass(frozen, module = "qed._qed")]
pub struct SigningKey(pub signing::SigningKey);

#[pymethods]
impl SigningKey {
    /// Return the keys of a log that follow from random seeds, Ed25519 first.
    #[staticmethod]
    #[pyo3(signature = (origin, *, ed25519_seed, ml_dsa_44_seed))]
    fn of_log(origin: &str, ed25519_seed: [u8; 32], ml_dsa_44_seed: [u8; 32]) -> PyResult<Vec<Self>> {
        let origin = Name::of_log(origin).map_err(error::of_key)?;
        let key = |kind, seed| signing::SigningKey::from_seed(origin.clone(), kind, seed).map(Self);
        let keys = [key(KeyKind::Ed25519, &ed25519_seed), key(KeyKind::MlDsa44, &ml_dsa_44_seed)];
        keys.into_iter().collect::<Result<_, _>>().map_err(error::of_key)
    }

    /// Return the keys of a witness that follow from random seeds, Ed25519 first.
    #[staticmethod]
    #[pyo3(signature = (name, *, ed25519_seed, ml_dsa_44_seed))]
    fn of_witness(name: &str, ed25519_seed: [u8; 32], ml_dsa_44_seed: [u8; 32]) -> PyResult<Vec<Self>> {
        let name = Name::of_log(name).map_err(error::of_key)?;
        let key = |kind, seed| signing::SigningKey::from_seed(name.clone(), kind, seed).map(Self);
        let keys = [key(KeyKind::Cosignature, &ed25519_seed), key(KeyKind::MlDsa44, &ml_dsa_44_seed)];
        keys.into_iter().collect::<Result<_, _>>().map_err(error::of_key)
    }

    /// Return the keys in the content of a key file.
    #[staticmethod]
    #[pyo3(signature = (content, /))]
    fn parse_file(content: &[u8]) -> PyResult<Vec<Self>> {
        let keys = signing::parse_file(content).map_err(error::of_key)?;
        Ok(keys.into_iter().map(Self).collect())
    }

    /// Name of the key, which for a log is its origin.
    #[getter]
    fn name(&self) -> String {
        self.0.verifier().name().to_string()
    }

    /// The public key as text, which others need to verify what this key signs.
    #[getter]
    fn vkey(&self) -> String {
        self.0.verifier().to_string()
    }

    /// The byte that stands for the kind of the key: 1, 4 or 6.
    #[getter]
    fn kind(&self) -> u8 {
        self.0.verifier().kind().byte()
    }

    /// Return the private key as a line of a key file, without its end.
    fn to_secret_text(&self) -> String {
        self.0.to_secret_text()
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}
