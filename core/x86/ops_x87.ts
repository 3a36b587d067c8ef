/**
 * The x87 instruction set (SDM volume 2; APM volume 5). Handlers find the operand in memory and the result
 * first; the state changes once nothing can fault any more.
 *
 * @module
 */
import { commit, requireAlignment, writeAddress } from "./access.ts";
import { linearOf } from "./address.ts";
import type { Cpu } from "./cpu.ts";
import { condition, setArithmeticFlags } from "./flags.ts";
import { COMMIT_SIZE, CR0, EA, FCW, Flag, FSW, R_IMM } from "./layout.ts";
import { fault, Vector } from "./fault.ts";
import type { Handler, OpDef } from "./opcode.ts";
import { Cr } from "./paging.ts";
import { Exception, F32, F64, F80, type Format, isNan } from "./soft_float.ts";
import {
  BEFORE_RESULT,
  begin,
  checkAvailable,
  checkPending,
  free,
  getSt,
  INDEFINITE,
  initialize,
  isEmpty,
  operand,
  overflows,
  pop,
  push,
  setSt,
  settle,
  soft,
  source,
  Status,
  summarize,
  turn,
} from "./x87.ts";
import {
  constant,
  examine,
  fromPacked,
  narrow,
  noteDenormal,
  operate,
  PACKED_INDEFINITE,
  relate,
  roundToInteger,
  special,
  squareRoot,
  toInteger,
  toPacked,
  UNORDERED,
  widen,
  type Widened,
  widenInteger,
} from "./x87_arithmetic.ts";
import {
  CONTROL_BITS,
  fldenv,
  fnsave,
  fnstenv,
  frstor,
} from "./x87_environment.ts";
import { extract, remainder, scale } from "./x87_scaling.ts";
import {
  arctangent,
  cos,
  isOutOfRange,
  powerOf2Less1,
  sin,
  sineAndCosine,
  tangent,
  yLog2,
  yLog2Plus1,
} from "./x87_transcendental.ts";

const CODES = Status.C0 | Status.C2 | Status.C3;

/** Fetches an operand from memory and widens it. */
type Fetcher = (cpu: Cpu, pc: number) => Widened;

const fetchers: Record<"m32" | "m64" | "i16" | "i32" | "i64", Fetcher> = {
  m32: (cpu, pc) =>
    widen(F32, BigInt(cpu.dv.getUint32(source(cpu, pc, 4), true))),
  m64: (cpu, pc) => widen(F64, cpu.dv.getBigUint64(source(cpu, pc, 8), true)),
  i16: (cpu, pc) =>
    widenInteger(BigInt(cpu.dv.getInt16(source(cpu, pc, 2), true))),
  i32: (cpu, pc) =>
    widenInteger(BigInt(cpu.dv.getInt32(source(cpu, pc, 4), true))),
  i64: (cpu, pc) => widenInteger(cpu.dv.getBigInt64(source(cpu, pc, 8), true)),
};

/** The n of ST(n) in a register form. */
function number(cpu: Cpu, pc: number): number {
  return cpu.i32[pc + R_IMM]! & 7;
}

// Loads and stores. --------------------------------------------------------------

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

/** Ten bytes; the alignment that counts is 8. */
function fld80(cpu: Cpu, _a: number, _b: number, pc: number): void {
  begin(cpu);
  load(cpu, pc, fetch80(cpu, pc));
}

