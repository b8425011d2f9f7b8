//! A certificate authority: creates itself, and signs what its caller orders, for whom the caller orders. Only the
//! public key is taken from a request.

use crate::{
    CLOCK_SKEW_MS_MAX,
    certificate::{certificates_of_pem, key_sha256, not_after_ms, parsed, uris},
    error::{Error, Result},
    key::KeyPair,
    pin::CaPin,
    random,
    spiffe::{SpiffeId, checked_trust_domain},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use std::{net::IpAddr, time::Duration};
use time::OffsetDateTime;
use zeroize::Zeroizing;

/// Largest request that is read.
const CSR_BYTES_MAX: usize = 16 << 10;

/// A CA with its private key.
#[derive(Debug)]
pub struct Authority {
    key: KeyPair,
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    pin: CaPin,
    trust_domain: String,
    not_after_ms: u64,
}

/// A certificate that was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedCertificate {
    /// The certificate followed by that of its CA, which joining machines recognise by its pin.
    pub chain_pem: String,
    /// The SHA-256 of its SubjectPublicKeyInfo, in hexadecimal.
    pub key_sha256: String,
    /// When it ends, in milliseconds since the Unix epoch.
    pub not_after_ms: u64,
}

fn time_of(ms: u64) -> Result<OffsetDateTime> {
    let seconds = i64::try_from(ms / 1_000).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|source| Error::make("a certificate's time", source))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn serial() -> Result<SerialNumber> {
    let mut bytes = [0; 16];
    random(&mut bytes, "a serial number")?;
    // Positive, and not shorter than it looks.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Heptad");
    // A common name has at most 64 characters; the names that count are in the SAN.
    name.push(DnType::CommonName, common_name.chars().take(64).collect::<String>());
    name
}

fn uri(text: &str) -> Result<SanType> {
    text.try_into().map(SanType::URI).map_err(|source: rcgen::Error| Error::make("a certificate's name", source))
}

/// A host's name or address, for programs that check these.
fn host(text: &str) -> Result<SanType> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let name = text.try_into().map_err(|source: rcgen::Error| Error::make("a certificate's name", source))?;
    Ok(SanType::DnsName(name))
}

