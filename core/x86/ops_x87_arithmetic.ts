/**
 * x87 instructions that compute and compare (SDM volume 2; APM volume 5).
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { setArithmeticFlags } from "./flags.ts";
import { Flag, FSW } from "./layout.ts";
import type { Handler, OpDef } from "./opcode.ts";
import { F80 } from "./soft_float.ts";
import {
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
  Status,
} from "./x87.ts";
import {
  examine,
  operate,
  relate,
  roundToInteger,
  squareRoot,
  UNORDERED,
} from "./x87_arithmetic.ts";
import {
  type Fetcher,
  fetchers,
  fixed,
  keepC1,
  memory,
  number,
  register,
} from "./x87_operand.ts";
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
 * @param angle Whether C2 tells about an angle at all.
 */
function twofold(
  compute: (value: bigint) => readonly [bigint, bigint] | undefined,
  angle: boolean,
): Handler {
  return (cpu, _a, _b, pc) => {
    begin(cpu);
    const x = operand(cpu, 0);
    const results = x === undefined || overflows(cpu)
      ? [INDEFINITE, INDEFINITE] as const
      : compute(x);
    const delivered = settle(cpu, pc);
    if (angle) setC2(cpu, results === undefined);
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

/** The operations with the numbers that ModRM.reg gives them; 2 and 3 compare. */
const OPERATIONS = [0, 1, 4, 5, 6, 7] as const;

/** D8, DA, DC and DE with an operand in memory. */
function memoryArithmetic(opcode: string, fetch: Fetcher): OpDef[] {
  const line = (n: number, run: Handler): OpDef =>
    memory(`${opcode} /${n}`, run);
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

/** The family's lines of the opcode tables. */
export const x87ArithmeticOps: readonly OpDef[] = [
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
  fixed("D9 E0", unary((_, x) => x ^ F80.sign)),
  fixed("D9 E1", unary((_, x) => x & F80.magnitude)),
  fixed("D9 E4", ftst),
  fixed("D9 E5", fxam),
  fixed("D9 F0", unary((_, x) => powerOf2Less1(x))),
  fixed("D9 F1", binary(yLog2, true)),
  fixed("D9 F2", twofold(tangent, true)),
  fixed("D9 F3", binary((x, y) => arctangent(y, x), true)),
  fixed("D9 F4", twofold(extract, false)),
  fixed("D9 F5", fprem(true)),
  fixed("D9 F8", fprem(false)),
  fixed("D9 F9", binary(yLog2Plus1, true)),
  fixed("D9 FA", unary(squareRoot)),
  fixed("D9 FB", twofold(sineAndCosine, true)),
  fixed("D9 FC", unary((_, x) => roundToInteger(x))),
  fixed("D9 FD", binary(scale, false)),
  fixed("D9 FE", circular(sin)),
  fixed("D9 FF", circular(cos)),
  fixed("DA E9", compareSt(true, 2)),
  register("DB /5", compareFlags(true, false)),
  register("DB /6", compareFlags(false, false)),
  register("DD /4", compareSt(true, 0)),
  register("DD /5", compareSt(true, 1)),
  register("DF /5", compareFlags(true, true)),
  register("DF /6", compareFlags(false, true)),
];
