//! Requests that wait for an app which takes none for now.
//!
//! State: a [`Queue`] for each service that has waiting requests on a thread, which belongs to that
//! thread; and [`Waiting`], a service's numbers over all threads. A request is in the queue as long
//! as its [`Waiter`] waits: dropped, because the client has gone or the time is over, it leaves. A
//! request that is let go has a [`Pass`] until its answer is over, so that only so many of those
//! that have waited are in flight at a time.
//!
//! Nothing here wakes anybody while the app takes no request. Who opens a queue is the thread's
//! view of the board (`here.rs`); from then on each pass that is given back lets the next one go.
//!
//! The order that matters: a request counts itself, then looks once more whether the app takes
//! requests, then waits. Whoever publishes that it does looks at that number afterwards, and wakes
//! the threads.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;

use super::bells::Doorbells;

/// How many requests of a service wait, and how many that have waited are in flight.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    requests: AtomicUsize,
    out: AtomicUsize,
    /// Rung by each request that begins to wait, for whoever could end that.
    asked: Notify,
}

impl Waiting {
    /// How many wait.
    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// Counts one more, unless there are `most`.
    fn join(&self, most: usize) -> bool {
        if self.requests.fetch_add(1, Ordering::SeqCst) < most {
            fence(Ordering::SeqCst);
            self.asked.notify_one();
            return true;
        }
        self.leave();
        false
    }

    /// Waits until a request has begun to wait since the last call. Cancel safe.
    pub(super) async fn asked(&self) {
        self.asked.notified().await;
    }

    fn leave(&self) {
        self.requests.fetch_sub(1, Ordering::SeqCst);
    }

    /// Counts one more in flight, unless there are `most`.
    fn go(&self, most: usize) -> bool {
        let more = |out: usize| (out < most).then_some(out + 1);
        self.out.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
}

/// The requests of one service that wait on one thread, in the order in which they came.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Arc<Waiting>,
    bells: Arc<Doorbells>,
    lane: usize,
    queue: RefCell<BTreeMap<Place, Rc<Waits>>>,
    next: Cell<Place>,
    /// Those that have a pass of this queue.
    out: Cell<usize>,
    /// How many may have a pass at a time, over all threads. 0: the app takes no request.
    most: Cell<usize>,
}

/// A place in a queue. A request that was let go and has to wait once more has its old one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(u64);

