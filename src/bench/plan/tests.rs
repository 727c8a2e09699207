//! Plans from what people want, right and wrong.

use std::io::Write as _;
use std::time::Duration;

use super::*;

fn url(text: &str) -> Vec<Url> {
    text.split(' ').map(|url| url.parse().unwrap()).collect()
}

fn wanted() -> Wanted {
    Wanted { urls: url("http://h:8080/a"), ..Wanted::default() }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn refusal(wanted: &Wanted) -> String {
    Plan::new(wanted).expect_err("something wrong").to_string()
}

fn texts(menu: &Menu) -> Vec<String> {
    menu.requests.iter().map(|it| String::from_utf8_lossy(&it.keep).into_owned()).collect()
}

#[test]
fn a_url_alone_is_a_closed_loop_of_ten_seconds() {
    let plan = Plan::new(&wanted()).unwrap();
    assert!(matches!(plan.shape, Shape::Closed) && !plan.is_open_loop());
    assert_eq!((plan.connections, plan.time()), (64, Some(Duration::from_secs(10))));
    assert_eq!(plan.targets, ["http://h:8080/a"]);
    let [authority] = &plan.authorities[..] else { panic!() };
    assert_eq!(authority.reach, Reach::Net("h".into(), 8080));
    assert_eq!(texts(&authority.menu), ["GET /a HTTP/1.1\r\nHost: h:8080\r\n\r\n"]);
}

#[test]
fn a_rate_is_an_open_loop_and_sessions_share_it() {
    let rate = "1k".parse().ok();
    let plan = Plan::new(&Wanted { rate, session: Some(4), ..wanted() }).unwrap();
    let Shape::Open { stages, .. } = &plan.shape else { panic!() };
    assert_eq!(stages.len(), 1);
    assert_eq!((stages[0].from, stages[0].nanos), (250.0, 10_000_000_000));
    let counted = Plan::new(&Wanted { rate, requests: Some(5), ..wanted() }).unwrap();
    assert_eq!((counted.time(), counted.requests), (None, Some(5)));
    assert_eq!(counted.drain, counted.timeout, "a counted run waits for its answers");
    let stages = "1s:10,2s:10..20".parse().ok();
    let plan = Plan::new(&Wanted { stages, ..wanted() }).unwrap();
    assert_eq!(plan.time(), Some(Duration::from_secs(3)));
}

#[test]
fn urls_of_one_place_share_connections_and_weights_divide_the_load() {
    let list = file("# comment\n3 http://a/x\n1 POST http://b/y\n\nhttp://a/z\n");
    let plan =
        Plan::new(&Wanted { targets: Some(list.path().into()), ..Wanted::default() }).unwrap();
    let [a, b] = &plan.authorities[..] else { panic!() };
    assert_eq!((a.share, b.share), (Share { from: 0.0, to: 0.8 }, Share { from: 0.8, to: 1.0 }));
    assert_eq!(a.menu.requests.len(), 2);
    assert!(texts(&b.menu)[0].starts_with("POST /y HTTP/1.1\r\nHost: b\r\nContent-Length: 0\r\n"));
    assert_eq!(plan.targets, ["http://a/x", "POST http://b/y", "http://a/z"]);
    let few =
        Wanted { urls: url("http://a/ http://b/"), connections: Some(1), ..Wanted::default() };
    assert!(refusal(&few).contains("2 places"));
    for (text, why) in [("0 http://a/", "weight"), ("1 a b c", "write [WEIGHT]")] {
        let list = file(text);
        let refusal = refusal(&Wanted { targets: Some(list.path().into()), ..Wanted::default() });
        assert!(refusal.contains(why), "{refusal}");
    }
}

#[test]
fn requests_say_what_flags_say() {
    let plan = Plan::new(&Wanted {
        headers: vec!["X-A: b".into(), "Host: other".into()],
        data: vec!["a=1".into(), "b=2".into()],
        user: Some("me:secret".into()),
        agent: Some("tester".into()),
        no_keepalive: true,
        ..wanted()
    })
    .unwrap();
    let request = &plan.authorities[0].menu.requests[0];
    let close = String::from_utf8_lossy(&request.close);
    assert_eq!(
        close,
        "POST /a HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: 7\r\nConnection: close\r\nAuthorization: Basic bWU6c2VjcmV0\r\n\
         User-Agent: tester\r\nX-A: b\r\nHost: other\r\n\r\na=1&b=2"
    );
    assert!(!String::from_utf8_lossy(&request.keep).contains("Connection"));
    assert_eq!(plan.requests_per_connection, Some(1));
    let head = Plan::new(&Wanted { method: Some("HEAD".into()), ..wanted() }).unwrap();
    assert!(head.authorities[0].menu.requests[0].is_head);
}

#[test]
fn connections_go_where_flags_lead_them() {
    let reach = |wanted| Plan::new(&wanted).unwrap().authorities[0].reach.clone();
    let connect_to = vec!["h:8080:127.0.0.1:81".parse().unwrap()];
    assert_eq!(reach(Wanted { connect_to, ..wanted() }), Reach::Net("127.0.0.1".into(), 81));
    let resolve = vec!["h:8080:127.0.0.9".parse().unwrap()];
    assert_eq!(reach(Wanted { resolve, ..wanted() }), Reach::Net("127.0.0.9".into(), 8080));
    let unix = Wanted { unix_socket: Some("/run/x".into()), ..wanted() };
    assert_eq!(reach(unix), Reach::Unix("/run/x".into()));
}

#[test]
fn rows_of_data_become_requests() {
    let csv = file("id,name\n1,\"a, b\"\n2,c\n");
    let with = |urls| Wanted { urls: url(urls), csv: Some(csv.path().into()), ..Wanted::default() };
    let plan = Plan::new(&with("http://h/{id}?n={name} http://h/none")).unwrap();
    let lines: Vec<String> = texts(&plan.authorities[0].menu)
        .iter()
        .map(|text| text.lines().next().unwrap().to_owned())
        .collect();
    assert_eq!(lines, ["GET /1?n=a%2C%20b HTTP/1.1", "GET /2?n=c HTTP/1.1", "GET /none HTTP/1.1"]);
    let Choice::Weighted(dishes) = &plan.authorities[0].menu.choice else { panic!() };
    assert_eq!(dishes[1], Dish { weight: 1, first: 2, count: 1 });
    assert!(refusal(&with("http://h/")).contains("{id}, {name}"));
    let ragged = file("a,b\n1\n");
    let refusal = refusal(&Wanted { csv: Some(ragged.path().into()), ..wanted() });
    assert!(refusal.contains("--csv") && refusal.contains("line: 2"), "{refusal}");
}

#[test]
fn a_log_is_replayed_at_its_times() {
    let line = |second: u32, request: &str| {
        format!("1.2.3.4 - - [10/Oct/2000:13:55:{second:02} -0700] \"{request}\" 200 1\n")
    };
    let log = file(
        &[
            line(30, "GET /a HTTP/1.1"),
            line(32, "GET /b HTTP/1.1"),
            line(32, "GET /a HTTP/1.1"),
            line(33, "POST /c HTTP/1.1"),
            "rubbish\n".to_owned(),
            line(31, "HEAD /a HTTP/1.1"),
        ]
        .concat(),
    );
    let wanted = Wanted { replay: Some(log.path().into()), speed: "2x".parse().ok(), ..wanted() };
    let plan = Plan::new(&wanted).unwrap();
    let Shape::Replay { times } = &plan.shape else { panic!() };
    assert_eq!(times[..], [0, 500_000_000, 1_000_000_000, 1_250_000_000]);
    let Choice::Listed(order) = &plan.authorities[0].menu.choice else { panic!() };
    assert_eq!(order[..], [0, 2, 1, 0]);
    assert_eq!(plan.targets[2], "HEAD http://h:8080/a");
    assert!(plan.notes[0].contains(": 2 lines without"), "{:?}", plan.notes);
    let empty = file("nothing\n");
    let empty = Wanted { replay: Some(empty.path().into()), ..self::wanted() };
    assert!(refusal(&empty).contains("no line"));
}

#[test]
fn what_does_not_fit_together_says_why() {
    let rate = "1k".parse::<Rate>().ok();
    let stages = "1s:1".parse::<Stages>().ok();
    let cases = vec![
        (Wanted::default(), "no URL"),
        (Wanted { rate, stages, ..wanted() }, "both say the rate"),
        (Wanted { arrival: Some(Arrival::Poisson), ..wanted() }, "add -R"),
        (Wanted { session: Some(2), ..wanted() }, "add -R"),
        (Wanted { session: Some(2), rate, pipeline: Some(2), ..wanted() }, "leave out -P"),
        (Wanted { think: Some(Duration::from_secs(1)), rate, ..wanted() }, "--think"),
        (Wanted { inflight_max: Some(1), ..wanted() }, "--max-inflight"),
        (Wanted { speed: "2x".parse().ok(), ..wanted() }, "--replay"),
        (Wanted { replay: Some("x".into()), rate, ..wanted() }, "own times"),
        (Wanted { data: vec!["a".into()], forms: vec!["a=b".into()], ..wanted() }, "both"),
        (Wanted { connections: Some(0), ..wanted() }, "-c 0: it goes from 1"),
        (Wanted { pipeline: Some(0), ..wanted() }, "-P 0"),
        (Wanted { threads: Some(0), ..wanted() }, "-t 0"),
        (Wanted { requests: Some(0), ..wanted() }, "-n 0"),
        (Wanted { time: Some(Duration::ZERO), ..wanted() }, "-z 0s"),
        (Wanted { rate: Rate::new(0.0), ..wanted() }, "-R 0"),
        (Wanted { stages: "9s:0,1s:0..0".parse().ok(), ..wanted() }, "nothing is due"),
        (Wanted { connection_rate: Rate::new(0.0), ..wanted() }, "--conn-rate 0"),
        (Wanted { headers: vec!["bad".into()], ..wanted() }, "-H bad"),
        (Wanted { method: Some("G T".into()), ..wanted() }, "-X G T"),
        (Wanted { agent: Some("a\nb".into()), ..wanted() }, "-A"),
        (
            Wanted { targets: Some("/nowhere".into()), ..wanted() },
            "--targets /nowhere: cannot read",
        ),
        (Wanted { csv: Some("/nowhere".into()), ..wanted() }, "--csv /nowhere"),
        (Wanted { replay: Some("/nowhere".into()), ..wanted() }, "--replay /nowhere"),
        (Wanted { no_keepalive: true, requests_per_connection: Some(2), ..wanted() }, "leave out"),
    ];
    for (wanted, why) in cases {
        let refusal = refusal(&wanted);
        assert!(refusal.contains(why), "{refusal} has no `{why}`");
    }
}
