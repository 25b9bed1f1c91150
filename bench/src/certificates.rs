//! Certificates for the peers, made with openssl: one CA and two leaves, ECDSA P-256 as Weft's own are.

use std::path::{Path, PathBuf};

use crate::fault::{Doing, Outcome};
use crate::process;

pub struct Leaf {
    file: &'static str,
    /// The DNS name in it.
    pub name: &'static str,
}

pub const SERVER: Leaf = Leaf { file: "server", name: "server.bench" };
pub const CLIENT: Leaf = Leaf { file: "client", name: "client.bench" };

const CA: &str = "ca";
const DAYS: &str = "2";

pub struct Certificates {
    directory: PathBuf,
}

impl Certificates {
    /// Where they will be; `make` makes them.
    pub fn at(directory: PathBuf) -> Self {
        Self { directory }
    }

    pub fn make(&self, openssl: &Path) -> Outcome<()> {
        std::fs::create_dir_all(&self.directory).doing(self.directory.display())?;
        let usage = "keyUsage=critical,keyCertSign,cRLSign";
        self.issue(openssl, CA, "bench CA", &["basicConstraints=critical,CA:TRUE", usage], None)?;
        for leaf in [&SERVER, &CLIENT] {
            let name = format!("subjectAltName=DNS:{}", leaf.name);
            let extensions = [
                name.as_str(),
                "keyUsage=critical,digitalSignature",
                "extendedKeyUsage=serverAuth,clientAuth",
            ];
            self.issue(openssl, leaf.file, leaf.name, &extensions, Some(CA))?;
            let both = [std::fs::read(self.chain(leaf)), std::fs::read(self.key(leaf))];
            let both =
                both.into_iter().collect::<std::io::Result<Vec<_>>>().doing("read a certificate")?;
            std::fs::write(self.both(leaf), both.concat()).doing(self.both(leaf).display())?;
        }
        Ok(())
    }

    fn issue(
        &self,
        openssl: &Path,
        file: &str,
        subject: &str,
        extensions: &[&str],
        issuer: Option<&str>,
    ) -> Outcome<()> {
        let path = |file: &str, kind: &str| self.path(file, kind).display().to_string();
        let mut arguments: Vec<String> = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
            .split(' ')
            .map(str::to_owned)
            .collect();
        arguments.extend(["-days".into(), DAYS.into(), "-subj".into(), format!("/CN={subject}")]);
        arguments.extend(["-keyout".into(), path(file, "key"), "-out".into(), path(file, "crt")]);
        for extension in extensions {
            arguments.extend(["-addext".into(), (*extension).into()]);
        }
        if let Some(issuer) = issuer {
            arguments.extend(["-CA".into(), path(issuer, "crt"), "-CAkey".into(), path(issuer, "key")]);
        }
        process::output(openssl, &arguments).doing(format!("make the certificate of {subject}"))?;
        Ok(())
    }

    fn path(&self, file: &str, kind: &str) -> PathBuf {
        self.directory.join(format!("{file}.{kind}"))
    }

    pub fn root(&self) -> PathBuf {
        self.path(CA, "crt")
    }

    pub fn chain(&self, leaf: &Leaf) -> PathBuf {
        self.path(leaf.file, "crt")
    }

    pub fn key(&self, leaf: &Leaf) -> PathBuf {
        self.path(leaf.file, "key")
    }

    /// Certificate and key in one file, as haproxy and stunnel want them.
    pub fn both(&self, leaf: &Leaf) -> PathBuf {
        self.path(leaf.file, "pem")
    }
}
