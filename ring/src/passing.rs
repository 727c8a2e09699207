//! Descriptors that travel with a message: its header, and the control data of `SCM_RIGHTS`
//! (unix(7), cmsg(3)). Knows no rings and no sockets; it only spells what a message carries.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::{mem, ptr, slice};

/// Descriptors that fit into one message: the kernel's `SCM_MAX_FD`.
pub const FDS_MAX: usize = 253;

/// The type of control data that holds a descriptor of the sender's process, for who asks for it
/// by `SO_PASSPIDFD` (6.5). libc has no name for it.
const SCM_PIDFD: libc::c_int = 4;

const FD_BYTES: usize = size_of::<RawFd>();

// Control data lies in whole words: as aligned as its headers have to be.
type Word = u64;
const _: () = assert!(align_of::<libc::cmsghdr>() <= align_of::<Word>());

/// How a message with descriptors arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// With everything that was sent.
    Whole,
    /// Without what there was no room for; that is lost, and what came is there.
    Cut {
        /// The message was longer than the buffer.
        payload: bool,
        /// Descriptors are missing: more were sent than asked for, or this process has too few
        /// left (`RLIMIT_NOFILE`).
        fds: bool,
    },
    /// No message: the peer is gone, and nothing that it sent is left. An empty message without
    /// descriptors looks the same.
    End,
}

/// sendmsg(2) or recvmsg(2): the header, and what it points to beside the payload.
pub(crate) struct Passing {
    header: libc::msghdr,
    part: libc::iovec,
    control: Box<[Word]>,
}

impl Passing {
    /// A message of `payload` that carries `fds`; their numbers are copied, they stay the owner's.
    pub(crate) fn to_send(payload: &[u8], fds: &[OwnedFd]) -> Passing {
        assert_sendable(payload, fds);
        let mut passing =
            Passing::new(payload.as_ptr().cast_mut(), payload.len(), fds.len() * FD_BYTES);
        // SAFETY: takes an integer. The result is within what `new` has made room for.
        let cmsg_len = unsafe { libc::CMSG_LEN((fds.len() * FD_BYTES) as u32) } as usize;
        let cmsg = passing.control.as_mut_ptr().cast::<libc::cmsghdr>();
        // SAFETY: the control data is aligned for a header and has room for one with all of `fds`
        // behind it; all-zero words are a valid header. The numbers are written within that room,
        // byte by byte.
        unsafe {
            (*cmsg).cmsg_len = cmsg_len;
            (*cmsg).cmsg_level = libc::SOL_SOCKET;
            (*cmsg).cmsg_type = libc::SCM_RIGHTS;
            let data = libc::CMSG_DATA(cmsg);
            for (index, fd) in fds.iter().enumerate() {
                let number = fd.as_raw_fd().to_ne_bytes();
                ptr::copy_nonoverlapping(number.as_ptr(), data.add(index * FD_BYTES), FD_BYTES);
            }
        }
        passing
    }

    /// Room for a message as long as `payload`'s capacity, and for at most `fds_max` descriptors.
    pub(crate) fn to_receive(payload: &mut Vec<u8>, fds_max: usize) -> Passing {
        assert_receivable(payload, fds_max);
        payload.clear();
        Passing::new(payload.as_mut_ptr(), payload.capacity(), fds_max * FD_BYTES)
    }

    /// The header points to `payload` and to the control data, but not yet to its part.
    fn new(payload: *mut u8, payload_bytes: usize, data_bytes: usize) -> Passing {
        // SAFETY: both take an integer.
        let (space, len) = unsafe {
            (
                libc::CMSG_SPACE(data_bytes as u32) as usize,
                libc::CMSG_LEN(data_bytes as u32) as usize,
            )
        };
        let mut control = vec![0; space.div_ceil(size_of::<Word>())].into_boxed_slice();
        // SAFETY: all-zero is a valid msghdr: null pointers with zero lengths.
        let mut header: libc::msghdr = unsafe { mem::zeroed() };
        header.msg_control = control.as_mut_ptr().cast();
        // Without the padding: into it, the kernel would put one descriptor more.
        header.msg_controllen = len;
        let part = libc::iovec { iov_base: payload.cast(), iov_len: payload_bytes };
        Passing { header, part, control }
    }

    /// The header for the kernel. It points into `self`, which must not move from here on.
    pub(crate) fn header(&mut self) -> *mut libc::msghdr {
        self.header.msg_iov = &raw mut self.part;
        self.header.msg_iovlen = 1;
        &raw mut self.header
    }

