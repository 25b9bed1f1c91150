//! The only place where tests let time pass; `architecture` looks for others.
//!
//! Whoever waits for something looks for it, again and again, until a deadline. Everything else is the
//! pace of a load, or a time in which something must not happen, and says so by its name.

use std::time::Duration;

use tokio::time::sleep;

/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(5);

/// The pause between two looks at a condition that has a deadline.
pub async fn look_again() {
    sleep(LOOK).await;
}

/// The pause between two pieces of a load, or between two samples that are compared.
pub async fn pause(period: Duration) {
    sleep(period).await;
}

/// A time in which nothing may happen, or something has to last: how long is what the test is about.
pub async fn throughout(period: Duration) {
    sleep(period).await;
}
