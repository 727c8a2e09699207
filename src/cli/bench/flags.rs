//! The flags that say a load, as clap reads them: curl's for the request, hey's, oha's and wrk's for
//! the rest.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use uring_pool::bench::{
    Arrival, ConnectTo, Expect, Pin, Rate, Resolve, Sources, Speed, Stages, Url, Wanted, time,
};

use super::super::Failure;
use super::EX_USAGE;

#[derive(Args, Clone, Default, Debug)]
pub(in super::super) struct LoadFlags {
    /// What to ask; several share the load
    #[arg(value_name = "URL")]
    pub(super) urls: Vec<Url>,

    /// Connections (default: 64)
    #[arg(short, long, value_name = "CONNS", help_heading = "Load")]
    connections: Option<u32>,
    /// Threads (default: as many as there are cores that the server doesn't use)
    #[arg(short, long, value_name = "THREADS", help_heading = "Load")]
    threads: Option<usize>,
    /// So many requests, instead of a time
    #[arg(short = 'n', long, value_name = "REQS", value_parser = count, help_heading = "Load")]
    requests: Option<u64>,
    /// So long: 30s, 2m (default: 10s)
    #[arg(short = 'z', long = "time", alias = "duration", value_name = "TIME", value_parser = time)]
    #[arg(help_heading = "Load")]
    time: Option<Duration>,
    /// Requests per second of all threads, whether or not answers come: 500, 50k (default: each
    /// connection asks when it has been answered)
    #[arg(short = 'R', long, value_name = "RATE", help_heading = "Load")]
    pub(super) rate: Option<Rate>,
    /// Rates one after another: 10s:1k,30s:1k..50k
    #[arg(long, value_name = "STAGES", help_heading = "Load")]
    pub(super) stages: Option<Stages>,
    /// How requests arrive at a rate: constant (the default), poisson or burst:N
    #[arg(long, value_name = "HOW", help_heading = "Load")]
    arrival: Option<Arrival>,
    /// Each arrival is a session of so many requests, one after another on its connection
    #[arg(long, value_name = "K", help_heading = "Load")]
    session: Option<u64>,
    /// At a rate, at most so many requests under way
    #[arg(long, value_name = "N", help_heading = "Load")]
    max_inflight: Option<u64>,
    /// What all choices depend on (default: 1)
    #[arg(long, value_name = "S", help_heading = "Load")]
    seed: Option<u64>,
    /// Requests under way on each connection (default: 1)
    #[arg(short = 'P', long, value_name = "DEPTH", help_heading = "Load")]
    pipeline: Option<u32>,
    /// Close each connection after so many requests
    #[arg(long, value_name = "N", value_parser = count, help_heading = "Load")]
    requests_per_conn: Option<u64>,
    /// Open at most so many connections per second
    #[arg(long, value_name = "RATE", help_heading = "Load")]
    conn_rate: Option<Rate>,
    /// A connection for each request
    #[arg(long, help_heading = "Load")]
    no_keepalive: bool,
    /// How long a connection waits between an answer and its next request
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = "Load")]
    think: Option<Duration>,

    /// The method (default: GET, or POST with -d or -F)
    #[arg(short = 'X', long = "request", value_name = "METHOD", help_heading = "Request")]
    method: Option<String>,
    /// A header line: 'Name: value'; 'Name:' leaves it out; repeatable
    #[arg(short = 'H', long = "header", value_name = "HEADER", help_heading = "Request")]
    headers: Vec<String>,
    /// The body, or @FILE with it (@- is standard input); several are joined by `&`
    #[arg(short = 'd', long, value_name = "DATA", help_heading = "Request")]
    data: Vec<String>,
    /// A part of a form: name=text, name=@FILE (also with ;type=TYPE), name=<FILE; repeatable
    #[arg(short = 'F', long = "form", value_name = "PART", help_heading = "Request")]
    forms: Vec<String>,
    /// Credentials (basic): name:password
    #[arg(short = 'u', long, value_name = "USER", help_heading = "Request")]
    user: Option<String>,
    /// The User-Agent (default: none)
    #[arg(short = 'A', long, value_name = "NAME", help_heading = "Request")]
    user_agent: Option<String>,
    /// Connect to this Unix socket; @NAME is an abstract one
    #[arg(long, value_name = "PATH", help_heading = "Request")]
    unix_socket: Option<PathBuf>,
    /// Connect to HOST2:PORT2 instead; empty parts are any, or the same; repeatable
    #[arg(long, value_name = "HOST1:PORT1:HOST2:PORT2", help_heading = "Request")]
    connect_to: Vec<ConnectTo>,
    /// The address of a name; repeatable
    #[arg(long, value_name = "HOST:PORT:ADDRESS", help_heading = "Request")]
    resolve: Vec<Resolve>,

    /// URLs from a file, a line each: [WEIGHT] [METHOD] URL
    #[arg(long, value_name = "FILE", help_heading = "Input")]
    targets: Option<PathBuf>,
    /// Rows of data: {column} in the URL, headers and body is filled in
    #[arg(long, value_name = "FILE", help_heading = "Input")]
    csv: Option<PathBuf>,
    /// Send the requests of an access log (common or combined format), at their times
    #[arg(long, value_name = "FILE", help_heading = "Input")]
    replay: Option<PathBuf>,
    /// And so much faster: 2x
    #[arg(long, value_name = "FACTOR", help_heading = "Input")]
    speed: Option<Speed>,

    /// What every answer must be: 200, 200|304, 2xx, bytes=13; several with commas (default: a
    /// status below 400)
    #[arg(long, value_name = "WHAT", help_heading = "Check")]
    expect: Option<Expect>,

    /// How long answers are waited for after the end (default: 2s; with -n alone, --timeout)
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = "Measuring")]
    drain: Option<Duration>,
    /// A request without an answer for so long has failed (default: 30s)
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = "Measuring")]
    timeout: Option<Duration>,
    /// Where the threads run: auto (away from the server), none, or cores such as 1,3
    #[arg(long, value_name = "WHERE", help_heading = "Measuring")]
    pin: Option<Pin>,
    /// Connect from these addresses: 127.0.0.2-127.0.0.64
    #[arg(long, value_name = "ADDRESSES", help_heading = "Measuring")]
    source: Option<Sources>,
}

