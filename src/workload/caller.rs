//! Who calls, and whether the call may be answered.

use tokio::net::unix::UCred;
use tonic::{Request, Status};

/// The header that every call carries, so that nobody's browser or proxy can be talked into one.
const HEADER: &str = "workload.spiffe.io";

/// What the kernel says of the process that connected. Put into the extensions of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Caller {
    pub uid: u32,
    /// For the log only: the process may be another one by now.
    pub pid: i32,
    pub listed: bool,
}

impl Caller {
    pub(super) fn new(credentials: UCred, listed: &[u32]) -> Self {
        let uid = credentials.uid();
        Self { uid, pid: credentials.pid().unwrap_or_default(), listed: listed.contains(&uid) }
    }

    /// The caller of a request that may be answered.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` without the header, `PERMISSION_DENIED` for a user who is not on the list.
    pub(super) fn admit<T>(request: &Request<T>) -> Result<Self, Status> {
        let mut values = request.metadata().get_all(HEADER).iter();
        if values.next().is_none_or(|value| value != "true") || values.next().is_some() {
            return Err(Status::invalid_argument(format!(
                "every call of the Workload API needs the metadata `{HEADER}: true`, once"
            )));
        }
        let caller = request.extensions().get::<Self>().copied();
        let caller = caller.ok_or_else(|| Status::internal("the request came without a connection"))?;
        if caller.listed {
            return Ok(caller);
        }
        Err(Status::permission_denied(format!(
            "user {} has no identity here; start the sidecar with --workload-uid {0} to give it one",
            caller.uid
        )))
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn code(listed: Option<bool>, headers: &[&'static str]) -> Result<u32, Code> {
        let mut request = Request::new(());
        for value in headers {
            request.metadata_mut().append(HEADER, value.parse().unwrap());
        }
        if let Some(listed) = listed {
            request.extensions_mut().insert(Caller { uid: 7, pid: 1, listed });
        }
        Caller::admit(&request).map(|caller| caller.uid).map_err(|status| status.code())
    }

    #[test]
    fn header_first_then_the_list() {
        assert_eq!(code(Some(true), &["true"]), Ok(7));
        for headers in [&[][..], &["false"], &["True"], &["true "], &["1"], &["true", "true"]] {
            assert_eq!(code(Some(true), headers), Err(Code::InvalidArgument), "{headers:?}");
            assert_eq!(code(Some(false), headers), Err(Code::InvalidArgument), "{headers:?}");
        }
        assert_eq!(code(Some(false), &["true"]), Err(Code::PermissionDenied));
        assert_eq!(code(None, &["true"]), Err(Code::Internal));
    }
}
