//! Whose connection it is, when a balancer tells: seen in the access log.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use common::{PATIENCE, Server, eventually};
use tempfile::TempDir;

const REQUEST: &str = "GET /plaintext HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";

struct Stage {
    server: Server,
    directory: TempDir,
}

impl Stage {
    fn new(proxies: &str) -> Stage {
        Stage::listening(proxies, "listen = [\"127.0.0.1:0\"]")
    }

    fn listening(proxies: &str, listen: &str) -> Stage {
        let directory = tempfile::tempdir().unwrap();
        let listen = listen.replace("DIRECTORY", directory.path().to_str().unwrap());
        let config = directory.path().join("edge.toml");
        let log = directory.path().join("log").display().to_string();
        let text = format!(
            "{listen}\nworkers = 1\n[proxies]\n{proxies}\n[access_log]\npath = \"{log}\"\n\
             format = \"json\"\nflush = \"10ms\"\n"
        );
        fs::write(&config, text).unwrap();
        // The address is the file's: this one is replaced.
        let mut command = common::program();
        command.args(["serve", "-c", config.to_str().unwrap()]);
        Stage { server: Server::of(command), directory }
    }

    /// Says this to the server, in pieces of that size, and returns all that it says.
    fn converse(&self, bytes: &[u8], piece: usize) -> String {
        let mut stream = TcpStream::connect(self.server.address()).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        for piece in bytes.chunks(piece) {
            if stream.write_all(piece).is_err() {
                break;
            }
        }
        let mut heard = Vec::new();
        let _reset = stream.read_to_end(&mut heard);
        String::from_utf8(heard).unwrap()
    }

    /// The clients that the log names so far, once there are so many.
    fn clients(&self, count: usize) -> Vec<String> {
        let mut clients = Vec::new();
        eventually("the log has its lines", || {
            let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            let lines = log.lines().map(|line| serde_json::from_str(line).unwrap());
            let client = |line: serde_json::Value| line["client"].as_str().unwrap().to_owned();
            clients = lines.map(client).collect();
            clients.len() >= count
        });
        clients
    }
}

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = (rest.len() as u16).to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, rest].concat()
}

#[test]
fn a_trusted_balancer_tells_whose_connection_it_is_in_whatever_pieces() {
    let stage = Stage::new("trusted = [\"127.0.0.0/8\"]\nprotocol = true");
    let tcp4 = [192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 4, 1, 0xbb];
    let mut tcp6 = [0; 36];
    (tcp6[0], tcp6[1], tcp6[15]) = (0x20, 1, 9);
    let headers = [
        (b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n".to_vec(), "192.0.2.1"),
        (b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n".to_vec(), "2001:db8::1"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "-"),
        (v2(0x21, 0x11, &tcp4), "192.0.2.7"),
        (v2(0x21, 0x21, &tcp6), "2001::9"),
        (v2(0x20, 0x00, &[]), "127.0.0.1"),
    ];
    let mut expected = Vec::new();
    for (header, client) in &headers {
        for piece in [1, 7, 1000] {
            let bytes = [&header[..], REQUEST.as_bytes()].concat();
            let heard = stage.converse(&bytes, piece);
            assert!(heard.starts_with("HTTP/1.1 200 OK\r\n"), "{client}: {heard}");
            expected.push((*client).to_owned());
        }
    }
    assert_eq!(stage.clients(expected.len()), expected);
}

#[test]
fn a_trusted_balancer_that_does_not_tell_is_not_served() {
    let stage = Stage::new("trusted = [\"127.0.0.1\"]\nprotocol = true");
    for bytes in [
        REQUEST.as_bytes(),
        b"PROXY TCP4 192.0.2.1\r\n",
        b"PROXY UDP4 192.0.2.1 192.0.2.1 1 2\r\n",
        &v2(0x31, 0x11, &[0; 12]),
        &v2(0x21, 0x11, &[0; 11]),
    ] {
        assert_eq!(stage.converse(bytes, 1000), "");
    }
}

#[test]
fn anybody_else_cannot_tell() {
    for proxies in
        ["", "trusted = [\"192.0.2.0/24\"]\nprotocol = true", "trusted = [\"127.0.0.1\"]"]
    {
        let stage = Stage::new(proxies);
        let header = "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n";
        let heard = stage.converse(format!("{header}{REQUEST}").as_bytes(), 1000);
        assert!(heard.starts_with("HTTP/1.1 400 "), "{proxies}: {heard}");
        assert_eq!(stage.clients(1), ["127.0.0.1"]);
    }
}

#[test]
fn fields_are_believed_of_trusted_peers_alone() {
    let ask = |stage: &Stage, field: &str| {
        let request = REQUEST.replace("Host: t\r\n", &format!("Host: t\r\n{field}\r\n"));
        assert!(stage.converse(request.as_bytes(), 1000).starts_with("HTTP/1.1 200 OK\r\n"));
    };
    let stage = Stage::new("trusted = [\"127.0.0.1\", \"10.0.0.0/8\"]\nheader = \"forwarded\"");
    ask(&stage, "Forwarded: for=192.0.2.1");
    ask(&stage, "Forwarded: for=6.6.6.6, for=\"[2001:db8::1]:80\";proto=https, for=10.0.0.1");
    ask(&stage, "X-Forwarded-For: 192.0.2.1");
    assert_eq!(stage.clients(3), ["192.0.2.1", "2001:db8::1", "127.0.0.1"]);
    let stage = Stage::new("");
    ask(&stage, "X-Forwarded-For: 192.0.2.1");
    assert_eq!(stage.clients(1), ["127.0.0.1"]);
}

#[test]
fn whoever_comes_by_a_unix_socket_can_be_trusted() {
    let listen = "listen = [\"127.0.0.1:0\", \"unix:DIRECTORY/socket\"]";
    let stage = Stage::listening("trusted = [\"unix\"]\nprotocol = true", listen);
    let mut stream = UnixStream::connect(stage.directory.path().join("socket")).unwrap();
    write!(stream, "PROXY TCP4 192.0.2.1 198.51.100.1 1 2\r\n{REQUEST}").unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).unwrap();
    assert!(heard.starts_with("HTTP/1.1 200 OK\r\n"), "{heard}");
    assert!(stage.converse(REQUEST.as_bytes(), 1000).starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(stage.clients(2), ["192.0.2.1", "127.0.0.1"]);
}
