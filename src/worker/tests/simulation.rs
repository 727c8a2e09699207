//! A whole worker on a simulated kernel: thousands of seeds of clients, faults and time.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use uring_ring::sim::{Client, Fault, Faults, Plan, Rng, World};

use super::super::connections::{NoRequests, Serve};
use super::super::*;
use super::settings;
use crate::app::{Inbox, Ticket, service};
use crate::config;
use crate::errands;
use crate::figures;
use crate::http::{Body, Request, Response};
use crate::process::clock::Moment;
use crate::process::parcel::{Origin, Parcel};
use crate::process::scoreboard::{Scoreboard, State};

/// More turns than any run needs that gets anywhere.
pub(super) const TURNS_MAX: usize = 20_000;

pub(super) const LIMIT: Limit = Limit(4096);

/// A worker in its world.
pub(super) struct Stage {
    works: Works,
    pub(super) world: World,
    pub(super) listener: RawFd,
    pub(super) channel: RawFd,
    pub(super) passing: RawFd,
    pub(super) bell: RawFd,
}

/// Who owns the loop.
enum Works {
    Alone(Box<Worker>),
    Driven(Box<Server>, App),
}

/// An application that answers when it likes, in any order.
struct App {
    rng: Rng,
    tickets: Vec<(Ticket, Response)>,
}

impl App {
    fn act(&mut self, server: &mut Server) {
        while let Some((request, ticket)) = server.next_request() {
            self.tickets.push((ticket, answer_at_once(&request)));
        }
        for at in (0..self.tickets.len()).rev() {
            if self.rng.chance(400) {
                let (ticket, response) = self.tickets.swap_remove(at);
                ticket.respond(response);
            }
        }
    }
}

impl Stage {
    pub(super) fn new(plan: Plan, connections_max: usize) -> Stage {
        Stage::with(plan, connections_max, |parts, now| {
            Works::Alone(Box::new(Worker::new(parts, service(answer), now)))
        })
    }

    /// One whose connections are a handler's.
    pub(super) fn bare(plan: Plan, connections_max: usize, server: Box<dyn Serve>) -> Stage {
        Stage::with(plan, connections_max, |parts, now| {
            let mut worker = Worker::new(parts, Box::new(NoRequests), now);
            worker.serve_bare(server);
            Works::Alone(Box::new(worker))
        })
    }

    /// One whose loop is an application's.
    fn driven(plan: Plan, connections_max: usize) -> Stage {
        Stage::with(plan, connections_max, |parts, now| {
            let inbox = Rc::new(Inbox::default());
            let notice = WakeQueue::bell_descriptor().expect("a descriptor is left");
            let worker = Worker::new(parts, inbox.service(), now);
            let app = App { rng: Rng::new(plan.seed), tickets: Vec::new() };
            Works::Driven(Box::new(Server::new(worker, inbox, notice)), app)
        })
    }

    fn with(
        plan: Plan,
        connections_max: usize,
        work: impl FnOnce(Parts, Instant) -> Works,
    ) -> Stage {
        let (mut ring, world) = Ring::simulated(plan);
        let (listener, channel, bell) = (world.listener(), world.line(), world.readable());
        let passing = world.readable();
        DIRECTORY.set(Some(Rc::new(world.file(Some("file"), &vec![b'.'; FILE_BYTES]))));
        let [listener_number, channel_number, bell_number, passing_number] =
            [&listener, &channel, &bell, &passing].map(AsRawFd::as_raw_fd);
        let (queue, now) = (WakeQueue::new(bell), world.now());
        let page = board();
        let parts = Parts {
            buffers: ring.add_buffers(8, 512).unwrap(),
            ring,
            listeners: vec![(listener, Company::Leaving)],
            channel,
            signals: world.readable(),
            stop_timeout: Duration::from_secs(30),
            is_held: false,
            slots: Vec::new(),
            passing,
            bell: world.readable(),
            recycle: Recycle::new(config::Recycle::default(), 1, now),
            limit: LIMIT,
            settings: settings(),
            gate: GateConfig::open(connections_max),
            guard: Guard::new(1),
            access_log: None,
            page,
            worker_id: 0,
            runtime: Runtime::new(now, Arc::clone(&queue)),
            queue,
        };
        Stage {
            works: work(parts, now),
            world,
            listener: listener_number,
            channel: channel_number,
            passing: passing_number,
            bell: bell_number,
        }
    }

