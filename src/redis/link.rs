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

use super::dead::{self, Indexes};
use super::list::{Frontend, MOST_TARGETS};
use super::packed::Packed;
use crate::config::RedisServer;

/// How long Redis may take for a connection, and for one answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest answer to one request, in bytes. Several times [`KEYS_A_STEP`] of the largest lists
/// fit into it, of at most 10 KiB each. A server that answers with very many small values instead
/// of one string makes several times as much of it in memory.
const ANSWER: usize = 12 << 20;

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

/// What tells whether anything has changed in the database, and whether it is the one that it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    /// It stays the same while no client writes and no key ends.
    counts: String,
    /// The process of the server.
    run_id: String,
    /// How many keys the database has.
    keys: usize,
}

impl State {
    /// Whether a pass that began at `before` and ended now may have seen keys that were taken away
    /// all together, before and after that.
    pub(super) fn is_another_than(&self, before: &Self) -> bool {
        /// Fewer may have gone one by one.
        const FEW: usize = 10;
        self.run_id != before.run_id || self.keys + FEW < before.keys
    }
}

/// One step of a pass.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Where the next step begins; `0`: that was the last one.
    pub(super) cursor: String,
    /// One of all that the step says of its lists.
    pub(super) digest: String,
    /// What stands in its lists, packed; `None`: what was known of them.
    lists: Option<Vec<u8>>,
    /// What stands in the sets of marks of these lists, packed.
    sets: Vec<u8>,
}

/// `frontend:<host>`, and what it holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A list.
    List { host: &'a [u8], elements: Vec<&'a [u8]> },
    /// Something else.
    NoList { host: &'a [u8] },
    /// A name that is no host's, cut off.
    LongKey { host: &'a [u8] },
}

/// `dead:<host>`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DeadSet<'a> {
    pub(super) host: &'a [u8],
    /// How long it lives; `None`: for ever.
    pub(super) ttl: Option<Duration>,
    /// The members that are indexes; `None`: there are more than a set of indexes can have.
    pub(super) indexes: Option<Indexes>,
}

impl Step {
    /// What stands in its lists; `None`: what was known of them.
    pub(super) fn lists(&self) -> Option<impl Iterator<Item = Result<Found<'_>, Failure>>> {
        Some(each(self.lists.as_ref()?, list_in))
    }

    /// What stands in the sets of marks of its lists.
    pub(super) fn sets(&self) -> impl Iterator<Item = Result<DeadSet<'_>, Failure>> {
        each(&self.sets, set_in)
    }
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

    /// How the database stands now. `None` where the server does not say.
    pub(super) async fn state(&mut self, database: u32) -> Result<Option<State>, Failure> {
        match self.ask(&redis::cmd("INFO")).await? {
            Value::BulkString(info) => Ok(state_in(&String::from_utf8_lossy(&info), database)),
            Value::VerbatimString { text, .. } => Ok(state_in(&text, database)),
            _ => Ok(None),
        }
    }

    /// The next step of a pass over all lists whose keys begin with `prefix`, with the marks of
    /// their targets. The lists are not told where their digest is the `known` one.
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
        step.ok_or_else(unasked)
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
            cmd.arg(&*element);
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

