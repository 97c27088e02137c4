//! eBPF instructions: as many as the program needs, with labels to jump to.

use std::os::fd::RawFd;

/// One instruction as the kernel reads it.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// Registers. R0 has results, R1 to R5 arguments (lost in a call), R6 to R9 stay, R10 is the stack's end.
#[derive(Clone, Copy)]
pub(crate) enum R {
    R0,
    R1,
    R2,
    R3,
    R4,
    /// The context.
    Context = 6,
    /// The frame's start.
    Start = 7,
    /// The frame's end.
    End = 8,
    /// What is looked at: a transport header.
    Place = 9,
    Stack = 10,
}

/// How wide a load is.
#[derive(Clone, Copy)]
pub(crate) enum Width {
    Byte = 0x10,
    Half = 0x08,
    Word = 0x00,
    Double = 0x18,
}

/// Conditions of jumps.
#[derive(Clone, Copy)]
pub(crate) enum If {
    Equal = 0x10,
    Above = 0x20,
    Bits = 0x40,
    NotEqual = 0x50,
    Below = 0xA0,
}

/// Helper functions of the kernel.
#[derive(Clone, Copy)]
pub(crate) enum Helper {
    Lookup = 1,
    RedirectMap = 51,
}

/// Code under construction; `L` names places in it.
pub(crate) struct Assembler<L> {
    code: Vec<Instruction>,
    jumps: Vec<(usize, L)>,
    labels: Vec<(L, usize)>,
}

impl<L: Copy + PartialEq> Assembler<L> {
    pub(crate) fn new() -> Self {
        Self { code: Vec::new(), jumps: Vec::new(), labels: Vec::new() }
    }

    fn emit(&mut self, code: u8, target: R, source: u8, offset: i16, immediate: i32) {
        let target = target as u8;
        let registers = if cfg!(target_endian = "little") { source << 4 | target } else { target << 4 | source };
        self.code.push(Instruction { code, registers, offset, immediate });
    }

    pub(crate) fn set(&mut self, target: R, value: i32) {
        self.emit(0xB7, target, 0, 0, value);
    }
    pub(crate) fn copy(&mut self, target: R, source: R) {
        self.emit(0xBF, target, source as u8, 0, 0);
    }
    pub(crate) fn add(&mut self, target: R, value: i32) {
        self.emit(0x07, target, 0, 0, value);
    }
    pub(crate) fn add_register(&mut self, target: R, source: R) {
        self.emit(0x0F, target, source as u8, 0, 0);
    }
    pub(crate) fn and(&mut self, target: R, value: i32) {
        self.emit(0x57, target, 0, 0, value);
    }
    pub(crate) fn shift_left(&mut self, target: R, bits: i32) {
        self.emit(0x67, target, 0, 0, bits);
    }
    pub(crate) fn load(&mut self, width: Width, target: R, base: R, offset: i32) {
        self.emit(0x61 | width as u8, target, base as u8, offset as i16, 0);
    }
    pub(crate) fn store(&mut self, width: Width, base: R, offset: i32, source: R) {
        self.emit(0x63 | width as u8, base, source as u8, offset as i16, 0);
    }
    pub(crate) fn store_value(&mut self, width: Width, base: R, offset: i32, value: i32) {
        self.emit(0x62 | width as u8, base, 0, offset as i16, value);
    }
    pub(crate) fn map(&mut self, target: R, map: RawFd) {
        const MAP_BY_DESCRIPTOR: u8 = 1;
        self.emit(0x18, target, MAP_BY_DESCRIPTOR, 0, map);
        self.emit(0, R::R0, 0, 0, 0);
    }
    pub(crate) fn call(&mut self, helper: Helper) {
        self.emit(0x85, R::R0, 0, 0, helper as i32);
    }
    pub(crate) fn exit(&mut self) {
        self.emit(0x95, R::R0, 0, 0, 0);
    }

    pub(crate) fn goto(&mut self, label: L) {
        self.jumps.push((self.code.len(), label));
        self.emit(0x05, R::R0, 0, 0, 0);
    }
    pub(crate) fn jump(&mut self, condition: If, left: R, right: i32, label: L) {
        self.jumps.push((self.code.len(), label));
        self.emit(0x05 | condition as u8, left, 0, 0, right);
    }
    /// The same, comparing 32 bits.
    pub(crate) fn jump_word(&mut self, condition: If, left: R, right: i32, label: L) {
        self.jumps.push((self.code.len(), label));
        self.emit(0x06 | condition as u8, left, 0, 0, right);
    }
    pub(crate) fn jump_register(&mut self, condition: If, left: R, right: R, label: L) {
        self.jumps.push((self.code.len(), label));
        self.emit(0x0D | condition as u8, left, right as u8, 0, 0);
    }
    pub(crate) fn label(&mut self, label: L) {
        self.labels.push((label, self.code.len()));
    }

    /// Unless `length` bytes are there behind `place`, go to `label`.
    pub(crate) fn need(&mut self, place: R, length: i32, label: L) {
        self.copy(R::R2, place);
        self.add(R::R2, length);
        self.jump_register(If::Above, R::R2, R::End, label);
    }

    pub(crate) fn finish(mut self) -> Vec<Instruction> {
        for &(at, label) in &self.jumps {
            // Every label is set and all code is short; the verifier would refuse anything else, and the tests see that.
            let target = self.labels.iter().find(|&&(set, _)| set == label).map_or(at, |&(_, target)| target);
            self.code[at].offset = (target as i32 - at as i32 - 1) as i16;
        }
        self.code
    }
}

/// A 16-bit value as a load from the frame gives it.
pub(crate) fn wire(value: u16) -> i32 {
    i32::from(value.to_be())
}
