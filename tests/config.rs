//! Settings from a file and from flags, as whoever runs the program sees them.

mod common;

use std::fs;
use std::path::PathBuf;

use common::{Server, program};
use tempfile::TempDir;

/// A configuration file in a directory of its own.
struct Config {
    directory: TempDir,
}

impl Config {
    fn new(text: &str) -> Config {
        let directory = tempfile::tempdir().unwrap();
        let config = Config { directory };
        fs::write(config.path(), text).unwrap();
        config
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("edge.toml")
    }
}

/// Runs a command to its end: exit status, standard output, standard error.
fn run(command: &str, config: &Config, flags: &[&str]) -> (i32, String, String) {
    let mut program = program();
    let output = program.arg(command).arg("-c").arg(config.path()).args(flags).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_file_says_what_is_served_and_flags_say_otherwise() {
    let config = Config::new("");
    let root = config.directory.path().display().to_string();
    let listen = "listen = [\"127.0.0.1:0\"]\nworkers = 2\n";
    let text = format!("{listen}[site]\nroot = \"{root}\"\n[limits]\nbody_bytes_max = \"1KiB\"\n");
    fs::write(config.path(), &text).unwrap();
    let path = config.path().display().to_string();

    let server = Server::start_with(&["--listen", "127.0.0.1:0", "--config", &path], &[]);
    assert!(server.line.contains("with 2 workers"), "{}", server.line);
    let mut client = server.connect();
    assert_eq!(client.get("/edge.toml").body(), text);
    assert_eq!(client.get("/plaintext").status(), 404);
    let large = "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1025\r\n\r\n";
    assert_eq!(client.ask(large).status(), 413);

    let server = Server::start(&["-c", &path, "--workers", "1", "--demo"]);
    assert!(server.line.contains("with 1 worker "), "{}", server.line);
    assert_eq!(server.connect().get("/plaintext").status(), 200);
    assert_eq!(server.connect().get("/edge.toml").body(), text);
}

#[test]
fn check_prints_ok_and_settings_that_can_be_read_again() {
    let config = Config::new("workers = 2\n[recycle]\nrequests = 5\n");
    let flags = ["--workers", "3", "--accept", "dispatch", "--stop-timeout", "1m 15s"];
    let (status, said, complaints) = run("check", &config, &flags);
    assert_eq!((status, complaints.as_str()), (0, ""));
    let settings = said.strip_prefix("ok\n").expect("ok comes first");
    for line in [
        "listen = [\"http://127.0.0.1:8080\"]",
        "workers = \"3\"",
        "accept = \"dispatch\"",
        "stop_timeout = \"1m 15s\"",
        "demo = true",
        "requests = 5",
    ] {
        assert!(settings.lines().any(|found| found == line), "no `{line}` in {settings}");
    }
    assert_eq!(run("check", &Config::new(settings), &[]), (0, said, String::new()));
}

#[test]
fn every_flag_reaches_its_setting() {
    let config = Config::new("weights = [9]\nuser = 7\ngroup = 8\n");
    let flags = "--balance weighted --weights 2,1 --queue-max 7 --queue-timeout 2s \
                 --connections-max 99 --hang-timeout 5s --recycle-requests 10 \
                 --recycle-lifetime 1h --recycle-memory 64MiB --pid-file /run/x.pid --user 0 \
                 --group 5 --listen [::1]:81 --listen unix:/run/x.sock --root /";
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let (status, said, complaints) = run("check", &config, &flags);
    assert_eq!((status, complaints.as_str()), (0, ""));
    for line in [
        "listen = [\"http://[::1]:81\", \"unix:/run/x.sock\"]",
        "balance = \"weighted\"",
        "weights = [2, 1]",
        "queue_max = 7",
        "queue_timeout = \"2s\"",
        "hang_timeout = \"5s\"",
        "user = 0",
        "group = 5",
        "pid_file = \"/run/x.pid\"",
        "root = \"/\"",
        "demo = false",
        "connections_max = 99",
        "requests = 10",
        "lifetime = \"1h\"",
        "memory_bytes = \"64MiB\"",
    ] {
        assert!(said.lines().any(|found| found == line), "no `{line}` in {said}");
    }
}

#[test]
fn what_is_wrong_in_a_file_is_said_with_its_name_by_serve_and_by_check() {
    for (text, words) in [
        ("lisen = []", &["unknown field `lisen`", "`listen`"][..]),
        ("[limits]\nhead_bytes_max = 100", &["`limits.head_bytes_max` is 100", "1024 to 65535"]),
        ("queue_max = 0", &["`queue_max` is 0", "from 1 to 65536"]),
        ("stop_timeout = \"soon\"", &["`soon` is no time", "`stop_timeout`", "line 1"]),
        ("listen = []", &["`listen` is empty"]),
        ("user = \"no such user\"", &["`user` is no such user", "getent passwd"]),
        ("group = \"root\"", &["`group` is root", "together with `user`"]),
        ("listen =", &["line 1"]),
    ] {
        let config = Config::new(text);
        for command in ["check", "serve"] {
            let (status, said, complaints) = run(command, &config, &[]);
            assert_eq!((status, said.as_str()), (78, ""), "{command}, {text}: {complaints}");
            let beginning = format!("uring-pool: {}: ", config.path().display());
            assert!(complaints.starts_with(&beginning), "{complaints}");
            for word in words {
                assert!(complaints.contains(word), "{text}: no {word} in {complaints}");
            }
        }
    }
    let config = Config::new("");
    fs::write(config.path(), b"# \xff\n").unwrap();
    let (status, _, complaints) = run("check", &config, &[]);
    assert!(status == 78 && complaints.contains("utf-8"), "{complaints}");
}

#[test]
fn what_is_wrong_with_a_flag_is_no_fault_of_the_file() {
    let config = Config::new("");
    for (flags, words) in [
        (&["--queue-max", "0"][..], &["`queue_max` is 0", "from 1 to 65536"][..]),
        (&["--weights", "1,0"], &["`weights` is 0", "from 1 to 1000"]),
        (&["--user", "no such user"], &["`user` is no such user", "getent passwd"]),
        (&["--accept", "central"], &["central", "shared, or dispatch, or steered"]),
        (&["--stop-timeout", "30"], &["--stop-timeout", "`30` is no time such as 30s"]),
        (&["--recycle-memory", "lots"], &["--recycle-memory", "`lots` is no size"]),
        (&["--no-such-flag"], &["--no-such-flag"]),
    ] {
        let (status, said, complaints) = run("check", &config, flags);
        assert_eq!((status, said.as_str()), (64, ""), "{flags:?}: {complaints}");
        assert!(!complaints.contains("edge.toml"), "{complaints}");
        for word in words {
            assert!(complaints.contains(word), "{flags:?}: no {word} in {complaints}");
        }
    }
}

#[test]
fn what_is_not_there_is_named() {
    let config = Config::new("");
    fs::remove_file(config.path()).unwrap();
    for command in ["check", "serve"] {
        let (status, said, complaints) = run(command, &config, &[]);
        assert_eq!((status, said.as_str()), (66, ""));
        let path = config.path().display().to_string();
        assert!(complaints.contains(&path) && complaints.contains("No such file"), "{complaints}");
    }
    let config = Config::new("[site]\nroot = \"/nowhere/at/all\"");
    let (status, _, complaints) = run("check", &config, &[]);
    assert!(status == 66 && complaints.contains("cannot serve /nowhere/at/all"), "{complaints}");
}

#[test]
fn help_is_no_mistake() {
    let output = program().args(["serve", "--help"]).output().unwrap();
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(help.contains("--config <FILE>") && help.contains("--recycle-memory"), "{help}");
    let (_, settings, _) = run("check", &Config::new(""), &[]);
    for (flag, key) in [
        ("--stop-timeout", "stop_timeout"),
        ("--hang-timeout", "hang_timeout"),
        ("--queue-timeout", "queue_timeout"),
        ("--queue-max", "queue_max"),
    ] {
        let value = settings.split(&format!("\n{key} = ")).nth(1).unwrap().lines().next().unwrap();
        let told = help.lines().skip_while(|line| !line.contains(flag)).take(2).collect::<String>();
        assert!(told.contains(&format!("(default: {})", value.trim_matches('"'))), "{told}");
    }
    assert_eq!(program().output().unwrap().status.code(), Some(64));
}
