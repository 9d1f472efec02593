//! A connection to Redis, and what is asked over it.
//!
//! Two sockets: one for requests, one for the messages of the channel `dead`. Every request has a
//! deadline, and its answer a limit in bytes; whatever breaks either ends the connection. Owned by
//! the task of [`super::source`]; dropping it closes both sockets.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use redis::aio::{MultiplexedConnection, PubSub, PubSubStream};
use redis::{AsyncConnectionConfig, Cmd, RedisConnectionInfo, Value};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::dead;
use super::list::Frontend;
use crate::config::RedisServer;

/// How long Redis may take for a connection, and for one answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest answer to one request, in bytes. [`KEYS_A_STEP`] of the largest lists fit into it.
const ANSWER: usize = 64 << 20;

/// The most bytes of messages that wait to be taken.
const MESSAGES: usize = 1 << 20;

/// How many keys one step of a pass goes through, about. More would keep the server's other clients
/// waiting.
const KEYS_A_STEP: u32 = 250;

/// How much of the server's own words is repeated, in characters.
const QUOTED: usize = 200;

const LOOK: &str = include_str!("look.lua");
const MARK: &str = include_str!("mark.lua");

/// Why a connection is at its end, or could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Failure(String);

impl Failure {
    /// This is why.
    pub(super) fn new(why: String) -> Self {
        Self(why)
    }
}

/// The connection.
pub(super) struct Link {
    requests: MultiplexedConnection,
    allowance: Arc<AtomicUsize>,
    /// Without messages the sets still tell of dead targets, at the next look.
    messages: Result<(PubSubStream, Arc<AtomicUsize>), Failure>,
    _driver: AbortOnDropHandle<()>,
}

/// One step of a pass.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Where the next step begins; `0`: that was the last one.
    pub(super) cursor: String,
    /// What stands in the keys of this step.
    pub(super) found: Vec<Found>,
}

/// A key, by its host, and what it holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// `frontend:<host>`: a list.
    List { host: Vec<u8>, elements: Vec<Vec<u8>> },
    /// `frontend:<host>`: something else.
    NoList { host: Vec<u8> },
    /// `frontend:<host>`: a name that is no host's, cut off.
    LongKey { host: Vec<u8> },
    /// `dead:<host>`: the members that are indexes, and how long they are; `None`: for ever.
    Dead { host: Vec<u8>, ttl: Option<Duration>, indexes: Vec<usize> },
}

impl Link {
    /// Connects.
    pub(super) async fn open(server: &RedisServer) -> Result<Self, Failure> {
        let mut info = RedisConnectionInfo::default().set_db(i64::from(server.database));
        info = info.set_skip_set_lib_name();
        if let Some(user) = &server.user {
            info = info.set_username(user);
        }
        if let Some(password) = &server.password {
            info = info.set_password(password.expose());
        }
        let (socket, allowance) = connect(server, ANSWER).await?;
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let connecting = MultiplexedConnection::new_with_config(&info, socket, config);
        let (requests, driver) = in_time(connecting).await?;
        let driver = AbortOnDropHandle::new(tokio::spawn(driver));
        let messages = subscribe(server, &info).await;
        Ok(Self { requests, allowance, messages, _driver: driver })
    }

    /// Why there are no messages, where there are none.
    pub(super) fn deaf(&self) -> Option<&Failure> {
        self.messages.as_ref().err()
    }

    /// What tells whether anything has changed: it stays the same while no client writes and no key
    /// ends. `None` where the server does not say.
    pub(super) async fn state(&mut self, database: u32) -> Result<Option<String>, Failure> {
        match self.ask(&redis::cmd("INFO")).await? {
            Value::BulkString(info) => Ok(state_in(&String::from_utf8_lossy(&info), database)),
            Value::VerbatimString { text, .. } => Ok(state_in(&text, database)),
            _ => Ok(None),
        }
    }

    /// The next step of a pass over all lists and marks whose keys begin with `prefix`.
    pub(super) async fn look(&mut self, cursor: &str, prefix: &str) -> Result<Step, Failure> {
        let mut cmd = redis::cmd("EVAL");
        cmd.arg(LOOK).arg(0).arg(cursor).arg(pattern(prefix)).arg(KEYS_A_STEP);
        cmd.arg(format!("{prefix}frontend:")).arg(format!("{prefix}dead:"));
        let answer = self.ask(&cmd).await?;
        refused(&answer)?;
        step(answer)
            .ok_or_else(|| Failure("Redis answers a script with something else than asked".to_owned()))
    }

    /// Marks a target of this list dead for `ttl`, in Redis and with a message for others, if the
    /// list is what it was. Whether it was.
    pub(super) async fn mark(
        &mut self,
        prefix: &str,
        frontend: &Frontend,
        index: usize,
        ttl: Duration,
    ) -> Result<Result<bool, Failure>, Failure> {
        let Some(message) = dead::message(frontend, index) else { return Ok(Ok(false)) };
        let key = frontend.key();
        let mut cmd = redis::cmd("EVAL");
        cmd.arg(MARK).arg(2).arg(format!("{prefix}frontend:{key}")).arg(format!("{prefix}dead:{key}"));
        cmd.arg(index).arg(ttl.as_secs().max(1)).arg(message);
        for element in frontend.list() {
            cmd.arg(&**element);
        }
        let answer = self.ask(&cmd).await?;
        Ok(refused(&answer).map(|()| answer == Value::Int(1)))
    }

