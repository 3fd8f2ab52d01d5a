//! A node to send requests to, and the test of every route's right.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use http::{Method, StatusCode};
use tower::ServiceExt;
use uuid::Uuid;

use super::reply::Reply;
use super::routes::{self, Right};
use super::*;
use crate::auth::{AccountTokens, ApiKeys, Authenticator, NewToken, Verifier};
use crate::auth::{digest, new_bot_secret, random_bytes};
use crate::backplane::{Backplane, BackplaneLimits, memory};
use crate::delivery::{Delivery, DeliverySettings};
use crate::domain::{Account, ConnId, DisplayName, Limits, Rate, Rates, TokenScope};
use crate::features::accounts::{
    AccountSettings, Device, LoggedIn, Recovery, SessionSockets, SignUp, SignUpMode, StoredSessions,
};
use crate::features::chats::Memberships;
use crate::features::idempotency::Once;
use crate::features::messages::MessageStores;
use crate::features::messaging::UserRateLimiter;
use crate::gateway::connections::Connections;
use crate::gateway::socketio::{Gateway, Settings};
use crate::gateway::websocket;
use crate::outbox::Publications;
use crate::server::admission::Caps;
use crate::store::sql::{DatabaseUrl, SqlStore};
use crate::store::{
    self, ChatStore, DirectoryStore, NewBotToken, NewSession, RecoveryStore, SessionLimit,
};
use crate::telemetry::line_budget::LineBudget;

const SECRET: &str = "a secret of at least thirty-two bytes";

/// A node without a listener, in JWT mode. Its limits are so small that fuzzing reaches them.
pub(super) fn node() -> Router {
    let backplane = memory::embedded(BackplaneLimits {
        history_size: 16,
        rooms: 64,
        ..BackplaneLimits::default()
    });
    let verifier = Verifier::hs256(SECRET, 0).unwrap();
    Node::on(backplane, Authenticator::jwt(verifier)).router
}

/// A node without a listener.
pub(in crate::gateway) struct Node {
    pub router: Router,
    pub control: engineioxide::Control,
    pub plain: Arc<PlainWebSocket>,
}

impl Node {
    pub fn on(backplane: Backplane, authenticator: Authenticator) -> Self {
        Self::with_accounts(backplane, authenticator, None, None, None, None)
    }

    fn with_accounts(
        backplane: Backplane,
        authenticator: Authenticator,
        accounts: Option<Arc<Accounts>>,
        recovery: Option<Arc<Recovery>>,
        chats: Option<Arc<Chats>>,
        stores: Option<(MessageStores, Arc<Publications>)>,
    ) -> Self {
        let delivery = Arc::new(Delivery::start(&backplane, &DeliverySettings::default()));
        let limits = Limits {
            event_bytes: 4096,
            ..Limits::default()
        };
        let presence = backplane.presence.clone();
        let messaging = Arc::new(Messaging::new(backplane, delivery, limits));
        let messages = stores.map(|(stores, publications)| {
            let parts = stores.parts(None, presence);
            Arc::new(Messages::new(
                messaging.clone(),
                parts,
                stores,
                publications,
            ))
        });
        let authenticator = Arc::new(authenticator);
        let settings = Settings {
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            packet_bytes: 65_536,
        };
        let plain = websocket::Settings {
            message_bytes: 512,
            chat_bytes: 65_536,
            ping_interval: Duration::from_secs(25),
            idle: Duration::from_secs(60),
            write_timeout: Duration::from_secs(10),
        };
        let caps = Caps {
            connections: 100,
            unauthenticated: 100,
            handshakes_per_sec: 1_000_000,
            ..Caps::default()
        };
        let admission = Arc::new(Admission::new(caps));
        let connections = Connections::new(
            messaging.clone(),
            messages.clone(),
            authenticator.clone(),
            admission.clone(),
            1 << 20,
            LineBudget::only_debug(),
        );
        let gateway = Gateway::new(connections.clone(), settings);
        let control = engineioxide::Control::default();
        let plain = PlainWebSocket::new(
            connections,
            plain,
            control.write_scheduler(),
            control.pause_monitor(),
        );
        let state = Arc::new(HttpState {
            messaging,
            accounts,
            recovery,
            idempotency: None,
            chats,
            messages,
            access: Access {
                authenticator,
                api_keys: ApiKeys::new(&["key".to_owned()]).unwrap(),
                broadcast_roles: Some(vec!["service".to_owned()]),
            },
            origins: "https://app.example".parse().unwrap(),
            admission,
            request_log: RequestLog::new(0),
            post_limiter: CallerRateLimiter::new(Rate::default()),
            broadcast_limiter: CallerRateLimiter::new(Rate::default()),
            trusted_proxies: TrustedProxies::default(),
            plain_websockets: plain.clone(),
            control: control.clone(),
            metrics: Arc::new(|_| String::new()),
        });
        Self {
            router: router(state, &gateway),
            control,
            plain,
        }
    }
}

