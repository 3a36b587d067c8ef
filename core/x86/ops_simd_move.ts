/**
 * Moves to, from and between MMX and XMM registers, and MXCSR.
 *
 * @module
 */
import { advance, commit, writeAddress } from "./access.ts";
import { linear, segmentOf } from "./address.ts";
import type { Cpu } from "./cpu.ts";
import { gp0 } from "./fault.ts";
import { COMMIT_SIZE, EA, GPR, HIGH, MXCSR, R_IMM } from "./layout.ts";
import type { Handler, OpDef } from "./opcode.ts";
import { put32 } from "./operand.ts";
import { index, indexHigh } from "./repeat.ts";
import { MXCSR_BITS } from "./ops_xsave.ts";
import { copy, mmx, xmm } from "./simd.ts";
import { emptyMmx, prepareMmx } from "./x87.ts";

const RDI = GPR + 14;

/** Copies 16 bytes. */
export function move16(cpu: Cpu, a: number, b: number): void {
  const dv = cpu.dv;
  const w0 = dv.getInt32(b, true), w1 = dv.getInt32(b + 4, true);
  const w2 = dv.getInt32(b + 8, true), w3 = dv.getInt32(b + 12, true);
  dv.setInt32(a, w0, true);
  dv.setInt32(a + 4, w1, true);
  dv.setInt32(a + 8, w2, true);
  dv.setInt32(a + 12, w3, true);
}

function move8(cpu: Cpu, a: number, b: number): void {
  const dv = cpu.dv;
  const high = dv.getInt32(b + 4, true);
  dv.setInt32(a, dv.getInt32(b, true), true);
  dv.setInt32(a + 4, high, true);
}

function move4(cpu: Cpu, a: number, b: number): void {
  cpu.dv.setInt32(a, cpu.dv.getInt32(b, true), true);
}

/** Loads that clear the rest of the register. */
function load8(cpu: Cpu, a: number, b: number): void {
  move8(cpu, a, b);
  cpu.dv.setInt32(a + 8, 0, true);
  cpu.dv.setInt32(a + 12, 0, true);
}
function load4(cpu: Cpu, a: number, b: number): void {
  cpu.dv.setInt32(a, cpu.dv.getInt32(b, true), true);
  cpu.dv.setInt32(a + 4, 0, true);
  cpu.dv.setInt32(a + 8, 0, true);
  cpu.dv.setInt32(a + 12, 0, true);
}
/** MOVD to an MMX register. */
function load4Mmx(cpu: Cpu, a: number, b: number): void {
  cpu.dv.setInt32(a, cpu.dv.getInt32(b, true), true);
  cpu.dv.setInt32(a + 4, 0, true);
}
function store4(cpu: Cpu, a: number, b: number): void {
  put32(cpu, a, cpu.dv.getInt32(b, true));
}

/** To the upper half of the register from the lower of the operand, and so on. */
function toHigh(cpu: Cpu, a: number, b: number): void {
  move8(cpu, a + 8, b);
}
function fromHigh(cpu: Cpu, a: number, b: number): void {
  move8(cpu, a, b + 8);
}

/** MOVSLDUP, MOVSHDUP, MOVDDUP: the lane that goes to each place. */
export function duplicate(
  w0: number,
  w1: number,
  w2: number,
  w3: number,
): Handler {
  return (cpu, a, b) => {
    const dv = cpu.dv;
    const x0 = dv.getInt32(b + w0, true), x1 = dv.getInt32(b + w1, true);
    const x2 = dv.getInt32(b + w2, true), x3 = dv.getInt32(b + w3, true);
    dv.setInt32(a, x0, true);
    dv.setInt32(a + 4, x1, true);
    dv.setInt32(a + 8, x2, true);
    dv.setInt32(a + 12, x3, true);
  };
}

/** The top bits of bytes. */
export function moveMask(bytes: number): Handler {
  return (cpu, a, b) => {
    let mask = 0;
    for (let at = 0; at < bytes; at += 4) {
      const top = cpu.dv.getInt32(b + at, true) & 0x80808080;
      // Gathers bits 7, 15, 23 and 31.
      mask |= (Math.imul(top >>> 7, 0x1020_4080) >>> 28) << at;
    }
    put32(cpu, a, mask);
  };
}

export function moveMaskSingles(cpu: Cpu, a: number, b: number): void {
  const u8 = cpu.u8;
  const mask = (u8[b + 3]! >>> 7) | ((u8[b + 7]! >>> 7) << 1) |
    ((u8[b + 11]! >>> 7) << 2) | ((u8[b + 15]! >>> 7) << 3);
  put32(cpu, a, mask);
}
export function moveMaskDoubles(cpu: Cpu, a: number, b: number): void {
  put32(cpu, a, (cpu.u8[b + 7]! >>> 7) | ((cpu.u8[b + 15]! >>> 7) << 1));
}

