//! TLS of comms: whoever has a certificate of the authority may talk, and nobody else.
//!
//! The authority alone decides, as in Dask: a certificate's names are not compared with addresses, and there are no roles.
//! So each namespace has an authority of its own.
//!
//! Source: distributed 2026.8.0, security.py: `Security._get_tls_context`.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, ErrorKind, IoSlice, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::{Bytes, BytesMut};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use x509_parser::x509::X509Version;

use crate::comm::connection::{CommError, SLICES_MAX, fill, remove};

/// What is read from a socket at once; a record of TLS is not larger.
const READ_BYTES: usize = 16 * 1024;
/// Data of one peer that is taken in before others have their turn.
const READ_AT_ONCE: usize = 4 * READ_BYTES;
/// Nobody compares names, but the protocol wants one.
const SERVER_NAME: &str = "mainstay";

/// Certificates and a key, as text in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Certificates of this authority are believed; several while one takes over from another.
    pub authorities: String,
    /// Ours, and what leads from it to an authority.
    pub certificate: String,
    pub key: String,
}

/// Why credentials cannot be used.
#[derive(Debug, Error)]
pub enum CredentialsError {
    #[error("the {what} is not PEM")]
    Pem {
        what: &'static str,
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    #[error("there is no certificate in the {what}")]
    Empty { what: &'static str },
    #[error(
        "our certificate is of X.509 version {0}, but 3 is needed; openssl makes that when it is given extensions, with -extfile"
    )]
    Version(u32),
    #[error("the certificate and the key cannot be used")]
    Unusable(#[from] rustls::Error),
    #[error("the authorities cannot be used")]
    Authorities(#[from] rustls::server::VerifierBuilderError),
}

/// How comms of one namespace are encrypted; cheap to clone. What it is made of can be replaced while comms are open:
/// those go on, and the next ones take the new.
#[derive(Clone)]
pub struct Tls {
    contexts: Arc<RwLock<Arc<Contexts>>>,
    /// Where hands are shaken: it takes a processor's time, which a namespace's thread has better use for.
    runtime: Handle,
}

struct Contexts {
    accept: Arc<ServerConfig>,
    connect: Arc<ClientConfig>,
}

impl Tls {
    /// # Errors
    /// When the credentials cannot be used.
    pub fn new(credentials: &Credentials, runtime: Handle) -> Result<Self, CredentialsError> {
        let contexts = Arc::new(RwLock::new(Arc::new(Contexts::new(credentials)?)));
        Ok(Self { contexts, runtime })
    }

    /// Has later comms take other credentials.
    ///
    /// # Errors
    /// When they cannot be used; then all stays as it was.
    pub fn replace(&self, credentials: &Credentials) -> Result<(), CredentialsError> {
        let contexts = Arc::new(Contexts::new(credentials)?);
        *self.contexts.write().unwrap_or_else(PoisonError::into_inner) = contexts;
        Ok(())
    }

    fn contexts(&self) -> Arc<Contexts> {
        Arc::clone(&self.contexts.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) async fn accept(&self, stream: TcpStream) -> Result<(TcpStream, Session), CommError> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.contexts().accept));
        let stream = stream.into_std()?;
        let shaking = async move {
            let (stream, session) = acceptor.accept(TcpStream::from_std(stream)?).await?.into_inner();
            Ok((stream.into_std()?, session.into()))
        };
        self.beside(shaking).await
    }

    pub(super) async fn connect(&self, stream: TcpStream) -> Result<(TcpStream, Session), CommError> {
        let connector = TlsConnector::from(Arc::clone(&self.contexts().connect));
        let stream = stream.into_std()?;
        let shaking = async move {
            let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
            let (stream, session) = connector.connect(name, TcpStream::from_std(stream)?).await?.into_inner();
            Ok((stream.into_std()?, session.into()))
        };
        self.beside(shaking).await
    }

    /// Shakes hands on the runtime for that; ends with the future that it returns.
    async fn beside(
        &self,
        shaking: impl Future<Output = io::Result<(std::net::TcpStream, rustls::Connection)>> + Send + 'static,
    ) -> Result<(TcpStream, Session), CommError> {
        let mut beside = JoinSet::new();
        beside.spawn_on(shaking, &self.runtime);
        let shaken = beside.join_next().await.and_then(Result::ok);
        let (stream, session) = shaken.unwrap_or_else(|| Err(ErrorKind::Interrupted.into())).map_err(tls_error)?;
        Ok((TcpStream::from_std(stream)?, Session(Mutex::new(session))))
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Contexts {
    fn new(credentials: &Credentials) -> Result<Self, CredentialsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        for authority in certificates(&credentials.authorities, "file of authorities")? {
            roots.add(authority)?;
        }
        let roots = Arc::new(roots);
        let chain = certificates(&credentials.certificate, "file of our certificate")?;
        chain.iter().try_for_each(check_version)?;
        let key = PrivateKeyDer::from_pem_slice(credentials.key.as_bytes())
            .map_err(|source| CredentialsError::Pem { what: "file of our key", source })?;

        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider)).build()?;
        let mut accept = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain.clone(), key.clone_key())?;
        // A comm lives long, and a peer whose certificate is not believed any more is not to come back by a ticket.
        accept.send_tls13_tickets = 0;
        accept.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        let algorithms = provider.signature_verification_algorithms;
        let connect = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AuthorityAlone { roots, algorithms }))
            .with_client_auth_cert(chain, key)?;
        Ok(Self { accept: Arc::new(accept), connect: Arc::new(connect) })
    }
}

