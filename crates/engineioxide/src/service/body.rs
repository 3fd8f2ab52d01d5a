//! Response bodies: those of the inner service, and our own in chunks.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::polling::Receipt;

/// Bytes of a body that HTTP gets at a time. It asks for the next chunk when it has capacity for
/// it. Data that the client does not read therefore stays with the session and counts in its
/// outbox; a body handed over in one piece would count as written at once.
const CHUNK_BYTES: usize = 16 * 1024;

pin_project! {
    /// The body of a response.
    pub struct ResponseBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProjection]
    enum Kind<B> {
        Inner { #[pin] body: B },
        Own { bytes: Bytes, receipt: Option<Receipt> },
    }
}

impl<B> ResponseBody<B> {
    pub(crate) fn inner(body: B) -> Self {
        Self {
            kind: Kind::Inner { body },
        }
    }

    pub(crate) fn empty() -> Self {
        Self::full(Bytes::new())
    }

    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        Self {
            kind: Kind::Own {
                bytes: bytes.into(),
                receipt: None,
            },
        }
    }

    /// A body that reports to its session whether HTTP took all of it.
    pub(crate) fn with_receipt(bytes: Bytes, receipt: Receipt) -> Self {
        Self {
            kind: Kind::Own {
                bytes,
                receipt: Some(receipt),
            },
        }
    }
}

impl<B: Body<Data = Bytes>> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().kind.project() {
            KindProjection::Inner { body } => body.poll_frame(cx),
            KindProjection::Own { bytes, receipt } => {
                let chunk = bytes.split_to(bytes.len().min(CHUNK_BYTES));
                if bytes.is_empty()
                    && let Some(receipt) = receipt.take()
                {
                    receipt.complete();
                }
                if chunk.is_empty() {
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Ok(Frame::data(chunk))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Inner { body } => body.is_end_stream(),
            Kind::Own { bytes, .. } => bytes.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Inner { body } => body.size_hint(),
            Kind::Own { bytes, .. } => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}
