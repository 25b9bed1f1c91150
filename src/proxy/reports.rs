//! Ended connections of one worker on their way to the agent, which runs on another thread: handed over
//! in batches, so that it is woken a few times a second instead of once per connection.

use std::cell::RefCell;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use crate::agent::EdgeCount;

/// How long counts gather.
const PAUSE: Duration = Duration::from_millis(20);
/// So many are handed over without a pause.
const BATCH: usize = 256;

/// See the module. What it holds when it is dropped is handed over then.
pub(super) struct Reports {
    agent: mpsc::Sender<EdgeCount>,
    gathered: RefCell<Vec<EdgeCount>>,
    some: Notify,
}

impl Reports {
    pub(super) fn new(agent: mpsc::Sender<EdgeCount>) -> Self {
        Self { agent, gathered: RefCell::default(), some: Notify::new() }
    }

    pub(super) fn add(&self, count: EdgeCount) {
        let mut gathered = self.gathered.borrow_mut();
        gathered.push(count);
        match gathered.len() {
            1 => self.some.notify_one(),
            BATCH.. => self.hand_over(&mut gathered),
            _ => {}
        }
    }

    fn hand_over(&self, gathered: &mut Vec<EdgeCount>) {
        for count in gathered.drain(..) {
            // A full queue costs the report one count, never the connection its time.
            let _full = self.agent.try_send(count);
        }
    }

    /// Hands over what has gathered, for ever.
    pub(super) async fn run(&self) {
        loop {
            self.some.notified().await;
            tokio::time::sleep(PAUSE).await;
            self.hand_over(&mut self.gathered.borrow_mut());
        }
    }
}

impl Drop for Reports {
    fn drop(&mut self) {
        let mut gathered = self.gathered.take();
        self.hand_over(&mut gathered);
    }
}