    /// The next message on the channel `dead`. An error where there are no more: the connection is
    /// at its end. Waits for ever where there are none to be had.
    pub(super) async fn message(&mut self) -> Result<String, Failure> {
        let Ok((messages, allowance)) = &mut self.messages else { return std::future::pending().await };
        match poll_fn(|cx| Pin::new(&mut *messages).poll_next(cx)).await {
            Some(message) => {
                let payload = message.get_payload_bytes();
                // What waits is bounded only if no more is read than was taken.
                allowance.fetch_add(bytes_of_message(payload.len()), Ordering::Relaxed);
                Ok(String::from_utf8_lossy(payload).into_owned())
            }
            None => Err(Failure("Redis has closed the connection".to_owned())),
        }
    }

    /// How many more bytes of messages are read before one is taken.
    #[cfg(test)]
    pub(super) fn room_for_messages(&self) -> usize {
        self.messages.as_ref().map_or(0, |(_, allowance)| allowance.load(Ordering::Relaxed))
    }

    async fn ask(&mut self, cmd: &Cmd) -> Result<Value, Failure> {
        self.allowance.store(ANSWER, Ordering::Relaxed);
        in_time(self.requests.send_packed_command(cmd)).await
    }
}

async fn subscribe(
    server: &RedisServer,
    info: &RedisConnectionInfo,
) -> Result<(PubSubStream, Arc<AtomicUsize>), Failure> {
    let (socket, allowance) = connect(server, MESSAGES).await?;
    let mut subscription = in_time(PubSub::new(info, socket)).await?;
    in_time(subscription.subscribe("dead")).await?;
    // What was read until here is no message.
    allowance.store(MESSAGES, Ordering::Relaxed);
    Ok((subscription.into_on_message(), allowance))
}

/// How many bytes Redis sends for a message on the channel `dead` with a payload of so many.
fn bytes_of_message(payload: usize) -> usize {
    format!("*3\r\n$7\r\nmessage\r\n$4\r\ndead\r\n${payload}\r\n\r\n").len() + payload
}

async fn connect(server: &RedisServer, allowance: usize) -> Result<(Metered, Arc<AtomicUsize>), Failure> {
    let socket = timeout(PATIENCE, TcpStream::connect((&*server.host, server.port))).await;
    let socket =
        socket.map_err(|_| late())?.map_err(|error| Failure(format!("connecting failed: {error}")))?;
    // Requests are small, and each waits for its answer.
    let _only_slower = socket.set_nodelay(true);
    let allowance = Arc::new(AtomicUsize::new(allowance));
    Ok((Metered { socket, allowance: Arc::clone(&allowance) }, allowance))
}

/// The outcome of an exchange with the server, which has only so much time.
async fn in_time<T>(exchange: impl Future<Output = redis::RedisResult<T>>) -> Result<T, Failure> {
    let outcome = timeout(PATIENCE, exchange).await.map_err(|_| late())?;
    outcome.map_err(|error| Failure(quoted(&error.to_string())))
}

fn late() -> Failure {
    Failure(format!("Redis does not answer within {}", humantime::format_duration(PATIENCE)))
}

/// The server's words, harmless and not too many.
fn quoted(text: &str) -> String {
    text.chars().take(QUOTED).flat_map(char::escape_debug).filter(|c| *c != '\\').collect()
}

/// The server's refusal, where the answer is one.
fn refused(answer: &Value) -> Result<(), Failure> {
    match answer {
        Value::ServerError(error) => {
            let details = error.details().unwrap_or_default();
            Err(Failure(quoted(&format!("Redis refuses: {} {details}", error.code()))))
        }
        _ => Ok(()),
    }
}