fn unasked() -> Failure {
    Failure("Redis answers a script with something else than asked".to_owned())
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

/// The pattern of the keys of all lists.
fn pattern(prefix: &str) -> String {
    let mut pattern = String::with_capacity(prefix.len() + 20);
    for c in prefix.chars() {
        if ['*', '?', '[', ']', '\\', '^'].contains(&c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern + "frontend:*"
}

/// What `INFO` says of the database: the lines that differ when something was written, or has
/// ended, since.
fn state_in(info: &str, database: u32) -> Option<State> {
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
    let mut counts = String::new();
    for name in COUNTS {
        counts.push_str(value(name).unwrap_or_default());
        counts.push(' ');
    }
    // Without the average time to live, which changes by itself. An empty database has no line.
    let keys = value(&format!("db{database}")).and_then(|keys| keys.split(',').next()?.strip_prefix("keys="));
    let keys = keys.map_or(Some(0), |keys| keys.parse().ok())?;
    Some(State { counts, run_id: value("run_id").unwrap_or_default().to_owned(), keys })
}

/// The answer of the script [`LOOK`].
fn step(answer: Value) -> Option<Step> {
    let Value::Array(parts) = answer else { return None };
    let [cursor, digest, lists, sets] = parts.try_into().ok()?;
    let (cursor, digest, lists) = (text(cursor)?, text(digest)?, bytes(lists)?);
    // Both are kept for every step.
    let is_short = cursor.len() <= 20 && digest.len() <= 40;
    is_short.then_some(Step {
        cursor,
        digest,
        lists: Some(lists).filter(|lists| !lists.is_empty()),
        sets: bytes(sets)?,
    })
}

/// Each of the packed values of three parts, until one is something else than asked.
fn each<'a, T>(
    packed: &'a [u8],
    read: impl Fn(&mut Packed<'a>) -> Option<T>,
) -> impl Iterator<Item = Result<T, Failure>> {
    let mut packed = Packed::new(packed);
    let mut left = packed.array().filter(|values| values % 3 == 0).ok_or_else(unasked);
    std::iter::from_fn(move || match left {
        Ok(0) => None,
        Ok(values) => {
            let next = read(&mut packed).ok_or_else(unasked);
            left = if next.is_ok() { Ok(values - 3) } else { Ok(0) };
            Some(next)
        }
        Err(_) => Some(Err(std::mem::replace(&mut left, Ok(0)).err().unwrap_or_else(unasked))),
    })
}

/// A list: its kind, its host and its elements.
fn list_in<'a>(packed: &mut Packed<'a>) -> Option<Found<'a>> {
    let (kind, host, count) = (packed.bytes()?, packed.bytes()?, packed.array()?);
    match kind {
        b"list" if count <= MOST_TARGETS + 2 => {
            let elements = (0..count).map(|_| packed.bytes()).collect::<Option<_>>()?;
            Some(Found::List { host, elements })
        }
        b"other" if count == 0 => Some(Found::NoList { host }),
        b"long" if count == 0 => Some(Found::LongKey { host }),
        _ => None,
    }
}

/// A set: its host, its time to live in milliseconds, negative where it has none, and the indexes.
fn set_in<'a>(packed: &mut Packed<'a>) -> Option<DeadSet<'a>> {
    let (host, ttl, indexes) = (packed.bytes()?, packed.bytes()?, packed.bytes()?);
    let ttl: i64 = str::from_utf8(ttl).ok()?.parse().ok()?;
    let ttl = u64::try_from(ttl).ok().map(Duration::from_millis);
    let numbers = str::from_utf8(indexes).ok()?.split_terminator(' ').map(str::parse);
    if numbers.clone().any(|number: Result<usize, _>| number.is_err()) {
        return None;
    }
    Some(DeadSet { host, ttl, indexes: Indexes::of(numbers.filter_map(Result::ok)) })
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
    fn a_database_that_lost_keys_is_another() {
        let state = |run_id: &str, keys: usize| {
            let info =
                format!("run_id:{run_id}\r\nrdb_changes_since_last_save:1\r\ndb0:keys={keys},expires=0\r\n");
            state_in(&info, 0).unwrap()
        };
        let before = state("a", 100);
        for (now, is_another) in [
            (state("a", 100), false),
            (state("a", 500), false),
            (state("a", 90), false),
            (state("a", 89), true),
            (state("b", 100), true),
            (state_in("run_id:a\r\nrdb_changes_since_last_save:1\r\n", 0).unwrap(), true),
        ] {
            assert_eq!(now.is_another_than(&before), is_another, "{now:?}");
        }
    }

    #[test]
    fn a_prefix_is_no_pattern() {
        assert_eq!(pattern("a*[b]\\?:"), "a\\*\\[b\\]\\\\\\?:frontend:*");
    }

    /// Packs text and arrays of a few values.
    fn packed(values: &[&str]) -> Vec<u8> {
        let mut packed = Vec::new();
        for value in values {
            let length = u8::try_from(value.len()).unwrap();
            match value.strip_prefix('#') {
                Some(count) => packed.push(0x90 | count.parse::<u8>().unwrap()),
                None => packed.extend([&[0xd9, length], value.as_bytes()].concat()),
            }
        }
        packed
    }

    #[test]
    fn an_answer_that_is_no_step_is_none() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let parts = [text("17"), text("abc"), text("\u{0}"), text("")];
        let whole = step(Value::Array(parts.to_vec())).unwrap();
        assert_eq!((&*whole.cursor, &*whole.digest, whole.lists.is_some()), ("17", "abc", true));
        let instead = |place: usize, other: Value| {
            let mut parts = parts.to_vec();
            parts[place] = other;
            step(Value::Array(parts))
        };
        assert!(instead(2, text("")).unwrap().lists().is_none(), "known");
        for place in 0..parts.len() {
            assert_eq!(instead(place, Value::Int(17)), None, "{place}");
            assert_eq!(step(Value::Array(parts[..place].to_vec())), None, "{place}");
        }
        assert_eq!((instead(0, text(&"1".repeat(21))), instead(1, text(&"1".repeat(41)))), (None, None));
        assert_eq!(step(Value::Nil), None);
    }

    #[test]
    fn lists_and_sets_are_read_until_one_is_something_else() {
        const LISTS: [&str; 9] = ["#6", "list", "a", "#2", "label", "url", "other", "b", "#0"];
        const SETS: [&str; 4] = ["#3", "a", "-1", "3 7"];
        let (all, sets) = (packed(&LISTS), packed(&SETS));
        let lists: Result<Vec<_>, _> = each(&all, list_in).collect();
        let list = Found::List { host: b"a", elements: vec![b"label", b"url"] };
        assert_eq!(lists, Ok(vec![list, Found::NoList { host: b"b" }]));
        let set = DeadSet { host: b"a", ttl: None, indexes: Indexes::of([3, 7]) };
        assert_eq!(each(&sets, set_in).collect::<Result<Vec<_>, _>>(), Ok(vec![set]));
        let are_refused = |values: &[&str]| each(&packed(values), list_in).any(|list| list.is_err());
        for (place, other) in [(0, "#5"), (0, "#9"), (1, "x"), (1, "other"), (2, "#0"), (3, "x"), (3, "#4")] {
            let mut values = LISTS;
            values[place] = other;
            assert!(are_refused(&values), "{place} {other}");
        }
        for cut in 0..LISTS.len() {
            assert!(are_refused(&LISTS[..cut]), "{cut}");
        }
        for (place, other) in [(0, "#1"), (2, "x"), (2, ""), (3, "x"), (3, "#1"), (3, "-1")] {
            let mut values = SETS;
            values[place] = other;
            assert!(each(&packed(&values), set_in).any(|set| set.is_err()), "{place} {other}");
        }
        let many = [&packed(&["#3", "list", "a"]) as &[u8], &[0xdc, 0xff, 0xff], &[0xa0; 0xffff]].concat();
        assert!(each(&many, list_in).any(|list| list.is_err()), "too many elements");
    }

    #[test]
    fn the_servers_words_are_harmless() {
        assert_eq!(quoted("a\u{1b}[31m\nb"), "au{1b}[31mnb");
        assert_eq!(quoted(&"x".repeat(1000)).len(), QUOTED);
    }
}
