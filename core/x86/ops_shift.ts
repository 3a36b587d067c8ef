/**
 * Shifts and rotates. Flags that the SDM leaves undefined are what AMD's Zen processors
 * give: AF is kept by rotates and set by shifts; OF follows the rule for a count of 1.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import {
  arithmeticFlags,
  carry,
  resultFlags32,
  resultFlags64,
  setArithmeticFlags,
} from "./flags.ts";
import { Flag, HIGH, R_IMM } from "./layout.ts";
import type { Handler, OpDef } from "./opcode.ts";
import { put32, put64 } from "./operand.ts";

/** Reads an operand zero-extended; 32 bits as a signed number. */
function read(cpu: Cpu, a: number, size: number): number {
  return size === 1
    ? cpu.u8[a]!
    : size === 2
    ? cpu.dv.getUint16(a, true)
    : cpu.dv.getInt32(a, true);
}

function write(cpu: Cpu, a: number, value: number, size: number): void {
  if (size === 1) cpu.u8[a] = value;
  else if (size === 2) cpu.dv.setInt16(a, value, true);
  else put32(cpu, a, value);
}

/** Sign-extends a value of `size` bytes. */
function extend(value: number, size: number): number {
  const unused = 32 - 8 * size;
  return (value << unused) >> unused;
}

/** CF and OF of a rotate; the other flags stay. */
function rotateFlags(cpu: Cpu, cf: number, of: number): void {
  setArithmeticFlags(
    cpu,
    (arithmeticFlags(cpu) & ~(Flag.CF | Flag.OF)) | cf | (of << 11),
  );
}

function rol(cpu: Cpu, a: number, b: number, size: number): void {
  const bits = 8 * size;
  const masked = cpu.u8[b]! & 31;
  const value = read(cpu, a, size);
  if (masked === 0) {
    // A 32-bit register operand is written even so.
    if (size === 4) put32(cpu, a, value);
    return;
  }
  const count = masked % bits;
  const result = count === 0
    ? value
    : (value << count) | (value >>> (bits - count));
  write(cpu, a, result, size);
  const cf = result & 1;
  rotateFlags(cpu, cf, ((result >>> (bits - 1)) & 1) ^ cf);
}

function ror(cpu: Cpu, a: number, b: number, size: number): void {
  const bits = 8 * size;
  const masked = cpu.u8[b]! & 31;
  const value = read(cpu, a, size);
  if (masked === 0) {
    if (size === 4) put32(cpu, a, value);
    return;
  }
  const count = masked % bits;
  const result = count === 0
    ? value
    : (value >>> count) | (value << (bits - count));
  write(cpu, a, result, size);
  const cf = (result >>> (bits - 1)) & 1;
  rotateFlags(cpu, cf, cf ^ ((result >>> (bits - 2)) & 1));
}

function rcl(cpu: Cpu, a: number, b: number, size: number): void {
  const bits = 8 * size;
  const masked = cpu.u8[b]! & 31;
  let value = read(cpu, a, size);
  if (masked === 0) {
    if (size === 4) put32(cpu, a, value);
    return;
  }
  const count = masked % (bits + 1);
  let cf = carry(cpu);
  for (let n = 0; n < count; n++) {
    const out = (value >>> (bits - 1)) & 1;
    value = (value << 1) | cf;
    cf = out;
  }
  write(cpu, a, value, size);
  rotateFlags(cpu, cf, ((value >>> (bits - 1)) & 1) ^ cf);
}

function rcr(cpu: Cpu, a: number, b: number, size: number): void {
  const bits = 8 * size;
  const masked = cpu.u8[b]! & 31;
  let value = read(cpu, a, size);
  if (masked === 0) {
    if (size === 4) put32(cpu, a, value);
    return;
  }
  const count = masked % (bits + 1);
  let cf = carry(cpu);
  for (let n = 0; n < count; n++) {
    const out = value & 1;
    value = (value >>> 1) | (cf << (bits - 1));
    cf = out;
  }
  write(cpu, a, value, size);
  rotateFlags(
    cpu,
    cf,
    ((value >>> (bits - 1)) ^ (value >>> (bits - 2))) & 1,
  );
}