impl LoadFlags {
    /// What they want, unless they show another program's habit.
    pub(super) fn wanted(&self) -> Result<Wanted, Failure> {
        if let [data] = &self.data[..]
            && is_time(data)
        {
            return Err(Failure::new(
                EX_USAGE,
                format_args!(
                    "-d {data}: -d is the body here, as in curl; for how long, use -z {data} (a body \
                     like that can come from a file: -d @FILE)"
                ),
            ));
        }
        let flags = self.clone();
        Ok(Wanted {
            urls: flags.urls,
            connections: flags.connections,
            threads: flags.threads,
            requests: flags.requests,
            time: flags.time,
            rate: flags.rate,
            stages: flags.stages,
            arrival: flags.arrival,
            session: flags.session,
            inflight_max: flags.max_inflight,
            seed: flags.seed,
            pipeline: flags.pipeline,
            requests_per_connection: flags.requests_per_conn,
            connection_rate: flags.conn_rate,
            no_keepalive: flags.no_keepalive,
            think: flags.think,
            method: flags.method,
            headers: flags.headers,
            data: flags.data,
            forms: flags.forms,
            user: flags.user,
            agent: flags.user_agent,
            unix_socket: flags.unix_socket,
            connect_to: flags.connect_to,
            resolve: flags.resolve,
            targets: flags.targets,
            csv: flags.csv,
            replay: flags.replay,
            speed: flags.speed,
            expect: flags.expect,
            timeout: flags.timeout,
            drain: flags.drain,
            sources: flags.source,
            pin: flags.pin,
        })
    }
}

/// A number of seconds, minutes or hours, as wrk wants it behind `-d`.
fn is_time(text: &str) -> bool {
    let number = text.trim_end_matches(['s', 'm', 'h']);
    number.len() + 1 == text.len()
        && !number.is_empty()
        && number.bytes().all(|b| b.is_ascii_digit())
}

/// A whole number, also as 10k or 2M.
fn count(text: &str) -> Result<u64, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let number =
        text.parse::<Rate>().map_err(|_| format!("`{text}` is no number such as 500 or 10k"))?;
    Ok(number.per_second() as u64)
}