/// What a waiting request is told.
#[derive(Debug, Default)]
struct Waits {
    told: Cell<Told>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Told {
    #[default]
    Nothing,
    /// To go; a pass is counted for it.
    Go,
    /// To look for itself: nobody waits here any more.
    Leave,
    /// Whatever it was told, it has heard.
    Heard,
}

impl Waits {
    fn tell(&self, told: Told) {
        self.told.set(told);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Queue {
    /// A queue of the service that `waiting` counts, on the thread `lane`. The app takes no
    /// request.
    pub(super) fn new(waiting: Arc<Waiting>, bells: Arc<Doorbells>, lane: usize) -> Rc<Self> {
        let (queue, next, out, most) = (RefCell::default(), Cell::default(), Cell::new(0), Cell::new(0));
        Rc::new(Self { waiting, bells, lane, queue, next, out, most })
    }

    /// Has a request wait, at its `former` place if it had one. `None`: as many wait as may, over
    /// all threads.
    pub(super) fn join(self: &Rc<Self>, former: Option<Place>, most: usize) -> Option<Waiter> {
        if !self.waiting.join(most) {
            return None;
        }
        let place = former.unwrap_or_else(|| {
            let Place(next) = self.next.get();
            self.next.set(Place(next + 1));
            Place(next)
        });
        let waits = Rc::new(Waits::default());
        self.queue.borrow_mut().insert(place, waits.clone());
        Some(Waiter { queue: self.clone(), place, waits })
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.borrow().is_empty()
    }

    /// The app takes requests: from now on they are let go, the oldest first, so that at most
    /// `most` of them, over all threads, are in flight at a time.
    pub(super) fn open(&self, most: usize) {
        self.most.set(most);
        self.let_go();
    }

    /// The app takes no request for now.
    pub(super) fn shut(&self) {
        self.most.set(0);
    }

    /// Nobody has to wait any more: all look for themselves what becomes of them.
    pub(super) fn dissolve(&self) {
        self.most.set(0);
        for waits in std::mem::take(&mut *self.queue.borrow_mut()).into_values() {
            self.waiting.leave();
            waits.tell(Told::Leave);
        }
    }

    /// This thread's share in what may be in flight; everybody has at least one, if not at once.
    fn share(&self) -> usize {
        (self.most.get() / self.bells.lanes()).max(1)
    }

    fn let_go(&self) {
        while self.most.get() > 0
            && self.out.get() < self.share()
            && !self.is_empty()
            && self.waiting.go(self.most.get())
        {
            let Some((_, waits)) = self.queue.borrow_mut().pop_first() else { break };
            self.waiting.leave();
            self.out.set(self.out.get() + 1);
            waits.tell(Told::Go);
        }
    }

    /// A pass is given back.
    fn came_back(&self) {
        self.out.set(self.out.get() - 1);
        self.waiting.out.fetch_sub(1, Ordering::Relaxed);
        let waited = !self.is_empty();
        self.let_go();
        if waited && self.is_empty() {
            // The thread's requests need not come this way any more.
            self.bells.ring_at(self.lane);
        }
        // With fewer passes than threads they go round.
        if self.most.get() < self.bells.lanes() && self.waiting.requests() > self.queue.borrow().len() {
            self.bells.ring(self.lane);
        }
    }
}

/// One request that waits. Dropped, it leaves the queue.
#[derive(Debug)]
pub(super) struct Waiter {
    queue: Rc<Queue>,
    place: Place,
    waits: Rc<Waits>,
}

impl Waiter {
    /// Its place, for the case that it has to wait once more.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// Ready once it need not wait any more: with a pass, if it is let go.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Pass>> {
        match self.waits.told.get() {
            Told::Nothing => {
                let mut waker = self.waits.waker.borrow_mut();
                if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    *waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
            Told::Go => {
                self.waits.told.set(Told::Heard);
                Poll::Ready(Some(Pass(self.queue.clone())))
            }
            Told::Leave | Told::Heard => Poll::Ready(None),
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        match self.waits.told.get() {
            Told::Nothing => {
                self.queue.queue.borrow_mut().remove(&self.place);
                self.queue.waiting.leave();
                if self.queue.is_empty() {
                    self.queue.bells.ring_at(self.queue.lane);
                }
            }
            Told::Go => self.queue.came_back(),
            Told::Leave | Told::Heard => {}
        }
    }
}

/// A request that was let go and is not over. Dropped, the next one may go.
#[derive(Debug)]
pub(super) struct Pass(Rc<Queue>);

impl Drop for Pass {
    // Hardly any request has one.
    #[cold]
    fn drop(&mut self) {
        self.0.came_back();
    }
}

/// The bytes of a request that waits, counted among those of all. Dropped, they are not.
#[derive(Debug)]
pub(super) struct Room<'a> {
    all: &'a AtomicU64,
    most: u64,
    bytes: u64,
}

impl<'a> Room<'a> {
    /// Room for so many `bytes`, unless `all` would be more than `most`.
    pub(super) fn take(all: &'a AtomicU64, most: u64, bytes: u64) -> Option<Self> {
        let mut room = Self { all, most, bytes: 0 };
        room.grow(bytes).then_some(room)
    }

    /// Takes room for more. False when there is none: nothing has changed then.
    pub(super) fn grow(&mut self, bytes: u64) -> bool {
        let more = |all: u64| all.checked_add(bytes).filter(|all| *all <= self.most);
        let fits = self.all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        self.bytes += if fits { bytes } else { 0 };
        fits
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::*;

    struct Fixture {
        waiting: Arc<Waiting>,
        bells: Arc<Doorbells>,
    }

    impl Fixture {
        fn new(lanes: usize) -> Self {
            let bells = Arc::new(Doorbells((0..lanes).map(|_| Notify::new()).collect()));
            Self { waiting: Arc::default(), bells }
        }

        fn queue(&self, lane: usize) -> Rc<Queue> {
            Queue::new(self.waiting.clone(), self.bells.clone(), lane)
        }
    }

    /// What the waiter is told now: `None`, it waits on.
    fn heard(waiter: &Waiter) -> Option<Option<Pass>> {
        match waiter.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(pass) => Some(pass),
            Poll::Pending => None,
        }
    }

    #[test]
    fn the_oldest_go_first_and_so_many_at_a_time() {
        let fixture = Fixture::new(1);
        let queue = fixture.queue(0);
        let waiters: Vec<_> = (0..5).map(|_| queue.join(None, 5).unwrap()).collect();
        assert!(queue.join(None, 5).is_none(), "five may wait");
        assert_eq!(fixture.waiting.requests(), 5);
        assert!(waiters.iter().all(|waiter| heard(waiter).is_none()));
        queue.open(2);
        let passes: Vec<_> = waiters[..2].iter().map(|waiter| heard(waiter).unwrap().unwrap()).collect();
        assert!(waiters[2..].iter().all(|waiter| heard(waiter).is_none()));
        drop(passes);
        assert!(heard(&waiters[2]).is_some() && heard(&waiters[3]).is_some());
        assert_eq!(fixture.waiting.requests(), 0, "the passes were dropped at once: the last went too");
        drop(waiters);
        assert_eq!((queue.out.get(), fixture.waiting.out.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn who_leaves_gives_its_place_or_its_pass_to_the_next() {
        let fixture = Fixture::new(1);
        let queue = fixture.queue(0);
        let [first, second, third] = [(); 3].map(|()| queue.join(None, 9).unwrap());
        drop(second);
        assert_eq!(fixture.waiting.requests(), 2);
        queue.open(1);
        drop(first);
        assert!(heard(&third).unwrap().is_some(), "the first went without having heard");
    }

    #[test]
    fn who_has_to_wait_once_more_is_before_those_that_came_later() {
        let fixture = Fixture::new(1);
        let queue = fixture.queue(0);
        let [first, second] = [(); 2].map(|()| queue.join(None, 9).unwrap());
        queue.open(1);
        let pass = heard(&first).unwrap();
        queue.shut();
        drop(pass);
        assert!(heard(&second).is_none(), "the app takes none again");
        let again = queue.join(Some(first.place()), 9).unwrap();
        queue.open(1);
        assert!(heard(&second).is_none() && heard(&again).is_some());
    }

    #[test]
    fn a_dissolved_queue_lets_all_look_for_themselves() {
        let fixture = Fixture::new(1);
        let queue = fixture.queue(0);
        let waiters: Vec<_> = (0..3).map(|_| queue.join(None, 9).unwrap()).collect();
        queue.dissolve();
        assert!(waiters.iter().all(|waiter| matches!(heard(waiter), Some(None))));
        assert_eq!(fixture.waiting.requests(), 0);
    }

    #[test]
    fn threads_share_what_may_be_in_flight() {
        let fixture = Fixture::new(2);
        let (one, other) = (fixture.queue(0), fixture.queue(1));
        let here: Vec<_> = (0..4).map(|_| one.join(None, 9).unwrap()).collect();
        let there = other.join(None, 9).unwrap();
        one.open(4);
        other.open(4);
        assert_eq!(here.iter().filter(|waiter| heard(waiter).is_some()).count(), 4, "two, then two more");
        assert!(heard(&there).is_some());
        // A single pass goes round.
        let fixture = Fixture::new(2);
        let (one, other) = (fixture.queue(0), fixture.queue(1));
        let (here, there) = (one.join(None, 9).unwrap(), other.join(None, 9).unwrap());
        one.open(1);
        other.open(1);
        let pass = heard(&here).unwrap();
        assert!(heard(&there).is_none());
        drop(pass);
        other.open(1);
        assert!(heard(&there).is_some());
    }

    #[test]
    fn bytes_are_bounded_over_all() {
        let all = AtomicU64::new(0);
        let mut one = Room::take(&all, 10, 6).unwrap();
        assert!(Room::take(&all, 10, 5).is_none());
        assert!(one.grow(4) && !one.grow(1));
        drop(one);
        assert_eq!(all.into_inner(), 0);
    }
}