    pub(super) fn worker(&self) -> &Worker {
        match &self.works {
            Works::Alone(worker) => worker,
            Works::Driven(server, _) => &server.worker,
        }
    }

    pub(super) fn turn(&mut self) -> Turn {
        let world = &self.world;
        let turn = match &mut self.works {
            Works::Alone(worker) => worker.turn(|| world.now()),
            Works::Driven(server, app) => {
                app.act(server);
                let pause = Duration::from_millis(1);
                let timeout = (!app.tickets.is_empty()).then_some(pause);
                let goes_on = server.turn_by(|| world.now(), timeout);
                goes_on.map(|goes_on| if goes_on { Turn::Continue } else { Turn::Stopped })
            }
        };
        turn.expect("a simulated ring never breaks")
    }

    /// Sees that it has ended and left nothing behind, but connections that have gone elsewhere.
    pub(super) fn assert_empty(self, handed_over_max: usize, why: &str) {
        assert_eq!(self.worker().connections(), 0, "{why}: connections are left");
        let unfinished = self.worker().page.in_flight(0);
        assert_eq!(
            (unfinished.requests, unfinished.more),
            (vec![], 0),
            "{why}: nobody waits for it"
        );
        let Stage { works, world, passing, .. } = self;
        let handed_over = world.passed(&passing);
        assert!(handed_over <= handed_over_max, "{why}: {handed_over} were handed over");
        let left = world.leaks();
        // What was handed over is open in other hands.
        assert_eq!((left.buffers, left.connections), (0, handed_over), "{why}");
        drop(works);
    }
}

/// The page of this thread's workers, each the successor of the one before: thousands of scoreboards
/// would be much memory.
fn board() -> &'static WorkerPage {
    thread_local! {
        static SCOREBOARD: Scoreboard =
            Scoreboard::create(Moment::default()).unwrap().0;
    }
    SCOREBOARD.with(|scoreboard| {
        if let Some(page) = scoreboard.newest(0) {
            page.on_end(std::process::id(), State::Stopped);
        }
        scoreboard.claim(0, Moment::default()).unwrap()
    })
}

/// Answers `/kind/number` with the number, then what the kind asks for.
async fn answer(request: &Request) -> Response {
    let (kind, number) = request.path()[1..].split_once('/').expect("/kind/number");
    let number = number.to_owned();
    match kind {
        "plain" => Response::text(number),
        "large" => Response::new(large(&number)),
        "file" => {
            let root =
                DIRECTORY.with_borrow(|root| Rc::clone(root.as_ref().expect("of the stage")));
            match errands::open(&root, c"file".into(), 0, 0).await {
                Ok(file) => Response::new(Body::part_of(Rc::new(file), 0..FILE_BYTES as u64)),
                Err(_) => Response::new(vec![b'.'; FILE_BYTES]), // no descriptor was left
            }
        }
        "echo" => {
            let body = request.bytes().await.expect("a whole body");
            Response::new([number.as_bytes(), &body].concat())
        }
        "sleep" => {
            rt::sleep(Duration::from_millis(3)).await;
            Response::text(number)
        }
        "spawn" => {
            let task = rt::spawn(async {
                rt::sleep(Duration::from_millis(1)).await;
                number
            });
            Response::text(task.await.expect("it doesn't panic"))
        }
        "stream" => Response::new(Body::stream(Streamed {
            left: vec![vec![b'.'; 5000].into(), "..".into(), number.into()],
            pause: None,
        })),
        other => unreachable!("{other}"),
    }
}

