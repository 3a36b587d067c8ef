/**
 * x87 instructions that move numbers: loads, stores, constants, exchanges (SDM volume 2; APM volume 5).
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { condition } from "./flags.ts";
import { COMMIT_SIZE } from "./layout.ts";
import type { Handler, OpDef } from "./opcode.ts";
import { Exception, F32, F64, F80, type Format, isNan } from "./soft_float.ts";
import {
  BEFORE_RESULT,
  begin,
  getSt,
  INDEFINITE,
  isEmpty,
  operand,
  overflows,
  pop,
  push,
  setSt,
  settle,
  soft,
  source,
} from "./x87.ts";
import {
  constant,
  fromPacked,
  narrow,
  noteDenormal,
  PACKED_INDEFINITE,
  special,
  toInteger,
  toPacked,
} from "./x87_arithmetic.ts";
import {
  type Fetcher,
  fetchers,
  fixed,
  keepC1,
  memory,
  number,
  put,
  register,
  target,
} from "./x87_operand.ts";

/**
 * Puts a value on the stack as the end of an instruction. On AMD denormals are loaded even if that is
 * not masked.
 */
function load(cpu: Cpu, pc: number, value: bigint): void {
  const full = overflows(cpu);
  if (settle(cpu, pc, Exception.Invalid)) push(cpu, full ? INDEFINITE : value);
}

function fld(fetch: Fetcher): Handler {
  return (cpu, _a, _b, pc) => {
    begin(cpu);
    const { value, denormal } = fetch(cpu, pc);
    if (denormal) noteDenormal();
    load(cpu, pc, isNan(F80, value) ? special(value) : value);
  };
}

function fld80(cpu: Cpu, _a: number, _b: number, pc: number): void {
  begin(cpu);
  load(cpu, pc, fetch80(cpu, pc));
}

function fetch80(cpu: Cpu, pc: number): bigint {
  const at = source(cpu, pc, 10);
  return (BigInt(cpu.dv.getUint16(at + 8, true)) << 64n) |
    cpu.dv.getBigUint64(at, true);
}

function fbld(cpu: Cpu, _a: number, _b: number, pc: number): void {
  begin(cpu);
  load(cpu, pc, fromPacked(fetch80(cpu, pc)));
}

function fldSt(cpu: Cpu, _a: number, _b: number, pc: number): void {
  begin(cpu);
  load(cpu, pc, operand(cpu, number(cpu, pc)) ?? INDEFINITE);
}

function fldConstant(cpu: Cpu, _a: number, _b: number, pc: number): void {
  begin(cpu);
  load(cpu, pc, constant(number(cpu, pc)));
}

/** Stores have no result either when Overflow or Underflow is not masked. */
const STORE_BLOCKING = BEFORE_RESULT | Exception.Overflow |
  Exception.Underflow;

/**
 * Stores ST(0).
 *
 * @param bytes 2 to 10.
 * @param indefinite Stored for an empty register.
 * @param bitsOf What to store for a value; raises exceptions.
 */
function store(
  bytes: number,
  indefinite: bigint,
  bitsOf: (value: bigint) => bigint,
  pops: boolean,
): Handler {
  return (cpu, _a, _b, pc) => {
    begin(cpu);
    const value = operand(cpu, 0);
    const bits = value === undefined ? indefinite : bitsOf(value);
    const at = target(cpu, pc, bytes);
    if ((soft.flags & soft.unmasked & STORE_BLOCKING) === 0) {
      put(cpu, at, bytes, bits);
    } else {
      cpu.i32[COMMIT_SIZE] = 0;
      soft.flags &= ~Exception.Precision;
      soft.roundedUp = false;
    }
    if (settle(cpu, pc, STORE_BLOCKING) && pops) pop(cpu);
  };
}

function fst(f: Format, pops: boolean): Handler {
  return store(f.width / 8, f.defaultNan, (x) => narrow(f, x), pops);
}

