//! Bare connections on a simulated kernel: handlers that read, write and change their minds.

use std::io;
use std::time::Duration;

use uring_ring::sim::{Client, Fault, Faults, Plan, Rng};

use super::super::*;
use super::simulation::{LIMIT, Stage, TURNS_MAX};
use crate::figures::Counter;

const LINE_BYTES_MAX: usize = 4096;

/// Answers each line with itself, in some way that its first letter says.
async fn answer_lines(stream: rt::Stream, _: ConnMeta) -> io::Result<()> {
    let (mut reader, mut writer) = stream.into_split();
    let mut line = Vec::new();
    loop {
        line.clear();
        // Whoever gives up on a read goes on where it left off.
        while !line.ends_with(b"\n") {
            let read = reader.read_until(b'\n', &mut line, LINE_BYTES_MAX);
            match rt::timeout(Duration::from_millis(1), rt::until_draining(read)).await {
                Ok(Some(Ok(0)) | None) => return Ok(()),
                Ok(Some(Err(error))) => return Err(error),
                Ok(Some(Ok(_))) => {}
                Err(_) => writer.write_all(b"").await?, // the rest of what nobody waited for
            }
        }
        match line[0] {
            b's' => rt::sleep(Duration::from_millis(2)).await,
            // Nor does anything get lost of a write that was given up.
            b'i' => {
                let _impatient = rt::timeout(Duration::ZERO, writer.write_all(&line)).await;
                continue;
            }
            b'b' => {
                writer.write_bytes(line.clone().into()).await?;
                continue;
            }
            b't' => {
                // A task of its own, which has the stream meanwhile.
                let bytes = line.clone();
                let write = async move { (writer.write_all(&bytes).await, writer) };
                let (result, back) = rt::spawn(write).await.expect("it doesn't panic");
                writer = back;
                result?;
                continue;
            }
            _ => {}
        }
        writer.write_all(&line).await?;
    }
}

struct Talker {
    client: Client,
    script: Vec<u8>,
    written: usize,
    heard: Vec<u8>,
    has_broken_off: bool,
}

impl Talker {
    fn new(client: Client, rng: &mut Rng) -> Talker {
        if rng.chance(300) {
            client.set_window(64 + rng.below(2000));
        }
        let mut script = Vec::new();
        for _ in 0..=rng.below(8) {
            script.push(b"esibt"[rng.below(5)]);
            script.resize(script.len() + rng.below(LINE_BYTES_MAX - 2), b'.');
            script.push(b'\n');
        }
        Talker { client, script, written: 0, heard: Vec::new(), has_broken_off: false }
    }

    fn act(&mut self, rng: &mut Rng) {
        if self.written < self.script.len() {
            let count = 1 + rng.below((self.script.len() - self.written).min(700));
            self.client.write(&self.script[self.written..self.written + count]);
            self.written += count;
            if rng.chance(5) {
                self.client.reset();
                self.has_broken_off = true;
            }
        }
        if rng.chance(700) {
            self.heard.extend(self.client.read());
        }
    }

    fn is_done(&self) -> bool {
        let has_heard_all = self.heard.len() == self.script.len();
        has_heard_all || self.has_broken_off || self.client.is_closed() || self.client.saw_end()
    }

    fn judge(&mut self, why: &str) {
        self.heard.extend(self.client.read());
        assert!(self.script.starts_with(&self.heard), "{why}: it heard something else");
        let is_broken = self.has_broken_off || self.client.saw_reset();
        assert!(is_broken || self.heard.len() == self.script.len(), "{why}: answers are missing");
    }
}

fn run(seed: u64, faults: Faults) {
    let why = format!("seed {seed}");
    let mut rng = Rng::new(!seed);
    let connections_max = if rng.chance(300) { 1 + rng.below(3) } else { 1000 };
    let mut stage = Stage::bare(Plan { seed, faults }, connections_max, server(answer_lines));
    let page = stage.worker().page;
    let totals =
        || [&page.traffic.connections_total, &page.traffic.connections_closed].map(Counter::read);
    let before = totals();
    let (mut talkers, mut to_come, mut turns) = (Vec::<Talker>::new(), 1 + rng.below(5), 0);
    while to_come > 0 || !talkers.iter().all(Talker::is_done) {
        if to_come > 0 && rng.chance(300) {
            talkers.push(Talker::new(stage.world.connect(&stage.listener), &mut rng));
            to_come -= 1;
        }
        for talker in &mut talkers {
            if rng.chance(600) {
                talker.act(&mut rng);
            }
            if talker.is_done() && connections_max < 5 {
                talker.client.close(); // make room for those that wait
            }
        }
        stage.world.feed(&stage.bell, &1_u64.to_ne_bytes());
        stage.world.advance(Duration::from_micros(rng.below(3000) as u64));
        assert_eq!(stage.turn(), Turn::Continue, "{why}");
        assert!(stage.worker().open() <= connections_max, "{why}");
        turns += 1;
        assert!(turns < TURNS_MAX, "{why}: it gets nowhere");
    }
    talkers.iter_mut().for_each(|talker| talker.judge(&why));
    let end = Message::Shutdown { deadline_ms: 10_000 };
    stage.world.feed(&stage.channel, &LIMIT.encode(&end).unwrap());
    while stage.turn() == Turn::Continue {
        turns += 1;
        assert!(turns < 2 * TURNS_MAX, "{why}: it never stops");
    }
    let [opened, closed] = totals();
    assert_eq!(opened - before[0], closed - before[1], "{why}: each is closed once");
    let is_faultless = faults == Faults::NONE && !talkers.iter().any(|it| it.has_broken_off);
    assert!(!is_faultless || opened - before[0] == talkers.len() as u64, "{why}");
    assert_eq!(page.traffic.connections.read(), 0, "{why}");
    stage.assert_empty(0, &why);
}

#[test]
fn thousands_of_seeds_with_every_fault_lose_and_leak_nothing() {
    (0..3000).for_each(|seed| run(seed, Faults::ALL));
}

#[test]
fn without_faults_each_line_is_answered() {
    (0..300).for_each(|seed| run(seed, Faults::NONE));
}

#[test]
fn one_fault_alone_is_survived_even_when_it_is_frequent() {
    for fault in Fault::EACH {
        (0..50).for_each(|seed| run(seed, Faults::NONE.with(fault, 400)));
    }
}
