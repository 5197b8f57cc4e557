//! Certificates for tests, and a client that speaks TLS by rustls.

#![allow(dead_code, reason = "each test uses a part of this file")]

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

use super::DEADLINE;

/// A certificate that signs itself.
pub struct Certificate {
    /// As DER.
    pub der: CertificateDer<'static>,
    /// As PEM.
    pub pem: String,
    /// Its key as PEM.
    pub key: String,
}

/// A new certificate for these names.
pub fn certificate(names: &[&str]) -> Certificate {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    Certificate { der: made.cert.der().clone(), pem: made.cert.pem(), key: made.signing_key.serialize_pem() }
}

impl Certificate {
    /// Writes it as NAME.pem and NAME.key.
    pub fn write(&self, directory: &Path, name: &str) {
        fs::write(directory.join(format!("{name}.key")), &self.key).unwrap();
        fs::write(directory.join(format!("{name}.pem")), &self.pem).unwrap();
    }
}

/// The settings of a client that trusts these certificates.
pub fn trusting(
    certificates: &[&Certificate],
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&str],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.der.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let mut client = versions.with_root_certificates(roots).with_no_client_auth();
    client.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(client)
}

/// A connection.
pub struct Tls(StreamOwned<ClientConnection, TcpStream>);

impl Tls {
    /// Connects, without a handshake yet.
    pub fn connect(address: SocketAddr, settings: Arc<ClientConfig>, name: &str) -> Tls {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.set_write_timeout(Some(DEADLINE)).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        Tls(StreamOwned::new(ClientConnection::new(settings, name).unwrap(), socket))
    }

    /// Finishes the handshake.
    pub fn handshake(&mut self) -> io::Result<()> {
        while self.0.conn.is_handshaking() {
            self.0.conn.complete_io(&mut self.0.sock)?;
        }
        Ok(())
    }

    /// What rustls knows of the connection.
    pub fn connection(&self) -> &ClientConnection {
        &self.0.conn
    }

    /// The socket.
    pub fn socket(&self) -> &TcpStream {
        &self.0.sock
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
        self.0.flush().unwrap();
    }

    /// What would be sent for these bytes.
    pub fn encrypted(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.0.conn.writer().write_all(bytes).unwrap();
        let mut out = Vec::new();
        while self.0.conn.wants_write() {
            self.0.conn.write_tls(&mut out).unwrap();
        }
        out
    }

    /// Says that nothing more follows.
    pub fn end(&mut self) {
        self.0.conn.send_close_notify();
        self.0.flush().unwrap();
    }

    /// Reads exactly so many bytes.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Reads up to and including `end`.
    pub fn take_until(&mut self, end: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(end) {
            bytes.extend(self.take(1));
        }
        bytes
    }

    /// Reads to the end, which must be one in order.
    pub fn take_all(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// Sends a request, and returns the head and the body of its answer, whose length is given.
    pub fn ask(&mut self, request: &str, body: &[u8]) -> (String, Vec<u8>) {
        self.send(&[request.as_bytes(), body].concat());
        let head = String::from_utf8(self.take_until(b"\r\n\r\n")).unwrap();
        let length =
            head.to_ascii_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let body = self.take(length.unwrap_or(0));
        (head, body)
    }

    /// Opens a WebSocket.
    pub fn open(&mut self, path: &str) {
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let (answer, _) = self.ask(&head, b"");
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    }

    /// The payload of the next frame, and its first byte.
    pub fn next_frame(&mut self) -> (u8, Vec<u8>) {
        let head = self.take(2);
        let length = match head[1] {
            126 => u16::from_be_bytes(self.take(2).try_into().unwrap()) as usize,
            127 => u64::from_be_bytes(self.take(8).try_into().unwrap()) as usize,
            short => short.into(),
        };
        (head[0], self.take(length))
    }
}
