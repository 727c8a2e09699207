//! Just enough of an assembler for the kernel's virtual machine (RFC 9669): instructions by name,
//! jumps by label. Knows no program, and loads none.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::process::sys::Instruction;

/// `R0` has results, `R1` to `R5` arguments, which a call destroys; `R6` to `R9` survive calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Register {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    /// The end of the stack, which grows downwards.
    Frame,
}

/// Functions of the kernel, by their number in `enum bpf_func_id`. None asks for the GPL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Helper {
    MapLookupElem = 1,
    KtimeGetNs = 5,
    GetPrandomU32 = 7,
    SkSelectReuseport = 82,
}

/// A line of a listing. Immediate values are sign-extended to 64 bits.
#[derive(Clone, Copy, Debug)]
pub(super) enum Line<'fd> {
    /// Where jumps to this name go.
    At(&'static str),
    /// `to = value`
    Set(Register, i32),
    /// `to = from`
    Copy(Register, Register),
    /// `to = the map with this descriptor`; takes two instructions.
    Map(Register, BorrowedFd<'fd>),
    /// `to += value`
    AddValue(Register, i32),
    /// `to += from`
    Add(Register, Register),
    /// `to -= from`
    Subtract(Register, Register),
    /// `to &= value`
    And(Register, i32),
    /// `to %= value`, unsigned, of the lower 32 bits; the upper ones become zero.
    Modulo(Register, i32),
    /// `to = *(u8 *)(base + offset)`
    LoadU8(Register, Register, i16),
    /// `to = *(u64 *)(base + offset)`
    LoadU64(Register, Register, i16),
    /// `*(u32 *)(base + offset) = from`
    StoreU32(Register, i16, Register),
    /// `*(u64 *)(base + offset) = from`
    StoreU64(Register, i16, Register),
    /// `*(u64 *)(base + offset) += from`, at once for all processors.
    AtomicAdd(Register, i16, Register),
    /// `R0 = helper(R1, R2, R3, R4, R5)`
    Call(Helper),
    Jump(&'static str),
    /// Jumps if `left == right`.
    JumpIfIs(Register, i32, &'static str),
    /// Jumps if `left != right`.
    JumpUnlessIs(Register, i32, &'static str),
    /// Jumps if `left >= 0`, signed.
    JumpIfPositive(Register, &'static str),
    /// Jumps if `left > right`, signed.
    JumpIfOver(Register, i32, &'static str),
    /// Jumps if `left <= right`, unsigned.
    JumpIfAtMost(Register, Register, &'static str),
    /// Jumps if `left > right`, unsigned.
    JumpIfMore(Register, Register, &'static str),
    /// Returns `R0`.
    Exit,
}

/// Classes, sizes, modes and operations of RFC 9669, sections 3 to 5.
mod code {
    pub(super) const LOAD_MAP: u8 = 0x18; // LD | IMM | DW
    pub(super) const LOAD_U8: u8 = 0x71; // LDX | MEM | B
    pub(super) const LOAD_U64: u8 = 0x79; // LDX | MEM | DW
    pub(super) const STORE_U32: u8 = 0x63; // STX | MEM | W
    pub(super) const STORE_U64: u8 = 0x7b; // STX | MEM | DW
    pub(super) const ATOMIC_U64: u8 = 0xdb; // STX | ATOMIC | DW; to add is operation 0
    pub(super) const MOV_K: u8 = 0xb7; // ALU64 | MOV | K
    pub(super) const MOV_X: u8 = 0xbf;
    pub(super) const ADD_K: u8 = 0x07;
    pub(super) const ADD_X: u8 = 0x0f;
    pub(super) const SUB_X: u8 = 0x1f;
    pub(super) const AND_K: u8 = 0x57;
    pub(super) const MOD32_K: u8 = 0x94; // ALU | MOD | K
    pub(super) const JA: u8 = 0x05; // JMP | JA
    pub(super) const JEQ_K: u8 = 0x15;
    pub(super) const JNE_K: u8 = 0x55;
    pub(super) const JSGE_K: u8 = 0x75;
    pub(super) const JSGT_K: u8 = 0x65;
    pub(super) const JLE_X: u8 = 0xbd;
    pub(super) const JGT_X: u8 = 0x2d;
    pub(super) const CALL: u8 = 0x85;
    pub(super) const EXIT: u8 = 0x95;
}

/// In place of a source register: the immediate value is a map's descriptor.
const PSEUDO_MAP_FD: u8 = 1;

/// Translates a listing.
///
/// # Panics
///
/// A jump goes backwards or nowhere, or a label stands twice.
pub(super) fn assemble(listing: &[Line<'_>]) -> Vec<Instruction> {
    let mut labels = BTreeMap::new();
    let mut count = 0;
    for line in listing {
        if let Line::At(label) = line {
            assert!(labels.insert(*label, count).is_none(), "{label} stands twice");
        }
        count += line.instructions();
    }
    let mut program = Vec::with_capacity(count);
    for line in listing {
        let next = program.len() + 1;
        let distance = |label| {
            let target: &usize = labels.get(label).unwrap_or_else(|| panic!("there is no {label}"));
            let distance = target.checked_sub(next).unwrap_or_else(|| panic!("{label} is behind"));
            i16::try_from(distance).expect("a listing is short")
        };
        program.extend(line.translate(&distance));
        if let Line::Map(..) = line {
            program.push(Instruction::new(0, 0, 0, 0, 0)); // the upper half of the value
        }
    }
    assert_eq!(program.len(), count);
    program
}

impl Line<'_> {
    fn instructions(&self) -> usize {
        match self {
            Line::At(_) => 0,
            Line::Map(..) => 2,
            _ => 1,
        }
    }

    fn translate(self, distance: &dyn Fn(&'static str) -> i16) -> Option<Instruction> {
        use Register::R0; // where an instruction has no use for a register
        Some(match self {
            Line::At(_) => return None,
            Line::Set(to, value) => instruction(code::MOV_K, to, R0, 0, value),
            Line::Copy(to, from) => instruction(code::MOV_X, to, from, 0, 0),
            Line::Map(to, map) => {
                Instruction::new(code::LOAD_MAP, to as u8, PSEUDO_MAP_FD, 0, map.as_raw_fd())
            }
            Line::AddValue(to, value) => instruction(code::ADD_K, to, R0, 0, value),
            Line::Add(to, from) => instruction(code::ADD_X, to, from, 0, 0),
            Line::Subtract(to, from) => instruction(code::SUB_X, to, from, 0, 0),
            Line::And(to, value) => instruction(code::AND_K, to, R0, 0, value),
            Line::Modulo(to, value) => instruction(code::MOD32_K, to, R0, 0, value),
            Line::LoadU8(to, base, at) => instruction(code::LOAD_U8, to, base, at, 0),
            Line::LoadU64(to, base, at) => instruction(code::LOAD_U64, to, base, at, 0),
            Line::StoreU32(base, at, from) => instruction(code::STORE_U32, base, from, at, 0),
            Line::StoreU64(base, at, from) => instruction(code::STORE_U64, base, from, at, 0),
            Line::AtomicAdd(base, at, from) => instruction(code::ATOMIC_U64, base, from, at, 0),
            Line::Call(helper) => instruction(code::CALL, R0, R0, 0, helper as i32),
            Line::Jump(to) => instruction(code::JA, R0, R0, distance(to), 0),
            Line::JumpIfIs(left, right, to) => {
                instruction(code::JEQ_K, left, R0, distance(to), right)
            }
            Line::JumpUnlessIs(left, right, to) => {
                instruction(code::JNE_K, left, R0, distance(to), right)
            }
            Line::JumpIfPositive(left, to) => instruction(code::JSGE_K, left, R0, distance(to), 0),
            Line::JumpIfOver(left, right, to) => {
                instruction(code::JSGT_K, left, R0, distance(to), right)
            }
            Line::JumpIfAtMost(left, right, to) => {
                instruction(code::JLE_X, left, right, distance(to), 0)
            }
            Line::JumpIfMore(left, right, to) => {
                instruction(code::JGT_X, left, right, distance(to), 0)
            }
            Line::Exit => instruction(code::EXIT, R0, R0, 0, 0),
        })
    }
}

fn instruction(code: u8, to: Register, from: Register, offset: i16, value: i32) -> Instruction {
    Instruction::new(code, to as u8, from as u8, offset, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Register::{R0, R1, R2};

    #[test]
    fn a_jump_skips_what_stands_between() {
        let map = std::io::stdin();
        let map = std::os::fd::AsFd::as_fd(&map);
        let program = assemble(&[
            Line::JumpIfIs(R1, 7, "end"),
            Line::Map(R2, map),
            Line::Set(R0, -1),
            Line::At("end"),
            Line::Exit,
        ]);
        assert_eq!(program.len(), 5, "a map takes two");
        assert_eq!(program[0], Instruction::new(0x15, 1, 0, 3, 7));
        assert_eq!(program[1], Instruction::new(0x18, 2, 1, 0, map.as_raw_fd()));
        assert_eq!(program[3], Instruction::new(0xb7, 0, 0, 0, -1));
        assert_eq!(program[4], Instruction::new(0x95, 0, 0, 0, 0));
    }

    #[test]
    #[should_panic(expected = "there is no end")]
    fn a_jump_to_nowhere_is_a_mistake() {
        assemble(&[Line::Jump("end"), Line::Exit]);
    }

    #[test]
    #[should_panic(expected = "begin is behind")]
    fn a_jump_backwards_is_a_mistake() {
        assemble(&[Line::At("begin"), Line::Jump("begin")]);
    }
}
