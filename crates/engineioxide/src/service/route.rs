//! From a request's query to what it is: a handshake, a poll, a post, a WebSocket.

use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use engineioxide_core::{ProtocolVersion, Sid, TransportType};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::Empty;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::{Engine, ResponseBody, ResponseFuture};
use crate::control::{Control, Retained};
use crate::frame::Frame;
use crate::handler::EngineIoHandler;
use crate::polling;
use crate::refusal::Refusal;
use crate::session::Session;
use crate::socket::Bound;
use crate::websocket::{self, Come, Foreign, Last, Role};

/// What the query says.
struct Query<'a> {
    protocol: ProtocolVersion,
    transport: TransportType,
    sid: Option<&'a str>,
    b64: bool,
}

impl<'a> Query<'a> {
    fn parse(query: &'a str) -> Result<Self, Refusal> {
        let (mut eio, mut transport, mut sid, mut b64, mut jsonp) =
            (None, None, None, false, false);
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "EIO" => eio = Some(value),
                "transport" => transport = Some(value),
                "sid" => sid = Some(value),
                "b64" => b64 = !matches!(value, "" | "0" | "false"),
                "j" => jsonp = true,
                _ => {}
            }
        }
        let transport = transport
            .and_then(|transport| TransportType::from_str(transport).ok())
            .ok_or(Refusal::UnknownTransport)?;
        let protocol = eio
            .and_then(|eio| ProtocolVersion::from_str(eio).ok())
            .ok_or(Refusal::UnsupportedVersion)?;
        // Scripts as answers are of another age, and a risk.
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

/// Where a request is to go.
enum Target {
    New,
    Known(Arc<Session>),
}

impl<H: EngineIoHandler> Engine<H> {
    /// Answers a request for our path.
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
        let on_upgrade = request
            .extensions()
            .get::<hyper::upgrade::OnUpgrade>()
            .is_some()
            .then(|| hyper::upgrade::on(&mut request));
        let (mut parts, body) = request.into_parts();
        let uri = std::mem::take(&mut parts.uri);
        let query = Query::parse(uri.query().unwrap_or_default())?;
        if !self.config.allowed_transport(query.transport) {
            return Err(Refusal::UnknownTransport);
        }
        let control = self.control(&parts);
        let session = match query.sid {
            None => Target::New,
            Some(sid) => {
                let sid = Sid::from_str(sid).map_err(|_| Refusal::UnknownSession)?;
                let session = control.find(&sid).ok_or(Refusal::UnknownSession)?;
                if session.protocol != query.protocol {
                    return Err(Refusal::BadRequest);
                }
                Target::Known(session)
            }
        };
        if let Target::Known(session) = &session {
            // The clock may be a moment late, but no request revives what is overdue.
            let now = Instant::now();
            session.on_deadline(now, now);
        }
        if query.transport == TransportType::Websocket {
            if matches!(session, Target::New) && parts.method != Method::GET {
                return Err(Refusal::BadHandshakeMethod);
            }
            let proof = websocket::check(&parts)?;
            let on_upgrade = on_upgrade.ok_or(Refusal::BadRequest)?;
            let stream = async { on_upgrade.await.ok() };
            let sid = match session {
                Target::New => None,
                Target::Known(session) => Some(session.id),
            };
            self.websocket(stream, query.protocol, sid, parts)?;
            return Ok(ResponseFuture::ready(websocket::accept(proof)));
        }
        match (session, &parts.method) {
            (Target::New, &Method::GET) => {
                let transport = TransportType::Polling;
                let config = self.config.clone();
                let session = Session::open(
                    Sid::new(),
                    query.protocol,
                    transport,
                    control,
                    config,
                    query.b64,
                );
                Bound::connect(
                    &self.handler,
                    &session,
                    parts.extensions.remove::<Retained>(),
                );
                Ok(ResponseFuture::ready(polling::open(&session)))
            }
            (Target::New, _) => Err(Refusal::BadHandshakeMethod),
            (Target::Known(session), &Method::GET) => {
                let ticket = session.begin_poll().ok_or(Refusal::BadRequest)?;
                Ok(ResponseFuture::waiting(polling::poll(
                    session, ticket, query.b64,
                )))
            }
            (Target::Known(session), &Method::POST) => {
                let ticket = session.begin_post().ok_or(Refusal::BadRequest)?;
                Ok(ResponseFuture::waiting(polling::post(
                    session,
                    ticket,
                    parts.headers,
                    body,
                )))
            }
            (Target::Known(_), _) => Err(Refusal::BadRequest),
        }
    }

    fn control(&self, parts: &Parts) -> Control {
        parts
            .extensions
            .get::<Control>()
            .unwrap_or(&self.control)
            .clone()
    }

    /// Answers a stream that is a WebSocket already.
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
        let begun = Query::parse(uri.query().unwrap_or_default()).and_then(|query| {
            let sid = query.sid.map(Sid::from_str).transpose();
            let sid = sid.map_err(|_| Refusal::UnknownSession)?;
            self.websocket(
                std::future::ready(Some(Foreign(stream))),
                query.protocol,
                sid,
                parts,
            )
        });
        match begun {
            Ok(()) => {
                let mut response = Response::new(ResponseBody::empty());
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                response
            }
            Err(refusal) => refusal.response(),
        }
    }

    /// Begins a WebSocket when `stream` has come.
    pub(super) fn websocket(
        &self,
        stream: impl Future<Output = Option<impl Come>> + Send + 'static,
        protocol: ProtocolVersion,
        sid: Option<Sid>,
        mut parts: Parts,
    ) -> Result<(), Refusal> {
        let control = self.control(&parts);
        if let Some(sid) = sid {
            let session = control.find(&sid).ok_or(Refusal::UnknownSession)?;
            // A session that has its WebSocket keeps it: this one is closed as soon as it opens.
            // If it never opens, the ticket is dropped, and another may try.
            let ticket = session.begin_upgrade();
            tokio::spawn(async move {
                let Some(stream) = stream.await else { return };
                match ticket {
                    Some(ticket) => stream.run(Role::Candidate(ticket)),
                    None => websocket::refuse(stream.plain()).await,
                }
            });
            return Ok(());
        }
        let retained = parts.extensions.remove::<Retained>();
        let (handler, config) = (self.handler.clone(), self.config.clone());
        tokio::spawn(async move {
            let Some(stream) = stream.await else { return };
            let transport = TransportType::Websocket;
            let last = Last(Session::open(
                Sid::new(),
                protocol,
                transport,
                control,
                config,
                false,
            ));
            last.0
                .send_internal(Frame::packet(&last.0.open_packet(transport)));
            Bound::connect(&handler, &last.0, retained);
            stream.run(Role::Carrier(last));
        });
        Ok(())
    }
}
