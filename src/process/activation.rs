//! Socket activation, `sd_listen_fds(3)`: listening sockets that the service manager made and this
//! process inherited. Binds nothing, accepts nothing.

use std::env;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::process;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::socket::{SockType, SockaddrStorage, getsockname, getsockopt, sockopt};

use super::listen::set_for_accepted;
use super::sys;
use crate::config::Address;

/// The first inherited descriptor, `SD_LISTEN_FDS_START`.
const FIRST: RawFd = 3;

/// More than any configuration has addresses; a larger number is a mistake.
const SOCKETS_MAX: u32 = 1024;

/// A listening socket that was there when the program started.
#[derive(Debug)]
pub(crate) struct Inherited {
    /// Where it listens, with the port that it really has.
    pub(crate) address: Address,
    /// Blocking, as a ring wants it, and closed in whatever is executed.
    pub(crate) socket: OwnedFd,
    /// `FileDescriptorName=` of its unit.
    pub(crate) name: Option<String>,
}

/// Takes the inherited sockets, in their order: none when the environment speaks of none, or to
/// another process. Taken once: later calls find none.
///
/// # Errors
///
/// The environment contradicts itself, or a descriptor is no listening stream socket with an
/// address that [`Address`] has.
pub(crate) fn take_inherited() -> Result<Vec<Inherited>, ActivationError> {
    let [count, pid, names] =
        ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"].map(|name| env::var(name).ok());
    let names = promised(count.as_deref(), pid.as_deref(), names.as_deref(), process::id())?;
    let descriptors = sys::take_inherited(FIRST, names.len()).map_err(|(fd, error)| {
        ActivationError::Descriptor { fd, fault: Fault::System(Errno::from_raw(errno(&error))) }
    })?;
    let prepared = |(socket, name): (OwnedFd, Option<String>)| {
        let fd = socket.as_raw_fd();
        let address =
            prepare(&socket).map_err(|fault| ActivationError::Descriptor { fd, fault })?;
        Ok(Inherited { address, socket, name })
    };
    descriptors.into_iter().zip(names).map(prepared).collect()
}

/// The names of the sockets that the environment promises to this process.
fn promised(
    count: Option<&str>,
    pid: Option<&str>,
    names: Option<&str>,
    own_pid: u32,
) -> Result<Vec<Option<String>>, ActivationError> {
    let number = |variable, text: &str| {
        let value = text.to_owned();
        text.parse::<u32>().map_err(|_| ActivationError::Variable { variable, value })
    };
    let (Some(count), Some(pid)) = (count, pid) else { return Ok(Vec::new()) };
    if number("LISTEN_PID", pid)? != own_pid {
        return Ok(Vec::new()); // our parent's, whose variables we inherited
    }
    let number = number("LISTEN_FDS", count)?;
    if number > SOCKETS_MAX {
        let value = count.to_owned();
        return Err(ActivationError::Variable { variable: "LISTEN_FDS", value });
    }
    let Some(names) = names else { return Ok(vec![None; number as usize]) };
    let listed: Vec<_> = names.split(':').map(|name| Some(name.to_owned())).collect();
    match number as usize {
        0 => Ok(Vec::new()),
        number if listed.len() == number => Ok(listed),
        _ => Err(ActivationError::Variable { variable: "LISTEN_FDNAMES", value: names.to_owned() }),
    }
}

