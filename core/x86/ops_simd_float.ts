/**
 * Arithmetic on singles and doubles: SSE, SSE2, SSE3.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { MXCSR, TEMP_B } from "./layout.ts";
import type { Handler, OpDef } from "./opcode.ts";
import { copy } from "./simd.ts";
import {
  begin,
  finish,
  Mx,
  nanOf,
  ordinary32,
  ordinary64,
  readLane,
  soft,
  writeLane,
} from "./simd_float.ts";
import { Exception, F32, F64, type Format } from "./soft_float.ts";

/** Operations. The square root is that of the second operand. */
export const FloatOp = { Add: 0, Mul: 1, Sub: 2, Div: 3, Sqrt: 4 } as const;

/** One lane in software. */
export function softly(f: Format, op: number, x: bigint, y: bigint): bigint {
  const nan = nanOf(f, op === FloatOp.Sqrt ? y : x, y);
  if (nan >= 0n) return nan;
  switch (op) {
    case FloatOp.Add:
      return soft.add(f, x, y);
    case FloatOp.Sub:
      return soft.sub(f, x, y);
    case FloatOp.Mul:
      return soft.mul(f, x, y);
    case FloatOp.Div:
      return soft.div(f, x, y);
    default:
      return soft.sqrt(f, y);
  }
}

/** All lanes in software. */
function slow(
  cpu: Cpu,
  a: number,
  b: number,
  f: Format,
  op: number,
  lanes: number,
): void {
  const size = f.width >> 3;
  begin(cpu);
  for (let at = 0; at < lanes * size; at += size) {
    const x = readLane(cpu, f, a + at), y = readLane(cpu, f, b + at);
    writeLane(cpu, f, TEMP_B + at, softly(f, op, x, y));
  }
  finish(cpu);
  copy(cpu, a, TEMP_B, lanes * size);
}

/** x op y, rounded to a double. */
function compute(op: number, x: number, y: number): number {
  switch (op) {
    case FloatOp.Add:
      return x + y;
    case FloatOp.Sub:
      return x - y;
    case FloatOp.Mul:
      return x * y;
    case FloatOp.Div:
      return x / y;
    default:
      return Math.sqrt(y);
  }
}

/** Whether a result of ordinary operands that is 0 is so without underflow. */
function honestZero(op: number, x: number, y: number): boolean {
  return op === FloatOp.Mul
    ? x === 0 || y === 0
    : op !== FloatOp.Div || x === 0;
}

/** Bounds between which the checks of exactness are themselves exact. */
const SMALL = 2 ** -900, LARGE = 2 ** 900;

function moderate(x: number): boolean {
  const size = Math.abs(x);
  return x === 0 || (size > SMALL && size < LARGE);
}

/** What x * y, rounded to p, lacks (Dekker's product). */
function productError(x: number, y: number, p: number): number {
  const cx = 134217729 * x, cy = 134217729 * y;
  const xh = cx - (cx - x), yh = cy - (cy - y);
  const xl = x - xh, yl = y - yh;
  return ((xh * yh - p) + xh * yl + xl * yh) + xl * yl;
}

/** What x + y, rounded to s, lacks (Knuth's sum). */
export function sumError(x: number, y: number, s: number): number {
  const t = s - x;
  return (x - (s - t)) + (y - t);
}

/** Whether r, the rounded result of doubles, is exact. */
function exact64(op: number, x: number, y: number, r: number): boolean {
  switch (op) {
    case FloatOp.Add:
      return sumError(x, y, r) === 0;
    case FloatOp.Sub:
      return sumError(x, -y, r) === 0;
    case FloatOp.Mul:
      return productError(x, y, r) === 0;
    case FloatOp.Div:
      return r * y === x && productError(r, y, x) === 0;
    default:
      return r * r === y && productError(r, r, y) === 0;
  }
}

/** As {@linkcode exact64} of singles; a double holds their products. */
function exact32(op: number, x: number, y: number, r: number): boolean {
  switch (op) {
    case FloatOp.Add:
      return sumError(x, y, x + y) === 0 && r === x + y;
    case FloatOp.Sub:
      return sumError(x, -y, x - y) === 0 && r === x - y;
    case FloatOp.Mul:
      return r === x * y;
    case FloatOp.Div:
      return r * y === x;
    default:
      return r * r === y;
  }
}

/** Handlers on the lowest or all lanes of doubles. */
function doubles(op: number, lanes: 1 | 2): Handler {
  return (cpu, a, b) => {
    const dv = cpu.dv;
    let mxcsr = cpu.i32[MXCSR]!;
    let fast = (mxcsr & Mx.Control) === Mx.Default;
    let first = 0;
    for (let at = 8 * lanes - 8; fast && at >= 0; at -= 8) {
      const y = dv.getFloat64(b + at, true);
      const x = op === FloatOp.Sqrt ? y : dv.getFloat64(a + at, true);
      const r = compute(op, x, y);
      fast = ordinary64(x) && ordinary64(y) && ordinary64(r) &&
        (r !== 0 || honestZero(op, x, y));
      if (fast && (mxcsr & Exception.Precision) === 0) {
        fast = moderate(x) && moderate(y) && moderate(r);
        if (!exact64(op, x, y, r)) mxcsr |= Exception.Precision;
      }
      if (at === 0) first = r;
      else if (fast) dv.setFloat64(TEMP_B, r, true);
    }
    if (!fast) return slow(cpu, a, b, F64, op, lanes);
    cpu.i32[MXCSR] = mxcsr;
    dv.setFloat64(a, first, true);
    if (lanes === 2) copy(cpu, a + 8, TEMP_B, 8);
  };
}

