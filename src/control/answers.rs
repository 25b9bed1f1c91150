//! Counts answers: tells a listener the method and status code of every gRPC call once it has ended.
//!
//! The status of a call stands in the head of the answer when it failed at once, else in the trailers
//! behind the body. A call whose trailers were never asked for was given up by its client.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::HeaderMap;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use tonic::{Code, Status};

/// Told of each call: its path, one of ours or `other`, and the word of its status code.
pub(super) type Tell = Arc<dyn Fn(&'static str, &'static str) + Send + Sync>;

/// The methods that are told apart. Clients can send any path, so all others share one word.
const METHODS: [&str; 18] = [
    "/weft.v1.Identity/Enrol",
    "/weft.v1.Identity/Issue",
    "/weft.v1.Identity/MintJwt",
    "/weft.v1.Identity/Renew",
    "/weft.v1.Identity/WatchJwtKeys",
    "/weft.v1.Mesh/Sync",
    "/weft.v1.Mesh/Report",
    "/weft.v1.Registry/Register",
    "/weft.v1.Registry/Deregister",
    "/weft.v1.Registry/ReportChecks",
    "/weft.v1.Registry/GrantLease",
    "/weft.v1.Registry/KeepAlive",
    "/weft.v1.Registry/RevokeLease",
    "/weft.v1.Registry/Watch",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];
const OTHER: &str = "other";

/// One call; tells when it ends.
pub(super) struct Call {
    method: &'static str,
    tell: Option<Tell>,
}

/// The body of an answer that is watched for its trailers.
pub(super) struct Watched<B> {
    body: B,
    call: Call,
}

impl Call {
    pub(super) fn new(path: &str, tell: Option<Tell>) -> Self {
        Self { method: METHODS.into_iter().find(|known| *known == path).unwrap_or(OTHER), tell }
    }

    /// Watches an answer to its end.
    pub(super) fn watch<B>(mut self, answer: hyper::Response<B>) -> hyper::Response<Watched<B>> {
        self.look_at(answer.headers());
        answer.map(|body| Watched { body, call: self })
    }

    fn look_at(&mut self, fields: &HeaderMap) {
        if let Some(status) = Status::from_header_map(fields) {
            self.end(status.code());
        }
    }

    fn end(&mut self, code: Code) {
        if let Some(tell) = self.tell.take() {
            tell(self.method, word(code));
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Watched<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(trailers) = frame.trailers_ref()
        {
            self.call.look_at(trailers);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The names of the gRPC specification, in lower case.
const fn word(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_of_ours_is_told_apart() {
        let mut count = 0;
        for file in [
            include_str!("../../proto/weft/v1/identity.proto"),
            include_str!("../../proto/weft/v1/mesh.proto"),
            include_str!("../../proto/weft/v1/registry.proto"),
        ] {
            let name = |line: &str| line.split([' ', '(', '{']).next().unwrap().to_owned();
            let mut lines = file.lines().map(str::trim);
            let service = lines.find_map(|line| line.strip_prefix("service ")).map(name).unwrap();
            for method in lines.filter_map(|line| line.strip_prefix("rpc ")).map(name) {
                let path = format!("/weft.v1.{service}/{method}");
                assert_eq!(Call::new(&path, None).method, path);
                count += 1;
            }
        }
        assert!(count >= 11, "{count} methods");
        assert_eq!(Call::new("/any/Thing", None).method, OTHER);
    }
}
