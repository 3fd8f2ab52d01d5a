//! A generator with one client, and a server that the test plays.

mod acks;
mod checks;
mod connecting;

use std::io::Read;
use std::net::{TcpListener, TcpStream};

use memchr::memmem;

use super::*;

/// A generator with one client, user `u0` in the rooms `u0`, `u1` and so on, and the listener that
/// it connects to. The client is not connected. No message requests an acknowledgement.
fn one_client(rooms: usize) -> (LoadGenerator, TcpListener) {
    one_client_with(rooms, false)
}

/// The same; messages request acknowledgements if `with_acks`.
fn one_client_with(rooms: usize, with_acks: bool) -> (LoadGenerator, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = Target::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let settings = ConnectSettings {
        targets: vec![target],
        sources: Vec::new(),
        token_secret: None,
        sign_token: |_, _| anyhow::bail!("no test signs a token"),
        name_prefix: "u".into(),
    };
    let assignment = RoomAssignment::new(1, rooms, rooms).unwrap();
    let rooms = (0..rooms)
        .map(|room| {
            Room::new(
                format!("u{room}"),
                assignment.members(room),
                1,
                100,
                with_acks,
            )
        })
        .collect();
    let generator = LoadGenerator::new(settings, rooms, assignment).unwrap();
    (generator, listener)
}

/// Connects the client, up to its upgrade request. Returns the server's end of the connection,
/// which has read the request.
fn dial(generator: &mut LoadGenerator, listener: &TcpListener) -> TcpStream {
    generator.dial(0);
    while generator.clients[0].state == ClientState::Dialing {
        generator.poll_once(None).unwrap();
    }
    let (mut server, _) = listener.accept().unwrap();
    read_until(&mut server, "\r\n\r\n");
    server
}

/// A generator with one client in one room that has sent its upgrade request, and the server's end
/// of the connection.
fn upgrading() -> (LoadGenerator, TcpStream) {
    let (mut generator, listener) = one_client(1);
    let server = dial(&mut generator, &listener);
    (generator, server)
}

/// Reads until the bytes received end with this text, and returns them.
fn read_until(server: &mut TcpStream, end: &str) -> String {
    let mut all = Vec::new();
    while !all.ends_with(end.as_bytes()) {
        let mut bytes = [0; 1024];
        let read = server.read(&mut bytes).unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&bytes[..read]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// Everything that a server sends until the client has joined its rooms, with these acks of its
/// joins.
fn server_bytes(acks: &[&str]) -> Vec<u8> {
    let mut bytes = b"HTTP/1.1 101 Switching Protocols\r\n\r\n".to_vec();
    for text in ["0{}", "40{}", "430[{\"ok\":true}]"].iter().chain(acks) {
        bytes.extend_from_slice(&[0x81, u8::try_from(text.len()).unwrap()]);
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

/// The same with the ack of the only room.
fn server_bytes_for_one_room() -> Vec<u8> {
    server_bytes(&["431[{\"ok\":true,\"seq\":0,\"epoch\":\"e\"}]"])
}

/// Sends a room's next message, and returns the packet that its members receive.
fn sent_packet(generator: &mut LoadGenerator, room: usize, seq: u64) -> Vec<u8> {
    let frame = generator.rooms[room].message_of(0, 0, 0);
    let fields_at = memmem::find(frame, b"\"room_id\"").unwrap();
    [
        format!("42[\"message\",{{\"seq\":{seq},\"epoch\":\"e\",\"id\":\"i\",").as_bytes(),
        &frame[fields_at..],
    ]
    .concat()
}
