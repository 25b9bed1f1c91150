//! Wakes the one task that waits for a change of some state of this thread.
//!
//! Lanes and streams have one each. A listener looks at the state after it has begun to listen, so that
//! no change is missed; ringing without a listener does nothing.

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

/// See the module.
#[derive(Default)]
pub(super) struct Bell(RefCell<Option<Waker>>);

impl Bell {
    /// From now on the task of `cx` is woken, and no other.
    pub(super) fn listen(&self, cx: &Context<'_>) {
        match &mut *self.0.borrow_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            empty => *empty = Some(cx.waker().clone()),
        }
    }

    pub(super) fn ring(&self) {
        if let Some(waker) = &*self.0.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// Has the task of `cx` polled again after all others, and after the runtime has looked for new events,
/// which a plain wake would not let it do.
pub(super) fn let_others(cx: &mut Context<'_>) {
    let _pending = pin!(tokio::task::yield_now()).poll(cx);
}
