//! The load generators, one file each. They connect to a port of 127.0.0.1, behind which the backend is
//! reached directly or through a pair of proxies, and check what comes back.

pub mod bulk;
pub mod connect;
pub mod http;
pub mod idle;
pub mod pingpong;

use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use crate::fault::{Doing, Outcome};
use crate::talk;

/// Longest wait for anything on a blocking socket: far above what any proxy takes when it works.
const STUCK: Duration = Duration::from_secs(10);

/// A blocking connection that has said what it is for.
fn connect(port: u16, role: u8) -> Outcome<TcpStream> {
    use std::io::Write;
    let mut socket =
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).doing(format!("connect to port {port}"))?;
    socket.set_nodelay(true).doing("set TCP_NODELAY")?;
    socket.set_read_timeout(Some(STUCK)).doing("set a time limit")?;
    socket.set_write_timeout(Some(STUCK)).doing("set a time limit")?;
    socket.write_all(&[role]).doing("write")?;
    Ok(socket)
}

/// Sends a message and takes its echo.
fn echo(socket: &mut TcpStream) -> Outcome<()> {
    use std::io::{Read, Write};
    let message = [0x5a; talk::MESSAGE_BYTES];
    let mut answer = [0; talk::MESSAGE_BYTES];
    socket.write_all(&message).doing("write a message")?;
    socket.read_exact(&mut answer).doing("read the echo")?;
    if answer == message { Ok(()) } else { Err(crate::fault::Fault::new("the echo differs")) }
}

/// One connection, one message: whether the way to the backend is open.
pub fn echo_once(port: u16) -> Outcome<()> {
    echo(&mut connect(port, talk::ECHO)?)
}