fn certificates(text: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|source| CredentialsError::Pem { what, source })?;
    if certificates.is_empty() { Err(CredentialsError::Empty { what }) } else { Ok(certificates) }
}

/// `openssl x509 -req` makes certificates of version 1 when it is given no extensions.
fn check_version(certificate: &CertificateDer<'_>) -> Result<(), CredentialsError> {
    match x509_parser::parse_x509_certificate(certificate) {
        Ok((_, parsed)) if parsed.version() != X509Version::V3 => Err(CredentialsError::Version(parsed.version().0 + 1)),
        // What cannot be parsed is refused by who is to use it.
        _ => Ok(()),
    }
}

/// Believes a worker that has a certificate of the authority, at whatever address it listens.
#[derive(Debug)]
struct AuthorityAlone {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for AuthorityAlone {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, self.algorithms.all)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// What a person can do about a handshake that failed; `None` if it tells nothing of the two sides' certificates.
fn advice(error: &rustls::Error) -> Option<&'static str> {
    use rustls::Error::{AlertReceived, InvalidCertificate, InvalidMessage, NoCertificatesPresented};
    Some(match error {
        InvalidMessage(_) => "it does not speak TLS; it has to connect to tls://, not tcp://",
        NoCertificatesPresented => "it shows no certificate",
        InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => "its certificate has expired",
        InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            "its certificate is not valid yet: does its clock go right?"
        }
        InvalidCertificate(_) => "its certificate is not of this authority",
        AlertReceived(AlertDescription::UnknownCA) => "it does not believe our authority",
        AlertReceived(AlertDescription::CertificateExpired) => {
            "it holds our certificate to have expired: does its clock go right?"
        }
        _ => return None,
    })
}

fn tls_error(error: io::Error) -> CommError {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match cause.and_then(advice) {
        Some(advice) => CommError::Stranger(advice),
        None => CommError::TlsHandshake(error),
    }
}

/// The TLS of one comm, which its reading and its writing half share.
#[derive(Debug)]
pub(super) struct Session(Mutex<rustls::Connection>);

/// A socket that gives and takes what it can at once.
struct AtOnce<'a>(&'a TcpStream);

impl io::Read for AtOnce<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl io::Write for AtOnce<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.try_write(buffer)
    }

    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(buffers)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Session {
    fn connection(&self) -> MutexGuard<'_, rustls::Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends what has arrived; 0 bytes mean that the peer has closed, `None` that it has said nothing new.
    pub(super) fn read(&self, socket: &TcpStream, buffer: &mut BytesMut) -> io::Result<Option<usize>> {
        let mut connection = self.connection();
        // Something may have come right behind the handshake.
        let Some(mut count) = drain(&mut connection, buffer)? else { return Ok(Some(0)) };
        let mut records = [0; READ_BYTES];
        while count < READ_AT_ONCE {
            let mut arrived = match io::Read::read(&mut AtOnce(socket), &mut records) {
                Ok(arrived) => &records[..arrived],
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok((count > 0).then_some(count)),
                Err(error) => return Err(error),
            };
            if arrived.is_empty() {
                break;
            }
            while !arrived.is_empty() {
                connection.read_tls(&mut arrived)?;
                if let Err(error) = connection.process_new_packets() {
                    // The peer is told what is wrong with it, if it listens.
                    let _ = connection.write_tls(&mut AtOnce(socket));
                    return Err(io::Error::new(ErrorKind::InvalidData, error));
                }
                match drain(&mut connection, buffer)? {
                    Some(more) => count += more,
                    // It has said goodbye.
                    None => return Ok(Some(count)),
                }
            }
        }
        Ok(Some(count))
    }

    /// Encrypts and writes what the socket takes at once, and removes what was encrypted; whether all is written.
    pub(super) fn write(&self, socket: &TcpStream, chunks: &mut VecDeque<Bytes>) -> io::Result<bool> {
        let mut connection = self.connection();
        loop {
            while connection.wants_write() {
                match connection.write_tls(&mut AtOnce(socket)) {
                    Ok(0) => return Err(ErrorKind::WriteZero.into()),
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                    Err(error) => return Err(error),
                }
            }
            if chunks.is_empty() {
                return Ok(true);
            }
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let encrypted = connection.writer().write_vectored(fill(&mut slices, chunks))?;
            remove(chunks, encrypted);
        }
    }

    /// Says goodbye, if the socket takes it.
    pub(super) fn close(&self, socket: &TcpStream) {
        let mut connection = self.connection();
        connection.send_close_notify();
        let _ = connection.write_tls(&mut AtOnce(socket));
    }
}

/// Takes what is decrypted; `None` once the peer has said goodbye.
fn drain(connection: &mut rustls::Connection, buffer: &mut BytesMut) -> io::Result<Option<usize>> {
    let mut count = 0;
    loop {
        let mut reader = connection.reader();
        let length = match reader.fill_buf() {
            // What came before a goodbye comes first.
            Ok([]) => return Ok((count > 0).then_some(count)),
            Ok(decrypted) => {
                buffer.extend_from_slice(decrypted);
                decrypted.len()
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Some(count)),
            Err(error) => return Err(error),
        };
        reader.consume(length);
        count += length;
    }
}