function fetch80(cpu: Cpu, pc: number): bigint {
  const at = source(cpu, pc, 10);
  requireAlignment(cpu, cpu.i32[EA]!, 8);
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

/** Host address of an operand in memory that is written by {@linkcode put}. */
function target(cpu: Cpu, pc: number, bytes: number): number {
  const i = cpu.i32;
  linearOf(cpu, pc, bytes, true);
  if (bytes === 10) requireAlignment(cpu, i[EA]!, 8);
  return writeAddress(cpu, i[EA]!, i[EA + 1]!, bytes);
}

function put(cpu: Cpu, at: number, bytes: number, bits: bigint): void {
  const { dv } = cpu;
  if (bytes === 2) dv.setUint16(at, Number(bits), true);
  else if (bytes === 4) dv.setUint32(at, Number(bits), true);
  else dv.setBigUint64(at, bits, true);
  if (bytes === 10) dv.setUint16(at + 8, Number(bits >> 64n), true);
  if (cpu.i32[COMMIT_SIZE] !== 0) commit(cpu);
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

/** For FNOP and the P6's instructions, which leave C1 as it is but for a stack fault. */
function keepC1(cpu: Cpu): void {
  if ((soft.flags & Status.SF) === 0) {
    soft.roundedUp = (cpu.i32[FSW]! & Status.C1) !== 0;
  }
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

// Arithmetic. --------------------------------------------------------------------

/** ST(0) and an operand in memory. */
function withMemory(operation: number, fetch: Fetcher): Handler {
  return (cpu, _a, _b, pc) => {
    begin(cpu);
    const { value, denormal } = fetch(cpu, pc);
    const x = operand(cpu, 0);
    const result = x === undefined
      ? INDEFINITE
      : operate(cpu, operation, x, value, denormal);
    if (settle(cpu, pc)) setSt(cpu, 0, result);
  };
}

/** ST(0) and ST(n); the result goes to one of them. */
function withSt(operation: number, toN: boolean, pops: boolean): Handler {
  return (cpu, _a, _b, pc) => {
    begin(cpu);
    const n = number(cpu, pc);
    const x = operand(cpu, 0), y = operand(cpu, n);
    const result = x === undefined || y === undefined
      ? INDEFINITE
      : operate(cpu, operation, x, y, false);
    if (!settle(cpu, pc)) return;
    setSt(cpu, toN ? n : 0, result);
    if (pops) pop(cpu);
  };
}

/** An operation on ST(0) alone. */
function unary(compute: (cpu: Cpu, value: bigint) => bigint): Handler {
  return (cpu, _a, _b, pc) => {
    begin(cpu);
    const x = operand(cpu, 0);
    const result = x === undefined ? INDEFINITE : compute(cpu, x);
    if (settle(cpu, pc)) setSt(cpu, 0, result);
  };
}

/** An operation on ST(0) and ST(1); the result goes to ST(0), or to ST(1) before ST(0) is popped. */
function binary(
  compute: (x: bigint, y: bigint) => bigint,
  pops: boolean,
): Handler {
  return (cpu, _a, _b, pc) => {
    begin(cpu);
    const x = operand(cpu, 0), y = operand(cpu, 1);
    const result = x === undefined || y === undefined
      ? INDEFINITE
      : compute(x, y);
    if (!settle(cpu, pc)) return;
    setSt(cpu, pops ? 1 : 0, result);
    if (pops) pop(cpu);
  };
}

function fprem(nearest: boolean): Handler {
  return (cpu, _a, _b, pc) => {
    begin(cpu);
    const x = operand(cpu, 0), y = operand(cpu, 1);
    const { value, codes } = x === undefined || y === undefined
      ? { value: INDEFINITE, codes: undefined }
      : remainder(x, y, nearest);
    const delivered = settle(cpu, pc);
    const status = cpu.i32[FSW]!;
    cpu.i32[FSW] = codes === undefined
      ? status & ~Status.C2
      : (status & ~(CODES | Status.C1)) | codes;
    if (delivered) setSt(cpu, 0, value);
  };
}

/**
 * Replaces ST(0) by one result and pushes another; the register for that has to be empty.
 *
 * @param compute Both results, or undefined for an angle out of range: C2 is set and nothing else done.
 */
function twofold(
  compute: (value: bigint) => readonly [bigint, bigint] | undefined,
): Handler {
  return (cpu, _a, _b, pc) => {
    begin(cpu);
    const x = operand(cpu, 0);
    const results = x === undefined || overflows(cpu)
      ? [INDEFINITE, INDEFINITE] as const
      : compute(x);
    const delivered = settle(cpu, pc);
    if (compute !== extract) setC2(cpu, results === undefined);
    if (!delivered || results === undefined) return;
    setSt(cpu, 0, results[0]);
    push(cpu, results[1]);
  };
}

/** FSIN and FCOS. */
function circular(compute: (value: bigint) => bigint): Handler {
  return (cpu, _a, _b, pc) => {
    begin(cpu);
    const x = operand(cpu, 0);
    const far = x !== undefined && isOutOfRange(x);
    const result = x === undefined ? INDEFINITE : far ? x : compute(x);
    const delivered = settle(cpu, pc);
    setC2(cpu, far);
    if (delivered && !far) setSt(cpu, 0, result);
  };
}

function setC2(cpu: Cpu, on: boolean): void {
  const status = cpu.i32[FSW]! & ~Status.C2;
  cpu.i32[FSW] = on ? status | Status.C2 : status;
}

// Comparisons: the result is there even if an exception is not masked, but nothing is popped. ---------

function setCodes(cpu: Cpu, codes: number): void {
  cpu.i32[FSW] = (cpu.i32[FSW]! & ~CODES) | codes;
}

function compareMemory(fetch: Fetcher, pops: boolean): Handler {
  return (cpu, _a, _b, pc) => {
    begin(cpu);
    const { value, denormal } = fetch(cpu, pc);
    const x = operand(cpu, 0);
    const codes = x === undefined
      ? UNORDERED
      : relate(x, value, denormal, false);
    const delivered = settle(cpu, pc);
    setCodes(cpu, codes);
    if (delivered && pops) pop(cpu);
  };
}

/** The relation of ST(0) to ST(n). */
function relateSt(cpu: Cpu, n: number, quiet: boolean): number {
  const x = operand(cpu, 0), y = operand(cpu, n);
  return x === undefined || y === undefined
    ? UNORDERED
    : relate(x, y, false, quiet);
}

function compareSt(quiet: boolean, pops: number): Handler {
  return (cpu, _a, _b, pc) => {
    begin(cpu);
    const codes = relateSt(cpu, number(cpu, pc), quiet);
    const delivered = settle(cpu, pc);
    setCodes(cpu, codes);
    for (let n = 0; delivered && n < pops; n++) pop(cpu);
  };
}

/** FCOMI and its kin: ZF, PF and CF stand for C3, C2 and C0. */
function compareFlags(quiet: boolean, pops: boolean): Handler {
  return (cpu, _a, _b, pc) => {
    begin(cpu);
    const codes = relateSt(cpu, number(cpu, pc), quiet);
    keepC1(cpu);
    const delivered = settle(cpu, pc);
    setArithmeticFlags(
      cpu,
      ((codes & Status.C3) !== 0 ? Flag.ZF : 0) |
        ((codes & Status.C2) !== 0 ? Flag.PF : 0) |
        ((codes & Status.C0) !== 0 ? Flag.CF : 0),
    );
    if (delivered && pops) pop(cpu);
  };
}

function ftst(cpu: Cpu, _a: number, _b: number, pc: number): void {
  begin(cpu);
  const x = operand(cpu, 0);
  const codes = x === undefined ? UNORDERED : relate(x, 0n, false, false);
  settle(cpu, pc);
  setCodes(cpu, codes);
}

function fxam(cpu: Cpu, _a: number, _b: number, pc: number): void {
  begin(cpu);
  const codes = examine(getSt(cpu, 0), isEmpty(cpu, 0));
  settle(cpu, pc);
  setCodes(cpu, codes);
}

// Control. -----------------------------------------------------------------------

function fldcw(cpu: Cpu, _a: number, _b: number, pc: number): void {
  begin(cpu);
  const value = cpu.dv.getUint16(source(cpu, pc, 2), true);
  cpu.i32[FCW] = (value & CONTROL_BITS) | 0x40;
  summarize(cpu);
}

/** FNSTCW and FNSTSW. */
function storeWord(word: number): Handler {
  return (cpu, _a, _b, pc) => {
    checkAvailable(cpu);
    put(cpu, target(cpu, pc, 2), 2, BigInt(cpu.i32[word]!));
  };
}

function fnstswAx(cpu: Cpu): void {
  checkAvailable(cpu);
  cpu.dv.setUint16(0, cpu.i32[FSW]!, true);
}

function fninit(cpu: Cpu): void {
  checkAvailable(cpu);
  initialize(cpu);
}

function fnclex(cpu: Cpu): void {
  checkAvailable(cpu);
  cpu.i32[FSW] = cpu.i32[FSW]! & 0x7f00;
}

function fnop(cpu: Cpu, _a: number, _b: number, pc: number): void {
  begin(cpu);
  keepC1(cpu);
  settle(cpu, pc);
}

function ffree(pops: boolean): Handler {
  return (cpu, _a, _b, pc) => {
    begin(cpu);
    settle(cpu, pc);
    free(cpu, number(cpu, pc));
    if (pops) pop(cpu);
  };
}

/** FDECSTP and FINCSTP. */
function turnStack(by: number): Handler {
  return (cpu, _a, _b, pc) => {
    begin(cpu);
    settle(cpu, pc);
    turn(cpu, by);
  };
}

function wait(cpu: Cpu): void {
  const both = Cr.MP | Cr.TS;
  if ((cpu.i32[CR0]! & both) === both) fault(cpu, Vector.NM);
  checkPending(cpu);
}

/** The operations with the numbers that ModRM.reg gives them; 2 and 3 compare. */
const OPERATIONS = [0, 1, 4, 5, 6, 7] as const;

/** D8, DA, DC and DE with an operand in memory. */
function memoryArithmetic(opcode: string, fetch: Fetcher): OpDef[] {
  const line = (n: number, run: Handler): OpDef => ({
    code: `${opcode} /${n} m`,
    operands: "M X",
    run,
  });
  return [
    ...OPERATIONS.map((n) => line(n, withMemory(n, fetch))),
    line(2, compareMemory(fetch, false)),
    line(3, compareMemory(fetch, true)),
  ];
}

/** The same operations on registers: opcode, whether ST(n) is the destination, whether it pops. */
function registerArithmetic(
  opcode: string,
  toN: boolean,
  pops: boolean,
): OpDef[] {
  return OPERATIONS.map((n) =>
    register(`${opcode} /${n}`, withSt(n, toN, pops))
  );
}

function memory(code: string, run: OpDef["run"]): OpDef {
  return { code: `${code} m`, operands: "M X", run };
}

function register(code: string, run: Handler): OpDef {
  return { code: `${code} r`, operands: "X", run };
}

/** An instruction whose second byte is fixed. */
function fixed(code: string, run: Handler): OpDef {
  return { code, operands: "X", run };
}

/** By operand size: 16 bits, or 32 also in 64-bit mode. */
function sized(make: (size: number) => Handler): OpDef["run"] {
  return { 16: make(2), 32: make(4) };
}

/** The family's lines of the opcode tables. */
export const x87Ops: readonly OpDef[] = [
  { code: "9B", run: wait },
  ...memoryArithmetic("D8", fetchers.m32),
  ...memoryArithmetic("DA", fetchers.i32),
  ...memoryArithmetic("DC", fetchers.m64),
  ...memoryArithmetic("DE", fetchers.i16),
  ...registerArithmetic("D8", false, false),
  ...registerArithmetic("DC", true, false),
  ...registerArithmetic("DE", true, true),
  register("D8 /2", compareSt(false, 0)),
  register("D8 /3", compareSt(false, 1)),
  register("DC /2", compareSt(false, 0)),
  register("DC /3", compareSt(false, 1)),
  register("DE /2", compareSt(false, 1)),
  fixed("DE D9", compareSt(false, 2)),

  memory("D9 /0", fld(fetchers.m32)),
  memory("D9 /2", fst(F32, false)),
  memory("D9 /3", fst(F32, true)),
  memory("D9 /4", sized(fldenv)),
  memory("D9 /5", fldcw),
  memory("D9 /6", sized(fnstenv)),
  memory("D9 /7", storeWord(FCW)),
  register("D9 /0", fldSt),
  register("D9 /1", fxch),
  fixed("D9 D0", fnop),
  register("D9 /3", fstpNoFault),
  fixed("D9 E0", unary((_, x) => x ^ F80.sign)),
  fixed("D9 E1", unary((_, x) => x & ~F80.sign)),
  fixed("D9 E4", ftst),
  fixed("D9 E5", fxam),
  ...Array.from(
    { length: 7 },
    (_, n) => fixed(`D9 E${(8 + n).toString(16)}`, fldConstant),
  ),
  fixed("D9 F0", unary((_, x) => powerOf2Less1(x))),
  fixed("D9 F1", binary(yLog2, true)),
  fixed("D9 F2", twofold(tangent)),
  fixed("D9 F3", binary((x, y) => arctangent(y, x), true)),
  fixed("D9 F4", twofold(extract)),
  fixed("D9 F5", fprem(true)),
  fixed("D9 F6", turnStack(-1)),
  fixed("D9 F7", turnStack(1)),
  fixed("D9 F8", fprem(false)),
  fixed("D9 F9", binary(yLog2Plus1, true)),
  fixed("D9 FA", unary(squareRoot)),
  fixed("D9 FB", twofold(sineAndCosine)),
  fixed("D9 FC", unary((_, x) => roundToInteger(x))),
  fixed("D9 FD", binary(scale, false)),
  fixed("D9 FE", circular(sin)),
  fixed("D9 FF", circular(cos)),

  register("DA /0", fcmov(2)),
  register("DA /1", fcmov(4)),
  register("DA /2", fcmov(6)),
  register("DA /3", fcmov(10)),
  fixed("DA E9", compareSt(true, 2)),

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
  // FNENI and FNDISI of the 8087 and FNSETPM of the 287 do nothing.
  fixed("DB E0", checkAvailable),
  fixed("DB E1", checkAvailable),
  fixed("DB E2", fnclex),
  fixed("DB E3", fninit),
  fixed("DB E4", checkAvailable),
  register("DB /5", compareFlags(true, false)),
  register("DB /6", compareFlags(false, false)),

  memory("DD /0", fld(fetchers.m64)),
  memory("DD /1", fist(64, true, true)),
  memory("DD /2", fst(F64, false)),
  memory("DD /3", fst(F64, true)),
  memory("DD /4", sized(frstor)),
  memory("DD /6", sized(fnsave)),
  memory("DD /7", storeWord(FSW)),
  register("DD /0", ffree(false)),
  register("DD /1", fxch),
  register("DD /2", fstSt(false)),
  register("DD /3", fstSt(true)),
  register("DD /4", compareSt(true, 0)),
  register("DD /5", compareSt(true, 1)),

  memory("DF /0", fld(fetchers.i16)),
  memory("DF /1", fist(16, true, true)),
  memory("DF /2", fist(16, false)),
  memory("DF /3", fist(16, true)),
  memory("DF /4", fbld),
  memory("DF /5", fld(fetchers.i64)),
  memory("DF /6", fbstp),
  memory("DF /7", fist(64, true)),
  register("DF /0", ffree(true)),
  register("DF /1", fxch),
  register("DF /2", fstSt(true)),
  register("DF /3", fstSt(true)),
  fixed("DF E0", fnstswAx),
  register("DF /5", compareFlags(true, true)),
  register("DF /6", compareFlags(false, true)),
];
