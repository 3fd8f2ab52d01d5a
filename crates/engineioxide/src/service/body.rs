//! The body of a response: the inner service's, or ours, in pieces.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::polling::Receipt;

/// Bytes that HTTP is given at once. It asks for the next when it has room: so what the client doesn't take stays with the
/// session and counts in its outbox, where all at once would count as written.
const PIECE: usize = 16 * 1024;

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

    /// A body whose session hears whether it was taken to its end.
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
                let piece = bytes.split_to(bytes.len().min(PIECE));
                if bytes.is_empty()
                    && let Some(receipt) = receipt.take()
                {
                    receipt.taken();
                }
                Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
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