/// The same from an application that owns the loop: bodies have come whole.
fn answer_at_once(request: &Request) -> Response {
    let (kind, number) = request.path()[1..].split_once('/').expect("/kind/number");
    match kind {
        "large" => Response::new(large(number)),
        "file" => Response::new(vec![b'.'; FILE_BYTES]),
        "stream" => Response::new([number.as_bytes(), &[b'.'; 5002]].concat()),
        "echo" => {
            let body =
                rt::now_or_never(request.bytes()).expect("it is there").expect("it is whole");
            Response::new([number.as_bytes(), &body].concat())
        }
        _ => Response::text(number.to_owned()),
    }
}

/// What a file of the world holds; it is read in several parts when the kernel likes.
const FILE_BYTES: usize = 20_000;

thread_local! {
    /// Where a handler finds the world's file.
    static DIRECTORY: RefCell<Option<Rc<OwnedFd>>> = const { RefCell::new(None) };
}

fn large(number: &str) -> Vec<u8> {
    [number.as_bytes(), &vec![b'.'; 20_000]].concat()
}

/// Gives its pieces from last to first, each after a pause.
struct Streamed {
    left: Vec<Bytes>,
    pause: Option<Pin<Box<rt::Sleep>>>,
}

impl Stream for Streamed {
    type Item = io::Result<Bytes>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Bytes>>> {
        let pause = self.pause.get_or_insert_with(|| Box::pin(rt::sleep(Duration::from_millis(1))));
        if pause.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.pause = None;
        Poll::Ready(self.left.pop().map(Ok))
    }
}

/// A client with a script, and what it expects to hear.
struct Actor {
    client: Client,
    script: Vec<u8>,
    written: usize,
    heard: Vec<u8>,
    expected: Vec<Vec<u8>>,
    /// May break off at any time.
    is_rude: bool,
    has_broken_off: bool,
    shuts_write: bool,
}

impl Actor {
    fn new(client: Client, rng: &mut Rng) -> Actor {
        let mut actor = Actor {
            client,
            script: Vec::new(),
            written: 0,
            heard: Vec::new(),
            expected: Vec::new(),
            is_rude: rng.chance(100),
            has_broken_off: false,
            shuts_write: rng.chance(200),
        };
        if rng.chance(300) {
            actor.client.set_window(64 + rng.below(2000)); // less takes too many turns
        }
        let requests = 1 + rng.below(8);
        for number in 0..requests {
            actor.add_request(number, number + 1 == requests, rng);
        }
        actor
    }

    fn add_request(&mut self, number: usize, is_last: bool, rng: &mut Rng) {
        let kind = ["plain", "plain", "large", "echo", "echo", "sleep", "spawn", "stream", "file"]
            [rng.below(9)];
        let method = if kind == "echo" { "POST" } else { "GET" };
        let mut head = format!("{method} /{kind}/{number} HTTP/1.1\r\nHost: sim\r\n");
        if is_last && rng.chance(300) {
            head += "Connection: close\r\n";
        }
        let mut body = vec![b'b'; rng.below(3000)];
        let mut expected = number.to_string().into_bytes();
        match kind {
            "large" => expected = large(&number.to_string()),
            "file" => expected = vec![b'.'; FILE_BYTES],
            "echo" => expected.extend_from_slice(&body),
            "stream" => expected = [expected, vec![b'.'; 5002]].concat(),
            _ => {}
        }
        if kind != "echo" {
            body.clear();
        } else if rng.chance(500) && !body.is_empty() {
            head += "Transfer-Encoding: chunked\r\n";
            let (a, b) = body.split_at(rng.below(body.len()));
            let mut chunked = Vec::new();
            crate::proto::h1::encode_chunk(&mut chunked, a);
            crate::proto::h1::encode_chunk(&mut chunked, b);
            chunked.extend_from_slice(b"0\r\n\r\n");
            body = chunked;
        } else {
            head += "Content-Length: ";
            head += &body.len().to_string();
            head += "\r\n";
        }
        self.script.extend_from_slice(format!("{head}\r\n").as_bytes());
        self.script.extend_from_slice(&body);
        self.expected.push(expected);
    }

