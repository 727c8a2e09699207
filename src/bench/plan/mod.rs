//! What to ask, whom, how often: flags, checked once, into a [`Plan`] that can't be wrong. Reads the
//! files that flags name; opens no sockets and resolves no names.

mod body;
mod error;
mod expect;
mod inputs;
mod units;
mod url;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use error::PlanError;
pub use expect::Expect;
pub use units::{Malformed, Pin, Rate, Sources, Speed, Stages, time};
pub use url::{ConnectTo, Resolve, Url};

use super::render::{Draft, Field, Rendered};
use super::schedule::{Arrival, Share, Stage};
use units::nanos;

/// Connections unless `-c` says otherwise.
const CONNECTIONS: u32 = 64;
/// How long unless `-z` or `-n` says otherwise.
const TIME: Duration = Duration::from_secs(10);
/// After this a request that has no answer has failed; longer than what any user waits.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long answers are waited for after the end: an answer that takes longer is one that a user
/// wouldn't have waited for, and its request is counted as unfinished.
const DRAIN: Duration = Duration::from_secs(2);

/// Bounds, each far beyond what one machine can do.
const CONNECTIONS_MAX: u32 = 1 << 20;
const THREADS_MAX: usize = 1024;
const PIPELINE_MAX: u32 = 1024;

/// What is wanted, as flags say it: each value is right by itself, together they aren't checked.
#[derive(Clone, Default, Debug)]
#[expect(missing_docs, reason = "each is the flag of its name, documented in its help")]
pub struct Wanted {
    pub urls: Vec<Url>,
    // Load.
    pub connections: Option<u32>,
    pub threads: Option<usize>,
    pub requests: Option<u64>,
    pub time: Option<Duration>,
    pub rate: Option<Rate>,
    pub stages: Option<Stages>,
    pub arrival: Option<Arrival>,
    pub session: Option<u64>,
    pub inflight_max: Option<u64>,
    pub seed: Option<u64>,
    pub pipeline: Option<u32>,
    pub requests_per_connection: Option<u64>,
    pub connection_rate: Option<Rate>,
    pub no_keepalive: bool,
    pub think: Option<Duration>,
    // Request.
    pub method: Option<String>,
    pub headers: Vec<String>,
    pub data: Vec<String>,
    pub forms: Vec<String>,
    pub user: Option<String>,
    pub agent: Option<String>,
    pub unix_socket: Option<PathBuf>,
    pub connect_to: Vec<ConnectTo>,
    pub resolve: Vec<Resolve>,
    // Input.
    pub targets: Option<PathBuf>,
    pub csv: Option<PathBuf>,
    pub replay: Option<PathBuf>,
    pub speed: Option<Speed>,
    // Checks, and the generator itself.
    pub expect: Option<Expect>,
    pub timeout: Option<Duration>,
    pub drain: Option<Duration>,
    pub sources: Option<Sources>,
    pub pin: Option<Pin>,
}

/// A load, checked.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) authorities: Vec<Authority>,
    /// The URLs, as people know them, by the number of their target.
    pub(super) targets: Vec<String>,
    pub(super) shape: Shape,
    pub(super) connections: u32,
    pub(super) threads: Option<usize>,
    /// At most so many requests.
    pub(super) requests: Option<u64>,
    /// No request leaves after so many nanoseconds.
    pub(super) nanos: Option<u64>,
    /// At least 1.
    pub(super) pipeline: u32,
    /// Requests that follow each other after an arrival; at least 1.
    pub(super) session: u64,
    pub(super) inflight_max: Option<u64>,
    pub(super) requests_per_connection: Option<u64>,
    pub(super) connection_rate: Option<f64>,
    /// Nanoseconds, as all that follow.
    pub(super) think: u64,
    pub(super) timeout: u64,
    pub(super) drain: u64,
    pub(super) seed: u64,
    pub(super) expect: Expect,
    pub(super) sources: Vec<std::net::IpAddr>,
    pub(super) pin: Pin,
    /// What whoever reads the result should know about the input.
    pub(super) notes: Vec<String>,
}

/// How requests come about.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    /// The next one when the last one is answered.
    Closed,
    /// When a schedule says so.
    Open { stages: Arc<[Stage]>, arrival: Arrival },
    /// At these times.
    Replay { times: Arc<[u64]> },
}