/** As {@linkcode doubles} of singles: operations on doubles that hold singles round to the right single. */
function singles(op: number, lanes: 1 | 4): Handler {
  return (cpu, a, b) => {
    const dv = cpu.dv;
    let mxcsr = cpu.i32[MXCSR]!;
    let fast = (mxcsr & Mx.Control) === Mx.Default;
    for (let at = 0; fast && at < 4 * lanes; at += 4) {
      const y = dv.getFloat32(b + at, true);
      const x = op === FloatOp.Sqrt ? y : dv.getFloat32(a + at, true);
      const r = Math.fround(compute(op, x, y));
      fast = ordinary32(x) && ordinary32(y) && ordinary32(r) &&
        (r !== 0 || honestZero(op, x, y));
      if (
        fast && (mxcsr & Exception.Precision) === 0 && !exact32(op, x, y, r)
      ) mxcsr |= Exception.Precision;
      if (fast) dv.setFloat32(TEMP_B + at, r, true);
    }
    if (!fast) return slow(cpu, a, b, F32, op, lanes);
    cpu.i32[MXCSR] = mxcsr;
    copy(cpu, a, TEMP_B, 4 * lanes);
  };
}

/** ADDSUB: differences in even lanes, sums in odd ones. */
function addSub(f: Format): Handler {
  const size = f.width >> 3;
  return (cpu, a, b) => {
    begin(cpu);
    for (let at = 0; at < 16; at += size) {
      const x = readLane(cpu, f, a + at), y = readLane(cpu, f, b + at);
      const op = (at & size) === 0 ? FloatOp.Sub : FloatOp.Add;
      writeLane(cpu, f, TEMP_B + at, softly(f, op, x, y));
    }
    finish(cpu);
    copy(cpu, a, TEMP_B, 16);
  };
}

/** HADD and HSUB: of neighbouring lanes, first those of a. */
function horizontal(f: Format, op: number): Handler {
  const size = f.width >> 3;
  return (cpu, a, b) => {
    begin(cpu);
    for (let at = 0; at < 16; at += size) {
      const from = at < 8 ? a + 2 * at : b + 2 * at - 16;
      const x = readLane(cpu, f, from), y = readLane(cpu, f, from + size);
      writeLane(cpu, f, TEMP_B + at, softly(f, op, x, y));
    }
    finish(cpu);
    copy(cpu, a, TEMP_B, 16);
  };
}

/** The four lines of an operation: packed and scalar, singles and doubles. */
export function fourKinds(
  code: string,
  singles: (lanes: 1 | 4) => Handler,
  doubles: (lanes: 1 | 2) => Handler,
  more = "",
): OpDef[] {
  return [
    { code: `NP ${code}`, operands: `+Vx Wx ${more}`, run: singles(4) },
    { code: `66 ${code}`, operands: `+Vx Wx ${more}`, run: doubles(2) },
    { code: `F3 ${code}`, operands: `+Vx Wd ${more}`, run: singles(1) },
    { code: `F2 ${code}`, operands: `+Vx Wq ${more}`, run: doubles(1) },
  ];
}

function arithmetic(code: string, op: number): OpDef[] {
  const lines = fourKinds(
    code,
    (lanes) => singles(op, lanes),
    (lanes) => doubles(op, lanes),
  );
  // Packed square roots have one source only.
  return op !== FloatOp.Sqrt ? lines : lines.map((line) => ({
    ...line,
    operands: line.operands!.replace("+Vx Wx", "=Vx Wx"),
  }));
}

/** The family's lines of the opcode tables. */
export const simdFloatOps: readonly OpDef[] = [
  ...arithmetic("0F 51", FloatOp.Sqrt),
  ...arithmetic("0F 58", FloatOp.Add),
  ...arithmetic("0F 59", FloatOp.Mul),
  ...arithmetic("0F 5C", FloatOp.Sub),
  ...arithmetic("0F 5E", FloatOp.Div),
  { code: "66 0F D0", operands: "+Vx Wx", run: addSub(F64) },
  { code: "F2 0F D0", operands: "+Vx Wx", run: addSub(F32) },
  { code: "66 0F 7C", operands: "+Vx Wx", run: horizontal(F64, FloatOp.Add) },
  { code: "F2 0F 7C", operands: "+Vx Wx", run: horizontal(F32, FloatOp.Add) },
  { code: "66 0F 7D", operands: "+Vx Wx", run: horizontal(F64, FloatOp.Sub) },
  { code: "F2 0F 7D", operands: "+Vx Wx", run: horizontal(F32, FloatOp.Sub) },
];
