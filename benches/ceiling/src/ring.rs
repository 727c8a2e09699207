//! The loop: multishot accept, multishot receive into a ring of buffers, one send in flight a
//! connection, one enter a turn.

use std::alloc::{Layout, alloc_zeroed};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::{io, ptr, slice};

use io_uring::types::{BufRingEntry, Fd, TimeoutFlags, Timespec};
use io_uring::{IoUring, SubmissionQueue, Submitter, cqueue, opcode, squeue};

use crate::Sheet;

const SQ_ENTRIES: u32 = 4096;
const CQ_ENTRIES: u32 = 4 * SQ_ENTRIES; // one turn's completions of thousands of connections
const BUFFER_LEN: usize = 2048;
const GROUP: u16 = 0;

// user_data is what completed, and the descriptor it belongs to: op | fd << 8. A descriptor is
// closed only when its receive and its send are done, so no completion can outlive it.
const ACCEPT: u64 = 0;
const RECV: u64 = 1;
const SEND: u64 = 2;
const TICK: u64 = 3;
const IGNORE: u64 = 4; // close and cancel: what they end completes by itself

static SECOND: Timespec = Timespec::new().sec(1);

/// Serves until the ring fails.
pub fn serve(listener: &TcpListener, sheet: Sheet, buffers: u16, churn: bool) -> io::Result<()> {
    let mut ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_cqsize(CQ_ENTRIES)
        .build(SQ_ENTRIES)?;
    let (submitter, sq, mut cq) = ring.split();
    let buffers = Buffers::new(&submitter, buffers)?;
    let out = Out { submitter, sq };
    let listener = listener.as_raw_fd();
    let mut server =
        Server { listener, out, buffers, sheet, counter: Counter::default(), conns: vec![], churn };
    server.accept();
    server.tick();
    loop {
        server.out.enter(1)?;
        cq.sync();
        for completion in &mut cq {
            server.on_completion(&completion)?;
        }
        cq.sync(); // what was read is free, or the next wait would return at once
    }
}

struct Server<'a> {
    listener: i32,
    out: Out<'a>,
    buffers: Buffers,
    sheet: Sheet,
    counter: Counter,
    conns: Vec<Conn>, // by descriptor
    churn: bool,
}

#[derive(Clone, Default)]
struct Conn {
    matched: u8,  // how much of a blank line the last buffer ended with
    owed: u32,    // requests received and not yet answered
    sending: u32, // bytes of the send in flight
    receiving: bool,
    closing: bool,
}

impl Server<'_> {
    fn on_completion(&mut self, completion: &cqueue::Entry) -> io::Result<()> {
        let (op, fd) = (completion.user_data() & 0xff, (completion.user_data() >> 8) as i32);
        let more = cqueue::more(completion.flags());
        match op {
            ACCEPT => self.on_accept(completion.result(), more)?,
            RECV => self.on_recv(fd, completion.result(), completion.flags(), more),
            SEND => self.on_send(fd, completion.result()),
            TICK => {
                self.sheet.refresh_date();
                if !more {
                    self.tick();
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn on_accept(&mut self, result: i32, more: bool) -> io::Result<()> {
        if !more {
            self.accept();
        }
        match result {
            fd if fd >= 0 => {
                if self.conns.len() <= fd as usize {
                    self.conns.resize(fd as usize + 1, Conn::default());
                }
                self.conns[fd as usize] = Conn::default();
                self.receive(fd);
                Ok(())
            }
            error if error == -libc::ECONNABORTED => Ok(()),
            error => Err(io::Error::from_raw_os_error(-error)), // out of descriptors, say
        }
    }

    fn on_recv(&mut self, fd: i32, result: i32, flags: u32, more: bool) {
        let conn = &mut self.conns[fd as usize];
        conn.receiving = more;
        if let Some(id) = cqueue::buffer_select(flags) {
            let bytes = self.buffers.filled(id, result.max(0) as usize);
            conn.owed += self.counter.count(&mut conn.matched, bytes);
            self.buffers.give_back(id);
        }
        // Out of buffers is no end: by the next enter all of them have been given back.
        if result <= 0 && result != -libc::ENOBUFS {
            conn.closing = true;
        }
        let done = conn.closing || (self.churn && conn.owed > 0);
        if !more && !done {
            self.receive(fd);
        }
        self.advance(fd);
    }

    fn on_send(&mut self, fd: i32, result: i32) {
        let conn = &mut self.conns[fd as usize];
        // MSG_WAITALL: less than everything means that the peer has gone.
        conn.closing |= self.churn || result != conn.sending as i32;
        conn.sending = 0;
        if conn.closing && conn.receiving {
            let recv = user_data(RECV, fd);
            self.out.push(opcode::AsyncCancel::new(recv).build(), IGNORE);
        }
        self.advance(fd);
    }

    /// Sends what is owed, or closes when nothing is in flight any more.
    fn advance(&mut self, fd: i32) {
        let conn = &mut self.conns[fd as usize];
        if conn.sending > 0 {
            return;
        }
        if conn.closing {
            if !conn.receiving {
                self.out.push(opcode::Close::new(Fd(fd)).build(), IGNORE);
            }
        } else if conn.owed > 0 {
            let copies = conn.owed.min(self.sheet.copies() as u32);
            conn.owed -= copies;
            conn.sending = copies * self.sheet.response_len as u32;
            let send = opcode::Send::new(Fd(fd), self.sheet.bytes.as_ptr(), conn.sending)
                .flags(libc::MSG_WAITALL)
                .build();
            self.out.push(send, user_data(SEND, fd));
        }
    }

    fn receive(&mut self, fd: i32) {
        self.conns[fd as usize].receiving = true;
        let recv = if self.churn {
            opcode::Recv::new(Fd(fd), ptr::null_mut(), BUFFER_LEN as u32)
                .buf_group(GROUP)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT)
        } else {
            opcode::RecvMulti::new(Fd(fd), GROUP).build()
        };
        self.out.push(recv, user_data(RECV, fd));
    }

    fn accept(&mut self) {
        self.out.push(opcode::AcceptMulti::new(Fd(self.listener)).build(), ACCEPT);
    }

    fn tick(&mut self) {
        let every_second = opcode::Timeout::new(&SECOND).flags(TimeoutFlags::MULTISHOT).build();
        self.out.push(every_second, TICK);
    }
}

fn user_data(op: u64, fd: i32) -> u64 {
    op | (fd as u64) << 8
}

/// The way into the kernel.
struct Out<'a> {
    submitter: Submitter<'a>,
    sq: SubmissionQueue<'a>,
}

impl Out<'_> {
    fn push(&mut self, entry: squeue::Entry, user_data: u64) {
        if self.sq.is_full() {
            self.enter(0).expect("submitting to make room");
        }
        // SAFETY: whatever an entry points to outlives it: the sheet and the buffers live as
        // long as the server and never move, SECOND is a static, and descriptors stay open
        // until nothing is in flight on them.
        unsafe { self.sq.push(&entry.user_data(user_data)) }.expect("there is room");
    }

    /// Submits, and waits until `want` completions are there.
    fn enter(&mut self, want: usize) -> io::Result<()> {
        self.sq.sync();
        let entered = self.submitter.submit_and_wait(want);
        self.sq.sync();
        match entered {
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => Ok(()),
            entered => entered.map(drop),
        }
    }
}