/// Where connections go, and what is asked there.
#[derive(Clone, Debug)]
pub(super) struct Authority {
    pub(super) reach: Reach,
    /// Its part of all requests.
    pub(super) share: Share,
    pub(super) menu: Menu,
}

/// What a connection leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Reach {
    /// A name or an address (IPv6 in brackets), and a port.
    Net(String, u16),
    Unix(PathBuf),
}

impl std::fmt::Display for Reach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reach::Net(host, port) => write!(f, "{host}:{port}"),
            Reach::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The requests of an authority.
#[derive(Clone, Debug)]
pub(super) struct Menu {
    pub(super) requests: Arc<[Rendered]>,
    pub(super) choice: Choice,
}

/// Which request is next.
#[derive(Clone, Debug)]
pub(super) enum Choice {
    /// By weight; within a dish, one after another.
    Weighted(Vec<Dish>),
    /// By the index of its time.
    Listed(Arc<[u32]>),
}

/// Requests of one target.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Dish {
    pub(super) weight: u32,
    pub(super) first: u32,
    pub(super) count: u32,
}

impl Plan {
    /// Checks what is wanted.
    ///
    /// # Errors
    ///
    /// Flags that contradict each other or miss their range, and files that can't be read or
    /// understood: in words, with the flag, the value, and what would be right.
    pub fn new(wanted: &Wanted) -> Result<Plan, PlanError> {
        wanted.check_combinations()?;
        let connections = wanted.connections.unwrap_or(CONNECTIONS);
        in_range("-c", connections.into(), 1, CONNECTIONS_MAX.into())?;
        let pipeline = wanted.pipeline.unwrap_or(1);
        in_range("-P", pipeline.into(), 1, PIPELINE_MAX.into())?;
        let session = wanted.session.unwrap_or(1);
        in_range("--session", session, 1, u64::MAX)?;
        if let Some(threads) = wanted.threads {
            in_range("-t", threads as u64, 1, THREADS_MAX as u64)?;
        }
        for (flag, number) in [
            ("-n", wanted.requests),
            ("--max-inflight", wanted.inflight_max),
            ("--requests-per-conn", wanted.requests_per_connection),
        ] {
            in_range(flag, number.unwrap_or(1), 1, u64::MAX)?;
        }
        for (flag, time) in [("-z", wanted.time), ("--timeout", wanted.timeout)] {
            if time == Some(Duration::ZERO) {
                return Err(PlanError::flag(flag, "0s", "it takes some time"));
            }
        }
        for (flag, rate) in [("-R", wanted.rate), ("--conn-rate", wanted.connection_rate)] {
            if rate.is_some_and(|rate| rate.per_second() <= 0.0) {
                return Err(PlanError::flag(flag, "0", "nothing would ever happen at this rate"));
            }
        }
        if wanted.stages.as_ref().is_some_and(Stages::are_empty) {
            return Err(PlanError::new("--stages: nothing is due in any of them"));
        }
        let mut notes = Vec::new();
        let requests_per_connection =
            if wanted.no_keepalive { Some(1) } else { wanted.requests_per_connection };
        let kitchen = Kitchen { wanted, closes: requests_per_connection.is_some() };
        let orders = wanted.orders()?;
        let (authorities, targets, times) = if let Some(file) = &wanted.replay {
            kitchen.replay(file, &orders, &mut notes)?
        } else {
            let (authorities, targets) = kitchen.cook(&orders)?;
            (authorities, targets, None)
        };
        if (connections as usize) < authorities.len() {
            let count = authorities.len();
            return Err(PlanError::flag(
                "-c",
                &connections.to_string(),
                &format!("the URLs lead to {count} places, and each needs a connection"),
            ));
        }
        let timeout = wanted.timeout.unwrap_or(TIMEOUT);
        let is_counted = wanted.requests.is_some() && wanted.time.is_none();
        let drain = wanted.drain.unwrap_or(if is_counted { timeout } else { DRAIN });
        let (shape, time) = wanted.shape(times, session);
        Ok(Plan {
            authorities,
            targets,
            shape,
            connections,
            threads: wanted.threads,
            requests: wanted.requests,
            nanos: time.map(nanos),
            pipeline,
            session,
            inflight_max: wanted.inflight_max,
            requests_per_connection,
            connection_rate: wanted.connection_rate.map(Rate::per_second),
            think: nanos(wanted.think.unwrap_or_default()),
            timeout: nanos(timeout),
            drain: nanos(drain),
            seed: wanted.seed.unwrap_or(1),
            expect: wanted.expect.clone().unwrap_or_default(),
            sources: wanted.sources.clone().unwrap_or_default().0,
            pin: wanted.pin.clone().unwrap_or_default(),
            notes,
        })
    }

