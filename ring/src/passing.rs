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
        // Whole words again: a last header whose padding had no room would be overlooked.
        let filled = self.header.msg_controllen.next_multiple_of(size_of::<Word>());
        self.header.msg_control = self.control.as_mut_ptr().cast();
        self.header.msg_controllen = filled.min(room);
        let end = self.header.msg_control as usize + filled.min(room);

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