/// A node in JWT mode with accounts.
struct NodeWithAccounts {
    router: Router,
    database: SqlStore,
    store: Arc<dyn DirectoryStore>,
    tokens: Arc<AccountTokens>,
    user: Account,
    admin: Account,
}

impl NodeWithAccounts {
    /// The access token of a new session.
    async fn access_token(&self, account: &Account) -> String {
        let session = NewSession {
            id: Uuid::now_v7(),
            refresh_token: random_bytes(),
            lifetime: Duration::from_secs(60),
            address: String::new(),
            user_agent: String::new(),
        };
        let (user, id) = (Uuid::try_parse(account.id.as_str()).unwrap(), session.id);
        let limit = SessionLimit {
            most: usize::MAX,
            announce: Arc::new(|_, _| unreachable!("there is no limit")),
        };
        let begun = self.store.begin_session(user, None, session, limit).await;
        assert!(begun.unwrap());
        self.tokens.sign(account, id).unwrap()
    }
}

impl NodeWithAccounts {
    /// A token for a caller that has an account.
    async fn token_of(&self, caller: TestCaller) -> String {
        let others = [TokenScope::Send, TokenScope::Publish, TokenScope::Chats];
        match caller {
            TestCaller::Admin => self.access_token(&self.admin).await,
            TestCaller::ReadingBot => self.bot(&self.user, &[TokenScope::Read]).await,
            TestCaller::OtherBot => self.bot(&self.admin, &others).await,
            TestCaller::AdminsBot => self.bot(&self.admin, &TokenScope::ALL).await,
            _ => self.access_token(&self.user).await,
        }
    }

    /// The token of a new bot.
    async fn bot(&self, account: &Account, scopes: &[TokenScope]) -> String {
        let secret = new_bot_secret();
        let token = NewBotToken {
            id: Uuid::now_v7(),
            user: Uuid::try_parse(account.id.as_str()).unwrap(),
            digest: digest(secret.as_bytes()),
            name: DisplayName::parse("name", "bot").unwrap(),
            scopes: scopes.iter().copied().collect(),
            lifetime: Duration::from_secs(60),
            most: usize::MAX,
        };
        assert!(self.store.create_bot_token(token).await.unwrap().is_some());
        secret
    }
}

struct NoSockets;

#[async_trait]
impl SessionSockets for NoSockets {
    async fn of(&self, _: Uuid) -> Vec<ConnId> {
        Vec::new()
    }

    async fn closed(&self, _: Uuid, _: &[ConnId]) -> usize {
        0
    }
}

async fn node_with_accounts() -> NodeWithAccounts {
    let url = DatabaseUrl::parse("sqlite::memory:").unwrap();
    let store = SqlStore::open(&store::sql::Settings::new(url))
        .await
        .unwrap();
    let recovery: Arc<dyn RecoveryStore> = Arc::new(store.clone());
    let database = store.clone();
    let chat_store: Arc<dyn ChatStore> = Arc::new(store.clone());
    let store: Arc<dyn DirectoryStore> = Arc::new(store);
    let sessions = Arc::new(StoredSessions(store.clone()));
    let secrets = vec![SECRET.to_owned()];
    let tokens = AccountTokens::new(secrets, Duration::from_secs(60), sessions).unwrap();
    let tokens = Arc::new(tokens);
    let settings = AccountSettings {
        sign_up: SignUpMode::Open,
        refresh_lifetime: Duration::from_secs(60),
        refresh_grace: Duration::from_secs(30),
        sends_mails: true,
        account_failures: 10,
        address_failures: 100,
    };
    let sockets = Arc::new(NoSockets);
    let accounts = Accounts::new(store.clone(), tokens.clone(), sockets, settings);
    let accounts = Arc::new(accounts);
    let recovery = Arc::new(Recovery::new(accounts.clone(), recovery));
    let mut signed_up = Vec::new();
    for username in ["admin", "ann"] {
        let request = SignUp {
            email: format!("{username}@example.com"),
            username: username.to_owned(),
            password: "correct horse".to_owned(),
            display_name: None,
            invite: None,
        };
        let (sender, account) = std::sync::mpsc::channel();
        let once = Once::new(None, move |logged_in: &LoggedIn| {
            sender.send(logged_in.account.clone()).unwrap();
            Reply::ok(&()).into_answer()
        });
        let answered = accounts.sign_up(request, Device::default(), once).await;
        answered.unwrap();
        signed_up.push(account.recv().unwrap());
    }
    let (user, admin) = (signed_up.pop().unwrap(), signed_up.pop().unwrap());
    let backplane = memory::embedded(BackplaneLimits::default());
    let verifier = Verifier::hs256(SECRET, 0).unwrap();
    let authenticator = Authenticator::jwt(verifier).with_accounts(tokens.clone());
    let memberships = Arc::new(Memberships::new(chat_store.clone()));
    let rates = Arc::new(UserRateLimiter::new(Rates::default(), None));
    let chats = Chats::new(chat_store, backplane.log.clone(), memberships, rates);
    let chats = Some(Arc::new(chats));
    let stores = MessageStores {
        messages: Arc::new(database.clone()),
        positions: Arc::new(database.clone()),
        chats: None,
    };
    let worker = crate::outbox::Worker::new(
        Arc::new(database.clone()),
        stores.messages.clone(),
        backplane.log.clone(),
        backplane.lifecycle.clone(),
        Uuid::nil(),
        Duration::from_secs(60),
    );
    let node = Node::with_accounts(
        backplane,
        authenticator,
        Some(accounts),
        Some(recovery),
        chats,
        Some((stores, worker.publications())),
    );
    NodeWithAccounts {
        router: node.router,
        database,
        store,
        tokens,
        user,
        admin,
    }
}

