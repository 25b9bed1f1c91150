//! A relay on the wire between two sidecars, at the level of TCP, that cuts on command. Until then it
//! passes bytes and ends on.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A piece of a TLS record: its header is five bytes long, and none of ours is as short as this.
const PIECE_OF_A_RECORD: usize = 12;

/// What becomes of the connections that pass through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    None,
    /// FIN both ways, and no close_notify before it.
    Fin,
    /// RST both ways.
    Reset,
    /// A piece of the next record, then FIN both ways.
    MidRecord,
}

pub(super) struct Relay {
    pub(super) address: SocketAddr,
    cut: watch::Sender<Cut>,
}

impl Relay {
    pub(super) async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cut = watch::Sender::new(Cut::None);
        let cuts = cut.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(to).await else { continue };
                tokio::spawn(carry(near, far, cuts.clone()));
            }
        });
        Self { address, cut }
    }

    /// Cuts what runs and what comes.
    pub(super) fn cut(&self, how: Cut) {
        self.cut.send_replace(how);
    }
}

async fn carry(near: TcpStream, far: TcpStream, cut: watch::Sender<Cut>) {
    for socket in [&near, &far] {
        let _gone = (socket.set_nodelay(true), socket.set_zero_linger());
    }
    let (mut near_reads, mut near_writes) = near.into_split();
    let (mut far_reads, mut far_writes) = far.into_split();
    let mut cuts = cut.subscribe();
    let passed = tokio::select! {
        _cut = cuts.wait_for(|cut| matches!(cut, Cut::Fin | Cut::Reset)) => None,
        passed = async {
            tokio::try_join!(
                pass(&mut near_reads, &mut far_writes, &cut),
                pass(&mut far_reads, &mut near_writes, &cut)
            )
        } => Some(passed),
    };
    let how = *cuts.borrow();
    match passed {
        None if how == Cut::Reset => {}
        None => {
            // FIN to both, and the sockets stay: what comes later must not turn it into a reset.
            let _gone = (near_writes.shutdown().await, far_writes.shutdown().await);
            std::future::pending::<()>().await;
        }
        Some(Err(_reset)) => {}
        Some(Ok(_ended)) => {
            for socket in [near_writes.as_ref(), far_writes.as_ref()] {
                let _gone = socket2::SockRef::from(socket).set_linger(None);
            }
        }
    }
}

/// Passes bytes and then the end on; orders the cut after a piece of a record when that was wanted.
async fn pass(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    cut: &watch::Sender<Cut>,
) -> std::io::Result<()> {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let count = from.read(&mut bytes).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        let mid_record = *cut.borrow() == Cut::MidRecord;
        let passed = if mid_record { count.min(PIECE_OF_A_RECORD) } else { count };
        to.write_all(&bytes[..passed]).await?;
        if mid_record {
            cut.send_replace(Cut::Fin);
        }
    }
}
