//! Reading certificates.
//!
//! Whether a certificate is genuine is decided by rustls' verifiers alone; this module only takes
//! from it what they leave to us: the holder and the end of validity.

use proto::{Identity, InvalidInput, Role, Timestamp};
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What stands before the holder in the certificate's URI.
pub(crate) const URI_SCHEME: &str = "cadole:";

/// The name that a holder of `role` answers to when a connection is made: the DNS name of its
/// certificate. It is never looked up.
pub(crate) fn server_name(role: Role) -> &'static str {
    match role {
        Role::Meta => "meta.cadole.internal",
        Role::Node => "node.cadole.internal",
        Role::Tenant => "tenant.cadole.internal",
        Role::Operator => "operator.cadole.internal",
    }
}

/// What we need of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The holder.
    pub(crate) identity: Identity,
    /// First moment of validity.
    pub(crate) not_before: Timestamp,
    /// Last moment of validity.
    pub(crate) not_after: Timestamp,
}

/// Reads a certificate.
///
/// # Errors
///
/// When it is none, or does not name exactly one holder.
pub(crate) fn read(der: &CertificateDer<'_>) -> Result<Facts, InvalidInput> {
    let (_, certificate) = X509Certificate::from_der(der)
        .map_err(|error| InvalidInput::new(format!("it is not an X.509 certificate ({error})")))?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| InvalidInput::new(format!("its alternative names cannot be read ({error})")))?;
    let mut holders =
        names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix(URI_SCHEME),
            _ => None,
        });
    let (Some(holder), None) = (holders.next(), holders.next()) else {
        return Err(InvalidInput::new(format!(
            "it does not name its holder in one URI {URI_SCHEME}ROLE/NAME"
        )));
    };
    let validity = certificate.validity();
    Ok(Facts {
        identity: holder.parse()?,
        not_before: timestamp(validity.not_before.timestamp()),
        not_after: timestamp(validity.not_after.timestamp()),
    })
}

fn timestamp(seconds: i64) -> Timestamp {
    Timestamp::from_millis(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// Bytes that are no certificate are an error, never a panic.
        #[test]
        fn garbage_is_refused(bytes: Vec<u8>) {
            proptest::prop_assert!(read(&CertificateDer::from(bytes)).is_err());
        }
    }
}
