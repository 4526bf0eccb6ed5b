//! TLS between nodes: both sides show an Ed25519 key of their own, and nobody vouches for either.
//!
//! Keys go over the wire raw (RFC 7250), so no certificate is parsed before a peer is known. What TLS proves is that
//! the peer has the secret half; who it is says its [record](super::record), which comes first on the connection.
//! TLS 1.3 alone, no resumption and no early data: whatever is said is said once.

use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    server::{
        AlwaysResolvesServerRawPublicKeys,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{CertifiedKey, SigningKey},
    version::TLS13,
};

use super::record::NodeId;
use crate::identity::NodeKey;

/// Protocol between nodes; a change that older nodes cannot read changes the number.
pub(crate) const ALPN: &[u8] = b"sluice-peer/1";

/// The name that a dialling node gives; nobody looks at it.
pub(crate) const SERVER_NAME: &str = "sluice";

/// What stands before an Ed25519 public key in its one DER encoding (RFC 8410).
const PUBLIC_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// What stands before the seed in the DER encoding of a secret key (RFC 8410, PKCS #8).
const SECRET_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// The key in its DER encoding; `None` if it is of another kind.
pub(crate) fn node_id(encoded: &[u8]) -> Option<NodeId> {
    NodeId::try_from(encoded.strip_prefix(&PUBLIC_PREFIX)?).ok()
}

/// What signs handshakes with this key.
///
/// # Errors
/// A key that TLS does not take.
pub(crate) fn signing_key(key: &NodeKey) -> Result<Arc<dyn SigningKey>, Error> {
    let mut secret = SECRET_PREFIX.to_vec();
    secret.extend_from_slice(key.seed());
    let signing = aws_lc_rs::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(secret.as_slice()));
    zeroize::Zeroize::zeroize(&mut secret);
    signing
}

/// Both sides of the handshake for this key.
///
/// # Errors
/// A key that TLS does not take.
pub(crate) fn configs(key: &NodeKey) -> Result<(QuicServerConfig, QuicClientConfig), Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let public = CertificateDer::from([&PUBLIC_PREFIX[..], &key.public_key()].concat());
    let certified = Arc::new(CertifiedKey::new(vec![public], signing_key(key)?));
    let verifier = Arc::new(RawKeys { algorithms: provider.signature_verification_algorithms });

    let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[&TLS13])?;
    let resolver = Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified.clone()));
    let mut server = builder.with_client_cert_verifier(verifier.clone()).with_cert_resolver(resolver);
    server.alpn_protocols = vec![ALPN.to_vec()];
    server.send_tls13_tickets = 0;
    server.max_early_data_size = 0;

    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13])?;
    let resolver = Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified));
    let mut client = builder.dangerous().with_custom_certificate_verifier(verifier).with_client_cert_resolver(resolver);
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.resumption = Resumption::disabled();
    client.enable_early_data = false;
    client.enable_sni = false;

    let unfit = |_| Error::General("the cipher suites lack the one that QUIC begins with".to_owned());
    Ok((QuicServerConfig::try_from(server).map_err(unfit)?, QuicClientConfig::try_from(client).map_err(unfit)?))
}

/// Takes any Ed25519 key whose holder signs the handshake.
#[derive(Debug)]
struct RawKeys {
    algorithms: WebPkiSupportedAlgorithms,
}

impl RawKeys {
    fn check(key: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Result<(), Error> {
        if node_id(key).is_none() || !intermediates.is_empty() {
            return Err(Error::InvalidCertificate(CertificateError::BadEncoding));
        }
        Ok(())
    }

    fn signed(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
    }
}

/// TLS 1.2 is not spoken.
fn too_old() -> Error {
    Error::General("only TLS 1.3 is spoken between nodes".to_owned())
}

impl ServerCertVerifier for RawKeys {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Self::check(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
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
        true
    }
}

impl ClientCertVerifier for RawKeys {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Self::check(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
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
        true
    }
}