impl Authority {
    /// A new CA for `trust_domain`.
    pub fn generate(trust_domain: &str, now_ms: u64, ttl: Duration) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.not_before = time_of(now_ms.saturating_sub(CLOCK_SKEW_MS_MAX))?;
        params.not_after = time_of(now_ms.saturating_add(millis(ttl)))?;
        params.serial_number = Some(serial()?);
        // Two authorities of one domain need different names, or verification of their children tries the wrong key
        // first.
        params.distinguished_name = name(&format!("{} CA {trust_domain}", &key.sha256()[..8]));
        params.subject_alt_names = vec![uri(&format!("spiffe://{}", checked_trust_domain(trust_domain)?))?];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let made = params.self_signed(key.inner()).map_err(|source| Error::make("a CA's certificate", source))?;
        Self::of(made.pem(), key)
    }

    /// A CA that was created earlier.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self> {
        Self::of(certificate_pem.to_owned(), KeyPair::from_pem(key_pem)?)
    }

    fn of(certificate_pem: String, key: KeyPair) -> Result<Self> {
        let certificate = match &certificates_of_pem(&certificate_pem)?[..] {
            [one] => one.clone(),
            others => {
                return Err(Error::malformed("a CA's certificate", format!("{} instead of one", others.len())));
            }
        };
        let (pin, trust_domain, not_after_ms, fits) = {
            let parsed = parsed(&certificate)?;
            let fits = key_sha256(&parsed) == key.sha256();
            (
                CaPin::of_key_info(parsed.public_key().raw),
                trust_domain_of_root(&certificate)?,
                not_after_ms(&parsed),
                fits,
            )
        };
        if !fits {
            return Err(Error::mismatch("a CA", "its key is not that of its certificate"));
        }
        Ok(Self { key, certificate, certificate_pem, pin, trust_domain, not_after_ms })
    }

    /// The CA's own certificate.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The private key, to be sealed before it is kept.
    pub fn key_pem(&self) -> Zeroizing<String> {
        self.key.to_pem()
    }

    /// The pin by which joining machines recognise it.
    pub fn pin(&self) -> &CaPin {
        &self.pin
    }

    /// The trust domain for which it signs.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// When its certificate ends, in milliseconds since the Unix epoch.
    pub fn not_after_ms(&self) -> u64 {
        self.not_after_ms
    }

    /// Signs a certificate for the key of a request. It names `id` and the hosts `sans` (names or addresses), and
    /// nothing that the request asked for. It ends no later than the CA.
    pub fn sign(
        &self,
        csr_pem: &str,
        id: &SpiffeId,
        sans: &[String],
        ttl: Duration,
        now_ms: u64,
    ) -> Result<IssuedCertificate> {
        if !id.is_valid() {
            return Err(Error::SpiffeId {
                uri: id.uri(&self.trust_domain),
                reason: "its names are not lower-case labels",
            });
        }
        let not_after_ms = now_ms.saturating_add(millis(ttl)).min(self.not_after_ms);
        if not_after_ms <= now_ms {
            return Err(Error::mismatch("the CA", "its certificate has ended; rotate the CA"));
        }
        let request = request_of(csr_pem)?;
        let mut params = CertificateParams::default();
        params.not_before = time_of(now_ms.saturating_sub(CLOCK_SKEW_MS_MAX))?;
        params.not_after = time_of(not_after_ms)?;
        params.serial_number = Some(serial()?);
        params.distinguished_name = name(&id.to_string());
        params.subject_alt_names = vec![uri(&id.uri(&self.trust_domain))?];
        for san in sans {
            params.subject_alt_names.push(host(san)?);
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let failed = |source| Error::make("a certificate", source);
        let issuer = Issuer::from_ca_cert_der(&self.certificate, self.key.inner()).map_err(failed)?;
        let made = params.signed_by(&request.public_key, &issuer).map_err(failed)?;
        let chain_pem = format!("{}{}", made.pem(), self.certificate_pem);
        let key_sha256 = key_sha256(&parsed(made.der())?);
        Ok(IssuedCertificate { chain_pem, key_sha256, not_after_ms: not_after_ms / 1_000 * 1_000 })
    }
}

/// Reads a request: its signature shows that the requester has the key.
fn request_of(csr_pem: &str) -> Result<CertificateSigningRequestParams> {
    if csr_pem.len() > CSR_BYTES_MAX {
        return Err(Error::malformed("a certificate request", format!("it has more than {CSR_BYTES_MAX} bytes")));
    }
    let request = CertificateSigningRequestParams::from_pem(csr_pem)
        .map_err(|source| Error::unreadable("a certificate request", source))?;
    let algorithm = request.public_key.algorithm();
    let permitted = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519];
    if !permitted.contains(&algorithm) {
        return Err(Error::mismatch("a certificate request", "its key is none of ECDSA P-256, P-384 and Ed25519"));
    }
    Ok(request)
}

/// The trust domain that a root's certificate names.
pub(crate) fn trust_domain_of_root(certificate: &CertificateDer<'_>) -> Result<String> {
    let parsed = parsed(certificate)?;
    if !parsed.is_ca() {
        return Err(Error::mismatch("a root certificate", "it is not that of a CA"));
    }
    let mut uris = uris(&parsed)?;
    let (Some(uri), None) = (uris.next(), uris.next()) else {
        return Err(Error::mismatch("a root certificate", "it has not exactly one URI name"));
    };
    let domain = uri.strip_prefix("spiffe://").unwrap_or_default();
    checked_trust_domain(domain).map(str::to_owned)
}