/// Counts blank lines. A load generator repeats itself, so a buffer that equals the one before
/// is counted by comparing: exact, and cheaper than a search.
#[derive(Default)]
struct Counter {
    last: Vec<u8>,
    last_count: u32,
}

impl Counter {
    fn count(&mut self, matched: &mut u8, bytes: &[u8]) -> u32 {
        let fresh = *matched == 0;
        if fresh && self.last == bytes {
            return self.last_count;
        }
        let mut count = 0;
        for &byte in bytes {
            *matched = match (*matched, byte) {
                (0 | 2, b'\r') | (1 | 3, b'\n') => *matched + 1,
                (_, b'\r') => 1,
                _ => 0,
            };
            if *matched == 4 {
                (*matched, count) = (0, count + 1);
            }
        }
        if fresh && *matched == 0 {
            self.last.clear();
            self.last.extend_from_slice(bytes);
            self.last_count = count;
        }
        count
    }
}

/// Receive buffers and the ring through which the kernel is given them. Never freed.
struct Buffers {
    ring: *mut BufRingEntry,
    bytes: *mut u8,
    mask: u16,
    tail: u16,
}

impl Buffers {
    fn new(submitter: &Submitter<'_>, count: u16) -> io::Result<Self> {
        let zeroed = |size| {
            let layout = Layout::from_size_align(size, 4096).expect("a power of two");
            // SAFETY: `size` is positive, as `count` is a power of two.
            unsafe { alloc_zeroed(layout) }
        };
        let ring = zeroed(usize::from(count) * size_of::<BufRingEntry>());
        let bytes = zeroed(usize::from(count) * BUFFER_LEN);
        if ring.is_null() || bytes.is_null() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        // SAFETY: page-aligned memory of `count` entries, and it is never freed.
        unsafe { submitter.register_buf_ring_with_flags(ring as u64, count, GROUP, 0)? };
        let mut buffers = Self { ring: ring.cast(), bytes, mask: count - 1, tail: 0 };
        (0..count).for_each(|id| buffers.give_back(id));
        Ok(buffers)
    }

    fn filled(&self, id: u16, len: usize) -> &[u8] {
        // SAFETY: the kernel has filled `len` bytes of buffer `id`, all of them zeroed before,
        // and leaves it alone until it is given back, which borrows `self` mutably.
        unsafe { slice::from_raw_parts(self.bytes.add(usize::from(id) * BUFFER_LEN), len) }
    }

    fn give_back(&mut self, id: u16) {
        // SAFETY: the entry at `tail` is ours until the tail moves past it: as many buffers as
        // entries, so at least this one's entry is free. The tail overlays a field of the first
        // entry that the setters don't touch, and the kernel reads it atomically.
        unsafe {
            let entry = &mut *self.ring.add(usize::from(self.tail & self.mask));
            entry.set_addr(self.bytes.add(usize::from(id) * BUFFER_LEN) as u64);
            entry.set_len(BUFFER_LEN as u32);
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(self.ring).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Counter;

    #[test]
    fn every_split_counts_the_same() {
        let whole = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /\r\r\n\r\n\r\n\r\n";
        for first in 0..whole.len() {
            for second in first..whole.len() {
                let (mut counter, mut matched) = (Counter::default(), 0);
                let parts = [&whole[..first], &whole[first..second], &whole[second..]];
                let count: u32 = parts.iter().map(|part| counter.count(&mut matched, part)).sum();
                assert_eq!((count, matched), (3, 0), "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn a_repeated_buffer_counts_again_only_from_the_same_state() {
        let (mut counter, mut matched) = (Counter::default(), 0);
        assert_eq!(counter.count(&mut matched, b"\r\n\r\n"), 1);
        assert_eq!(counter.count(&mut matched, b"\r\n\r\n"), 1);
        assert_eq!(counter.count(&mut matched, b"\r\n"), 0);
        assert_eq!(counter.count(&mut matched, b"\r\n\r\n"), 1);
        assert_eq!(matched, 2);
    }
}