/** MASKMOVQ and MASKMOVDQU: the bytes of a whose mask in b has its top bit set go to DS:rDI. */
function maskedStore(bytes: number): Handler {
  return (cpu, a, b, pc) => {
    const { i32: i, u8 } = cpu;
    if (bytes === 8) prepareMmx(cpu);
    const low = index(cpu, pc, RDI), high = indexHigh(cpu, pc, RDI);
    linear(cpu, segmentOf(cpu, pc), low, high, bytes, true);
    const ea = i[EA]!, eaHigh = i[EA + 1]!;
    // All of it is looked up before any of it is written, masked or not.
    for (const write of [false, true]) {
      for (let at = 0; at < bytes; at += 8) {
        const part = advance(cpu, ea, eaHigh, at);
        const to = writeAddress(cpu, part, i[HIGH]!, 8, true);
        for (let n = 0; n < 8 && write; n++) {
          if (u8[b + at + n]! > 127) u8[to + n] = u8[a + at + n]!;
        }
        if (write) commit(cpu);
        else i[COMMIT_SIZE] = 0;
      }
    }
  };
}

function insert(size: number, lanes: number): Handler {
  return (cpu, a, b, pc) => {
    const to = a + size * (cpu.i32[pc + R_IMM]! & (lanes - 1));
    if (size === 1) cpu.u8[to] = cpu.u8[b]!;
    else if (size === 2) cpu.dv.setInt16(to, cpu.dv.getInt16(b, true), true);
    else copy(cpu, to, b, size);
  };
}

/** A lane to memory, or zero-extended to a register. */
function extract(size: number, lanes: number, memory = false): Handler {
  return (cpu, a, b, pc) => {
    const { dv, u8 } = cpu;
    const from = b + size * (cpu.i32[pc + R_IMM]! & (lanes - 1));
    if (size === 8) copy(cpu, a, from, 8);
    else if (size === 4) put32(cpu, a, dv.getInt32(from, true));
    else if (size === 2) {
      if (memory) dv.setInt16(a, dv.getInt16(from, true), true);
      else put32(cpu, a, dv.getUint16(from, true));
    } else if (memory) u8[a] = u8[from]!;
    else put32(cpu, a, u8[from]!);
  };
}

function loadMxcsr(cpu: Cpu, a: number): void {
  const value = cpu.dv.getInt32(a, true);
  if ((value & ~MXCSR_BITS) !== 0) gp0(cpu);
  cpu.i32[MXCSR] = value;
}
function storeMxcsr(cpu: Cpu, a: number): void {
  cpu.dv.setInt32(a, cpu.i32[MXCSR]!, true);
}

/** MOVDQ2Q and MOVQ2DQ. */
const toMmx = mmx(move8);
const fromMmx = mmx(load8);

const y = (
  narrow: Handler,
  wide: Handler,
): { 32: Handler; 64: Handler; 16: Handler } => ({
  16: narrow,
  32: narrow,
  64: wide,
});

function moves(
  prefix: string,
  load: string,
  store: string,
  kind: "x" | "u",
): OpDef[] {
  return [
    { code: `${prefix} 0F ${load}`, operands: `=Vx W${kind}`, run: move16 },
    { code: `${prefix} 0F ${store}`, operands: `=W${kind} Vx`, run: move16 },
  ];
}

