//! The program that the kernel runs for every new connection: of two random slots, the less loaded
//! one. A listing; what loads and attaches it is elsewhere.

use std::mem::offset_of;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::assembly::Line::{
    Add, AddValue, And, At, AtomicAdd, Call, Copy, Exit, Jump, JumpIfAtMost, JumpIfIs, JumpIfMore,
    JumpIfOver, JumpIfPositive, JumpUnlessIs, LoadU8, LoadU64, Map, Modulo, Set, StoreU32,
    StoreU64, Subtract,
};
use super::assembly::Register::{self, Frame, R0, R1, R2, R3, R4, R5, R6, R7, R8, R9};
use super::assembly::{Helper, Line, assemble};
use super::slot::Slot;
use crate::process::sys::Instruction;

/// The beginning of `struct sk_reuseport_md` (linux/bpf.h): what the program is told. `data` is
/// the packet from its TCP header on.
#[repr(C)]
struct Context {
    data: u64,
    data_end: u64,
}

const _: () = assert!(FADES_AFTER.as_nanos() <= i32::MAX as u128); // as an immediate value

const DATA: i16 = offset_of!(Context, data) as i16;
const DATA_END: i16 = offset_of!(Context, data_end) as i16;

/// Where a TCP header has its flags (RFC 9293, 3.1), and two of them.
const FLAGS_AT: i16 = 13;
const SYN: i32 = 0x02;
const ACK: i32 = 0x10;

/// `enum sk_action`: go on, with the socket that was selected; without one, by hash.
const SK_PASS: i32 = 1;

/// The load of a slot that is away: more than any other.
const AWAY: i32 = -1;

/// What the stack has: the number of a slot, as it is handed to helpers (four bytes); the time.
const KEY: i16 = -4;
const NOW: i16 = -16;

/// How long it counts what a slot has waiting, after the last connection that was sent there; then
/// it is sent another one. So a slot that waits for connections which will never come gets out of
/// that, and one whose worker hangs is sent one in this time and no more. A client whose SYN was
/// dropped there sends it again after a second (RFC 6298, 2.1): before this, hence to another.
pub(super) const FADES_AFTER: Duration = Duration::from_secs(2);

/// How far it looks for a slot that is not away, when both random ones are: as many in a row are
/// away only in a group that has lost almost all its workers. Twelve instructions each.
const LOOKS_MAX: i32 = 64;

/// Chooses between the first `count` entries of `sockets`, by their `slots`.
///
/// # Panics
///
/// There is nothing to choose from.
pub(super) fn choose(
    count: i32,
    slots: BorrowedFd<'_>,
    sockets: BorrowedFd<'_>,
) -> Vec<Instruction> {
    assert!(count > 0, "a group without sockets");
    let (one, other) = (R7, R8); // numbers of slots
    let slot = R9;
    let listing = [
        &[
            Copy(R6, R1), // the context
            Call(Helper::KtimeGetNs),
            StoreU64(Frame, NOW, R0),
        ][..],
        &pick_two(count, one, other),
        &look_up(one, slots),
        &[Copy(slot, R0)],
        &if count > 1 { prefer_other(count, one, other, slot, slots) } else { Vec::new() },
        &[
            // R0 = select(context, sockets, &one, 0)
            StoreU32(Frame, KEY, one),
            Copy(R1, R6),
            Map(R2, sockets),
            Copy(R3, Frame),
            AddValue(R3, i32::from(KEY)),
            Set(R4, 0),
            Call(Helper::SkSelectReuseport),
            JumpUnlessIs(R0, 0, "pass"), // there is no such socket any more: by hash
            // Only a SYN begins something that can be accepted. The program also runs for what
            // belongs to no connection, and for the ACK that answers a SYN cookie.
            LoadU64(R2, R6, DATA),
            LoadU64(R3, R6, DATA_END),
            Copy(R4, R2),
            AddValue(R4, i32::from(FLAGS_AT) + 1),
            JumpIfMore(R4, R3, "pass"),
            LoadU8(R5, R2, FLAGS_AT),
            And(R5, SYN | ACK),
            JumpUnlessIs(R5, SYN, "pass"),
            Set(R1, 1),
            AtomicAdd(slot, Slot::ASSIGNED, R1),
            LoadU64(R1, Frame, NOW),
            StoreU64(slot, Slot::ASSIGNED_AT, R1),
            At("pass"),
            Set(R0, SK_PASS),
            Exit,
        ],
    ]
    .concat();
    assemble(&listing)
}

