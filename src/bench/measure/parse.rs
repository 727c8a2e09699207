//! What the kernel's files under /proc say, as numbers. Pure: text in, numbers out; `None` where a
//! kernel doesn't tell. Formats are those of proc(5) and of the kernel's Documentation.

use std::net::{IpAddr, SocketAddr};

/// `/proc/PID/task/TID/schedstat`: nanoseconds on a core, nanoseconds of waiting for one.
pub(super) fn schedstat(text: &str) -> Option<(u64, u64)> {
    let mut fields = text.split_ascii_whitespace().map(str::parse);
    Some((fields.next()?.ok()?, fields.next()?.ok()?))
}

/// Of `/proc/PID/stat`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Stat {
    pub(super) name: String,
    pub(super) parent: u32,
    /// Clock ticks of children that have ended and were waited for.
    pub(super) reaped_ticks: u64,
    /// Clock ticks after boot: with the pid, it names a process for good.
    pub(super) started: u64,
}

/// `/proc/PID/stat`. The name may contain anything, also spaces and parentheses.
pub(super) fn stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.split_once('(')?;
    let (name, rest) = rest.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect(); // from field 3 on
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        name: name.to_owned(),
        parent: u32::try_from(number(4)?).ok()?,
        reaped_ticks: number(16)? + number(17)?,
        started: number(22)?,
    })
}

/// `/proc/net/tcp` and `tcp6`: where sockets listen, with their inodes.
pub(super) fn tcp_listeners(text: &str) -> Vec<(SocketAddr, u64)> {
    const LISTEN: &str = "0A";
    let of_line = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        if *fields.get(3)? != LISTEN {
            return None;
        }
        let (ip, port) = fields.get(1)?.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        // Words of four bytes, each as this machine reads one.
        let mut bytes = [0; 16];
        for (at, word) in bytes.chunks_exact_mut(4).zip((0..ip.len()).step_by(8)) {
            let word = u32::from_str_radix(ip.get(word..word + 8)?, 16).ok()?;
            at.copy_from_slice(&word.to_ne_bytes());
        }
        let ip = match ip.len() {
            8 => IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]),
            32 => IpAddr::from(bytes),
            _ => return None,
        };
        Some((SocketAddr::new(ip, port), fields.get(9)?.parse().ok()?))
    };
    text.lines().skip(1).filter_map(of_line).collect()
}

/// `/proc/net/unix`: inodes of the sockets that listen at a path.
pub(super) fn unix_listeners(text: &str, path: &str) -> impl Iterator<Item = u64> {
    /// `__SO_ACCEPTCON`, the flag of a socket that listens.
    const ACCEPTS: u32 = 1 << 16;
    text.lines().skip(1).filter_map(move |line| {
        let mut fields = line.split_ascii_whitespace().skip(3);
        let flags = u32::from_str_radix(fields.next()?, 16).ok()?;
        let inode = fields.nth(2)?.parse().ok()?;
        (flags & ACCEPTS != 0 && line.split_once(&format!(" {inode} "))?.1.trim() == path)
            .then_some(inode)
    })
}

/// Clock ticks of all cores together, from `/proc/stat`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Cores {
    pub(super) count: u64,
    pub(super) all: u64,
    /// Including the time that is booked as waiting for disks, or for a ring.
    pub(super) idle: u64,
    /// The hypervisor gave them to another guest.
    pub(super) stolen: u64,
    pub(super) softirq: u64,
}

/// `/proc/stat`.
pub(super) fn cores(text: &str) -> Option<Cores> {
    let fields: Vec<u64> = text
        .lines()
        .find_map(|line| line.strip_prefix("cpu "))?
        .split_ascii_whitespace()
        .map(|field| field.parse().unwrap_or(0))
        .collect();
    // user nice system idle iowait irq softirq steal; guests' time is within user and nice.
    let field = |number: usize| fields.get(number).copied().unwrap_or(0);
    let is_core = |line: &&str| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    Some(Cores {
        count: text.lines().filter(is_core).count() as u64,
        all: fields.iter().take(8).sum(),
        idle: field(3) + field(4),
        stolen: field(7),
        softirq: field(6),
    })
}

/// `/proc/pressure/{cpu,io}`: microseconds in which some task could not go on for want of it.
pub(super) fn pressure(text: &str) -> Option<u64> {
    let some = text.lines().find(|line| line.starts_with("some"))?;
    some.split_once("total=")?.1.trim().parse().ok()
}

/// A value of `/proc/net/snmp` or `/proc/net/netstat`: lines in pairs, names and then values.
pub(super) fn counter(text: &str, table: &str, name: &str) -> Option<u64> {
    let mut lines = text
        .lines()
        .filter_map(|line| line.strip_prefix(table)?.strip_prefix(':'))
        .map(str::split_ascii_whitespace);
    let place = lines.next()?.position(|known| known == name)?;
    lines.next()?.nth(place)?.parse().ok()
}

/// `/proc/PID/task/TID/status`: switches to another task, wanted and unwanted.
pub(super) fn switches(text: &str) -> Option<(u64, u64)> {
    let value =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok();
    Some((value("voluntary_ctxt_switches:")?, value("nonvoluntary_ctxt_switches:")?))
}