/// The callers of the test of rights.
#[derive(Debug, Clone, Copy)]
enum TestCaller {
    Anonymous,
    /// A user with an account of this server.
    Account,
    /// An admin with an account of this server.
    Admin,
    /// The user's bot with the scope `read`.
    ReadingBot,
    /// The admin's bot with all scopes but `read` and `admin`.
    OtherBot,
    /// The admin's bot with all scopes.
    AdminsBot,
    /// A user that is in no room.
    User,
    /// A service with a token for the room `r` only.
    ServiceOfRoom,
    Service,
}

impl TestCaller {
    const ALL: [Self; 9] = [
        Self::Anonymous,
        Self::Account,
        Self::Admin,
        Self::ReadingBot,
        Self::OtherBot,
        Self::AdminsBot,
        Self::User,
        Self::ServiceOfRoom,
        Self::Service,
    ];

    fn authorization(self, access_token: &str) -> Option<String> {
        let user = NewToken::lasting("ann", Duration::from_secs(60));
        let role = Some("service".to_owned());
        if self.has_account() {
            return Some(format!("Bearer {access_token}"));
        }
        let token = match self {
            Self::Anonymous => return None,
            Self::ServiceOfRoom => NewToken {
                role,
                rooms: Some(vec!["r".to_owned()]),
                ..user
            },
            Self::Service => NewToken { role, ..user },
            _ => user,
        };
        Some(format!("Bearer {}", token.sign(SECRET).unwrap()))
    }

    fn has_account(self) -> bool {
        matches!(
            self,
            Self::Account | Self::Admin | Self::ReadingBot | Self::OtherBot | Self::AdminsBot
        )
    }

    /// The status with which a route with this right refuses the caller, if it does.
    fn refusal(self, right: Right) -> Option<StatusCode> {
        let is_allowed = match right {
            Right::Public | Right::Anonymous => true,
            Right::Account => matches!(self, Self::Account | Self::Admin),
            Right::AccountReader => matches!(
                self,
                Self::Account | Self::Admin | Self::ReadingBot | Self::AdminsBot
            ),
            Right::ChatUser => matches!(
                self,
                Self::Account | Self::Admin | Self::OtherBot | Self::AdminsBot
            ),
            Right::Admin | Right::MessageDeleter => {
                matches!(self, Self::Admin | Self::AdminsBot)
            }
            // The accounts are members of no chat, and in no room.
            Right::ChatMember | Right::AccountInRoom => false,
            Right::User => !matches!(self, Self::Anonymous),
            Right::Service | Right::RoomReader => matches!(
                self,
                Self::ServiceOfRoom | Self::Service | Self::Admin | Self::AdminsBot
            ),
            Right::UnlimitedService => {
                matches!(self, Self::Service | Self::Admin | Self::AdminsBot)
            }
            // The scope of the limited token does not cover the room of broadcasts, and the node's
            // settings allow them to services only.
            Right::Broadcaster => matches!(self, Self::Service),
        };
        match self {
            _ if is_allowed => None,
            _ if self.has_account() && right == Right::ChatMember => Some(StatusCode::NOT_FOUND),
            _ if self.has_account() => Some(StatusCode::FORBIDDEN),
            _ if right.needs_account() => Some(StatusCode::UNAUTHORIZED),
            Self::Anonymous => Some(StatusCode::UNAUTHORIZED),
            _ => Some(StatusCode::FORBIDDEN),
        }
    }
}

