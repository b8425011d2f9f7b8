//! Either a request is handed to a connection, or the connection ends, but never both at the same moment. A request
//! that slipped in between would stay in the channel to the connection, and nobody would answer it. Knows no protocol.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// State shared by a connection and those who send on it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(Arc<Mutex<()>>);

impl Gate {
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a request over; `hand_over` must not wait. Once the connection has ended, returns whatever it did not
    /// take.
    pub(crate) fn pass<T>(&self, hand_over: impl FnOnce() -> T) -> T {
        let _open = self.lock();
        hand_over()
    }

    /// Drives a connection to its end.
    pub(crate) async fn drive<C: Future>(self, connection: C) -> C::Output {
        let mut connection = pin!(Some(connection));
        let ended = poll_fn(|cx| connection.as_mut().as_pin_mut().expect("it is there until it ends").poll(cx)).await;
        let _closed = self.lock();
        connection.set(None);
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::Body;
    use http::Request;
    use hyper::client::conn::{http1, http2};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use std::{
        pin::Pin,
        sync::atomic::{AtomicBool, Ordering::SeqCst},
        task::{Context, Poll},
        thread::sleep,
        time::Duration,
    };
    use tokio::{io::duplex, time::timeout};

    /// How many requests meet the end of their connection.
    const MEETINGS: usize = 1_000;
    const PATIENCE: Duration = Duration::from_secs(60);

    fn request() -> Request<Body> {
        Request::post("http://web/").body(Body::from("once")).expect("a request")
    }

    /// A connection that ends at once, and reports when it is gone.
    struct Ending(Arc<AtomicBool>);

    impl Future for Ending {
        type Output = ();
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            Poll::Ready(())
        }
    }

    impl Drop for Ending {
        fn drop(&mut self) {
            self.0.store(true, SeqCst);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_connection_is_not_gone_while_something_is_handed_to_it() {
        let (gate, is_gone) = (Gate::default(), Arc::new(AtomicBool::new(false)));
        let driver = gate.pass(|| {
            let driver = tokio::spawn(gate.clone().drive(Ending(Arc::clone(&is_gone))));
            sleep(Duration::from_millis(200));
            assert!(!is_gone.load(SeqCst));
            driver
        });
        driver.await.expect("no panic");
        assert!(is_gone.load(SeqCst));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_request_that_meets_the_end_of_its_connection_is_not_left_without_an_answer() {
        for at in 0..MEETINGS {
            let (here, there) = duplex(1 << 10);
            let (mut sender, connection) =
                http1::handshake::<_, Body>(TokioIo::new(here)).await.expect("no bytes needed");
            let gate = Gate::default();
            let driver = tokio::spawn(gate.clone().drive(connection));
            let closing = tokio::spawn(async move { drop(there) });
            let answer = gate.pass(|| sender.try_send_request(request()));
            let ended = timeout(PATIENCE, answer).await;
            assert!(ended.is_ok_and(|answer| answer.is_err()), "request {at} has no answer, or one from nobody");
            closing.await.expect("no panic");
            let _ = driver.await.expect("no panic");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nor_is_one_that_meets_the_end_of_a_connection_of_many() {
        for at in 0..MEETINGS {
            let (here, there) = duplex(1 << 10);
            let builder = http2::Builder::new(TokioExecutor::new());
            let (mut sender, connection) = builder.handshake::<_, Body>(TokioIo::new(here)).await.expect("it fits");
            let gate = Gate::default();
            let driver = tokio::spawn(gate.clone().drive(connection));
            let closing = tokio::spawn(async move { drop(there) });
            let answer = gate.pass(|| sender.try_send_request(request()));
            let ended = timeout(PATIENCE, answer).await;
            assert!(ended.is_ok_and(|answer| answer.is_err()), "request {at} has no answer, or one from nobody");
            closing.await.expect("no panic");
            let _ = driver.await.expect("no panic");
        }
    }
}
