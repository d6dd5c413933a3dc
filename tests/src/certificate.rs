//! A private certificate authority, made with the `openssl` command.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// An authority that nobody trusts unless told to.
pub struct Authority {
    directory: TempDir,
}

/// A certificate with its key.
pub struct Issued {
    /// The file of the certificate.
    pub certificate: PathBuf,
    /// The file of its private key.
    pub key: PathBuf,
}

impl Authority {
    /// Makes a new authority.
    pub fn create() -> Self {
        let directory = TempDir::new().expect("makes a directory");
        openssl(
            directory.path(),
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
             -subj /CN=tests -keyout ca.key -out ca.pem",
        );
        Self { directory }
    }

    /// The file of its own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Issues a certificate for a host, into `directory`.
    pub fn issue(&self, host: &str, directory: &Path) -> Issued {
        let (certificate, key) = (directory.join("server.pem"), directory.join("server.key"));
        openssl(
            self.directory.path(),
            &format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
                 -subj /CN={host} -addext subjectAltName=DNS:{host} \
                 -addext basicConstraints=critical,CA:FALSE -CA ca.pem -CAkey ca.key \
                 -keyout {} -out {}",
                key.display(),
                certificate.display()
            ),
        );
        Issued { certificate, key }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the tests' own tool is no job: it is started as it is"
)]
fn openssl(directory: &Path, arguments: &str) {
    let made = Command::new("openssl")
        .current_dir(directory)
        .args(arguments.split_whitespace())
        .output()
        .expect("openssl is installed");
    assert!(
        made.status.success(),
        "openssl {arguments}: {}",
        String::from_utf8_lossy(&made.stderr)
    );
}