#[tokio::test]
async fn every_route_enforces_the_right_of_the_table() {
    let node = node_with_accounts().await;
    for route in routes::all() {
        let target = route
            .path
            .replace("{room_id}", "r")
            .replace("{chat_id}", "0199d5b0-0000-7000-8000-000000000000")
            .replace("{user_id}", "0199d5b0-0000-7000-8000-000000000001");
        for caller in TestCaller::ALL {
            let mut request = Request::builder()
                .method(route.method.clone())
                .uri(&target)
                .header("content-type", "application/json");
            let access_token = node.token_of(caller).await;
            if let Some(authorization) = caller.authorization(&access_token) {
                request = request.header("authorization", authorization);
            }
            let body = r#"{"room_id":"r","content":"hi","type":"news","role":"owner"}"#;
            let request = request.body(Body::from(body)).unwrap();
            let Ok(response) = node.router.clone().oneshot(request).await;
            let status = response.status();
            // The body of the request is that of a message, and no resource has the id `{id}`.
            let has_own_body = matches!(
                route.right,
                Right::User
                    | Right::Anonymous
                    | Right::Account
                    | Right::AccountReader
                    | Right::ChatUser
                    | Right::Admin
                    | Right::MessageDeleter
            );
            let is_answered =
                status.is_success() || (has_own_body && matches!(status.as_u16(), 400 | 404));
            match caller.refusal(route.right) {
                // Whether the chat exists is not told either way.
                Some(StatusCode::NOT_FOUND) if matches!(caller, TestCaller::ReadingBot) => {
                    assert!(matches!(status.as_u16(), 403 | 404), "{target}: {status}");
                }
                Some(expected) => assert_eq!(status, expected, "{caller:?}: {target}"),
                None => assert!(is_answered, "{caller:?}: {target}: {status}"),
            }
        }
    }
}

/// The POST routes that create nothing, or only a session and its tokens.
const POSTS_WITHOUT_KEY: [&str; 14] = [
    "/users/{user_id}/disconnect",
    "/api/v1/auth/login",
    "/api/v1/auth/refresh",
    "/api/v1/auth/password/forgot",
    "/api/v1/auth/password/reset",
    "/api/v1/auth/email/verify",
    "/api/users/login",
    "/login",
    "/api/v1/auth/logout",
    "/api/users/logout",
    "/api/v1/auth/logout_all",
    "/api/v1/auth/password",
    "/api/v1/users/{id}/logout_all",
    "/api/v1/rooms/{room_id}/unread",
];

/// A route takes the key exactly if it refuses one that is too long.
#[tokio::test]
async fn every_post_that_creates_something_takes_an_idempotency_key() {
    let node = node_with_accounts().await;
    let post = async |path: &str, authorization: &str, key: &str, body: &str| {
        let request = Request::post(path)
            .header("content-type", "application/json")
            .header("authorization", authorization)
            .header("idempotency-key", key)
            .body(Body::from(body.to_owned()))
            .unwrap();
        let Ok(response) = node.router.clone().oneshot(request).await;
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 65_536).await;
        let body: serde_json::Value = serde_json::from_slice(&body.unwrap()).unwrap();
        (status, body)
    };
    let direct = format!(r#"{{"user_id":"{}"}}"#, node.user.id);
    let admin = async || format!("Bearer {}", node.access_token(&node.admin).await);
    let (status, chat) = post("/api/v1/chats", &admin().await, "k", &direct).await;
    assert_eq!(status, 201, "{chat}");
    let chat = chat["id"].as_str().unwrap();
    let too_long = "k".repeat(256);
    let body = r#"{"room_id":"r","content":"hi","type":"news"}"#;
    let mut without_key = Vec::new();
    for route in routes::all() {
        if route.method != Method::POST {
            continue;
        }
        let target = route
            .path
            .replace("{room_id}", "r")
            .replace("{chat_id}", chat)
            .replace("{user_id}", "nobody")
            .replace("{id}", node.user.id.as_str());
        let authorization = if route.right.needs_account() {
            // Some of the routes end the session.
            admin().await
        } else {
            TestCaller::Service.authorization("").unwrap()
        };
        let (_, answer) = post(&target, &authorization, &too_long, body).await;
        let refusal = answer["error"].as_str().unwrap_or_default();
        if !refusal.contains("Idempotency-Key") {
            without_key.push(route.path);
        }
    }
    assert_eq!(without_key, POSTS_WITHOUT_KEY);
}