    /// Takes in what arrived with `count` bytes of payload, once the receive has succeeded, and
    /// only then: each descriptor becomes the caller's.
    pub(crate) fn receive(mut self, count: usize) -> (Vec<OwnedFd>, Arrival) {
        let fds = self.take_fds();
        let (payload, some_fds) = (libc::MSG_TRUNC, libc::MSG_CTRUNC);
        let cut = |flag| self.header.msg_flags & flag != 0;
        let arrival = if cut(payload | some_fds) {
            Arrival::Cut { payload: cut(payload), fds: cut(some_fds) }
        } else if count == 0 && fds.is_empty() {
            Arrival::End
        } else {
            Arrival::Whole
        };
        (fds, arrival)
    }

    /// Owns every descriptor in the control data, and gives those that the peer passed. Nothing
    /// else in there is looked at.
    fn take_fds(&mut self) -> Vec<OwnedFd> {
        let room = mem::size_of_val(&*self.control);
        // Whole words again: older versions of libc overlook a last header without its padding.
        let filled = self.header.msg_controllen.min(room).next_multiple_of(size_of::<Word>());
        self.header.msg_control = self.control.as_mut_ptr().cast();
        self.header.msg_controllen = filled;
        let end = self.header.msg_control as usize + filled;

        let mut fds = Vec::new();
        // SAFETY: the header names initialized memory of ours, aligned for a control header, and
        // no more than there is.
        let mut cmsg: *const libc::cmsghdr = unsafe { libc::CMSG_FIRSTHDR(&raw const self.header) };
        while !cmsg.is_null() {
            // SAFETY: FIRSTHDR and NXTHDR give null or a place in the control data with room for a
            // whole header, aligned since each step is.
            let (header, data) = unsafe { (ptr::read(cmsg), libc::CMSG_DATA(cmsg)) };
            // SAFETY: takes an integer.
            let header_bytes = unsafe { libc::CMSG_LEN(0) } as usize;
            let claimed = header.cmsg_len.saturating_sub(header_bytes);
            let data_bytes = claimed.min(end.saturating_sub(data as usize));
            if header.cmsg_level == libc::SOL_SOCKET {
                // SAFETY: `data_bytes` from `data` on lie within the control data.
                let data = unsafe { slice::from_raw_parts(data, data_bytes) };
                match header.cmsg_type {
                    libc::SCM_RIGHTS => fds.extend(owned(data)),
                    SCM_PIDFD => owned(data).for_each(drop), // asked for by others; never leaked
                    _ => {}
                }
            }
            if data_bytes < claimed {
                break; // nothing can follow what claims more than there is
            }
            // SAFETY: as for FIRSTHDR; `cmsg` is a header within the control data.
            cmsg = unsafe { libc::CMSG_NXTHDR(&raw const self.header, cmsg) };
        }
        self.header.msg_controllen = 0; // each is owned once
        fds
    }
}

/// The descriptors in what the kernel wrote behind one header.
fn owned(data: &[u8]) -> impl Iterator<Item = OwnedFd> {
    let numbers = data.chunks_exact(FD_BYTES).map(|number| {
        RawFd::from_ne_bytes(number.try_into().expect("as many bytes as a number has"))
    });
    numbers.filter(|&number| number >= 0).map(|number| {
        // SAFETY: a receive that succeeded put a new descriptor there that nobody else owns.
        unsafe { OwnedFd::from_raw_fd(number) }
    })
}

/// What a caller must keep to: some payload (an empty message looks like the end to its receiver),
/// and as many descriptors as one message carries.
pub(crate) fn assert_sendable(payload: &[u8], fds: &[OwnedFd]) {
    assert!(!payload.is_empty(), "a message with descriptors has a payload");
    assert!((1..=FDS_MAX).contains(&fds.len()), "a message carries 1 to {FDS_MAX} descriptors");
}