    /// The URLs, by the number of their target.
    pub fn targets(&self) -> &[String] {
        &self.targets
    }

    /// Requests are due at times of a schedule, whether or not answers come.
    pub fn is_open_loop(&self) -> bool {
        !matches!(self.shape, Shape::Closed)
    }

    /// How long requests leave, if that is bounded by time.
    pub fn time(&self) -> Option<Duration> {
        self.nanos.map(Duration::from_nanos)
    }

    /// What whoever reads the result should know about the input.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// What is to be asked, before it is made into bytes.
struct Order {
    weight: u32,
    method: Option<String>,
    url: Url,
}

impl Wanted {
    fn check_combinations(&self) -> Result<(), PlanError> {
        let is_open = self.rate.is_some() || self.stages.is_some() || self.replay.is_some();
        let clashes = [
            (self.rate.is_some() && self.stages.is_some(), "-R and --stages both say the rate"),
            (
                self.replay.is_some() && (self.rate.is_some() || self.stages.is_some()),
                "--replay has its own times: leave out -R and --stages",
            ),
            (
                self.replay.is_some() && (self.csv.is_some() || self.targets.is_some()),
                "--replay has its own requests: leave out --csv and --targets",
            ),
            (
                self.replay.is_some() && (!self.data.is_empty() || !self.forms.is_empty()),
                "an access log has no bodies: --replay takes no -d and no -F",
            ),
            (self.speed.is_some() && self.replay.is_none(), "--speed goes with --replay"),
            (!self.data.is_empty() && !self.forms.is_empty(), "-d and -F both say the body"),
            (
                self.arrival.is_some() && self.rate.is_none() && self.stages.is_none(),
                "--arrival says how requests of a rate arrive: add -R or --stages",
            ),
            (
                self.session.is_some() && self.rate.is_none() && self.stages.is_none(),
                "--session says how many requests follow each arrival: add -R or --stages",
            ),
            (
                self.session.is_some() && self.pipeline.is_some_and(|depth| depth > 1),
                "within a session one request follows the answer of the last: leave out -P",
            ),
            (
                self.think.is_some() && is_open && self.session.is_none(),
                "with a rate, requests don't wait for anybody's thinking: --think goes with -c \
                 alone, or with --session",
            ),
            (
                self.inflight_max.is_some() && !is_open,
                "without a rate, -c and -P say how many requests are under way: leave out \
                 --max-inflight",
            ),
            (
                self.no_keepalive && self.requests_per_connection.is_some_and(|count| count > 1),
                "--no-keepalive is one request a connection: leave out --requests-per-conn",
            ),
            (
                self.session.is_some_and(|length| length > 1) && self.no_keepalive,
                "a session stays on its connection: leave out --no-keepalive (for a connection \
                 each, --requests-per-conn with the number of --session)",
            ),
            (
                self.session
                    .zip(self.requests_per_connection)
                    .is_some_and(|(length, count)| length > 0 && !count.is_multiple_of(length)),
                "a session stays on its connection: --requests-per-conn must be a multiple of \
                 --session",
            ),
            (
                self.unix_socket.is_some() && self.sources.is_some(),
                "connections to a Unix socket have no --source",
            ),
        ];
        match clashes.into_iter().find(|(clashes, _)| *clashes) {
            Some((_, words)) => Err(PlanError::new(words)),
            None => Ok(()),
        }
    }

    /// What the command line and the file of `--targets` order.
    fn orders(&self) -> Result<Vec<Order>, PlanError> {
        let url = |url: &Url| Order { weight: 1, method: None, url: url.clone() };
        let mut orders: Vec<Order> = self.urls.iter().map(url).collect();
        if let Some(file) = &self.targets {
            orders.extend(inputs::targets(file)?);
        }
        if orders.is_empty() {
            return Err(PlanError::new("no URL: say which, as in `bench http://127.0.0.1:8080/`"));
        }
        Ok(orders)
    }

