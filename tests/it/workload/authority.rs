//! Clients whose `:authority` is the path of the socket, byte by byte: no client of ours can be made to send
//! that. `clients` has one that does.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[0, length[0], length[1], kind, flags, 0, 0, 0, stream], payload].concat()
}

fn string(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

/// A call of `FetchX509SVID` with this `:authority`, as HTTP/2.
fn call_with(authority: &str) -> Vec<u8> {
    let new_name = |name: &str, value: &str| [&[0x00][..], &string(name), &string(value)].concat();
    let fields = [
        vec![0x83, 0x86], // :method POST, :scheme http
        [&[0x44][..], &string("/SpiffeWorkloadAPI/FetchX509SVID")].concat(),
        [&[0x41][..], &string(authority)].concat(),
        new_name("content-type", "application/grpc"),
        new_name("te", "trailers"),
        new_name("workload.spiffe.io", "true"),
    ];
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(SETTINGS, 0, 0, &[]),
        frame(HEADERS, 4, 1, &fields.concat()),
        frame(0, 1, 1, &[0; 5]), // an empty message, and the end
    ]
    .concat()
}

/// The frames of the answer, up to the first that has data or refuses.
async fn answer(world: &World, bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut stream = UnixStream::connect(world.socket()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut frames = Vec::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await.unwrap();
        frames.push((head[3], payload));
        if matches!(head[3], 0 | RST_STREAM) {
            return frames;
        }
    }
}

#[tokio::test]
async fn a_path_of_a_socket_is_taken_for_an_authority() {
    let world = World::start().await;
    for authority in
        ["localhost", "/run/weft/workload.sock", "run%2Fweft%2Fworkload.sock", "a b@c", "[::]:1"]
    {
        let answered = tokio::time::timeout(DEADLINE, answer(&world, &call_with(authority))).await;
        let frames = answered.expect("no answer in time");
        assert!(frames.iter().any(|(kind, _)| *kind == HEADERS), "{authority}: {frames:x?}");
        let (kind, message) = frames.last().unwrap();
        let text = String::from_utf8_lossy(message);
        assert!(*kind == 0 && text.contains("/svc/web"), "{authority}: {frames:x?}");
    }
    world.stop().await;
}