function shl(cpu: Cpu, a: number, b: number, size: number): void {
  const bits = 8 * size;
  const count = cpu.u8[b]! & 31;
  const value = read(cpu, a, size);
  if (count === 0) {
    if (size === 4) put32(cpu, a, value);
    return;
  }
  const result = value << count;
  const cf = count > bits ? 0 : (value >>> (bits - count)) & 1;
  write(cpu, a, result, size);
  const r = extend(result, size);
  setArithmeticFlags(
    cpu,
    Flag.AF | cf | resultFlags32(r) | (((r >>> 31) ^ cf) << 11),
  );
}

function shr(cpu: Cpu, a: number, b: number, size: number): void {
  const bits = 8 * size;
  const count = cpu.u8[b]! & 31;
  const value = read(cpu, a, size);
  if (count === 0) {
    if (size === 4) put32(cpu, a, value);
    return;
  }
  const result = value >>> count;
  const cf = (value >>> (count - 1)) & 1;
  write(cpu, a, result, size);
  const r = extend(result, size);
  const of = ((result >>> (bits - 1)) ^ (result >>> (bits - 2))) & 1;
  setArithmeticFlags(cpu, Flag.AF | cf | resultFlags32(r) | (of << 11));
}

function sar(cpu: Cpu, a: number, b: number, size: number): void {
  const count = cpu.u8[b]! & 31;
  const value = extend(read(cpu, a, size), size);
  if (count === 0) {
    if (size === 4) put32(cpu, a, value);
    return;
  }
  const result = value >> count;
  write(cpu, a, result, size);
  setArithmeticFlags(
    cpu,
    Flag.AF | ((value >> (count - 1)) & 1) | resultFlags32(result),
  );
}

// 64 bits, in two words. ------------------------------------------------------

/** Low word of (low, high) << count, count 0 to 63; the high word in HIGH. */
function left64(cpu: Cpu, low: number, high: number, count: number): number {
  const i = cpu.i32;
  if (count === 0) {
    i[HIGH] = high;
    return low;
  }
  if (count >= 32) {
    i[HIGH] = low << (count - 32);
    return 0;
  }
  i[HIGH] = (high << count) | (low >>> (32 - count));
  return low << count;
}

/** Low word of (low, high) >>> count; the high word in HIGH. */
function right64(cpu: Cpu, low: number, high: number, count: number): number {
  const i = cpu.i32;
  if (count === 0) {
    i[HIGH] = high;
    return low;
  }
  if (count >= 32) {
    i[HIGH] = 0;
    return (high >>> (count - 32)) | 0;
  }
  i[HIGH] = high >>> count;
  return (low >>> count) | (high << (32 - count));
}

/** Bit `n` of (low, high). */
function bit64(low: number, high: number, n: number): number {
  return n < 32 ? (low >>> n) & 1 : (high >>> (n - 32)) & 1;
}

function rol64(cpu: Cpu, a: number, b: number): void {
  const count = cpu.u8[b]! & 63;
  if (count === 0) return;
  rotate64(cpu, a, count);
  const low = cpu.dv.getInt32(a, true), high = cpu.dv.getInt32(a + 4, true);
  rotateFlags(cpu, low & 1, (high >>> 31) ^ (low & 1));
}

function ror64(cpu: Cpu, a: number, b: number): void {
  const count = cpu.u8[b]! & 63;
  if (count === 0) return;
  rotate64(cpu, a, 64 - count);
  const high = cpu.dv.getInt32(a + 4, true);
  rotateFlags(cpu, high >>> 31, ((high >>> 31) ^ (high >>> 30)) & 1);
}

/** Rotates left by 1 to 63. */
function rotate64(cpu: Cpu, a: number, count: number): void {
  const low = cpu.dv.getInt32(a, true), high = cpu.dv.getInt32(a + 4, true);
  const l1 = left64(cpu, low, high, count);
  const h1 = cpu.i32[HIGH]!;
  const l2 = right64(cpu, low, high, 64 - count);
  put64(cpu, a, l1 | l2, h1 | cpu.i32[HIGH]!);
}

function rcl64(cpu: Cpu, a: number, b: number): void {
  const count = cpu.u8[b]! & 63;
  if (count === 0) return;
  let low = cpu.dv.getInt32(a, true), high = cpu.dv.getInt32(a + 4, true);
  let cf = carry(cpu);
  for (let n = 0; n < count; n++) {
    const out = high >>> 31;
    high = (high << 1) | (low >>> 31);
    low = (low << 1) | cf;
    cf = out;
  }
  put64(cpu, a, low, high);
  rotateFlags(cpu, cf, (high >>> 31) ^ cf);
}

