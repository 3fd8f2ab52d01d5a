//! The services: route requests for the Engine.IO path to a transport, and all others to the
//! inner service.

mod body;
mod future;
mod route;

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::Empty;
use hyper::service::Service as HyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tower_service::Service as TowerService;

use crate::config::EngineIoConfig;
use crate::control::Control;
use crate::handler::EngineIoHandler;

pub use body::ResponseBody;
pub use future::{MakeServiceFuture, ResponseFuture, UpgradedFuture};

/// Serves Engine.IO on its path, as a tower and as a hyper service, and passes every other request
/// to `S`.
///
/// The listener has duties that only it can perform, because it owns the TCP socket:
/// - set `TCP_NODELAY`, or a message sent behind another waits up to 40 ms for the client's TCP
///   acknowledgement;
/// - serve connections with upgrades;
/// - limit how long a client may take to send a request's header and to read a polling response.
pub struct EngineIoService<H: EngineIoHandler, S = NotFoundService> {
    inner: S,
    engine: Arc<Engine<H>>,
}

/// The state that all clones of a service share.
pub(crate) struct Engine<H> {
    handler: Arc<H>,
    config: Arc<EngineIoConfig>,
    /// For requests that carry no `Control`.
    control: Control,
}

impl<H: EngineIoHandler> EngineIoService<H, NotFoundService> {
    /// Serves Engine.IO with default settings, and answers other paths with status 404.
    pub fn new(handler: Arc<H>) -> Self {
        Self::with_config(handler, EngineIoConfig::default())
    }

    /// As [`new`](Self::new), with the given settings.
    pub fn with_config(handler: Arc<H>, config: EngineIoConfig) -> Self {
        Self::with_config_inner(NotFoundService, handler, config)
    }
}

impl<H: EngineIoHandler, S: Clone> EngineIoService<H, S> {
    /// As [`with_config_inner`](Self::with_config_inner), with default settings.
    pub fn with_inner(inner: S, handler: Arc<H>) -> Self {
        Self::with_config_inner(inner, handler, EngineIoConfig::default())
    }

    /// Serves Engine.IO and passes other requests to `inner`.
    pub fn with_config_inner(inner: S, handler: Arc<H>, config: EngineIoConfig) -> Self {
        let config = Arc::new(config);
        Self {
            inner,
            engine: Arc::new(Engine {
                handler,
                config,
                control: Control::default(),
            }),
        }
    }

    /// A service that returns a clone of this one for each connection.
    pub fn into_make_service(self) -> MakeEngineIoService<H, S> {
        MakeEngineIoService { service: self }
    }
}

impl<H: EngineIoHandler, S: Clone> Clone for EngineIoService<H, S> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            engine: self.engine.clone(),
        }
    }
}

impl<H: EngineIoHandler, S> fmt::Debug for EngineIoService<H, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineIoService")
            .field("config", &self.engine.config)
            .finish()
    }
}

impl<H, S, ReqBody, ResBody> TowerService<Request<ReqBody>> for EngineIoService<H, S>
where
    H: EngineIoHandler,
    S: TowerService<Request<ReqBody>, Response = Response<ResBody>>,
    ReqBody: Body + Send + Unpin + 'static,
    ReqBody::Data: Send,
    ResBody: Send + 'static,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, ResBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        if self.engine.config.serves(request.uri().path()) {
            self.engine.route(request)
        } else {
            ResponseFuture::inner(self.inner.call(request))
        }
    }
}

impl<H, S, ReqBody, ResBody> HyperService<Request<ReqBody>> for EngineIoService<H, S>
where
    H: EngineIoHandler,
    S: HyperService<Request<ReqBody>, Response = Response<ResBody>>,
    ReqBody: Body + Send + Unpin + 'static,
    ReqBody::Data: Send,
    ResBody: Send + 'static,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, ResBody>;

    fn call(&self, request: Request<ReqBody>) -> Self::Future {
        if self.engine.config.serves(request.uri().path()) {
            self.engine.route(request)
        } else {
            ResponseFuture::inner(self.inner.call(request))
        }
    }
}

/// Serves a stream on which the WebSocket handshake is complete, and the request that began it.
impl<St, H, S> TowerService<(St, Request<()>)> for EngineIoService<H, S>
where
    H: EngineIoHandler,
    St: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Response = Response<ResponseBody<Empty<Bytes>>>;
    type Error = Infallible;
    type Future = UpgradedFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (stream, request): (St, Request<()>)) -> Self::Future {
        std::future::ready(Ok(self.engine.upgraded(stream, request)))
    }
}

impl<St, H, S> HyperService<(St, Request<()>)> for EngineIoService<H, S>
where
    H: EngineIoHandler,
    St: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Response = Response<ResponseBody<Empty<Bytes>>>;
    type Error = Infallible;
    type Future = UpgradedFuture;

    fn call(&self, (stream, request): (St, Request<()>)) -> Self::Future {
        std::future::ready(Ok(self.engine.upgraded(stream, request)))
    }
}

#[cfg(feature = "__test_harness")]
#[doc(hidden)]
impl<H: EngineIoHandler, S> EngineIoService<H, S> {
    /// Serves a WebSocket on a stream whose handshake is complete. Returns when its task has been
    /// started.
    pub async fn ws_init<St>(
        &self,
        stream: St,
        protocol: crate::ProtocolVersion,
        sid: Option<crate::Sid>,
        parts: http::request::Parts,
    ) -> Result<(), crate::refusal::Refused>
    where
        St: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.engine.websocket(
            std::future::ready(Some(crate::websocket::AnyStream(stream))),
            protocol,
            sid,
            parts,
        )?;
        Ok(())
    }
}

/// Returns a clone of the service for each connection.
pub struct MakeEngineIoService<H: EngineIoHandler, S> {
    service: EngineIoService<H, S>,
}

impl<H: EngineIoHandler, S: Clone, T> TowerService<T> for MakeEngineIoService<H, S> {
    type Response = EngineIoService<H, S>;
    type Error = Infallible;
    type Future = MakeServiceFuture<EngineIoService<H, S>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: T) -> Self::Future {
        std::future::ready(Ok(self.service.clone()))
    }
}

impl<H: EngineIoHandler, S: Clone, T> HyperService<T> for MakeEngineIoService<H, S> {
    type Response = EngineIoService<H, S>;
    type Error = Infallible;
    type Future = MakeServiceFuture<EngineIoService<H, S>>;

    fn call(&self, _: T) -> Self::Future {
        std::future::ready(Ok(self.service.clone()))
    }
}

/// Answers every request with status 404.
#[derive(Debug, Clone, Copy, Default)]
pub struct NotFoundService;

impl NotFoundService {
    fn response() -> Response<Empty<Bytes>> {
        let mut response = Response::new(Empty::new());
        *response.status_mut() = StatusCode::NOT_FOUND;
        response
    }
}

impl<B> TowerService<Request<B>> for NotFoundService {
    type Response = Response<Empty<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        std::future::ready(Ok(Self::response()))
    }
}

impl<B> HyperService<Request<B>> for NotFoundService {
    type Response = Response<Empty<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn call(&self, _: Request<B>) -> Self::Future {
        std::future::ready(Ok(Self::response()))
    }
}