/// Whether this is a socket that workers can accept from; makes it like one of our own.
fn prepare(socket: &OwnedFd) -> Result<Address, Fault> {
    let kind = getsockopt(socket, sockopt::SockType).map_err(|errno| match errno {
        Errno::ENOTSOCK => Fault::NoSocket,
        errno => Fault::System(errno),
    })?;
    if kind != SockType::Stream {
        return Err(Fault::NoStream);
    }
    if !getsockopt(socket, sockopt::AcceptConn)? {
        return Err(Fault::NotListening);
    }
    let address = address_of(socket)?;
    fcntl(socket.as_fd(), FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // An accept through a ring would end with EAGAIN instead of waiting for a connection.
    let flags = OFlag::from_bits_retain(fcntl(socket.as_fd(), FcntlArg::F_GETFL)?);
    fcntl(socket.as_fd(), FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
    if matches!(address, Address::Tcp(_)) {
        set_for_accepted(socket).map_err(|error| Errno::from_raw(errno(&error)))?;
    }
    Ok(address)
}

fn address_of(socket: &OwnedFd) -> Result<Address, Fault> {
    let address: SockaddrStorage = getsockname(socket.as_raw_fd())?;
    if let Some(v4) = address.as_sockaddr_in() {
        return Ok(Address::Tcp(std::net::SocketAddrV4::from(*v4).into()));
    }
    if let Some(v6) = address.as_sockaddr_in6() {
        return Ok(Address::Tcp(std::net::SocketAddrV6::from(*v6).into()));
    }
    let path = address.as_unix_addr().and_then(|unix| unix.path());
    path.map(|path| Address::Unix(path.to_owned())).ok_or(Fault::NoAddress)
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// Inherited sockets that can't be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ActivationError {
    /// A variable of the environment makes no sense.
    Variable {
        /// Its name.
        variable: &'static str,
        /// What it says.
        value: String,
    },
    /// A descriptor is not what it should be.
    Descriptor {
        /// Its number.
        fd: RawFd,
        /// What is wrong with it.
        fault: Fault,
    },
}

/// What is wrong with an inherited descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A file, a pipe, or whatever else.
    NoSocket,
    /// A socket for datagrams or packets.
    NoStream,
    /// A connection, for example: `Accept=yes` passes those.
    NotListening,
    /// An abstract Unix socket, or one that is neither TCP nor Unix.
    NoAddress,
    /// The kernel refused; `EBADF` when there is no such descriptor.
    System(Errno),
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Fault {
        Fault::System(errno)
    }
}

impl ActivationError {
    /// A name for programs, which stays the same whatever the words become.
    pub fn code(&self) -> &'static str {
        match self {
            ActivationError::Variable { .. } => "ACTIVATION_VARIABLE",
            ActivationError::Descriptor { .. } => "ACTIVATION_SOCKET",
        }
    }
}

impl fmt::Display for ActivationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (fd, fault) = match self {
            ActivationError::Variable { variable, value } => {
                return write!(
                    f,
                    "the variable {variable} is `{value}`, which is not what a service manager \
                     sets: unset it, or see sd_listen_fds(3)"
                );
            }
            ActivationError::Descriptor { fd, fault } => (fd, fault),
        };
        write!(f, "cannot serve the inherited descriptor {fd}: ")?;
        match fault {
            Fault::NoSocket => {
                f.write_str("it is no socket (use ListenStream= in the .socket unit)")
            }
            Fault::NoStream => {
                f.write_str("it is no stream socket (use ListenStream= in the .socket unit)")
            }
            Fault::NotListening => {
                f.write_str("it does not listen (use Accept=no in the .socket unit)")
            }
            Fault::NoAddress => {
                f.write_str("it has neither a TCP address nor the path of a Unix socket")
            }
            Fault::System(errno) => f.write_str(errno.desc()),
        }
    }
}

