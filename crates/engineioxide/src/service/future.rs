//! The futures that the services return.

use std::convert::Infallible;
use std::future::{Future, Ready};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body_util::Empty;
use pin_project_lite::pin_project;

use super::ResponseBody;

/// Returns a service immediately.
pub type MakeServiceFuture<S> = Ready<Result<S, Infallible>>;

/// The response to a stream that is a WebSocket already: status 101, returned when its task has
/// been started.
pub type UpgradedFuture = Ready<Result<Response<ResponseBody<Empty<Bytes>>>, Infallible>>;

type Boxed<B> = Pin<Box<dyn Future<Output = Response<ResponseBody<B>>> + Send>>;

pin_project! {
    /// The response to a request. Dropping it while a poll waits closes the session.
    pub struct ResponseFuture<F, B> {
        #[pin]
        kind: Kind<F, B>,
    }
}

pin_project! {
    #[project = KindProjection]
    enum Kind<F, B> {
        Inner { #[pin] future: F },
        Ready { response: Option<Response<ResponseBody<B>>> },
        // Only futures that really wait are boxed.
        Waiting { future: Boxed<B> },
    }
}

impl<F, B> ResponseFuture<F, B> {
    pub(super) fn inner(future: F) -> Self {
        Self {
            kind: Kind::Inner { future },
        }
    }

    pub(super) fn ready(response: Response<ResponseBody<B>>) -> Self {
        Self {
            kind: Kind::Ready {
                response: Some(response),
            },
        }
    }

    pub(super) fn waiting(
        future: impl Future<Output = Response<ResponseBody<B>>> + Send + 'static,
    ) -> Self {
        Self {
            kind: Kind::Waiting {
                future: Box::pin(future),
            },
        }
    }
}

impl<F, B, E> Future for ResponseFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<ResponseBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().kind.project() {
            KindProjection::Inner { future } => {
                let response = ready!(future.poll(cx))?;
                Poll::Ready(Ok(response.map(ResponseBody::inner)))
            }
            KindProjection::Ready { response } => {
                Poll::Ready(Ok(response.take().expect("polled after it was ready")))
            }
            KindProjection::Waiting { future } => future.as_mut().poll(cx).map(Ok),
        }
    }
}
