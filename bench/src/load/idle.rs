//! Connections that were used once and are kept open.

use std::net::TcpStream;

use crate::fault::{Doing, Outcome};
use crate::talk;

#[derive(Default)]
pub struct Held(Vec<TcpStream>);

impl Held {
    /// Opens more until there are `count`; each has had an echo, so that it is open end to end.
    pub fn grow(&mut self, port: u16, count: usize) -> Outcome<()> {
        while self.0.len() < count {
            let open = self.0.len();
            let mut socket = super::connect(port, talk::ECHO).doing(format!("with {open} open"))?;
            super::echo(&mut socket).doing(format!("with {open} open"))?;
            self.0.push(socket);
        }
        Ok(())
    }
}
