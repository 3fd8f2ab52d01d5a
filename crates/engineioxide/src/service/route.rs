//! Routing by a request's query: a handshake, a poll, a POST or a WebSocket.

use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use engineioxide_core::{ProtocolVersion, Sid, TransportType};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::Empty;
use hyper::upgrade::OnUpgrade;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::{Engine, ResponseBody, ResponseFuture};
use crate::control::{Control, Retained};
use crate::frame::Frame;
use crate::handler::EngineIoHandler;
use crate::polling;
use crate::refusal::Refusal;
use crate::session::Session;
use crate::socket::BoundHandler;
use crate::websocket::{self, AnyStream, CloseOnDrop, Role, UpgradedStream};

/// The protocol of a request that does not name one: clients of Engine.IO 3 may leave `EIO` out.
const DEFAULT_VERSION: &str = "3";

/// The parameters of a request's query.
struct Query<'a> {
    protocol: ProtocolVersion,
    transport: TransportType,
    sid: Option<&'a str>,
    b64: bool,
}

impl<'a> Query<'a> {
    fn parse(query: &'a str) -> Result<Self, Refusal> {
        let mut eio = None;
        let mut transport = None;
        let mut sid = None;
        let mut b64 = false;
        let mut jsonp = false;
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "EIO" => eio = Some(value),
                "transport" => transport = Some(value),
                // An empty id counts as none. Both this and `routes/socketio.rs` of hubbub decide
                // by it whether the request opens a session.
                "sid" if !value.is_empty() => sid = Some(value),
                "b64" => b64 = !matches!(value, "" | "0" | "false"),
                "j" => jsonp = true,
                _ => {}
            }
        }
        let transport = transport
            .and_then(|transport| TransportType::from_str(transport).ok())
            .ok_or(Refusal::UnknownTransport)?;
        let protocol = ProtocolVersion::from_str(eio.unwrap_or(DEFAULT_VERSION))
            .map_err(|_| Refusal::UnsupportedVersion)?;
        // JSONP responses are scripts: obsolete, and a security risk.
        if jsonp {
            return Err(Refusal::BadRequest);
        }
        Ok(Self {
            protocol,
            transport,
            sid,
            b64,
        })
    }
}

/// The session that a request is for.
enum Target {
    New,
    Known(Arc<Session>),
}

impl<H: EngineIoHandler> Engine<H> {
    /// Responds to a request for the Engine.IO path.
    pub(super) fn route<F, R, B>(&self, request: Request<R>) -> ResponseFuture<F, B>
    where
        R: Body + Send + Unpin + 'static,
        R::Data: Send,
        B: Send + 'static,
    {
        self.try_route(request)
            .unwrap_or_else(|refusal| ResponseFuture::ready(refusal.response()))
    }

    fn try_route<F, R, B>(&self, mut request: Request<R>) -> Result<ResponseFuture<F, B>, Refusal>
    where
        R: Body + Send + Unpin + 'static,
        R::Data: Send,
        B: Send + 'static,
    {
        let on_upgrade = if request.extensions().get::<OnUpgrade>().is_some() {
            Some(hyper::upgrade::on(&mut request))
        } else {
            None
        };
        let (mut parts, body) = request.into_parts();
        let uri = std::mem::take(&mut parts.uri);
        let query = Query::parse(uri.query().unwrap_or_default())?;
        if !self.config.allowed_transport(query.transport) {
            return Err(Refusal::UnknownTransport);
        }
        let target = self.target(&parts, &query)?;
        if let Target::Known(session) = &target {
            // The timer may be a little late, but a request must not revive a session that has
            // missed its deadline.
            let now = Instant::now();
            session.on_deadline(now, now);
        }
        match query.transport {
            TransportType::Websocket => self.upgrade(target, parts, on_upgrade, &query),
            TransportType::Polling => self.poll_or_post(target, parts, body, &query),
        }
    }

    fn target(&self, parts: &Parts, query: &Query<'_>) -> Result<Target, Refusal> {
        let Some(sid) = query.sid else {
            return Ok(Target::New);
        };
        let sid = Sid::from_str(sid).map_err(|_| Refusal::UnknownSession)?;
        let session = self
            .control(parts)
            .find(&sid)
            .ok_or(Refusal::UnknownSession)?;
        if session.protocol != query.protocol {
            return Err(Refusal::BadRequest);
        }
        Ok(Target::Known(session))
    }