impl std::error::Error for ActivationError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::UnixListener;
    use std::process::{Command, Stdio};

    fn names(count: &str, pid: &str, names: Option<&str>) -> Result<Vec<Option<String>>, String> {
        promised(Some(count), Some(pid), names, 7).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_promised_to_this_process_is_counted_and_named() {
        assert_eq!(names("2", "7", None), Ok(vec![None, None]));
        let web = Some("web".to_owned());
        assert_eq!(names("2", "7", Some("web:")), Ok(vec![web, Some(String::new())]));
        assert_eq!(names("0", "7", Some("")), Ok(vec![]));
        assert_eq!(names("2", "8", None), Ok(vec![]), "another process's");
        assert_eq!(promised(None, Some("7"), None, 7), Ok(vec![]));
        assert_eq!(promised(Some("2"), None, None, 7), Ok(vec![]));
    }

    #[test]
    fn an_environment_that_makes_no_sense_is_refused_by_its_variable() {
        for (count, pid, listed, variable) in [
            ("two", "7", None, "LISTEN_FDS is `two`"),
            ("-1", "7", None, "LISTEN_FDS is `-1`"),
            ("1025", "7", None, "LISTEN_FDS is `1025`"),
            ("2", "me", None, "LISTEN_PID is `me`"),
            ("2", "7", Some("web"), "LISTEN_FDNAMES is `web`"),
        ] {
            let refusal = names(count, pid, listed).unwrap_err();
            assert!(refusal.contains(variable), "{refusal}");
        }
    }

    #[test]
    fn a_listening_socket_becomes_like_one_of_our_own() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let socket = OwnedFd::from(listener);
        assert_eq!(prepare(&socket), Ok(address));
        let flags = OFlag::from_bits_retain(fcntl(&socket, FcntlArg::F_GETFL).unwrap());
        assert!(!flags.contains(OFlag::O_NONBLOCK));
        assert_eq!(fcntl(&socket, FcntlArg::F_GETFD), Ok(FdFlag::FD_CLOEXEC.bits()));
        assert!(getsockopt(&socket, sockopt::TcpNoDelay).unwrap());
        if let Ok(listener) = TcpListener::bind("[::1]:0") {
            let address = Address::Tcp(listener.local_addr().unwrap());
            assert_eq!(prepare(&listener.into()), Ok(address));
        }
    }

    #[test]
    fn what_cannot_be_accepted_from_is_refused_with_a_way_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let name = format!("uring-pool-activation-{}", process::id());
        let nameless = {
            use std::os::linux::net::SocketAddrExt;
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
            UnixListener::bind_addr(&address).unwrap()
        };
        for (descriptor, fault, words) in [
            (File::open("/dev/null").unwrap().into(), Fault::NoSocket, "no socket"),
            (UdpSocket::bind("127.0.0.1:0").unwrap().into(), Fault::NoStream, "ListenStream="),
            (connection.into(), Fault::NotListening, "Accept=no"),
            (nameless.into(), Fault::NoAddress, "neither a TCP address"),
        ] {
            let descriptor: OwnedFd = descriptor;
            assert_eq!(prepare(&descriptor), Err(fault));
            let error = ActivationError::Descriptor { fd: 3, fault };
            assert!(error.to_string().contains("inherited descriptor 3: "), "{error}");
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(error.code(), "ACTIVATION_SOCKET");
        }
    }

    /// What a child says that has these at 3 and 4: the shell moves them there, and the variables
    /// name its process, which becomes that of the test below.
    fn said_by_a_child(third: OwnedFd, fourth: OwnedFd) -> String {
        let test = "process::activation::tests::a_child_takes_its_sockets";
        let script = "exec env LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=web:local \
                      \"$@\" 3<&0 4<&1 0</dev/null 1>&2";
        let output = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(env::current_exe().unwrap())
            .args(["--exact", test, "--ignored", "--nocapture"])
            .stdin(Stdio::from(third))
            .stdout(Stdio::from(fourth))
            .output()
            .unwrap();
        String::from_utf8(output.stderr).unwrap()
    }

    #[test]
    #[ignore = "runs in the child of the others"]
    fn a_child_takes_its_sockets() {
        match take_inherited() {
            Err(error) => eprintln!("error: {error}"),
            Ok(taken) => {
                for Inherited { address, socket, name } in &taken {
                    eprintln!("socket {} {address} {name:?}", socket.as_raw_fd());
                }
                eprintln!("again {}", take_inherited().unwrap().len());
            }
        }
    }

    #[test]
    fn sockets_at_three_and_four_are_taken_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let (tcp, unix) =
            (TcpListener::bind("127.0.0.1:0").unwrap(), UnixListener::bind(&path).unwrap());
        let port = tcp.local_addr().unwrap().port();
        let said = said_by_a_child(tcp.into(), unix.into());
        for line in [
            format!("socket 3 http://127.0.0.1:{port} Some(\"web\")"),
            format!("socket 4 unix:{} Some(\"local\")", path.display()),
            "again 0".to_owned(),
        ] {
            assert!(said.lines().any(|found| found == line), "no `{line}` in {said}");
        }
    }

    #[test]
    fn a_file_among_them_is_named() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let said = said_by_a_child(tcp.into(), File::open("/dev/null").unwrap().into());
        assert!(said.contains("error: cannot serve the inherited descriptor 4: "), "{said}");
    }
}