#[tokio::test]
async fn while_the_database_is_away_every_account_route_names_a_time_to_retry() {
    let node = node_with_accounts().await;
    let access_token = node.access_token(&node.user).await;
    node.database.close().await;
    let bodies = [
        (
            "/api/v1/auth/signup",
            r#"{"email":"bob@example.com","username":"bob","password":"correct horse"}"#,
        ),
        (
            "/api/v1/auth/login",
            r#"{"username":"ann","password":"correct horse"}"#,
        ),
    ];
    let mut tried = 0;
    for route in routes::all() {
        let body = bodies.iter().find(|(path, _)| *path == route.path);
        let is_tried = route.path.starts_with("/api/v1") && route.right == Right::Account;
        if !is_tried && body.is_none() {
            continue;
        }
        tried += 1;
        let request = Request::builder()
            .method(route.method.clone())
            .uri(route.path)
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {access_token}"))
            .body(Body::from(body.map_or("{}", |(_, body)| body)))
            .unwrap();
        let Ok(response) = node.router.clone().oneshot(request).await;
        assert_eq!(response.status(), 503, "{}", route.path);
        assert_eq!(response.headers()["retry-after"], "1", "{}", route.path);
    }
    assert!(tried > bodies.len());
}

/// The body of the answer to a POST.
async fn answer(router: &Router, path: &str, body: &str) -> (StatusCode, serde_json::Value) {
    let request = Request::post(path)
        .header("content-type", "application/json")
        .body(Body::from(body.to_owned()))
        .unwrap();
    let Ok(response) = router.clone().oneshot(request).await;
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 65_536).await;
    (status, serde_json::from_slice(&body.unwrap()).unwrap())
}

#[tokio::test]
async fn a_refusal_names_the_field_at_fault() {
    let node = node_with_accounts().await;
    let long = "x".repeat(129);
    let sign_up = |email: &str, username: &str, password: &str, display_name: &str| {
        format!(
            r#"{{"email":"{email}","username":"{username}","password":"{password}","display_name":"{display_name}"}}"#
        )
    };
    let good = ("bob@example.com", "bob", "correct horse", "Bob");
    for (body, status, code, field) in [
        (
            sign_up("bob", good.1, good.2, good.3),
            400,
            "bad_request",
            Some("email"),
        ),
        (
            sign_up(good.0, ".b", good.2, good.3),
            400,
            "bad_request",
            Some("username"),
        ),
        (
            sign_up(good.0, &long, good.2, good.3),
            413,
            "too_large",
            Some("username"),
        ),
        (
            sign_up(good.0, good.1, "short", good.3),
            400,
            "bad_request",
            Some("password"),
        ),
        (
            sign_up(good.0, good.1, "aaaaaaaaaaaa", good.3),
            400,
            "bad_request",
            Some("password"),
        ),
        (
            sign_up(good.0, good.1, &long, good.3),
            413,
            "too_large",
            Some("password"),
        ),
        (
            sign_up(good.0, good.1, good.2, " "),
            400,
            "bad_request",
            Some("display_name"),
        ),
        (
            sign_up(good.0, good.1, good.2, &long),
            413,
            "too_large",
            Some("display_name"),
        ),
        (
            sign_up(good.0, "Ann", good.2, good.3),
            409,
            "username_taken",
            Some("username"),
        ),
        (
            sign_up("ANN@example.com", good.1, good.2, good.3),
            409,
            "email_taken",
            Some("email"),
        ),
        (
            r#"{"email":"a@b","username":"b"}"#.to_owned(),
            400,
            "bad_request",
            Some("password"),
        ),
        (
            r#"{"email":7}"#.to_owned(),
            400,
            "bad_request",
            Some("email"),
        ),
        ("{".to_owned(), 400, "bad_request", None),
    ] {
        let (answered, refused) = answer(&node.router, "/api/v1/auth/signup", &body).await;
        assert_eq!(
            (answered.as_u16(), &refused["code"]),
            (status, &code.into()),
            "{body}"
        );
        assert_eq!(refused["field"].as_str(), field, "{body}");
        assert!(refused["error"].is_string() && refused["request_id"].is_string());
    }
    let (_, refused) = answer(&node.router, "/api/v1/auth/login", r#"{"username":"ann"}"#).await;
    assert_eq!(refused["field"], "password");
    let (_, refused) = answer(
        &node.router,
        "/api/v1/auth/refresh",
        r#"{"refresh_token":1}"#,
    )
    .await;
    assert_eq!(refused["field"], "refresh_token");
}