/** The family's lines of the opcode tables. */
export const simdMoveOps: readonly OpDef[] = [
  ...moves("NP", "10", "11", "u"),
  ...moves("66", "10", "11", "u"),
  ...moves("NP", "28", "29", "x"),
  ...moves("66", "28", "29", "x"),
  ...moves("66", "6F", "7F", "x"),
  ...moves("F3", "6F", "7F", "u"),
  { code: "F2 0F F0", operands: "=Vx Mu", run: move16 },
  { code: "NP 0F 2B", operands: "=Mx Vx", run: move16 },
  { code: "66 0F 2B", operands: "=Mx Vx", run: move16 },
  { code: "66 0F E7", operands: "=Mx Vx", run: move16 },
  { code: "66 0F 38 2A", operands: "=Vx Mx", run: move16 },
  { code: "NP 0F E7", operands: "=Mq Pq", run: mmx(move8) },
  { code: "NP 0F 6F", operands: "=Pq Qq", run: mmx(move8) },
  { code: "NP 0F 7F", operands: "=Qq Pq", run: mmx(move8) },

  { code: "F3 0F 10 r", operands: "+Vx Ud", run: move4 },
  { code: "F3 0F 10 m", operands: "=Vx Wd", run: load4 },
  { code: "F3 0F 11 r", operands: "+Ud Vx", run: move4 },
  { code: "F3 0F 11 m", operands: "=Wd Vx", run: move4 },
  { code: "F2 0F 10 r", operands: "+Vx Uq", run: move8 },
  { code: "F2 0F 10 m", operands: "=Vx Wq", run: load8 },
  { code: "F2 0F 11 r", operands: "+Uq Vx", run: move8 },
  { code: "F2 0F 11 m", operands: "=Wq Vx", run: move8 },
  { code: "F3 0F 7E", operands: "=Vx Wq", run: load8 },
  { code: "66 0F D6 r", operands: "=Uq Vx", run: load8 },
  { code: "66 0F D6 m", operands: "=Wq Vx", run: move8 },
  { code: "NP 0F 12 m", operands: "+Vx Mq", run: move8 },
  { code: "NP 0F 12 r", operands: "+Vx Ux", run: fromHigh },
  { code: "66 0F 12", operands: "+Vx Mq", run: move8 },
  { code: "NP 0F 13", operands: "=Mq Vx", run: move8 },
  { code: "66 0F 13", operands: "=Mq Vx", run: move8 },
  { code: "NP 0F 16", operands: "+Vx Wq", run: toHigh },
  { code: "66 0F 16", operands: "+Vx Mq", run: toHigh },
  { code: "NP 0F 17", operands: "=Mq Vx", run: fromHigh },
  { code: "66 0F 17", operands: "=Mq Vx", run: fromHigh },
  { code: "F2 0F 12", operands: "=Vx Wq", run: duplicate(0, 4, 0, 4) },
  { code: "F3 0F 12", operands: "=Vx Wx", run: duplicate(0, 0, 8, 8) },
  { code: "F3 0F 16", operands: "=Vx Wx", run: duplicate(4, 4, 12, 12) },

  { code: "NP 0F 6E", operands: "=Pq Ey", run: y(mmx(load4Mmx), mmx(move8)) },
  { code: "66 0F 6E", operands: "=Vx Ey", run: y(load4, load8) },
  { code: "NP 0F 7E", operands: "=Ey Pq", run: y(mmx(store4), mmx(move8)) },
  { code: "66 0F 7E", operands: "=Ey Vx", run: y(store4, move8) },
  { code: "F2 0F D6", operands: "=Pq Uq", run: toMmx },
  { code: "F3 0F D6", operands: "=Vx Nq", run: fromMmx },

  { code: "NP 0F D7", operands: "=Gd Nq", run: mmx(moveMask(8)) },
  { code: "66 0F D7", operands: "=Gd Ux", run: moveMask(16) },
  { code: "NP 0F 50", operands: "=Gd Ux", run: moveMaskSingles },
  { code: "66 0F 50", operands: "=Gd Ux", run: moveMaskDoubles },
  { code: "NP 0F F7", operands: "Pq Nq", run: maskedStore(8) },
  { code: "66 0F F7", operands: "Vx Ux", run: maskedStore(16) },

  { code: "NP 0F C4", operands: "+Pq Ew Ib", run: mmx(insert(2, 4)) },
  xmm("0F C4", insert(2, 8), "+Vx Ew Ib"),
  xmm("0F 3A 20 m", insert(1, 16), "+Vx Eb Ib"),
  xmm("0F 3A 20 r", insert(1, 16), "+Vx Ed Ib"),
  xmm("0F 3A 22 W0", insert(4, 4), "+Vx Ed Ib"),
  { ...xmm("0F 3A 22 W1", insert(8, 2), "+Vx Eq Ib"), flags: "only64" },
  { code: "NP 0F C5", operands: "=Gd Nq Ib", run: mmx(extract(2, 4)) },
  xmm("0F C5", extract(2, 8), "=Gd Ux Ib"),
  xmm("0F 3A 14 m", extract(1, 16, true), "=Eb Vx Ib"),
  xmm("0F 3A 14 r", extract(1, 16), "=Ed Vx Ib"),
  xmm("0F 3A 15 m", extract(2, 8, true), "=Ew Vx Ib"),
  xmm("0F 3A 15 r", extract(2, 8), "=Ed Vx Ib"),
  xmm("0F 3A 16 W0", extract(4, 4), "=Ed Vx Ib"),
  { ...xmm("0F 3A 16 W1", extract(8, 2), "=Eq Vx Ib"), flags: "only64" },
  xmm("0F 3A 17", extract(4, 4), "=Ed Vx Ib"),

  { code: "NP 0F 77", run: emptyMmx, flags: "mmx" },
  { code: "NP 0F AE /2 m", operands: "Ed", run: loadMxcsr, flags: "sse" },
  { code: "NP 0F AE /3 m", operands: "=Ed", run: storeMxcsr, flags: "sse" },
];