/// The pattern of all keys that matter. One for both kinds, and so for a few others as well: two
/// patterns were two passes.
fn pattern(prefix: &str) -> String {
    let mut pattern = String::with_capacity(prefix.len() + 20);
    for c in prefix.chars() {
        if ['*', '?', '[', ']', '\\', '^'].contains(&c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern + "[fd][re][oa][nd]*:*"
}

/// The lines of `INFO` that differ when something was written, or has ended, since.
fn state_in(info: &str, database: u32) -> Option<String> {
    const COUNTS: [&str; 7] = [
        "run_id",
        "master_replid",
        "rdb_changes_since_last_save",
        "rdb_last_save_time",
        "rdb_saves",
        "expired_keys",
        "evicted_keys",
    ];
    let value =
        |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    // The number without which the others tell nothing.
    value("rdb_changes_since_last_save")?;
    let mut state = String::new();
    for name in COUNTS {
        state.push_str(value(name).unwrap_or_default());
        state.push(' ');
    }
    // Without the average time to live, which changes by itself.
    let keys = value(&format!("db{database}")).and_then(|keys| keys.split(',').next());
    state.push_str(keys.unwrap_or_default());
    Some(state)
}

/// The answer of the script [`LOOK`].
fn step(answer: Value) -> Option<Step> {
    let Value::Array(values) = answer else { return None };
    let mut values = values.into_iter();
    let cursor = String::from_utf8(bytes(values.next()?)?).ok()?;
    let mut found = Vec::with_capacity(values.len() / 3);
    while let Some(kind) = values.next() {
        let (kind, host, content) = (bytes(kind)?, bytes(values.next()?)?, values.next()?);
        found.push(match kind.as_slice() {
            b"list" => {
                let Value::Array(elements) = content else { return None };
                let elements = elements.into_iter().map(bytes).collect::<Option<_>>()?;
                Found::List { host, elements }
            }
            b"other" => Found::NoList { host },
            b"long" => Found::LongKey { host },
            b"dead" => dead_set(host, content)?,
            _ => return None,
        });
    }
    Some(Step { cursor, found })
}

/// A set with its time to live in milliseconds: negative where it has none.
fn dead_set(host: Vec<u8>, content: Value) -> Option<Found> {
    let Value::Array(numbers) = content else { return None };
    let mut numbers = numbers.into_iter().map(|number| match number {
        Value::Int(number) => Some(number),
        _ => None,
    });
    let ttl = numbers.next()??;
    let indexes = numbers.map(|number| usize::try_from(number?).ok()).collect::<Option<_>>()?;
    Some(Found::Dead { host, ttl: u64::try_from(ttl).ok().map(Duration::from_millis), indexes })
}

fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        _ => None,
    }
}

/// A socket that is read until its allowance is used up.
struct Metered {
    socket: TcpStream,
    allowance: Arc<AtomicUsize>,
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = self.allowance.load(Ordering::Relaxed);
        if left == 0 {
            return Poll::Ready(Err(io::Error::other("Redis sends more than portok takes at once")));
        }
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.socket).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        // Not a store: somebody may add to it meanwhile, and `left` only bounds the next read.
        let _always = self
            .allowance
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(read)));
        outcome
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_the_same_until_something_is_written_or_ends() {
        let info = |changes: u32, expired: u32, keys: u32, ttl: u32| {
            format!(
                "# Server\r\nrun_id:abc\r\nuptime_in_seconds:{ttl}\r\n# Persistence\r\n\
                 rdb_changes_since_last_save:{changes}\r\nrdb_last_save_time:5\r\nexpired_keys:{expired}\r\n\
                 db0:keys={keys},expires=1,avg_ttl={ttl}\r\ndb1:keys={ttl},expires=0,avg_ttl=0\r\n"
            )
        };
        let state = |changes, expired, keys, ttl| state_in(&info(changes, expired, keys, ttl), 0).unwrap();
        let now = state(1, 1, 1, 1);
        assert_eq!(now, state(1, 1, 1, 2));
        for other in [state(2, 1, 1, 1), state(1, 2, 1, 1), state(1, 1, 2, 1)] {
            assert_ne!(now, other);
        }
        assert_eq!(state_in("run_id:abc\r\n", 0), None);
    }

    #[test]
    fn a_prefix_is_no_pattern() {
        assert_eq!(pattern("a*[b]\\?:"), "a\\*\\[b\\]\\\\\\?:[fd][re][oa][nd]*:*");
    }

    #[test]
    fn an_answer_that_is_no_step_is_none() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let list = Value::Array(vec![text("label"), text("url")]);
        let whole = vec![
            text("17"),
            text("list"),
            text("a"),
            list,
            text("dead"),
            text("a"),
            Value::Array(vec![Value::Int(-1), Value::Int(3)]),
            text("other"),
            text("b"),
            Value::Int(0),
        ];
        let found = step(Value::Array(whole.clone())).unwrap();
        assert_eq!((&*found.cursor, found.found.len()), ("17", 3));
        assert_eq!(found.found[1], Found::Dead { host: b"a".to_vec(), ttl: None, indexes: vec![3] });
        for (place, other) in [
            (0, Value::Int(17)),
            (1, text("x")),
            (3, text("x")),
            (3, Value::Array(vec![Value::Nil])),
            (6, Value::Array(Vec::new())),
            (6, Value::Array(vec![Value::Int(1), Value::Int(-1)])),
        ] {
            let mut broken = whole.clone();
            broken[place] = other;
            assert_eq!(step(Value::Array(broken)), None, "{place}");
        }
        for cut in [0, 2, 3, 5] {
            assert_eq!(step(Value::Array(whole[..cut].to_vec())), None, "{cut}");
        }
        assert_eq!(step(Value::Nil), None);
    }

    #[test]
    fn the_servers_words_are_harmless() {
        assert_eq!(quoted("a\u{1b}[31m\nb"), "au{1b}[31mnb");
        assert_eq!(quoted(&"x".repeat(1000)).len(), QUOTED);
    }
}
