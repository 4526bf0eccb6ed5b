//! TLS over QUIC, among nodes and with clients: both sides show an Ed25519 key of their own, and nobody vouches for
//! either.
//!
//! Among nodes keys go over the wire raw (RFC 7250), so no certificate is parsed before a peer is known. Clients in any
//! language have certificates: a self-signed one, of which nothing but the key is looked at, neither names nor dates.
//! What TLS proves is that the other side has the secret half. TLS 1.3 alone, no resumption and no early data: whatever
//! is said is said once.

use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rcgen::{CertificateParams, PKCS_ED25519, PublicKeyData, SerialNumber, SignatureAlgorithm};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, ResolvesClientCert, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{aws_lc_rs, verify_tls13_signature, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    server::{
        AlwaysResolvesServerRawPublicKeys, ParsedCertificate, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{CertifiedKey, SigningKey, SingleCertAndKey},
    version::TLS13,
};

use crate::{identity::NodeKey, transport::record::NodeId};

/// The name that whoever dials gives, and that every certificate has; nobody looks at it.
pub(crate) const NAME: &str = "sluice";

/// What stands before an Ed25519 public key in its one DER encoding (RFC 8410).
const PUBLIC_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// What stands before the seed in the DER encoding of a secret key (RFC 8410, PKCS #8).
const SECRET_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Who talks, and how they show their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Nodes among themselves, with raw keys.
    Peers,
    /// Clients and nodes, with certificates.
    Clients,
}

impl Protocol {
    /// What both sides have to name; a change that older ones cannot read changes the number.
    const fn alpn(self) -> &'static [u8] {
        match self {
            Self::Peers => b"sluice-peer/1",
            Self::Clients => b"sluice-tx/1",
        }
    }

    /// The key that was shown; `None` if it is of another kind, or none.
    pub(crate) fn identity(self, shown: &CertificateDer<'_>) -> Option<NodeId> {
        match self {
            Self::Peers => node_id(shown),
            Self::Clients => node_id(&ParsedCertificate::try_from(shown).ok()?.subject_public_key_info()),
        }
    }

    /// The side that is dialled, with this key.
    ///
    /// # Errors
    /// A key that TLS does not take.
    pub(crate) fn server(self, key: &NodeKey) -> Result<QuicServerConfig, Error> {
        let certified = self.certified(key)?;
        let resolver: Arc<dyn ResolvesServerCert> = match self {
            Self::Peers => Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified.into())),
            Self::Clients => Arc::new(SingleCertAndKey::from(certified)),
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13])?;
        let verifier = Arc::new(Keys { protocol: self, expected: None });
        let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(resolver);
        config.alpn_protocols = vec![self.alpn().to_vec()];
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        QuicServerConfig::try_from(config).map_err(no_suite)
    }

    /// The side that dials, with this key; with `expected` nobody else is talked to.
    ///
    /// # Errors
    /// A key that TLS does not take.
    pub(crate) fn client(self, key: &NodeKey, expected: Option<NodeId>) -> Result<QuicClientConfig, Error> {
        let certified = self.certified(key)?;
        let resolver: Arc<dyn ResolvesClientCert> = match self {
            Self::Peers => Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified.into())),
            Self::Clients => Arc::new(SingleCertAndKey::from(certified)),
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13])?;
        let verifier = Arc::new(Keys { protocol: self, expected });
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = builder.with_client_cert_resolver(resolver);
        config.alpn_protocols = vec![self.alpn().to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        config.enable_sni = false;
        QuicClientConfig::try_from(config).map_err(no_suite)
    }

    /// A key in the form in which it is shown, with what signs for it.
    fn certified(self, key: &NodeKey) -> Result<CertifiedKey, Error> {
        let shown = match self {
            Self::Peers => CertificateDer::from([&PUBLIC_PREFIX[..], &key.public_key()].concat()),
            Self::Clients => certificate(key)?,
        };
        Ok(CertifiedKey::new(vec![shown], signing_key(key)?))
    }
}

/// The key in its DER encoding; `None` if it is of another kind.
fn node_id(encoded: &[u8]) -> Option<NodeId> {
    NodeId::try_from(encoded.strip_prefix(&PUBLIC_PREFIX)?).ok()
}

fn signing_key(key: &NodeKey) -> Result<Arc<dyn SigningKey>, Error> {
    let mut secret = SECRET_PREFIX.to_vec();
    secret.extend_from_slice(key.seed());
    let signing = aws_lc_rs::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(secret.as_slice()));
    zeroize::Zeroize::zeroize(&mut secret);
    signing
}

/// What signs a certificate over itself.
struct Signer<'k> {
    key: &'k NodeKey,
    public: NodeId,
}

impl PublicKeyData for Signer<'_> {
    fn der_bytes(&self) -> &[u8] {
        &self.public.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

impl rcgen::SigningKey for Signer<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.key.sign(message).to_vec())
    }
}

fn certificate(key: &NodeKey) -> Result<CertificateDer<'static>, Error> {
    let unfit = |error: rcgen::Error| Error::General(format!("no certificate over the key: {error}"));
    let mut params = CertificateParams::new(vec![NAME.to_owned()]).map_err(unfit)?;
    params.serial_number = Some(SerialNumber::from(1));
    let signer = Signer { key, public: NodeId::from(key.public_key()) };
    Ok(params.self_signed(&signer).map_err(unfit)?.der().clone())
}

fn no_suite<E>(_: E) -> Error {
    Error::General("the cipher suites lack the one that QUIC begins with".to_owned())
}

/// TLS 1.2 is not spoken.
fn too_old() -> Error {
    Error::General("only TLS 1.3 is spoken here".to_owned())
}

/// Takes any Ed25519 key, or one, whose holder signs the handshake.
#[derive(Debug)]
struct Keys {
    protocol: Protocol,
    expected: Option<NodeId>,
}

impl Keys {
    fn check(&self, shown: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Result<(), Error> {
        let identity = self.protocol.identity(shown).filter(|_| intermediates.is_empty());
        let identity = identity.ok_or(CertificateError::BadEncoding)?;
        if self.expected.is_some_and(|expected| expected != identity) {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(())
    }

    fn signed(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        match self.protocol {
            Protocol::Peers => {
                let key = SubjectPublicKeyInfoDer::from(shown.as_ref());
                verify_tls13_signature_with_raw_key(message, &key, signature, &algorithms)
            }
            Protocol::Clients => verify_tls13_signature(message, shown, signature, &algorithms),
        }
    }
}

impl ServerCertVerifier for Keys {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.protocol == Protocol::Peers
    }
}

impl ClientCertVerifier for Keys {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.protocol == Protocol::Peers
    }
}