    fn act(&mut self, rng: &mut Rng) {
        if self.written < self.script.len() {
            let count = 1 + rng.below((self.script.len() - self.written).min(700));
            self.client.write(&self.script[self.written..self.written + count]);
            self.written += count;
            if self.written == self.script.len() && self.shuts_write {
                self.client.shutdown_write();
            }
            if self.is_rude && rng.chance(50) {
                self.client.reset();
                self.has_broken_off = true;
            }
        }
        if rng.chance(700) {
            self.heard.extend(self.client.read());
        }
    }

    fn is_done(&self) -> bool {
        self.client.is_closed()
            || self.client.saw_end() // it had to make room, or had its answers
            || self.has_broken_off
            || (self.written == self.script.len()
                && responses(&self.heard).len() == self.expected.len())
    }

    /// Checks what was heard: the right answers in the right order. Returns whether some are missing
    /// although the connection didn't break.
    fn judge(&mut self, why: &str) -> bool {
        self.heard.extend(self.client.read());
        let answers = responses(&self.heard);
        assert!(answers.len() <= self.expected.len(), "{why}: more answers than requests");
        for (number, (answer, expected)) in answers.iter().zip(&self.expected).enumerate() {
            assert!(answer == expected, "{why}: wrong answer to request {number}");
        }
        !self.client.saw_reset() && !self.has_broken_off && answers.len() < self.expected.len()
    }
}

/// The bodies of the whole responses at the begin of `bytes`.
fn responses(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    while let Some(end) = bytes.windows(4).position(|at| at == b"\r\n\r\n") {
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        let rest = &bytes[end + 4..];
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let Some((body, used)) = (match length {
            Some(length) => {
                let length = length.parse().unwrap();
                rest.get(..length).map(|body| (body.to_vec(), length))
            }
            None => unchunk(rest),
        }) else {
            break;
        };
        bodies.push(body);
        bytes = &rest[used..];
    }
    bodies
}