pub(crate) fn assert_receivable(payload: &Vec<u8>, fds_max: usize) {
    assert!(payload.capacity() > 0, "a message with descriptors has a payload");
    assert!((1..=FDS_MAX).contains(&fds_max), "a message carries 1 to {FDS_MAX} descriptors");
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{PipeReader, Read, pipe};
    use std::os::fd::IntoRawFd;

    use super::*;

    const WORD: usize = size_of::<Word>();
    const HEADER: usize = size_of::<libc::cmsghdr>();

    /// What a kernel would leave after a receive: control headers with their claimed lengths.
    struct Left {
        passing: Passing,
        filled: usize,
        readers: Vec<PipeReader>,
    }

    impl Left {
        fn with_room(fds_max: usize) -> Left {
            let mut passing = Passing::to_receive(&mut Vec::with_capacity(1), fds_max);
            passing.header.msg_controllen = 0;
            Left { passing, filled: 0, readers: Vec::new() }
        }

        /// Adds a header that claims `len` bytes, and numbers behind it.
        fn add(&mut self, kind: libc::c_int, len: usize, numbers: &[RawFd]) {
            let mut bytes = len.to_ne_bytes().to_vec();
            bytes.extend(libc::SOL_SOCKET.to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            assert_eq!(bytes.len(), HEADER);
            bytes.extend(numbers.iter().flat_map(|number| number.to_ne_bytes()));
            bytes.resize(bytes.len().next_multiple_of(WORD), 0);
            for word in bytes.chunks_exact(WORD) {
                let word = Word::from_ne_bytes(word.try_into().unwrap());
                self.passing.control[self.filled / WORD] = word;
                self.filled += WORD;
            }
            self.passing.header.msg_controllen = self.filled;
        }

        /// A new descriptor, whose only owner is whoever finds its number.
        fn descriptor(&mut self) -> RawFd {
            let (reader, writer) = pipe().unwrap();
            self.readers.push(reader);
            writer.into_raw_fd()
        }

        fn descriptors<const N: usize>(&mut self) -> [RawFd; N] {
            [(); N].map(|()| self.descriptor())
        }

        fn take(&mut self) -> Vec<RawFd> {
            self.passing.take_fds().into_iter().map(IntoRawFd::into_raw_fd).collect()
        }
    }

    fn close(fds: impl IntoIterator<Item = RawFd>) {
        // SAFETY: the caller took them from their owners.
        fds.into_iter().for_each(|fd| drop(unsafe { File::from_raw_fd(fd) }));
    }

    #[test]
    fn what_is_sent_is_spelled_so_that_it_can_be_read_for_every_count() {
        for count in [1, 2, 3, FDS_MAX - 1, FDS_MAX] {
            let null = File::open("/dev/null").unwrap();
            let fds: Vec<OwnedFd> = (0..count).map(|_| null.try_clone().unwrap().into()).collect();
            let mut passing = Passing::to_send(b"x", &fds);
            let numbers: Vec<RawFd> = fds.into_iter().map(IntoRawFd::into_raw_fd).collect();
            let read = passing.take_fds();
            assert_eq!(read.iter().map(AsRawFd::as_raw_fd).collect::<Vec<_>>(), numbers);
            assert!(passing.take_fds().is_empty()); // each once
        }
    }

    #[test]
    fn every_descriptor_of_several_headers_is_owned_and_no_other_number_is() {
        let mut left = Left::with_room(FDS_MAX);
        let [a, b, c, process] = left.descriptors();
        left.add(libc::SCM_CREDENTIALS, HEADER + 12, &[0, 1, 2]);
        left.add(libc::SCM_RIGHTS, HEADER + 4, &[a]);
        left.add(SCM_PIDFD, HEADER + 4, &[process]);
        left.add(SCM_PIDFD, HEADER + 4, &[-libc::ESRCH]); // none could be made
        left.add(libc::SCM_RIGHTS, HEADER, &[]);
        left.add(libc::SCM_RIGHTS, HEADER + 8, &[b, c]);
        assert_eq!(left.take(), [a, b, c]);
        assert_eq!(left.readers[3].read(&mut [0]).unwrap(), 0); // the process is closed
        close([a, b, c]);
    }

    #[test]
    fn lengths_that_claim_too_much_or_too_little_lead_nowhere() {
        for claim in [HEADER + 12, HEADER + 4096, usize::MAX / 2, usize::MAX - 7, usize::MAX] {
            let mut left = Left::with_room(2);
            let fds = left.descriptors::<2>();
            left.add(libc::SCM_RIGHTS, claim, &fds);
            assert_eq!(left.take(), fds, "{claim}"); // to the end of what is there
            close(fds);
        }
        for claim in 0..HEADER {
            let mut left = Left::with_room(2);
            left.add(libc::SCM_RIGHTS, claim, &[0]);
            assert_eq!(left.take(), [], "{claim}");
        }
        for filled in 0..HEADER {
            let mut left = Left::with_room(2);
            left.add(libc::SCM_RIGHTS, HEADER + 4, &[0]);
            left.passing.header.msg_controllen = filled - filled % WORD;
            assert_eq!(left.take(), [], "{filled}");
        }
        for filled in [HEADER + 8, HEADER + 9, 4096, usize::MAX] {
            let mut left = Left::with_room(2);
            let fds = left.descriptors::<2>();
            left.add(libc::SCM_RIGHTS, HEADER + 8, &fds);
            left.passing.header.msg_controllen = filled;
            assert_eq!(left.take(), fds, "{filled}");
            close(fds);
        }
    }
}
