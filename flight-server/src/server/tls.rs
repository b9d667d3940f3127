//! TLS by rustls with ring, and the name in a client's certificate.

use super::{StartError, TlsSettings, listen::Stream};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    server::{NoClientAuth, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{io, path::Path, sync::Arc};
use tokio_rustls::TlsAcceptor;

/// What TLS is made of.
pub(super) struct Tls {
    config: ServerConfig,
}

/// Accepts TLS connections of one door.
#[derive(Clone)]
pub(super) struct Acceptor {
    acceptor: TlsAcceptor,
}

impl Tls {
    /// Reads the files. With `users` a client may come without a certificate and tell itself by a token.
    pub(super) fn load(files: &TlsSettings, users: bool) -> Result<Self, StartError> {
        let provider = Arc::new(ring::default_provider());
        let verifier: Arc<dyn ClientCertVerifier> = match &files.client_ca {
            None => Arc::new(NoClientAuth),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for root in certificates("client CA", path)? {
                    roots.add(root).map_err(|error| file("client CA", path, error))?;
                }
                let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
                let builder = if users {
                    builder.allow_unauthenticated()
                } else {
                    builder
                };
                builder.build().map_err(|error| file("client CA", path, error))?
            }
        };
        let certs = certificates("certificate", &files.cert)?;
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| file("private key", &files.key, error))?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring offers what TLS 1.2 and 1.3 need")
            .with_client_cert_verifier(verifier)
            .with_single_cert(certs, key)
            .map_err(|error| file("certificate", &files.cert, error))?;
        Ok(Self { config })
    }

    /// Speaks this protocol (as ALPN names it) within TLS.
    pub(super) fn speaking(&self, protocol: &[u8]) -> Acceptor {
        let mut config = self.config.clone();
        config.alpn_protocols = vec![protocol.to_vec()];
        Acceptor {
            acceptor: TlsAcceptor::from(Arc::new(config)),
        }
    }
}

impl Acceptor {
    /// The handshake; the name in the client's certificate where it showed one.
    pub(super) async fn accept(&self, stream: Stream) -> io::Result<(Stream, Option<String>)> {
        let stream = self.acceptor.accept(stream).await?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let name = match certificate {
            None => None,
            Some(certificate) => Some(common_name(certificate).ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the client's certificate has no common name",
                )
            })?),
        };
        Ok((Stream::Tls(Box::new(stream)), name))
    }
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let read = read.map_err(|error| file(what, path, error))?;
    if read.is_empty() {
        return Err(file(what, path, "holds no certificate"));
    }
    Ok(read)
}

fn file(what: &'static str, path: &Path, reason: impl ToString) -> StartError {
    StartError::File {
        what,
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

/// The subject's common name, the last one where there are several. The certificate was verified before; this only finds its
/// way through the DER: Certificate { TBSCertificate { \[0\] version, serial, algorithm, issuer, validity, subject, … } }.
fn common_name(certificate: &[u8]) -> Option<String> {
    const SEQUENCE: u8 = 0x30;
    const SET: u8 = 0x31;
    const OID: u8 = 0x06;
    const CONTEXT_0: u8 = 0xA0;
    const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
    /// UTF8String, PrintableString, T61String, IA5String: those whose bytes are text as they are.
    const TEXTS: &[u8] = &[0x0C, 0x13, 0x14, 0x16];

    let (certificate, _) = element(certificate, SEQUENCE)?;
    let (mut rest, _) = element(certificate, SEQUENCE)?;
    if let Some((_, after)) = element(rest, CONTEXT_0) {
        rest = after;
    }
    for _serial_algorithm_issuer_validity in 0..4 {
        rest = any_element(rest)?.2;
    }
    let (mut names, _) = element(rest, SEQUENCE)?;
    let mut found = None;
    while !names.is_empty() {
        let (set, after) = element(names, SET)?;
        names = after;
        let (pair, _) = element(set, SEQUENCE)?;
        let (oid, value) = element(pair, OID)?;
        if oid == COMMON_NAME {
            let (tag, text, _) = any_element(value)?;
            found = TEXTS
                .contains(&tag)
                .then(|| String::from_utf8(text.to_vec()).ok())
                .flatten();
        }
    }
    found.filter(|name| !name.is_empty())
}

/// The content of an element with this tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = any_element(der)?;
    (found == tag).then_some((content, rest))
}

/// An element's tag and content, and what follows it.
fn any_element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7F => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
            (
                bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)),
                rest,
            )
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let length = u8::try_from(content.len()).unwrap();
        assert!(length < 0x80);
        [&[tag, length][..], &content].concat()
    }

    fn certificate(names: &[(&[u8], u8, &[u8])], version: bool) -> Vec<u8> {
        let names: Vec<Vec<u8>> = names
            .iter()
            .map(|(oid, tag, text)| der(0x31, &[&der(0x30, &[&der(6, &[oid]), &der(*tag, &[text])])]))
            .collect();
        let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
        let empty = der(0x30, &[]);
        let version = if version {
            der(0xA0, &[&der(2, &[&[2]])])
        } else {
            vec![]
        };
        let fields = [
            &version[..],
            &der(2, &[&[1]]),
            &empty,
            &empty,
            &empty,
            &der(0x30, &names),
            &empty,
        ];
        der(0x30, &[&der(0x30, &fields), &empty])
    }

    #[test]
    fn the_common_name_is_found() {
        let (cn, o) = (&[0x55, 4, 3][..], &[0x55, 4, 10][..]);
        for version in [true, false] {
            assert_eq!(
                common_name(&certificate(&[(o, 12, b"Org"), (cn, 12, b"ada")], version)),
                Some("ada".into())
            );
        }
        assert_eq!(common_name(&certificate(&[(cn, 19, b"ada")], true)), Some("ada".into()));
        for nameless in [
            &[][..],
            &[(o, 12, &b"Org"[..])],
            &[(cn, 12, b"")],
            &[(cn, 12, b"\xff")],
            &[(cn, 30, b"\0a")],
        ] {
            assert_eq!(common_name(&certificate(nameless, true)), None, "{nameless:?}");
        }
    }

    #[test]
    fn no_bytes_hurt() {
        let good = certificate(&[(&[0x55, 4, 3], 12, b"ada")], true);
        for cut in 0..good.len() {
            assert_eq!(common_name(&good[..cut]), None);
        }
        for at in 0..good.len() {
            for value in [0, 0x7F, 0x80, 0x84, 0xFF] {
                let mut bad = good.clone();
                bad[at] = value;
                let _ = common_name(&bad);
            }
        }
    }
}