    fn shape(&self, times: Option<Arc<[u64]>>, session: u64) -> (Shape, Option<Duration>) {
        let arrival = self.arrival.unwrap_or_default();
        let default_time = if self.requests.is_some() { None } else { Some(TIME) };
        if let Some(times) = times {
            let last = Duration::from_nanos(times.last().map_or(0, |last| last + 1));
            return (Shape::Replay { times }, Some(self.time.map_or(last, |time| time.min(last))));
        }
        // Sessions arrive, and each of them brings so many requests.
        let scaled = |rate: f64| rate / session as f64;
        if let Some(Stages(stages)) = &self.stages {
            let all = stages.iter().map(|stage| stage.nanos).fold(0, u64::saturating_add);
            let all = Duration::from_nanos(all);
            let stages = stages.iter().map(|stage| Stage {
                from: scaled(stage.from),
                to: scaled(stage.to),
                ..*stage
            });
            let shape = Shape::Open { stages: stages.collect(), arrival };
            return (shape, Some(self.time.map_or(all, |time| time.min(all))));
        }
        let time = self.time.or(default_time);
        let Some(rate) = self.rate else { return (Shape::Closed, time) };
        let rate = scaled(rate.per_second());
        // Without an end in time, one beyond all requests.
        let nanos = time.map_or(u64::MAX >> 1, nanos);
        let stages = Arc::from([Stage { nanos, from: rate, to: rate }]);
        (Shape::Open { stages, arrival }, time)
    }

    fn reach(&self, url: &Url) -> Reach {
        if let Some(path) = &self.unix_socket {
            return Reach::Unix(path.clone());
        }
        let routed = self.connect_to.iter().find_map(|to| to.route(&url.host, url.port));
        let (host, port) = routed.unwrap_or_else(|| (url.host.clone(), url.port));
        let resolved = self.resolve.iter().find_map(|it| it.address(&host, port));
        Reach::Net(resolved.map_or(host, str::to_owned), port)
    }

    /// The request of an order.
    fn draft(&self, order: &Order) -> Result<Draft, PlanError> {
        let mut fields = Vec::new();
        for header in &self.headers {
            let field = Field::parse(header).ok_or_else(|| {
                PlanError::flag("-H", header, "write a header as in -H 'Name: value'")
            })?;
            fields.push(field);
        }
        let has = |name: &str| fields.iter().any(|it| it.name.eq_ignore_ascii_case(name));
        let mut more = Vec::new();
        if let Some(user) = self.user.as_ref().or(order.url.userinfo.as_ref())
            && !has("authorization")
        {
            more.push(Field::new("Authorization", &body::basic(user)));
        }
        if let Some(agent) = &self.agent
            && !has("user-agent")
        {
            let field = Field::parse(&format!("User-Agent: {agent}"));
            more.push(field.ok_or_else(|| {
                PlanError::flag("-A", agent, "a name of this program is a line of text")
            })?);
        }
        more.extend(fields);
        let body = match (&self.data[..], &self.forms[..]) {
            ([], []) => None,
            (data, []) => Some(body::data(data)?),
            (_, forms) => Some(body::form(forms)?),
        };
        let default = if body.is_some() { "POST" } else { "GET" };
        let method = self.method.as_ref().or(order.method.as_ref());
        let method = method.map_or_else(|| default.to_owned(), String::clone);
        if !crate::proto::h1::is_field_name(method.as_bytes()) || method == "CONNECT" {
            return Err(PlanError::flag("-X", &method, "use a method such as GET or POST"));
        }
        Ok(Draft {
            method,
            target: order.url.target.clone(),
            authority: order.url.authority(),
            fields: more,
            body,
        })
    }
}

/// Makes bytes of orders.
struct Kitchen<'a> {
    wanted: &'a Wanted,
    /// Connections end after some request, which says so.
    closes: bool,
}

/// All requests of a run are kept in memory, ready to be sent: at most so many bytes.
const RENDERED_BYTES_MAX: usize = 512 << 20;

