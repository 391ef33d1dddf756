//! Connections to a remote upstream: private certificate authorities and proxies.

use std::io::{BufRead as _, BufReader, Write as _};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::binary::program;

/// An upstream without projects, whose certificate comes from a private authority. Returns its address
/// and the certificate of the authority as PEM.
async fn private_upstream() -> (String, String) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()])
        .unwrap()
        .signed_by(&key, &authority)
        .unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust the certificate ends the handshake.
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let mut read = vec![0; 16_384];
                let _ = stream.read(&mut read).await;
                let body = r#"{"data":[],"meta":{"after":""}}"#;
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    (url, authority.pem())
}

#[tokio::test(flavor = "multi_thread")]
async fn private_authority_is_trusted_only_with_ca_file() {
    let home = TempDir::new().unwrap();
    let (url, pem) = private_upstream().await;
    let trusted = home.path().join("authority.pem");
    std::fs::write(&trusted, pem).unwrap();
    let other = home.path().join("other.pem");
    std::fs::write(&other, private_upstream().await.1).unwrap();
    let call = |flag: Option<&std::path::Path>, variable: Option<&std::path::Path>| {
        let mut command = program(&home);
        command
            .args(["call", "list_llmobs_projects", "--api-url", &url])
            .env("DD_API_KEY", "word")
            .env("DD_APPLICATION_KEY", "word");
        if let Some(path) = flag {
            command.arg("--ca-file").arg(path);
        }
        if let Some(path) = variable {
            command.env("LLMOBS_MCP_CA_FILE", path);
        }
        let done = command.output().unwrap();
        let output = String::from_utf8(done.stdout).unwrap();
        (done.status.code().unwrap(), output)
    };
    for (flag, variable) in [(Some(&trusted), None), (None, Some(&trusted))] {
        let (code, output) = call(
            flag.map(|path| path.as_path()),
            variable.map(|path| path.as_path()),
        );
        assert_eq!(code, 0, "{output}");
        assert!(output.contains("\"projects\":[]"), "{output}");
    }
    for flag in [None, Some(other.as_path())] {
        let (code, output) = call(flag, None);
        assert_eq!(code, 1, "{output}");
        assert!(
            output.contains("no secure connection could be made"),
            "{output}"
        );
        assert!(output.contains("--ca-file"), "{output}");
    }
}

#[test]
fn requests_to_a_site_use_the_proxy_of_the_environment() {
    let home = TempDir::new().unwrap();
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let request = std::thread::spawn(move || {
        let (mut stream, _) = proxy.accept().unwrap();
        let mut first = String::new();
        BufReader::new(stream.try_clone().unwrap())
            .read_line(&mut first)
            .unwrap();
        // The proxy refuses the tunnel, so no request leaves this machine.
        stream
            .write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
            .unwrap();
        first
    });
    let done = program(&home)
        .args(["call", "list_llmobs_projects", "--site", "datadoghq.eu"])
        .env("DD_API_KEY", "word")
        .env("DD_APPLICATION_KEY", "word")
        .env("HTTPS_PROXY", address)
        .output()
        .unwrap();
    assert_eq!(
        request.join().unwrap().trim(),
        "CONNECT api.datadoghq.eu:443 HTTP/1.1"
    );
    let output = String::from_utf8(done.stdout).unwrap();
    assert_eq!(done.status.code(), Some(1), "{output}");
    assert!(output.contains("no connection could be made"), "{output}");
}
