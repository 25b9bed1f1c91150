//! Who may use the HTTP API of this server: the switch, and the operator's token in its file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use zeroize::Zeroizing;

use super::Settings;
use super::material::Material;
use crate::access::Access;
use crate::access::audit::{AuditLog, Entry};
use crate::app::AppError;
use crate::control::{self, Asked};
use crate::model::hex;
use crate::net::accept::TlsSource;
use crate::store::Store;

/// Longest token file that is read.
const MAX_TOKEN_BYTES: u64 = 4096;
/// Whoever else may read the file, its group may: systemd shows credentials in that way.
const FOREIGN: u32 = 0o037;

/// What a server is told of access to its API.
#[derive(Debug, Clone, Default)]
pub struct AccessSettings {
    /// Whoever has no token may do nothing.
    pub require_token: bool,
    /// Holds the operator's token; made with one when it is not there.
    pub token_file: Option<PathBuf>,
    /// Where changes over the API are written down.
    pub audit_log: Option<PathBuf>,
}

/// Keeps the operator's secrets up to date.
pub(super) struct Keeper {
    access: Access,
    audit: Option<AuditLog>,
    https: Option<Material>,
    etcd: Option<Material>,
    token_file: Option<PathBuf>,
}

impl Keeper {
    /// Opens access to the API.
    ///
    /// # Errors
    /// When a file cannot be used, or nobody could ever get in.
    pub(super) async fn open(store: &Arc<dyn Store>, settings: &Settings) -> Result<Self, AppError> {
        let (https, etcd) = (settings.https.as_ref(), settings.etcd.as_ref());
        let settings = &settings.access;
        let access = Access::new(Arc::clone(store), settings.require_token);
        let audit = settings.audit_log.as_deref().map(AuditLog::open).transpose()?;
        let keeper = Self {
            access,
            audit,
            https: https.map(|https| https.material(settings.require_token)).transpose()?,
            etcd: etcd.map(|etcd| etcd.material(settings.require_token)).transpose()?.flatten(),
            token_file: settings.token_file.clone(),
        };
        keeper.read_token().await?;
        let no_operator =
            settings.token_file.is_none() && https.is_none_or(|https| https.client_ca.is_none());
        if settings.require_token
            && no_operator
            && keeper.access.list(SystemTime::now()).await?.is_empty()
        {
            return Err(AppError::Usage(
                "--require-token would lock everybody out, as there is no token yet; name a file for the \
                 first one with --api-token-file FILE"
                    .to_owned(),
            ));
        }
        Ok(keeper)
    }

    pub(super) const fn access(&self) -> &Access {
        &self.access
    }

    pub(super) fn https(&self) -> Option<TlsSource> {
        self.https.as_ref().map(Material::source)
    }

    pub(super) fn etcd(&self) -> Option<TlsSource> {
        self.etcd.as_ref().map(Material::source)
    }

    pub(super) fn audit(&self) -> Option<AuditLog> {
        self.audit.clone()
    }

    /// Opens the audit log anew and reads the operator's files again; on a fault what was read before
    /// counts.
    ///
    /// # Errors
    /// When a file cannot be used.
    pub(super) async fn refresh(&self) -> Result<(), AppError> {
        if let Some(audit) = &self.audit {
            audit.reopen().await?;
        }
        for tls in self.https.iter().chain(&self.etcd) {
            tls.refresh()?;
        }
        self.read_token().await
    }

    async fn read_token(&self) -> Result<(), AppError> {
        let Some(path) = self.token_file.clone() else { return Ok(()) };
        let read = tokio::task::spawn_blocking(move || operator_token(&path));
        let token = read.await.map_err(|_| AppError::Died("the reader of the token file"))??;
        Ok(self.access.set_operator(&token)?)
    }
}

/// Has what is signed for sidecars written into the audit log before it is handed out, and gives the log
/// back.
pub(super) fn audited(grpc: &control::Bound, audit: Option<AuditLog>) -> Option<AuditLog> {
    let log = audit.clone()?;
    grpc.on_signed(move |asked| {
        let Asked { call, peer, caller, subject, outcome } = asked;
        let granted = outcome.is_ok();
        let entry = Entry {
            actor: if caller.is_empty() { "anonymous".to_owned() } else { caller },
            peer: peer.to_string(),
            method: "gRPC".to_owned(),
            route: format!("weft.v1.Identity/{call}"),
            target: subject,
            outcome: outcome
                .map_or_else(|why| format!("refused: {why}"), |serial| format!("signed {serial}")),
            ..Entry::default()
        };
        let log = log.clone();
        Box::pin(async move {
            if granted {
                return log.record(entry).await.map_err(|fault| fault.to_string());
            }
            log.note_refused(entry);
            Ok(())
        })
    });
    audit
}

fn operator_token(path: &Path) -> Result<Zeroizing<String>, AppError> {
    let fail = |action| move |source| AppError::File { action, path: path.to_owned(), source };
    match make(path) {
        Ok(token) => {
            tracing::info!(path = %path.display(), "operator token made");
            Ok(token)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            read(path).map_err(fail("read the operator token from"))
        }
        Err(error) => Err(fail("make the operator token in")(error)),
    }
}

fn make(path: &Path) -> io::Result<Zeroizing<String>> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut bytes = Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(&mut *bytes).map_err(|_| io::Error::other("no random numbers"))?;
    let token = Zeroizing::new(hex::encode(&*bytes));
    let written = file.write_all(token.as_bytes()).and_then(|()| file.write_all(b"\n"));
    if written.is_err() {
        // Half a token would be read as a whole one.
        let _best_effort = std::fs::remove_file(path);
    }
    written.and_then(|()| file.sync_all()).map(|()| token)
}

fn read(path: &Path) -> io::Result<Zeroizing<String>> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if metadata.mode() & FOREIGN != 0 {
        let mode = metadata.mode() & 0o777;
        return Err(io::Error::other(format!("others may use it (mode {mode:04o}); chmod it to 0600")));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_TOKEN_BYTES).read_to_string(&mut text)?;
    Ok(Zeroizing::new(text.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_file_is_made_once_and_must_be_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let made = operator_token(&path).unwrap();
        assert_eq!(made.len(), 64);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(operator_token(&path).unwrap(), made);
        for (mode, good) in
            [(0o400, true), (0o440, true), (0o644, false), (0o660, false), (0o604, false)]
        {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path).is_ok(), good, "{mode:o}");
        }
        assert!(operator_token(directory.path()).is_err());
        assert!(operator_token(&directory.path().join("no/such")).is_err());
    }
}