    /// Accepts the WebSocket handshake of a request.
    fn upgrade<F, B>(
        &self,
        target: Target,
        parts: Parts,
        on_upgrade: Option<OnUpgrade>,
        query: &Query<'_>,
    ) -> Result<ResponseFuture<F, B>, Refusal> {
        let sid = match target {
            Target::New if parts.method != Method::GET => {
                return Err(Refusal::BadHandshakeMethod);
            }
            Target::New => None,
            Target::Known(session) => Some(session.id),
        };
        let handshake = websocket::check(&parts)?;
        let on_upgrade = on_upgrade.ok_or(Refusal::BadRequest)?;
        let stream = async { on_upgrade.await.ok() };
        self.websocket(stream, query.protocol, sid, parts)?;
        Ok(ResponseFuture::ready(websocket::accept(handshake)))
    }

    /// Opens a session on polling, or begins a poll or a POST of an open one.
    fn poll_or_post<F, R, B>(
        &self,
        target: Target,
        mut parts: Parts,
        body: R,
        query: &Query<'_>,
    ) -> Result<ResponseFuture<F, B>, Refusal>
    where
        R: Body + Send + Unpin + 'static,
        R::Data: Send,
        B: Send + 'static,
    {
        match (target, &parts.method) {
            (Target::New, &Method::GET) => {
                let session = Session::open(
                    Sid::new(),
                    query.protocol,
                    TransportType::Polling,
                    self.control(&parts),
                    self.config.clone(),
                    query.b64,
                );
                let retained = parts.extensions.remove::<Retained>();
                BoundHandler::connect(&self.handler, &session, retained);
                Ok(ResponseFuture::ready(polling::open(&session)))
            }
            (Target::New, _) => Err(Refusal::BadHandshakeMethod),
            (Target::Known(session), &Method::GET) => {
                let guard = session.begin_poll().ok_or(Refusal::BadRequest)?;
                let response = polling::poll(session, guard, query.b64);
                Ok(ResponseFuture::waiting(response))
            }
            (Target::Known(session), &Method::POST) => {
                let guard = session.begin_post().ok_or(Refusal::BadRequest)?;
                let response = polling::post(session, guard, parts.headers, body);
                Ok(ResponseFuture::waiting(response))
            }
            (Target::Known(_), _) => Err(Refusal::BadRequest),
        }
    }

    /// The control that the request carries, or the service's own.
    fn control(&self, parts: &Parts) -> Control {
        parts
            .extensions
            .get::<Control>()
            .unwrap_or(&self.control)
            .clone()
    }

    /// Responds for a stream that is a WebSocket already.
    pub(super) fn upgraded<St>(
        &self,
        stream: St,
        request: Request<()>,
    ) -> Response<ResponseBody<Empty<Bytes>>>
    where
        St: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (parts, ()) = request.into_parts();
        let uri = parts.uri.clone();
        let started = Query::parse(uri.query().unwrap_or_default()).and_then(|query| {
            let sid = query.sid.map(Sid::from_str).transpose();
            let sid = sid.map_err(|_| Refusal::UnknownSession)?;
            let stream = std::future::ready(Some(AnyStream(stream)));
            self.websocket(stream, query.protocol, sid, parts)
        });
        match started {
            Ok(()) => {
                let mut response = Response::new(ResponseBody::empty());
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                response
            }
            Err(refusal) => refusal.response(),
        }
    }

    /// Spawns a task that runs a WebSocket as soon as `stream` resolves.
    pub(super) fn websocket(
        &self,
        stream: impl Future<Output = Option<impl UpgradedStream>> + Send + 'static,
        protocol: ProtocolVersion,
        sid: Option<Sid>,
        mut parts: Parts,
    ) -> Result<(), Refusal> {
        let control = self.control(&parts);
        if let Some(sid) = sid {
            let session = control.find(&sid).ok_or(Refusal::UnknownSession)?;
            // A session that has a WebSocket keeps it, and a second one is closed as soon as it
            // opens. If the stream never opens, the guard is dropped, and the client may try again.
            let guard = session.begin_upgrade();
            tokio::spawn(async move {
                let Some(stream) = stream.await else { return };
                match guard {
                    Some(guard) => stream.run(Role::UpgradeCandidate(guard)),
                    None => websocket::refuse(stream.into_stream()).await,
                }
            });
            return Ok(());
        }
        let retained = parts.extensions.remove::<Retained>();
        let handler = self.handler.clone();
        let config = self.config.clone();
        tokio::spawn(async move {
            let Some(stream) = stream.await else { return };
            let transport = TransportType::Websocket;
            let session = CloseOnDrop(Session::open(
                Sid::new(),
                protocol,
                transport,
                control,
                config,
                false,
            ));
            let open = Frame::packet(&session.0.open_packet(transport));
            session.0.send_internal(open);
            BoundHandler::connect(&handler, &session.0, retained);
            stream.run(Role::Transport(session));
        });
        Ok(())
    }
}
