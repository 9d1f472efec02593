//! The probes of one asker that are under way: an app with targets, or all lists of Redis.
//!
//! However many targets an asker has, it waits for one turn at a time. So each asker gets every
//! n-th place that becomes free, and one whose targets never answer delays another one by little.
//!
//! Dropped, its probes end with their connections, and its turn is the next one's.

use std::pin::Pin;

use tokio::task::{JoinError, JoinSet};

use super::{Place, Probe, Prober, Unable};
use crate::wire::ProbeReport;

/// See the module. `K` says what is probed.
pub struct UnderWay<K> {
    prober: Prober,
    probes: JoinSet<(K, Result<ProbeReport, Unable>)>,
    /// What is waited for where no place was free.
    turn: Option<Pin<Box<dyn Future<Output = Place> + Send>>>,
}

/// What an asker is told.
#[derive(Debug)]
pub enum Event<K> {
    /// The place that it waited for.
    Turn(Place),
    /// A probe has ended.
    Ended(K, Result<ProbeReport, Unable>),
    /// A probe ended by a fault of portok; nothing else will come of it.
    Fell(JoinError),
}

impl<K: Send + 'static> UnderWay<K> {
    /// Nothing is under way.
    pub fn new(prober: Prober) -> Self {
        Self { prober, probes: JoinSet::new(), turn: None }
    }

    /// A place for a probe that is due. Where there is none, [`Event::Turn`] brings one.
    pub fn place(&mut self) -> Option<Place> {
        if self.turn.is_some() {
            return None;
        }
        let place = self.prober.free_place();
        if place.is_none() {
            self.turn = Some(Box::pin(self.prober.turn()));
        }
        place
    }

    /// Whether a place is waited for.
    pub fn waits(&self) -> bool {
        self.turn.is_some()
    }

    /// Waits for no place any more.
    pub fn give_up(&mut self) {
        self.turn = None;
    }

    /// Begins a probe.
    pub fn begin(&mut self, place: Place, key: K, probe: Probe) {
        let prober = self.prober.clone();
        self.probes.spawn(async move { (key, prober.ask_in(place, &probe).await) });
    }

    /// What happens next. Cancel safe.
    pub async fn next(&mut self) -> Event<K> {
        let turn = async {
            match &mut self.turn {
                Some(turn) => turn.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            place = turn => {
                self.turn = None;
                Event::Turn(place)
            }
            Some(ended) = self.probes.join_next() => match ended {
                Ok((key, outcome)) => Event::Ended(key, outcome),
                Err(error) => Event::Fell(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::{Duration, timeout};

    use super::*;
    use crate::health::Ask;

    const LONG: Duration = Duration::from_secs(60);

    /// What has happened by now, if anything has; polled, it has its place among those who wait.
    fn now<K: Send + 'static>(asker: &mut UnderWay<K>) -> Option<Event<K>> {
        let next = std::pin::pin!(asker.next());
        match next.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(event) => Some(event),
            Poll::Pending => None,
        }
    }

    async fn soon<K: Send + 'static>(asker: &mut UnderWay<K>) -> Event<K> {
        timeout(LONG, asker.next()).await.unwrap()
    }

    #[tokio::test]
    async fn who_has_many_probes_to_make_takes_turns_with_who_has_one() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let probe = move || Probe {
            addr,
            ask: Ask::Get("/".into()),
            host: "h".into(),
            timeout: LONG,
            most_fields: 256,
            tells_whose: false,
        };
        let answer = async |mut stream: TcpStream| {
            assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 X\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        };
        let prober = Prober::with_places(2);
        let (mut many, mut one) = (UnderWay::new(prober.clone()), UnderWay::new(prober.clone()));
        let mut open = Vec::new();
        for number in 0..2 {
            let place = many.place().unwrap();
            many.begin(place, number, probe());
            open.push(listener.accept().await.unwrap().0);
        }
        assert!(many.place().is_none() && many.place().is_none() && many.waits());
        assert!(one.place().is_none());
        assert!(now(&mut many).is_none() && now(&mut one).is_none());

        answer(open.remove(0)).await;
        let mut seen = [soon(&mut many).await, soon(&mut many).await];
        seen.sort_by_key(|event| matches!(event, Event::Turn(_)));
        let [Event::Ended(_, outcome), Event::Turn(place)] = seen else { panic!("{seen:?}") };
        assert!(outcome.unwrap().healthy);
        many.begin(place, 2, probe());
        open.push(listener.accept().await.unwrap().0);
        assert!(many.place().is_none(), "the other one is first");
        assert!(now(&mut many).is_none() && now(&mut one).is_none());

        answer(open.remove(0)).await;
        let Event::Turn(place) = soon(&mut one).await else { panic!("it began nothing") };
        one.begin(place, 3, probe());
        open.push(listener.accept().await.unwrap().0);
        assert!(matches!(soon(&mut many).await, Event::Ended(..)));
        assert!(now(&mut many).is_none(), "it has no second turn");
        // Who waits no more, and who is gone, keep nothing from others.
        many.give_up();
        assert!(!many.waits());
        drop((many, one));
        for _ in 0..2 {
            let answered = tokio::spawn({
                let prober = prober.clone();
                async move { prober.ask(&probe()).await }
            });
            answer(timeout(LONG, listener.accept()).await.unwrap().unwrap().0).await;
            assert!(answered.await.unwrap().unwrap().healthy);
        }
    }
}
