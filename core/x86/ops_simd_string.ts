/**
 * SSE4.2's comparison of strings of up to 16 bytes or 8 halves (SDM volume 1, 12.10; volume 2B, 4.1).
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { setArithmeticFlags } from "./flags.ts";
import { Flag, GPR, R_IMM, VEC_B } from "./layout.ts";
import type { Handler, OpDef } from "./opcode.ts";
import { put32 } from "./operand.ts";

/** Bits of the immediate. */
const Imm = {
  Halves: 1,
  Signed: 2,
  AggregationShift: 2,
  Negative: 16,
  Masked: 32,
  /** The last index instead of the first; a mask of lanes instead of bits. */
  Other: 64,
} as const;

/** How elements of the two strings are compared; the first is a set, ranges, a string, or searched for. */
const Aggregation = { Any: 0, Ranges: 1, Each: 2, Ordered: 3 } as const;

/** Lanes of the strings being compared, and how many of them count. */
const X = new Int32Array(16), Y = new Int32Array(16);

/** Reads lanes; returns the number of those in front of the first 0. */
function read(cpu: Cpu, to: Int32Array, at: number, imm: number): number {
  const dv = cpu.dv;
  const halves = (imm & Imm.Halves) !== 0, signed = (imm & Imm.Signed) !== 0;
  const lanes = halves ? 8 : 16;
  let length = lanes;
  for (let n = lanes - 1; n >= 0; n--) {
    const value = halves
      ? signed ? dv.getInt16(at + 2 * n, true) : dv.getUint16(at + 2 * n, true)
      : signed
      ? dv.getInt8(at + n)
      : dv.getUint8(at + n);
    to[n] = value;
    if (value === 0) length = n;
  }
  return length;
}

/** The length that a register gives: its magnitude, at most `lanes`. */
function explicit(
  cpu: Cpu,
  register: number,
  wide: boolean,
  lanes: number,
): number {
  const low = cpu.i32[register]!;
  if (!wide) return Math.min(Math.abs(low), lanes);
  const value = cpu.i32[register + 1]! * 0x1_0000_0000 + (low >>> 0);
  return Math.min(Math.abs(value), lanes);
}

/** A bit for each element of Y: whether it matches. */
function matches(imm: number, nx: number, ny: number, lanes: number): number {
  const aggregation = (imm >>> Imm.AggregationShift) & 3;
  let result = 0;
  for (let j = 0; j < lanes; j++) {
    let found = false;
    switch (aggregation) {
      case Aggregation.Any:
        for (let i = 0; i < nx && j < ny; i++) found ||= X[i] === Y[j];
        break;
      case Aggregation.Ranges:
        for (let i = 0; i + 1 < nx && j < ny; i += 2) {
          found ||= X[i]! <= Y[j]! && Y[j]! <= X[i + 1]!;
        }
        break;
      case Aggregation.Each:
        found = j < nx && j < ny ? X[j] === Y[j] : j >= nx && j >= ny;
        break;
      default:
        found = true;
        for (let i = 0; i < nx && i + j < lanes; i++) {
          found &&= i + j < ny && X[i] === Y[i + j];
        }
    }
    if (found) result |= 1 << j;
  }
  return result;
}

/** Compares, sets the flags and returns the bits. */
function compare(
  cpu: Cpu,
  imm: number,
  nx: number,
  ny: number,
  lanes: number,
): number {
  let bits = matches(imm, nx, ny, lanes);
  if ((imm & Imm.Negative) !== 0) {
    const inverted = (imm & Imm.Masked) !== 0 ? ny : lanes;
    bits ^= (1 << inverted) - 1;
  }
  setArithmeticFlags(
    cpu,
    (bits !== 0 ? Flag.CF : 0) | (ny < lanes ? Flag.ZF : 0) |
      (nx < lanes ? Flag.SF : 0) | ((bits & 1) !== 0 ? Flag.OF : 0),
  );
  return bits;
}

/** Puts the index of the first or last set bit into ECX. */
function putIndex(cpu: Cpu, bits: number, imm: number, lanes: number): void {
  const index = bits === 0
    ? lanes
    : 31 - Math.clz32((imm & Imm.Other) !== 0 ? bits : bits & -bits);
  put32(cpu, 4 * (GPR + 2), index);
}

/** Puts the bits, or a mask of lanes, into XMM0. */
function putMask(cpu: Cpu, bits: number, imm: number, lanes: number): void {
  const dv = cpu.dv;
  for (let at = 0; at < 16; at += 4) dv.setInt32(VEC_B + at, 0, true);
  if ((imm & Imm.Other) === 0) {
    dv.setInt32(VEC_B, bits, true);
    return;
  }
  const size = 16 / lanes;
  for (let at = 0; at < 16; at++) {
    if (((bits >>> Math.floor(at / size)) & 1) !== 0) cpu.u8[VEC_B + at] = 255;
  }
}

type Put = (cpu: Cpu, bits: number, imm: number, lanes: number) => void;

/** Both ends of the strings are where their first 0 is. */
function implicitLengths(put: Put): Handler {
  return (cpu, a, b, pc) => {
    const imm = cpu.i32[pc + R_IMM]!;
    const lanes = (imm & Imm.Halves) !== 0 ? 8 : 16;
    const nx = read(cpu, X, a, imm), ny = read(cpu, Y, b, imm);
    put(cpu, compare(cpu, imm, nx, ny, lanes), imm, lanes);
  };
}

/** The lengths are in rAX and rDX. */
function explicitLengths(put: Put): OpDef["run"] {
  const sized = (wide: boolean): Handler => (cpu, a, b, pc) => {
    const imm = cpu.i32[pc + R_IMM]!;
    const lanes = (imm & Imm.Halves) !== 0 ? 8 : 16;
    read(cpu, X, a, imm);
    read(cpu, Y, b, imm);
    const nx = explicit(cpu, GPR, wide, lanes);
    const ny = explicit(cpu, GPR + 4, wide, lanes);
    put(cpu, compare(cpu, imm, nx, ny, lanes), imm, lanes);
  };
  const narrow = sized(false);
  return { 16: narrow, 32: narrow, 64: sized(true) };
}

function comparison(opcode: string, run: OpDef["run"]): OpDef {
  return { code: `66 0F 3A ${opcode}`, operands: "Vx Wu Ib", run };
}

/** The family's lines of the opcode tables. */
export const simdStringOps: readonly OpDef[] = [
  comparison("60", explicitLengths(putMask)),
  comparison("61", explicitLengths(putIndex)),
  comparison("62", implicitLengths(putMask)),
  comparison("63", implicitLengths(putIndex)),
];