/// Two different numbers below `count`; with a `count` of one, one number.
fn pick_two<'fd>(count: i32, one: Register, other: Register) -> Vec<Line<'fd>> {
    if count == 1 {
        return vec![Set(one, 0)];
    }
    vec![
        // one = random % count
        Call(Helper::GetPrandomU32),
        Copy(one, R0),
        Modulo(one, count),
        // other = (one + 1 + random % (count - 1)) % count
        Call(Helper::GetPrandomU32),
        Copy(other, R0),
        Modulo(other, count - 1),
        Add(other, one),
        AddValue(other, 1),
        Modulo(other, count),
    ]
}

/// `R0` = the slot of this number.
fn look_up(number: Register, slots: BorrowedFd<'_>) -> [Line<'_>; 6] {
    [
        StoreU32(Frame, KEY, number),
        Map(R1, slots),
        Copy(R2, Frame),
        AddValue(R2, i32::from(KEY)),
        Call(Helper::MapLookupElem),
        JumpIfIs(R0, 0, "pass"), // never; but the verifier wants to see it
    ]
}

/// Turns `one` and its `slot` into the other ones if these have less to do.
fn prefer_other(
    count: i32,
    one: Register,
    other: Register,
    slot: Register,
    slots: BorrowedFd<'_>,
) -> Vec<Line<'_>> {
    [
        &look_up(other, slots)[..],
        &load(R1, slot, ["one is here", "one waits", "one is known"]),
        &load(R2, R0, ["other is here", "other waits", "other is known"]),
        &[
            JumpIfAtMost(R1, R2, "chosen"),
            Copy(one, other),
            Copy(slot, R0),
            Copy(R1, R2),
            At("chosen"),
            JumpUnlessIs(R1, AWAY, "here"),
        ],
        &take_next(count, one, slot, slots),
        &[At("here")],
    ]
    .concat()
}

/// Turns `one` and its `slot` into the next that is not away; when all are, the hash decides. Not a
/// loop: without `CAP_PERFMON` the verifier also follows what a processor might speculate, and
/// sees no end of it.
fn take_next(count: i32, one: Register, slot: Register, slots: BorrowedFd<'_>) -> Vec<Line<'_>> {
    let mut listing = Vec::new();
    for _ in 1..count.min(LOOKS_MAX) {
        listing.extend([AddValue(one, 1), Modulo(one, count)]);
        listing.extend(look_up(one, slots));
        listing.extend([Copy(slot, R0), LoadU64(R1, slot, Slot::AWAY), JumpIfIs(R1, 0, "here")]);
    }
    listing.push(Jump("pass"));
    listing
}

/// `to` = what a slot has to do: open connections, and those that wait for it. The labels are its
/// own, as it stands twice in the listing.
fn load<'fd>(
    to: Register,
    slot: Register,
    [here, waiting, known]: [&'static str; 3],
) -> [Line<'fd>; 18] {
    [
        LoadU64(to, slot, Slot::AWAY),
        JumpIfIs(to, 0, here),
        Set(to, AWAY),
        Jump(known),
        At(here), // and `to` is zero
        LoadU64(R3, Frame, NOW),
        LoadU64(R4, slot, Slot::ASSIGNED_AT),
        Subtract(R3, R4),
        JumpIfOver(R3, FADES_AFTER.as_nanos() as i32, waiting),
        LoadU64(to, slot, Slot::ASSIGNED),
        LoadU64(R3, slot, Slot::TAKEN),
        Subtract(to, R3),
        JumpIfPositive(to, waiting),
        Set(to, 0), // it has taken more than it was sent: some came by hash
        At(waiting),
        LoadU64(R3, slot, Slot::OPEN),
        Add(to, R3),
        At(known),
    ]
}
