//! A fleet's own authority and a certificate for its links, made for one test.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::fs;
use std::path::{Path, PathBuf};
use storage_node::LinkTls;
use storage_node::config::SERVER_NAME_DEFAULT;

/// Writes `ca.pem`, `link.pem` and `link.key` into the folder.
pub fn make(folder: &Path) -> LinkTls {
    let authority_key = KeyPair::generate().expect("a key");
    let mut authority = CertificateParams::new(Vec::new()).expect("no names");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_certificate = authority.self_signed(&authority_key).expect("it signs itself");
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec![SERVER_NAME_DEFAULT.to_owned()]).expect("a name");
    let certificate = params.signed_by(&key, &issuer).expect("it is signed");
    let write = |name: &str, text: String| -> PathBuf {
        let file = folder.join(name);
        fs::write(&file, text).expect("it writes");
        file
    };
    LinkTls {
        ca: write("ca.pem", authority_certificate.pem()),
        cert: write("link.pem", certificate.pem()),
        key: write("link.key", key.serialize_pem()),
        server_name: SERVER_NAME_DEFAULT.to_owned(),
    }
}