/// Requests of each worker so far, by its number, from the `/status` document of this project's
/// servers.
pub(super) fn workers(document: &str) -> Option<Vec<(u64, u64)>> {
    let document: serde_json::Value = serde_json::from_str(document).ok()?;
    let of_worker = |worker: &serde_json::Value| {
        Some((worker.get("worker_id")?.as_u64()?, worker.get("total_requests")?.as_u64()?))
    };
    document.get("workers")?.as_array()?.iter().map(of_worker).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_that_listen_are_found() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0
   1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 4712 1 0
   2: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0:0 00:0 0  0  0 4713 1 0
";
        let expected =
            [("127.0.0.1:8080".parse().unwrap(), 4711), ("[::1]:80".parse().unwrap(), 4713)];
        assert_eq!(tcp_listeners(text), expected);
        let text = "Num       RefCount Protocol Flags    Type St Inode Path
ffff888: 00000002 00000000 00010000 0001 01 815 /run/a b
ffff888: 00000003 00000000 00000000 0001 03 816 /run/a b
ffff888: 00000002 00000000 00010000 0001 01 817 @name
ffff888: 00000002 00000000 00010000 0001 01 818
";
        assert_eq!(unix_listeners(text, "/run/a b").collect::<Vec<_>>(), [815]);
        assert_eq!(unix_listeners(text, "@name").collect::<Vec<_>>(), [817]);
        assert_eq!(unix_listeners(text, "").count(), 0);
    }

    #[test]
    fn what_a_real_kernel_said_is_understood() {
        assert_eq!(schedstat("5123456 6512071 17\n"), Some((5_123_456, 6_512_071)));
        let text = "4242 (nginx: (w) 1) S 4240 4240 4240 0 -1 4194624 1188 9 0 0 31 77 5 6 20 0 1 0 \
                    988777 10002432 1544 18446744073709551615 1 1 0 0 0 0 0 1073746048";
        let expected = Stat {
            name: "nginx: (w) 1".to_owned(),
            parent: 4240,
            reaped_ticks: 11,
            started: 988_777,
        };
        assert_eq!(stat(text), Some(expected));
        let text = "cpu  220285 5 55639 119363 18907 1 20690 277 9 0\n\
                    cpu0 106190 0 27687 65801 9811 0 7569 136 0 0\n\
                    cpu1 114095 0 27951 53561 9096 0 13121 141 0 0\nintr 1 2 3\nctxt 5\n";
        let all = 220_285 + 5 + 55_639 + 119_363 + 18_907 + 1 + 20_690 + 277;
        let expected = Cores { count: 2, all, idle: 138_270, stolen: 277, softirq: 20_690 };
        assert_eq!(cores(text), Some(expected));
        let text = "some avg10=88.53 avg60=60.80 avg300=63.58 total=798812228\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        assert_eq!(pressure(text), Some(798_812_228));
        let text = "Ip: Forwarding DefaultTTL\nIp: 2 64\n\
                    Tcp: RtoAlgorithm OutSegs RetransSegs InErrs\nTcp: 1 115421440 20 0\n";
        assert_eq!(counter(text, "Tcp", "RetransSegs"), Some(20));
        assert_eq!(counter(text, "Tcp", "OutSegs"), Some(115_421_440));
        let text = "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 0 3 19\n\
                    MPTcpExt: ListenOverflows\nMPTcpExt: 5\n";
        assert_eq!(counter(text, "TcpExt", "ListenDrops"), Some(19));
        let text = "Name:\tx\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t3\n";
        assert_eq!(switches(text), Some((12, 3)));
        let text = r#"{"is_running":true,"workers":[{"worker_id":0,"total_requests":7,"pid":1},
                       {"worker_id":1,"total_requests":9,"pid":2}]}"#;
        assert_eq!(workers(text), Some(vec![(0, 7), (1, 9)]));
    }

    #[test]
    fn this_kernel_is_understood() {
        let read = |path: &str| std::fs::read_to_string(path).unwrap();
        assert!(schedstat(&read("/proc/thread-self/schedstat")).is_some());
        let own = stat(&read("/proc/self/stat")).unwrap();
        assert_eq!(u64::from(own.parent), u64::from(std::os::unix::process::parent_id()));
        let cores = cores(&read("/proc/stat")).unwrap();
        assert!(cores.count >= 1 && cores.all > cores.idle);
        assert!(counter(&read("/proc/net/snmp"), "Tcp", "RetransSegs").is_some());
        assert!(counter(&read("/proc/net/netstat"), "TcpExt", "ListenOverflows").is_some());
        assert!(switches(&read("/proc/self/status")).is_some());
    }

    #[test]
    fn rubbish_is_nothing() {
        for text in
            ["", "\n", ":", "cpu", "cpu ", "1 (", "1 (x) S", "Tcp:", "Tcp: A\n", "{}", "some"]
        {
            assert_eq!((schedstat(text), stat(text), switches(text)), (None, None, None), "{text}");
            assert_eq!((pressure(text), counter(text, "Tcp", "A")), (None, None), "{text}");
            assert_eq!(workers(text), None);
        }
        assert_eq!(cores("cpu x y\n").map(|cores| cores.all), Some(0));
    }
}
