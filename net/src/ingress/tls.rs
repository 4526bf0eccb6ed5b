//! TLS between clients and nodes: both show a self-signed certificate over an Ed25519 key, and the key is who they are.
//!
//! Nothing else in a certificate is looked at, neither names nor dates: TLS proves that the other side has the secret
//! half of the key, and whoever wants to know whose key it is has been told before. TLS 1.3 alone, no resumption and no
//! early data: whatever is said is said once.

use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rcgen::{CertificateParams, PKCS_ED25519, PublicKeyData, SerialNumber, SignatureAlgorithm, SigningKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};

use crate::{
    identity::NodeKey,
    transport::{handshake, record::NodeId},
};

/// Protocol between clients and nodes; a change that older ones cannot read changes the number.
pub(crate) const ALPN: &[u8] = b"sluice-tx/1";

/// The name in every certificate, which nobody looks at.
pub(crate) const NAME: &str = "sluice";

/// The key that a certificate is over; `None` if it is of another kind, or no certificate.
pub(crate) fn identity_of(certificate: &CertificateDer<'_>) -> Option<NodeId> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    handshake::node_id(&parsed.subject_public_key_info())
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

impl SigningKey for Signer<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.key.sign(message).to_vec())
    }
}

/// A certificate over a key, with the key.
fn certified(key: &NodeKey) -> Result<Arc<SingleCertAndKey>, Error> {
    let unfit = |error: rcgen::Error| Error::General(format!("no certificate over the key: {error}"));
    let mut params = CertificateParams::new(vec![NAME.to_owned()]).map_err(unfit)?;
    params.serial_number = Some(SerialNumber::from(1));
    let signer = Signer { key, public: NodeId::from(key.public_key()) };
    let certificate = params.self_signed(&signer).map_err(unfit)?.der().clone();
    Ok(Arc::new(CertifiedKey::new(vec![certificate], handshake::signing_key(key)?).into()))
}

fn verifier(expected: Option<NodeId>) -> Arc<Keys> {
    Arc::new(Keys { expected, algorithms: aws_lc_rs::default_provider().signature_verification_algorithms })
}

fn no_suite<E>(_: E) -> Error {
    Error::General("the cipher suites lack the one that QUIC begins with".to_owned())
}

/// The node's side.
///
/// # Errors
/// A key that TLS does not take.
pub(crate) fn server(key: &NodeKey) -> Result<QuicServerConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13])?;
    let mut config = builder.with_client_cert_verifier(verifier(None)).with_cert_resolver(certified(key)?);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    QuicServerConfig::try_from(config).map_err(no_suite)
}

/// The client's side; with `expected` only the node of this key is talked to.
///
/// # Errors
/// A key that TLS does not take.
pub(crate) fn client(key: &NodeKey, expected: Option<NodeId>) -> Result<QuicClientConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13])?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier(expected));
    let mut config = builder.with_client_cert_resolver(certified(key)?);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    QuicClientConfig::try_from(config).map_err(no_suite)
}

/// Takes a certificate over any Ed25519 key, or over one, whose holder signs the handshake.
#[derive(Debug)]
struct Keys {
    expected: Option<NodeId>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Keys {
    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let shown = identity_of(certificate).ok_or(CertificateError::BadEncoding)?;
        if self.expected.is_some_and(|expected| expected != shown) {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(())
    }
}

/// TLS 1.2 is not spoken.
fn too_old() -> Error {
    Error::General("only TLS 1.3 is spoken here".to_owned())
}

impl ServerCertVerifier for Keys {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
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
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for Keys {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
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
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
