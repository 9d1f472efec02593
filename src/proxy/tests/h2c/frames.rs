//! What h2's own server never does, frame by frame.

use super::*;

const SETTINGS: u8 = 4;
const HEADERS: u8 = 1;
const DATA: u8 = 0;
const GOAWAY: u8 = 7;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `:status: 200`, from the static table.
const OK_HEAD: &[u8] = b"\x88";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

impl AppConnection {
    /// Greets whoever has connected. False: it has not spoken first.
    async fn greet(&mut self) -> bool {
        let is_greeted = self.until(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.is_some();
        self.send(frame(SETTINGS, 0, 0, b"")).await;
        is_greeted
    }

    /// The next frame of this kind: its stream and flags.
    async fn frame_of(&mut self, kind: u8) -> Option<(u32, u8)> {
        loop {
            let head = self.exactly(9).await?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            self.exactly(length as usize).await?;
            if head[3] == kind {
                return Some((u32::from_be_bytes(head[5..9].try_into().unwrap()), head[4]));
            }
        }
    }
}

#[tokio::test]
async fn what_a_goaway_leaves_out_is_sent_elsewhere_and_the_rest_is_answered() {
    let app = Backend::start(|mut connection, number| async move {
        connection.greet().await;
        if number == 0 {
            // Both have come before it says that it looks at the first alone. Their frames may come
            // in turns.
            let mut whole = [connection.frame_of(DATA).await, connection.frame_of(DATA).await];
            whole.sort();
            assert_eq!(whole, [Some((1, END_STREAM)), Some((3, END_STREAM))]);
            let last = [1_u32.to_be_bytes(), 0_u32.to_be_bytes()].concat();
            connection.send(frame(GOAWAY, 0, 0, &last)).await;
            connection.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, OK_HEAD)).await;
        } else {
            let (stream, _) = connection.frame_of(HEADERS).await.unwrap();
            assert_eq!(connection.frame_of(DATA).await.unwrap(), (stream, END_STREAM));
            connection.send(frame(HEADERS, END_HEADERS, stream, OK_HEAD)).await;
            connection.send(frame(DATA, END_STREAM, stream, b"second")).await;
        }
        connection.is_closed().await;
    })
    .await;
    let rig = serving(app.addr, |_| {});
    let request = format!("{POST}content-length: 5\r\n\r\nhello");
    let (mut one, mut two) = (rig.connect().await, rig.connect().await);
    one.send(&request).await;
    eventually("the first is there", || app.connections() == 1).await;
    two.send(&request).await;
    let replies = [one.reply_to_head().await, two.reply_to_head().await];
    assert_eq!(replies.each_ref().map(Reply::status), [200, 200]);
    eventually("the second connection has it", || app.connections() == 2).await;
    assert_eq!(app.seen().iter().filter(|seen| seen.contains("hello")).count(), 2);
}

#[tokio::test]
async fn an_answer_that_breaks_the_rules_is_none() {
    // A field of HTTP/1.1 alone: `connection: close`, as literals.
    let literal = b"\x88\x00\x0aconnection\x05close";
    let app = Backend::start(move |mut connection, _| async move {
        connection.greet().await;
        let (stream, _) = connection.frame_of(HEADERS).await.unwrap();
        connection.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, literal)).await;
        connection.is_closed().await;
    })
    .await;
    let rig = serving(app.addr, |_| {});
    let reply = rig.ask(GET).await;
    assert_eq!((reply.status(), reply.header("portok-error")), (502, Some("upstream_invalid")));
}

#[tokio::test]
async fn a_get_on_a_kept_connection_that_breaks_is_sent_once_more_and_a_post_is_not() {
    let app = Backend::start(|mut connection, _| async move {
        // Whoever only looks whether it is there says nothing.
        if !connection.greet().await {
            return;
        }
        while let Some((stream, _)) = connection.frame_of(HEADERS).await {
            // It breaks with its second request.
            if stream > 1 {
                return;
            }
            connection.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, OK_HEAD)).await;
        }
    })
    .await;
    let rig = serving(app.addr, |_| {});
    let mut client = rig.connect().await;
    for _ in 0..2 {
        client.send(GET).await;
        assert_eq!(client.reply().await.status(), 200);
    }
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await;
    let reply = client.reply().await;
    assert_eq!((reply.status(), reply.header("portok-error")), (502, Some("upstream_reset")));
}