impl Kitchen<'_> {
    fn cook(&self, orders: &[Order]) -> Result<(Vec<Authority>, Vec<String>), PlanError> {
        let table = self.wanted.csv.as_deref().map(inputs::Table::read).transpose()?;
        let mut places: Vec<(Reach, Vec<Rendered>, Vec<Dish>)> = Vec::new();
        let mut targets = Vec::new();
        let (mut bytes, mut used_csv) = (0, table.is_none());
        for (target, order) in (0..).zip(orders) {
            let draft = self.wanted.draft(order)?;
            let mut rendered = Vec::new();
            match &table {
                Some(table) if table.names().any(|name| draft.uses(name)) => {
                    used_csv = true;
                    for row in table.rows() {
                        rendered.push(self.render(&draft, &row, target));
                        bytes += rendered.last().map_or(0, |it: &Rendered| it.keep.len());
                        if bytes > RENDERED_BYTES_MAX {
                            return Err(PlanError::new(
                                "the requests of all rows of --csv take more than 512 MiB: use \
                                 fewer rows or a smaller body",
                            ));
                        }
                    }
                }
                _ => rendered.push(self.render(&draft, &[], target)),
            }
            let reach = self.wanted.reach(&order.url);
            let at = places.iter().position(|(it, ..)| *it == reach).unwrap_or_else(|| {
                places.push((reach, Vec::new(), Vec::new()));
                places.len() - 1
            });
            let (_, requests, dishes) = &mut places[at];
            let (first, count) = (requests.len() as u32, rendered.len() as u32);
            dishes.push(Dish { weight: order.weight, first, count });
            requests.extend(rendered);
            targets.push(match &*draft.method {
                "GET" => order.url.to_string(),
                method => format!("{method} {}", order.url),
            });
        }
        if !used_csv {
            let names: Vec<String> =
                table.iter().flat_map(inputs::Table::names).map(|it| format!("{{{it}}}")).collect();
            return Err(PlanError::new(&format!(
                "no request has a placeholder for a column of --csv: use one of {}",
                names.join(", ")
            )));
        }
        let weight =
            |dishes: &[Dish]| -> f64 { dishes.iter().map(|it| f64::from(it.weight)).sum() };
        let all: f64 = places.iter().map(|(_, _, dishes)| weight(dishes)).sum();
        let (mut before, count) = (0.0, places.len());
        let authorities =
            places.into_iter().enumerate().map(|(index, (reach, requests, dishes))| {
                let from = before / all;
                before += weight(&dishes);
                let to = if index + 1 == count { 1.0 } else { before / all };
                let menu = Menu { requests: requests.into(), choice: Choice::Weighted(dishes) };
                Authority { reach, share: Share { from, to }, menu }
            });
        Ok((authorities.collect(), targets))
    }

    /// The requests of an access log, for one authority.
    #[expect(clippy::type_complexity, reason = "what `cook` gives, and the times")]
    fn replay(
        &self,
        file: &std::path::Path,
        orders: &[Order],
        notes: &mut Vec<String>,
    ) -> Result<(Vec<Authority>, Vec<String>, Option<Arc<[u64]>>), PlanError> {
        let [order] = orders else {
            return Err(PlanError::new("--replay takes one URL: where to send the requests"));
        };
        let log = inputs::Log::read(file, self.wanted.speed.unwrap_or(Speed(1.0)))?;
        let mut requests = Vec::with_capacity(log.requests.len());
        let mut targets = Vec::with_capacity(log.requests.len());
        for (target, (method, path)) in (0..).zip(&log.requests) {
            let mut draft = self.wanted.draft(order)?;
            draft.method.clone_from(method);
            draft.target.clone_from(path);
            requests.push(self.render(&draft, &[], target));
            targets.push(match &**method {
                "GET" => format!("http://{}{path}", order.url.authority()),
                method => format!("{method} http://{}{path}", order.url.authority()),
            });
        }
        if log.left_out > 0 {
            notes.push(format!(
                "left out of {}: {} line{} without a request, or with one whose body the log doesn't have",
                file.display(),
                log.left_out,
                if log.left_out == 1 { "" } else { "s" }
            ));
        }
        let menu = Menu { requests: requests.into(), choice: Choice::Listed(log.order) };
        let share = Share { from: 0.0, to: 1.0 };
        let authority = Authority { reach: self.wanted.reach(&order.url), share, menu };
        Ok((vec![authority], targets, Some(log.times)))
    }

    fn render(&self, draft: &Draft, row: &[(&str, &str)], target: u32) -> Rendered {
        let keep = draft.render(row, false);
        let close = if self.closes { draft.render(row, true) } else { keep.clone() };
        Rendered { keep, close, target, is_head: draft.method == "HEAD" }
    }
}

fn in_range(flag: &'static str, value: u64, least: u64, most: u64) -> Result<(), PlanError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let range = match most {
        u64::MAX => format!("it is at least {least}"),
        most => format!("it goes from {least} to {most}"),
    };
    Err(PlanError::flag(flag, &value.to_string(), &range))
}

#[cfg(test)]
mod tests;
