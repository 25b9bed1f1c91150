//! Throw-away certificates on disk, for people who test by hand (`weft ca dev`).
//!
//! A new authority each time, whose key is not kept; one leaf for each service. Nothing here touches
//! the authority of a running mesh.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::KeyPair;
use zeroize::Zeroizing;

use super::authority::Authority;
use super::issue::{self, Intermediate, Names};
use super::{CaError, pem};
use crate::model::{ServiceName, SpiffeId};

/// Where the files go when no directory is named.
pub const DEV_DIRECTORY: &str = "certs-dev";
const DATACENTER: &str = "dc1";
const PUBLIC: u32 = 0o644;
const SECRET: u32 = 0o600;

/// Writes `root.pem`, and for each service `<service>.pem` (leaf and intermediate) and
/// `<service>-key.pem` (PKCS#8, mode 0600) into `dir`, and returns their paths in that order.
///
/// The certificates also name `localhost`, 127.0.0.1 and `::1`, so that ordinary TLS tools accept them.
///
/// # Errors
/// [`CaError::Exists`] when a file is there and `overwrite` is false: then nothing was written.
/// [`CaError::File`] when a file cannot be written.
pub fn write_dev(
    dir: &Path,
    services: &[ServiceName],
    ttl: Duration,
    overwrite: bool,
) -> Result<Vec<PathBuf>, CaError> {
    let files = make(services, ttl, SystemTime::now())?;
    let mut paths = BTreeSet::new();
    for file in &files {
        let path = dir.join(&file.name);
        if !overwrite && path.symlink_metadata().is_ok() {
            return Err(CaError::Exists(path));
        }
        if !paths.insert(path.clone()) {
            return Err(CaError::SameFile(path));
        }
    }
    let failed = |source| CaError::File { path: dir.to_owned(), action: "created", source };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    files.iter().map(|file| file.write(dir)).collect()
}

struct File {
    name: String,
    text: Zeroizing<String>,
    mode: u32,
}

fn make(services: &[ServiceName], ttl: Duration, now: SystemTime) -> Result<Vec<File>, CaError> {
    let authority = Authority::create(now)?;
    let intermediate = Intermediate::new(authority.active(), &authority.domain, ttl, now)?;
    let root = authority.active().pem().to_owned();
    let mut files = vec![File { name: "root.pem".into(), text: root.into(), mode: PUBLIC }];
    for service in services {
        let id = SpiffeId::for_service(&authority.domain, DATACENTER, service)
            .map_err(|source| CaError::Name { name: service.to_string(), source })?;
        let pair = KeyPair::generate()?;
        let leaf = issue::leaf(&intermediate, &id, &pair, Names::Loopback, ttl, now)?;
        let chain: String = leaf.chain.iter().map(|der| pem::encode("CERTIFICATE", der)).collect();
        let key = pem::encode("PRIVATE KEY", &Zeroizing::new(pair.serialize_der()));
        let name = service.to_lowercase();
        files.push(File { name: format!("{name}.pem"), text: chain.into(), mode: PUBLIC });
        files.push(File { name: format!("{name}-key.pem"), text: key.into(), mode: SECRET });
    }
    Ok(files)
}

impl File {
    /// Always makes a new file: an old one would keep its mode, and a link would lead elsewhere.
    fn write(&self, dir: &Path) -> Result<PathBuf, CaError> {
        let path = dir.join(&self.name);
        let failed = |action| {
            let path = path.clone();
            move |source| CaError::File { path, action, source }
        };
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed("replaced")(error)),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(self.mode)
            .open(&path)
            .map_err(failed("created"))?;
        file.write_all(self.text.as_bytes()).map_err(failed("written"))?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

    use super::*;
    use crate::model::Bundle;
    use crate::tls::Identity;

    const HOUR: Duration = Duration::from_secs(3600);

    fn services(names: &[&str]) -> Vec<ServiceName> {
        names.iter().map(|name| ServiceName::new(name).unwrap()).collect()
    }

    fn certificates(path: &Path) -> Vec<Vec<u8>> {
        let all = CertificateDer::pem_file_iter(path).unwrap();
        all.map(|certificate| certificate.unwrap().to_vec()).collect()
    }

    #[test]
    fn the_files_make_identities_and_keys_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join(DEV_DIRECTORY);
        let paths = write_dev(&dir, &services(&["Web", "db"]), HOUR, false).unwrap();
        let names: Vec<_> =
            paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["root.pem", "web.pem", "web-key.pem", "db.pem", "db-key.pem"]);
        for path in &paths {
            let mode = path.metadata().unwrap().permissions().mode() & 0o777;
            let is_key = path.to_string_lossy().ends_with("-key.pem");
            assert!(if is_key { mode == 0o600 } else { mode & 0o022 == 0 }, "{path:?} {mode:o}");
        }
        let key = PrivatePkcs8KeyDer::from_pem_file(&paths[2]).unwrap();
        let chain = certificates(&paths[1]);
        let id = crate::tls::peer_id(Some(&[CertificateDer::from(chain[0].clone())])).unwrap();
        let roots = certificates(&paths[0]).into_iter().map(Into::into).collect();
        let bundle = Bundle { trust_domain: id.trust_domain(), version: 1, roots };
        let now = SystemTime::now();
        let identity = Identity::new(1, chain, key.secret_pkcs8_der(), &bundle, now).unwrap();
        assert_eq!(identity.id().service().unwrap().1.as_str(), "web");
    }

    #[test]
    fn nothing_is_overwritten_unless_told() {
        let dir = tempfile::tempdir().unwrap();
        let paths = write_dev(dir.path(), &services(&["web"]), HOUR, false).unwrap();
        let before = std::fs::read(&paths[1]).unwrap();
        std::fs::remove_file(&paths[0]).unwrap();
        let error = write_dev(dir.path(), &services(&["web"]), HOUR, false).unwrap_err();
        assert!(matches!(&error, CaError::Exists(path) if *path == paths[1]), "{error}");
        assert!(!paths[0].exists(), "something was written before the refusal");
        assert_eq!(std::fs::read(&paths[1]).unwrap(), before);
        // A lax mode or a link left behind does not carry over.
        let elsewhere = dir.path().join("elsewhere");
        std::fs::write(&elsewhere, "mine").unwrap();
        std::fs::remove_file(&paths[2]).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &paths[2]).unwrap();
        write_dev(dir.path(), &services(&["web"]), HOUR, true).unwrap();
        assert_ne!(std::fs::read(&paths[1]).unwrap(), before);
        assert_eq!(std::fs::read(&elsewhere).unwrap(), b"mine");
        assert_eq!(paths[2].symlink_metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn services_that_would_share_a_file_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for names in [["root", "web"], ["a", "a-key"], ["web", "WEB"]] {
            let error = write_dev(dir.path(), &services(&names), HOUR, false).unwrap_err();
            assert!(matches!(error, CaError::SameFile(_)), "{names:?}: {error}");
        }
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }
}
