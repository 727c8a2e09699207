//! What HTTP/1 costs without any I/O: heads in, heads out, chunks in. `httparse alone` is the floor
//! of parsing: it splits the head, but checks neither line ends nor what the fields say.
//!
//! `cargo bench --bench h1`; on a shared machine compare the lower bounds of several runs.

use std::hint::black_box;
use std::mem::MaybeUninit;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use uring_pool::proto::h1::{
    BodyDecoder, Framing, HeadLimits, HeadParser, Step, encode_chunk, encode_content_length_value,
    encode_field, encode_status_line,
};

const HEADS: [(&str, &[u8]); 2] = [("wrk", WRK), ("browser", BROWSER)];

const WRK: &[u8] = b"GET /plaintext HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n";

const BROWSER: &[u8] = b"GET /articles/2024/io-uring?page=2&sort=new HTTP/1.1\r\n\
    Host: www.example.org\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Connection: keep-alive\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    If-None-Match: \"5f3e-62a1\"\r\n\r\n";

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    for (name, head) in HEADS {
        group.throughput(Throughput::Bytes(head.len() as u64));
        group.bench_function(name, |bencher| {
            let (limits, mut fields) = (HeadLimits::default(), Vec::with_capacity(32));
            let mut parser = HeadParser::default();
            bencher.iter(|| parser.parse(black_box(head), &limits, &mut fields).unwrap().unwrap());
        });
        group.bench_function(format!("{name}, httparse alone"), |bencher| {
            bencher.iter(|| {
                let mut headers = [const { MaybeUninit::uninit() }; 100];
                let mut request = httparse::Request::new(&mut []);
                let len = request.parse_with_uninit_headers(black_box(head), &mut headers);
                black_box((len.unwrap().unwrap(), request.headers.len()))
            });
        });
    }
    group.finish();
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    group.bench_function("plaintext head", |bencher| {
        let mut out = Vec::with_capacity(1024);
        bencher.iter(|| {
            out.clear();
            encode_status_line(&mut out, black_box(200)).unwrap();
            encode_field(&mut out, b"server", black_box(b"uring-pool")).unwrap();
            let date = black_box(b"Sun, 06 Nov 1994 08:49:37 GMT");
            encode_field(&mut out, b"date", date).unwrap();
            encode_field(&mut out, b"content-type", black_box(b"text/plain")).unwrap();
            out.extend_from_slice(b"Content-Length: ");
            encode_content_length_value(&mut out, black_box(13));
            out.extend_from_slice(b"\r\n");
            black_box(out.len())
        });
    });
    group.finish();
}

fn decode(criterion: &mut Criterion) {
    let mut body = Vec::new();
    for _ in 0..16 {
        encode_chunk(&mut body, &[b'x'; 1024]);
    }
    body.extend_from_slice(b"0\r\n\r\n");

    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("16 chunks of 1 KiB", |bencher| {
        bencher.iter(|| {
            let (mut input, mut payload_len) = (black_box(body.as_slice()), 0);
            let mut decoder = BodyDecoder::new(Framing::Chunked);
            while let Step::Data { data, used } = decoder.decode(input).unwrap() {
                payload_len += data.len();
                input = &input[used..];
            }
            payload_len
        });
    });
    group.finish();
}

criterion_group!(benches, parse, encode, decode);
criterion_main!(benches);