function rcr64(cpu: Cpu, a: number, b: number): void {
  const count = cpu.u8[b]! & 63;
  if (count === 0) return;
  let low = cpu.dv.getInt32(a, true), high = cpu.dv.getInt32(a + 4, true);
  let cf = carry(cpu);
  for (let n = 0; n < count; n++) {
    const out = low & 1;
    low = (low >>> 1) | (high << 31);
    high = (high >>> 1) | (cf << 31);
    cf = out;
  }
  put64(cpu, a, low, high);
  rotateFlags(cpu, cf, ((high >>> 31) ^ (high >>> 30)) & 1);
}

function shl64(cpu: Cpu, a: number, b: number): void {
  const count = cpu.u8[b]! & 63;
  if (count === 0) return;
  const low = cpu.dv.getInt32(a, true), high = cpu.dv.getInt32(a + 4, true);
  const r = left64(cpu, low, high, count);
  const rh = cpu.i32[HIGH]!;
  const cf = bit64(low, high, 64 - count);
  put64(cpu, a, r, rh);
  setArithmeticFlags(
    cpu,
    Flag.AF | cf | resultFlags64(r, rh) | (((rh >>> 31) ^ cf) << 11),
  );
}

function shr64(cpu: Cpu, a: number, b: number): void {
  const count = cpu.u8[b]! & 63;
  if (count === 0) return;
  const low = cpu.dv.getInt32(a, true), high = cpu.dv.getInt32(a + 4, true);
  const r = right64(cpu, low, high, count);
  const rh = cpu.i32[HIGH]!;
  put64(cpu, a, r, rh);
  setArithmeticFlags(
    cpu,
    Flag.AF | bit64(low, high, count - 1) | resultFlags64(r, rh) |
      ((((rh >>> 31) ^ (rh >>> 30)) & 1) << 11),
  );
}

function sar64(cpu: Cpu, a: number, b: number): void {
  const count = cpu.u8[b]! & 63;
  if (count === 0) return;
  const low = cpu.dv.getInt32(a, true), high = cpu.dv.getInt32(a + 4, true);
  const r = count >= 32
    ? high >> (count - 32)
    : (low >>> count) | (high << (32 - count));
  const rh = high >> Math.min(31, count);
  put64(cpu, a, r, rh);
  setArithmeticFlags(
    cpu,
    Flag.AF | bit64(low, high, count - 1) | resultFlags64(r, rh),
  );
}

// Double shifts. ---------------------------------------------------------------

/**
 * SHLD of 16 or 32 bits. With a count above 16 the bits that come into 16 are the source's once more, and CF and OF are 0,
 * as on Zen, where with 16 OF is CF.
 */
function shld(size: number, immediate: boolean): Handler {
  const bits = 8 * size;
  return (cpu, a, b, pc) => {
    const count = (immediate ? cpu.i32[pc + R_IMM]! : cpu.u8[8]!) & 31;
    const value = read(cpu, a, size);
    if (count === 0) {
      if (size === 4) put32(cpu, a, value);
      return;
    }
    const source = read(cpu, b, size);
    let result: number;
    if (size === 4) result = (value << count) | (source >>> (32 - count));
    else if (count <= 16) result = ((value << 16) | source) << count >>> 16;
    else result = ((source << 16) | source) << (count - 16) >>> 16;
    const cf = count > bits ? 0 : (value >>> (bits - count)) & 1;
    const of = (count >= bits ? 0 : (result >>> (bits - 1)) & 1) ^ cf;
    write(cpu, a, result, size);
    setArithmeticFlags(
      cpu,
      Flag.AF | cf | resultFlags32(extend(result, size)) | (of << 11),
    );
  };
}

/** SHRD of 16 or 32 bits; counts above 16 as for {@linkcode shld}. */
function shrd(size: number, immediate: boolean): Handler {
  return (cpu, a, b, pc) => {
    const count = (immediate ? cpu.i32[pc + R_IMM]! : cpu.u8[8]!) & 31;
    const value = read(cpu, a, size);
    if (count === 0) {
      if (size === 4) put32(cpu, a, value);
      return;
    }
    const source = read(cpu, b, size);
    let result: number;
    if (size === 4) result = (value >>> count) | (source << (32 - count));
    else if (count <= 16) result = ((source << 16) | value) >>> count;
    else result = ((source << 16) | source) >>> (count - 16);
    const cf = (value >>> (count - 1)) & 1;
    write(cpu, a, result, size);
    const r = extend(result, size);
    const of = ((r >>> 31) ^ (r >>> 8 * size - 2)) & 1;
    setArithmeticFlags(cpu, Flag.AF | cf | resultFlags32(r) | (of << 11));
  };
}