function fist(size: number, pops: boolean, truncate = false): Handler {
  return store(
    size / 8,
    1n << BigInt(size - 1),
    (x) => toInteger(x, size, truncate),
    pops,
  );
}

const fstp80 = store(10, INDEFINITE, (x) => x, true);
const fbstp = store(10, PACKED_INDEFINITE, toPacked, true);

function fstSt(pops: boolean): Handler {
  return (cpu, _a, _b, pc) => {
    begin(cpu);
    const value = operand(cpu, 0) ?? INDEFINITE;
    if (!settle(cpu, pc)) return;
    setSt(cpu, number(cpu, pc), value);
    if (pops) pop(cpu);
  };
}

/** An alias of FSTP that takes an empty register off the stack without complaint. */
function fstpNoFault(cpu: Cpu, _a: number, _b: number, pc: number): void {
  begin(cpu);
  settle(cpu, pc);
  if (!isEmpty(cpu, 0)) setSt(cpu, number(cpu, pc), getSt(cpu, 0));
  pop(cpu);
}

/** FXCH: an empty register counts as the default NaN. */
function fxch(cpu: Cpu, _a: number, _b: number, pc: number): void {
  begin(cpu);
  const n = number(cpu, pc);
  const x = operand(cpu, 0) ?? INDEFINITE;
  const y = operand(cpu, n) ?? INDEFINITE;
  if (!settle(cpu, pc)) return;
  setSt(cpu, 0, y);
  setSt(cpu, n, x);
}

/** FCMOVcc; `code` is the condition of the matching CMOVcc. */
function fcmov(code: number): Handler {
  return (cpu, _a, _b, pc) => {
    begin(cpu);
    const x = operand(cpu, 0), y = operand(cpu, number(cpu, pc));
    keepC1(cpu);
    if (!settle(cpu, pc)) return;
    if (x === undefined || y === undefined) setSt(cpu, 0, INDEFINITE);
    else if (condition(cpu, code)) setSt(cpu, 0, y);
  };
}

/** The family's lines of the opcode tables. */
export const x87MoveOps: readonly OpDef[] = [
  memory("D9 /0", fld(fetchers.m32)),
  memory("D9 /2", fst(F32, false)),
  memory("D9 /3", fst(F32, true)),
  register("D9 /0", fldSt),
  register("D9 /1", fxch),
  register("D9 /3", fstpNoFault),
  ...Array.from(
    { length: 7 },
    (_, n) => fixed(`D9 E${(8 + n).toString(16)}`, fldConstant),
  ),
  register("DA /0", fcmov(2)),
  register("DA /1", fcmov(4)),
  register("DA /2", fcmov(6)),
  register("DA /3", fcmov(10)),
  memory("DB /0", fld(fetchers.i32)),
  memory("DB /1", fist(32, true, true)),
  memory("DB /2", fist(32, false)),
  memory("DB /3", fist(32, true)),
  memory("DB /5", fld80),
  memory("DB /7", fstp80),
  register("DB /0", fcmov(3)),
  register("DB /1", fcmov(5)),
  register("DB /2", fcmov(7)),
  register("DB /3", fcmov(11)),
  memory("DD /0", fld(fetchers.m64)),
  memory("DD /1", fist(64, true, true)),
  memory("DD /2", fst(F64, false)),
  memory("DD /3", fst(F64, true)),
  register("DD /1", fxch),
  register("DD /2", fstSt(false)),
  register("DD /3", fstSt(true)),
  memory("DF /0", fld(fetchers.i16)),
  memory("DF /1", fist(16, true, true)),
  memory("DF /2", fist(16, false)),
  memory("DF /3", fist(16, true)),
  memory("DF /4", fbld),
  memory("DF /5", fld(fetchers.i64)),
  memory("DF /6", fbstp),
  memory("DF /7", fist(64, true)),
  register("DF /1", fxch),
  register("DF /2", fstSt(true)),
  register("DF /3", fstSt(true)),
];
