//! The certificates of a namespace: an authority, and a leaf that all of its peers show. Which is made when, by the clock alone.
//!
//! Stock Dask looks at nothing but the authority, so its boundary is the namespace's, and one leaf serves all within it. An
//! authority is followed by the next while both are believed: the next is made when half of the life of the last is over,
//! and signs once everybody has had the life of a leaf to learn of it.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use thiserror::Error;
use time::OffsetDateTime;
use x509_parser::pem::Pem;

use crate::api::labels::SCHEDULER_SERVICE;

/// An authority lives so many times as long as a leaf.
const AUTHORITY_LIVES: u32 = 20;
/// Clocks of nodes differ by less.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// Why what is there cannot be used. Then all is made anew.
#[derive(Debug, Error)]
pub(crate) enum CertificateError {
    #[error("failed to make a certificate")]
    Make(#[from] rcgen::Error),
    #[error("a certificate is no PEM")]
    Pem(#[from] x509_parser::error::PEMError),
    #[error("a certificate cannot be read")]
    Parse(#[from] x509_parser::nom::Err<x509_parser::error::X509Error>),
    #[error("there are {certificates} certificates of authorities and {keys} keys")]
    Unpaired { certificates: usize, keys: usize },
}

/// The authorities that are believed, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Authorities(Vec<Authority>);

#[derive(Debug)]
struct Authority {
    certificate: String,
    key: String,
    validity: Validity,
}

/// What peers show.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) certificate: String,
    pub(crate) key: String,
    validity: Validity,
    /// Whose key signed it.
    issuer: String,
}

#[derive(Clone, Copy, Debug)]
struct Validity {
    from: OffsetDateTime,
    until: OffsetDateTime,
}

impl Authorities {
    /// Reads certificates and keys as `certificates` and `keys` gave them.
    ///
    /// # Errors
    /// When they were not.
    pub(crate) fn read(certificates: &str, keys: &str) -> Result<Self, CertificateError> {
        let (certificates, keys) = (blocks(certificates), blocks(keys));
        if certificates.len() != keys.len() {
            return Err(CertificateError::Unpaired { certificates: certificates.len(), keys: keys.len() });
        }
        let pairs = certificates.into_iter().zip(keys);
        let read = pairs.map(|(certificate, key)| {
            let (validity, _) = inspect(&certificate)?;
            Ok(Authority { certificate, key, validity })
        });
        read.collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn certificates(&self) -> String {
        self.0.iter().map(|authority| authority.certificate.as_str()).collect()
    }

    pub(crate) fn keys(&self) -> String {
        self.0.iter().map(|authority| authority.key.as_str()).collect()
    }

    /// Drops what has expired, and makes the next one when it is time. Returns whether anything changed.
    ///
    /// # Errors
    /// When a certificate cannot be made.
    pub(crate) fn renew(&mut self, namespace: &str, now: OffsetDateTime, leaf_life: Duration) -> Result<bool, CertificateError> {
        let before = self.0.len();
        self.0.retain(|authority| authority.validity.until > now);
        let mut is_changed = self.0.len() != before;
        let life = leaf_life * AUTHORITY_LIVES;
        if self.0.last().is_none_or(|last| last.validity.until - now < life / 2) {
            self.0.push(Authority::make(namespace, now, life)?);
            is_changed = true;
        }
        Ok(is_changed)
    }

    /// Who signs: the newest that everybody has had the time to learn of.
    fn signer(&self, now: OffsetDateTime, leaf_life: Duration) -> Option<&Authority> {
        let is_known = |authority: &&Authority| now - authority.validity.from >= leaf_life;
        self.0.iter().rev().find(is_known).or(self.0.first())
    }

    /// Whether a leaf is to be replaced: a third of its life is over, or another authority signs now.
    pub(crate) fn replaces(&self, leaf: &Leaf, now: OffsetDateTime, leaf_life: Duration) -> bool {
        let is_of_signer = self.signer(now, leaf_life).is_some_and(|signer| signer.name() == leaf.issuer);
        !is_of_signer || leaf.validity.until - now < leaf_life * 2 / 3
    }

    /// Makes a leaf.
    ///
    /// # Errors
    /// When there is no authority, or its key cannot be used.
    pub(crate) fn sign(&self, namespace: &str, now: OffsetDateTime, leaf_life: Duration) -> Result<Leaf, CertificateError> {
        let signer = self.signer(now, leaf_life).ok_or(rcgen::Error::CouldNotParseCertificate)?;
        let issuer = Issuer::from_ca_cert_pem(&signer.certificate, KeyPair::from_pem(&signer.key)?)?;
        let service = format!("{SCHEDULER_SERVICE}.{namespace}.svc");
        let mut params = CertificateParams::new(vec![SCHEDULER_SERVICE.to_owned(), service])?;
        params.distinguished_name = name(namespace, "peer");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = (now - CLOCK_SKEW, now + leaf_life);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?.pem();
        Leaf::read(certificate, key.serialize_pem())
    }
}

impl Authority {
    fn make(namespace: &str, now: OffsetDateTime, life: Duration) -> Result<Self, CertificateError> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = name(namespace, &format!("authority of {}", now.unix_timestamp()));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = (now - CLOCK_SKEW, now + life);
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        let (validity, _) = inspect(&certificate)?;
        Ok(Self { certificate, key: key.serialize_pem(), validity })
    }

    /// No two of a namespace have the same.
    fn name(&self) -> String {
        inspect(&self.certificate).map(|(_, issuer)| issuer).unwrap_or_default()
    }
}

impl Leaf {
    /// # Errors
    /// When it is no certificate.
    pub(crate) fn read(certificate: String, key: String) -> Result<Self, CertificateError> {
        let (validity, issuer) = inspect(&certificate)?;
        Ok(Self { certificate, key, validity, issuer })
    }
}

fn name(namespace: &str, name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::OrganizationName, format!("mainstay {namespace}"));
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// Until when a certificate is valid, and who signed it.
fn inspect(certificate: &str) -> Result<(Validity, String), CertificateError> {
    let (pem, _) = Pem::read(std::io::Cursor::new(certificate))?;
    let parsed = pem.parse_x509()?;
    let validity = parsed.validity();
    let (from, until) = (validity.not_before.to_datetime() + CLOCK_SKEW, validity.not_after.to_datetime());
    Ok((Validity { from, until }, parsed.issuer().to_string()))
}

/// The documents of a text in PEM, one by one.
fn blocks(text: &str) -> Vec<String> {
    let ends = text.split_inclusive("-----\n").collect::<Vec<_>>();
    ends.chunks(2).map(<[&str]>::concat).filter(|block| block.contains("-----BEGIN")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::{Credentials, Tls};

    const LIFE: Duration = Duration::from_secs(90 * 24 * 3600);

    fn start() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
    }

    /// Renews day by day for so long; gives how many authorities there were, and which leaf by when it was made.
    fn live(days: u32) -> Vec<(usize, String)> {
        let mut authorities = Authorities::default();
        let mut leaf: Option<Leaf> = None;
        let mut seen: Vec<(usize, String)> = Vec::new();
        for day in 0..days {
            let now = start() + Duration::from_secs(24 * 3600) * day;
            authorities.renew("analytics", now, LIFE).unwrap();
            if leaf.as_ref().is_none_or(|leaf| authorities.replaces(leaf, now, LIFE)) {
                leaf = Some(authorities.sign("analytics", now, LIFE).unwrap());
            }
            let leaf = leaf.as_ref().unwrap();
            assert!(leaf.validity.until - now >= LIFE * 2 / 3 - Duration::from_secs(24 * 3600), "day {day}");
            assert!(
                authorities.0.iter().any(|one| one.name() == leaf.issuer && one.validity.until > leaf.validity.until),
                "day {day}"
            );
            let now = (authorities.0.len(), leaf.issuer.clone());
            if seen.last() != Some(&now) {
                seen.push(now);
            }
        }
        seen
    }

    #[test]
    fn an_authority_is_followed_by_the_next_while_both_are_believed() {
        let seen = live(90 * 25);
        let names: Vec<&str> = seen.iter().map(|(_, issuer)| issuer.as_str()).collect();
        let counts: Vec<usize> = seen.iter().map(|(count, _)| *count).collect();
        // Alone; the next is made; it signs; the first has expired meanwhile and a third is made.
        assert_eq!(counts[..3], [1, 2, 2]);
        assert!(names[0] == names[1] && names[1] != names[2], "{names:?}");
        assert!(counts.iter().all(|count| (1..=3).contains(count)));
    }

    #[test]
    fn what_was_written_is_read_again() {
        let mut authorities = Authorities::default();
        authorities.renew("a", start(), LIFE).unwrap();
        authorities.renew("a", start() + LIFE * 11, LIFE).unwrap();
        let read = Authorities::read(&authorities.certificates(), &authorities.keys()).unwrap();
        assert_eq!((read.0.len(), read.certificates(), read.keys()), (2, authorities.certificates(), authorities.keys()));
        let leaf = read.sign("a", start(), LIFE).unwrap();
        assert!(!read.replaces(&Leaf::read(leaf.certificate, leaf.key).unwrap(), start(), LIFE));
    }

    #[test]
    fn what_is_no_authority_is_refused() {
        assert!(matches!(Authorities::read("", "x"), Ok(Authorities(none)) if none.is_empty()));
        let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert!(matches!(Authorities::read("", key), Err(CertificateError::Unpaired { certificates: 0, keys: 1 })));
        assert!(Authorities::read(key, key).is_err());
    }

    #[tokio::test]
    async fn comms_take_what_is_made() {
        let mut authorities = Authorities::default();
        authorities.renew("a", OffsetDateTime::now_utc(), LIFE).unwrap();
        let Leaf { certificate, key, .. } = authorities.sign("a", OffsetDateTime::now_utc(), LIFE).unwrap();
        let credentials = Credentials { authorities: authorities.certificates(), certificate, key };
        Tls::new(&credentials, tokio::runtime::Handle::current()).unwrap();
    }
}