/// The body in chunks at the begin of `bytes` and its length, if it is whole.
fn unchunk(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let line_end = at + bytes[at..].windows(2).position(|at| at == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[at..line_end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        let chunk = bytes.get(line_end + 2..line_end + 2 + size + 2)?;
        body.extend_from_slice(&chunk[..size]);
        at = line_end + 2 + size + 2;
        if size == 0 {
            return Some((body, at));
        }
    }
}

fn run(seed: u64, faults: Faults) {
    run_on(Stage::new, seed, faults);
}

/// One run: some clients talk, all are answered, the worker drains and leaves nothing behind.
fn run_on(stage: impl FnOnce(Plan, usize) -> Stage, seed: u64, faults: Faults) {
    let why = format!("seed {seed}");
    let mut rng = Rng::new(!seed);
    let connections_max = if rng.chance(300) { 1 + rng.below(3) } else { 1000 };
    let mut stage = stage(Plan { seed, faults }, connections_max);
    let made_room_before = stage.worker().page.figures.faults(figures::Fault::MadeRoom);
    let mut actors = Vec::new();
    let mut to_come = 1 + rng.below(5);
    let alone_from = rng.below(60); // many runs end before
    let mut turns = 0;
    while to_come > 0 || !actors.iter().all(Actor::is_done) {
        if to_come > 0 && rng.chance(300) {
            actors.push(Actor::new(stage.world.connect(&stage.listener), &mut rng));
            to_come -= 1;
        }
        for actor in &mut actors {
            if rng.chance(600) {
                actor.act(&mut rng);
            }
            if actor.is_done() && connections_max < 5 {
                actor.heard.extend(actor.client.read());
                actor.client.close(); // make room for those that wait
            }
        }
        if turns == alone_from {
            stage.world.feed(&stage.channel, &LIMIT.encode(&Message::Alone).unwrap());
        }
        // Something to read keeps the turn from waiting until a client's time is up.
        stage.world.feed(&stage.bell, &1_u64.to_ne_bytes());
        stage.world.advance(Duration::from_micros(rng.below(3000) as u64));
        assert_eq!(stage.turn(), Turn::Continue, "{why}");
        turns += 1;
        if turns > TURNS_MAX {
            actors.iter_mut().for_each(|actor| _ = actor.judge(&why));
            panic!("{why}: it gets nowhere");
        }
    }
    // Whoever idled for a second had to make room, if somebody else came.
    let missing = actors.iter_mut().map(|actor| usize::from(actor.judge(&why))).sum::<usize>();
    let made_room = stage.worker().page.figures.faults(figures::Fault::MadeRoom) - made_room_before;
    assert!(missing as u64 <= made_room, "{why}: answers are missing");

    let deadline_ms = 10_000;
    let is_replaced = rng.chance(500);
    let end = if is_replaced {
        Message::Reload { deadline_ms }
    } else {
        Message::Shutdown { deadline_ms }
    };
    stage.world.feed(&stage.channel, &LIMIT.encode(&end).unwrap());
    while stage.turn() == Turn::Continue {
        actors.iter_mut().for_each(|actor| actor.heard.extend(actor.client.read()));
        turns += 1;
        assert!(turns < 2 * TURNS_MAX, "{why}: it never stops");
    }
    stage.assert_empty(if is_replaced { usize::MAX } else { 0 }, &why);
}

#[test]
fn a_sleep_after_idleness_takes_its_time() {
    let mut stage = Stage::new(Plan { seed: 1, faults: Faults::NONE }, 1000);
    let client = stage.world.connect(&stage.listener);
    client.write(b"GET /plain/1 HTTP/1.1\r\nHost: sim\r\n\r\n");
    while client.read().is_empty() {
        stage.turn();
    }
    let idle_until = stage.world.now() + Duration::from_secs(5);
    stage.world.advance(Duration::from_secs(5));
    client.write(b"GET /sleep/2 HTTP/1.1\r\nHost: sim\r\n\r\n");
    while client.read().is_empty() {
        stage.turn();
    }
    let slept = stage.world.now() - idle_until;
    assert!(slept >= Duration::from_millis(3), "{slept:?}");
}

#[test]
fn whoever_is_replaced_hands_over_what_idles_and_finishes_the_rest() {
    let mut stage = Stage::new(Plan { seed: 1, faults: Faults::NONE }, 1000);
    let clients: Vec<Client> = (0..300).map(|_| stage.world.connect(&stage.listener)).collect();
    for (number, client) in clients.iter().enumerate() {
        let path = if number < 10 { "/sleep/1" } else { "/plain/1" };
        client.write(format!("GET {path} HTTP/1.1\r\nHost: sim\r\n\r\n").as_bytes());
    }
    let mut heard = vec![Vec::new(); clients.len()];
    while !heard[10..].iter().all(|heard| responses(heard).len() == 1) {
        stage.turn();
        for (client, heard) in clients.iter().zip(&mut heard) {
            heard.extend(client.read());
        }
    }
    let reload = LIMIT.encode(&Message::Reload { deadline_ms: 10_000 }).unwrap();
    stage.world.feed(&stage.channel, &reload);
    while stage.turn() == Turn::Continue {
        for (client, heard) in clients.iter().zip(&mut heard) {
            heard.extend(client.read());
        }
    }
    assert_eq!(stage.world.passed(&stage.passing), 300, "the last ten once they were answered");
    for (client, mut heard) in clients.iter().zip(heard) {
        heard.extend(client.read());
        let [answer] = &responses(&heard)[..] else { panic!("one answer each") };
        assert_eq!(answer, b"1");
        assert!(!String::from_utf8_lossy(&heard).contains("close"), "it stays");
    }
    let said = stage.world.written(&stage.channel);
    let said: Vec<Message> = said.iter().map(|packet| LIMIT.decode(packet).unwrap()).collect();
    assert!(matches!(said[0], Message::WorkerReady { connections_max: 1000, .. }), "{said:?}");
    assert_eq!(said[1], Message::AcceptStopped);
    let total =
        Message::WorkerMetrics { worker_id: 0, total_requests: 300, total_connections: 300 };
    assert_eq!(said[2..], [total]);
}

#[test]
fn passed_connections_are_shown_as_taken_before_they_are_served() {
    let mut stage = Stage::new(Plan { seed: 1, faults: Faults::NONE }, 1000);
    stage.turn();
    let origins = vec![Origin::Accepted, Origin::HandedOver, Origin::Accepted];
    let parcel = Parcel::Connections { first: 41, origins }.encode();
    let clients = stage.world.pass(&stage.passing, &parcel, 3);
    for client in &clients {
        client.write(b"GET /plain/7 HTTP/1.1\r\nHost: sim\r\n\r\n");
    }
    let mut heard = vec![Vec::new(); 3];
    while !heard.iter().all(|heard| responses(heard).len() == 1) {
        stage.turn();
        for (client, heard) in clients.iter().zip(&mut heard) {
            heard.extend(client.read());
        }
        let is_served = heard.iter().any(|heard| !heard.is_empty());
        assert!(!is_served || stage.worker().page.traffic.taken.read() == 43);
    }
    assert_eq!(stage.worker().page.traffic.connections.read(), 3);
}

#[test]
fn connections_max_is_a_maximum_however_many_wait() {
    for is_alone in [true, false] {
        let stage = Stage::new(Plan { seed: 1, faults: Faults::NONE }, 3);
        if is_alone {
            stage.world.feed(&stage.channel, &LIMIT.encode(&Message::Alone).unwrap());
        }
        serve_fifty(stage);
    }
}

fn serve_fifty(mut stage: Stage) {
    let clients: Vec<Client> = (0..50).map(|_| stage.world.connect(&stage.listener)).collect();
    for client in &clients {
        client.write(b"GET /plain/1 HTTP/1.1\r\nHost: sim\r\nConnection: close\r\n\r\n");
    }
    while !clients.iter().all(Client::saw_end) {
        stage.turn();
        assert!(stage.worker().table.len() <= 3, "{} connections", stage.worker().table.len());
    }
}

/// As many seeds as promised in any test run.
const SEEDS: u64 = 10_000;

#[test]
fn ten_thousand_seeds_with_every_fault_lose_and_leak_nothing() {
    (0..SEEDS).for_each(|seed| run(seed, Faults::ALL));
}

#[test]
fn without_faults_every_request_is_answered() {
    (0..1000).for_each(|seed| run(seed, Faults::NONE));
}

#[test]
fn an_application_that_owns_the_loop_loses_and_leaks_nothing_either() {
    (0..3000).for_each(|seed| run_on(Stage::driven, seed, Faults::ALL));
    (0..300).for_each(|seed| run_on(Stage::driven, seed, Faults::NONE));
}

#[test]
fn one_fault_alone_is_survived_even_when_it_is_frequent() {
    for fault in Fault::EACH {
        (0..100).for_each(|seed| run(seed, Faults::NONE.with(fault, 400)));
    }
}

#[test]
fn what_the_kernel_refuses_and_breaks_is_counted() {
    use crate::figures::Fault::{AcceptFailed, Broken};
    for (fault, kind) in [(Fault::NoDescriptors, AcceptFailed), (Fault::Reset, Broken)] {
        (0..20).for_each(|seed| run(seed, Faults::NONE.with(fault, 400)));
        let figures = &board().figures;
        assert!(figures.faults(kind) > 0, "{fault:?}");
        let answered: u64 = figures.responses().iter().sum();
        assert!(answered <= figures.requests.read(), "nothing was malformed");
    }
}
