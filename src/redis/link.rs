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
    /// One of all that the step says of its lists.
    pub(super) digest: String,
    /// What stands in its lists; `None`: what was known of them.
    pub(super) lists: Option<Vec<Found>>,
    /// What stands in its sets.
    pub(super) sets: Vec<DeadSet>,
}

/// `frontend:<host>`, and what it holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A list.
    List { host: Vec<u8>, elements: Vec<Vec<u8>> },
    /// Something else.
    NoList { host: Vec<u8> },
    /// A name that is no host's, cut off.
    LongKey { host: Vec<u8> },
}

/// `dead:<host>`: the members that are indexes, and how long they are; `None`: for ever.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DeadSet {
    pub(super) host: Vec<u8>,
    pub(super) ttl: Option<Duration>,
    pub(super) indexes: Vec<usize>,
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

    /// The next step of a pass over all lists and marks whose keys begin with `prefix`. Its lists are
    /// not told where their digest is the `known` one.
    pub(super) async fn look(
        &mut self,
        cursor: &str,
        prefix: &str,
        known: Option<&str>,
    ) -> Result<Step, Failure> {
        let mut cmd = redis::cmd("EVAL");
        cmd.arg(LOOK).arg(0).arg(cursor).arg(pattern(prefix)).arg(KEYS_A_STEP);
        cmd.arg(format!("{prefix}frontend:")).arg(format!("{prefix}dead:")).arg(known.unwrap_or_default());
        let answer = self.ask(&cmd).await?;
        refused(&answer)?;
        let step = step(answer).filter(|step| step.lists.is_some() || known == Some(&*step.digest));
        step.ok_or_else(|| Failure("Redis answers a script with something else than asked".to_owned()))
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
    let Value::Array(parts) = answer else { return None };
    let [cursor, digest, lists, sets] = parts.try_into().ok()?;
    let lists = match lists {
        Value::Int(0) => None,
        Value::Array(values) => Some(lists_in(values)?),
        _ => return None,
    };
    Some(Step { cursor: text(cursor)?, digest: text(digest)?, lists, sets: sets_in(sets)? })
}

/// Each with its kind, its host and what it holds.
fn lists_in(values: Vec<Value>) -> Option<Vec<Found>> {
    let mut found = Vec::with_capacity(values.len() / 3);
    let mut values = values.into_iter();
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
            _ => return None,
        });
    }
    Some(found)
}

/// Each with its host, then its time to live in milliseconds, negative where it has none, and the
/// indexes.
fn sets_in(sets: Value) -> Option<Vec<DeadSet>> {
    let Value::Array(values) = sets else { return None };
    let mut sets = Vec::with_capacity(values.len() / 2);
    let mut values = values.into_iter();
    while let Some(host) = values.next() {
        let Value::Array(numbers) = values.next()? else { return None };
        let mut numbers = numbers.into_iter().map(|number| match number {
            Value::Int(number) => Some(number),
            _ => None,
        });
        let ttl = u64::try_from(numbers.next()??).ok().map(Duration::from_millis);
        let indexes = numbers.map(|number| usize::try_from(number?).ok()).collect::<Option<_>>()?;
        sets.push(DeadSet { host: bytes(host)?, ttl, indexes });
    }
    Some(sets)
}

fn text(value: Value) -> Option<String> {
    String::from_utf8(bytes(value)?).ok()
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
        let array = |values: &[Value]| Value::Array(values.to_vec());
        let list = array(&[text("label"), text("url")]);
        let lists = [text("list"), text("a"), list, text("other"), text("b"), Value::Int(0)];
        let sets = [text("a"), array(&[Value::Int(-1), Value::Int(3)])];
        let with = |lists: &[Value], sets: &[Value]| {
            step(array(&[text("17"), text("abc"), array(lists), array(sets)]))
        };
        let whole = with(&lists, &sets).unwrap();
        assert_eq!((&*whole.cursor, &*whole.digest, whole.lists.unwrap().len()), ("17", "abc", 2));
        assert_eq!(whole.sets, [DeadSet { host: b"a".to_vec(), ttl: None, indexes: vec![3] }]);
        let known = step(array(&[text("0"), text("abc"), Value::Int(0), array(&[])])).unwrap();
        assert_eq!((known.lists, known.sets.len()), (None, 0));
        let instead = |values: &[Value], place: usize, other: Value| {
            let mut values = values.to_vec();
            values[place] = other;
            values
        };
        for (place, other) in [(0, text("x")), (2, text("x")), (2, array(&[Value::Nil])), (4, Value::Nil)] {
            assert_eq!(with(&instead(&lists, place, other), &sets), None, "{place}");
        }
        for other in [text("x"), array(&[]), array(&[Value::Int(1), Value::Int(-1)])] {
            assert_eq!(with(&lists, &instead(&sets, 1, other)), None);
        }
        for cut in [1, 2, 4, 5] {
            assert_eq!(with(&lists[..cut], &sets), None, "{cut}");
        }
        assert_eq!(with(&lists, &sets[..1]), None);
        let parts = [text("17"), text("abc"), Value::Int(0), array(&[])];
        for (place, other) in [(0, Value::Int(17)), (1, Value::Nil), (2, Value::Int(1)), (3, Value::Int(0))] {
            assert_eq!(step(Value::Array(instead(&parts, place, other))), None, "{place}");
        }
        for cut in 0..parts.len() {
            assert_eq!(step(array(&parts[..cut])), None, "{cut}");
        }
        assert_eq!(step(Value::Nil), None);
    }

    #[test]
    fn the_servers_words_are_harmless() {
        assert_eq!(quoted("a\u{1b}[31m\nb"), "au{1b}[31mnb");
        assert_eq!(quoted(&"x".repeat(1000)).len(), QUOTED);
    }
}