function shld64(immediate: boolean): Handler {
  return (cpu, a, b, pc) => {
    const count = (immediate ? cpu.i32[pc + R_IMM]! : cpu.u8[8]!) & 63;
    if (count === 0) return;
    const low = cpu.dv.getInt32(a, true), high = cpu.dv.getInt32(a + 4, true);
    const l1 = left64(cpu, low, high, count), h1 = cpu.i32[HIGH]!;
    const l2 = right64(
      cpu,
      cpu.dv.getInt32(b, true),
      cpu.dv.getInt32(b + 4, true),
      64 - count,
    );
    const r = l1 | l2, rh = h1 | cpu.i32[HIGH]!;
    const cf = bit64(low, high, 64 - count);
    put64(cpu, a, r, rh);
    setArithmeticFlags(
      cpu,
      Flag.AF | cf | resultFlags64(r, rh) | (((rh >>> 31) ^ cf) << 11),
    );
  };
}

function shrd64(immediate: boolean): Handler {
  return (cpu, a, b, pc) => {
    const count = (immediate ? cpu.i32[pc + R_IMM]! : cpu.u8[8]!) & 63;
    if (count === 0) return;
    const low = cpu.dv.getInt32(a, true), high = cpu.dv.getInt32(a + 4, true);
    const l1 = right64(cpu, low, high, count), h1 = cpu.i32[HIGH]!;
    const l2 = left64(
      cpu,
      cpu.dv.getInt32(b, true),
      cpu.dv.getInt32(b + 4, true),
      64 - count,
    );
    const r = l1 | l2, rh = h1 | cpu.i32[HIGH]!;
    put64(cpu, a, r, rh);
    setArithmeticFlags(
      cpu,
      Flag.AF | bit64(low, high, count - 1) | resultFlags64(r, rh) |
        ((((rh >>> 31) ^ (rh >>> 30)) & 1) << 11),
    );
  };
}

type Sized = (cpu: Cpu, a: number, b: number, size: number) => void;

function of(op: Sized, size: number): Handler {
  return (cpu, a, b) => op(cpu, a, b, size);
}

const GROUP: readonly (readonly [Sized, Handler])[] = [
  [rol, rol64],
  [ror, ror64],
  [rcl, rcl64],
  [rcr, rcr64],
  [shl, shl64],
  [shr, shr64],
  [shl, shl64],
  [sar, sar64],
];

function group(): OpDef[] {
  const defs: OpDef[] = [];
  GROUP.forEach(([op, op64], n) => {
    const byte = of(op, 1);
    const wide = { 16: of(op, 2), 32: of(op, 4), 64: op64 };
    for (
      const [code, count] of [["C0", "Ib"], ["D0", "1"], ["D2", "CL"]] as const
    ) {
      const next = (parseInt(code, 16) + 1).toString(16).toUpperCase();
      defs.push(
        { code: `${code} /${n}`, operands: `+Eb ${count}`, run: byte },
        { code: `${next} /${n}`, operands: `+Ev ${count}`, run: wide },
      );
    }
  });
  return defs;
}

/** The family's lines of the opcode tables. */
export const shiftOps: readonly OpDef[] = [
  ...group(),
  {
    code: "0F A4",
    operands: "+Ev Gv Ib",
    run: { 16: shld(2, true), 32: shld(4, true), 64: shld64(true) },
  },
  {
    code: "0F A5",
    operands: "+Ev Gv",
    run: { 16: shld(2, false), 32: shld(4, false), 64: shld64(false) },
  },
  {
    code: "0F AC",
    operands: "+Ev Gv Ib",
    run: { 16: shrd(2, true), 32: shrd(4, true), 64: shrd64(true) },
  },
  {
    code: "0F AD",
    operands: "+Ev Gv",
    run: { 16: shrd(2, false), 32: shrd(4, false), 64: shrd64(false) },
  },
];
