/**
 * What the x87 computes besides pure arithmetic: NaNs, unsupported encodings, operands of other
 * formats, comparisons (SDM volume 1, 4.8.3.5 and 8.5; APM volume 1, 6.8).
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import {
  convertNan,
  Exception,
  F80,
  type Format,
  isNan,
  isSignaling,
  Rounding,
} from "./soft_float.ts";
import { FCW } from "./layout.ts";
import { soft, Status } from "./x87.ts";

const INTEGER_BIT = 1n << 63n;
const SIGNIFICAND = F80.fraction;

/** Pseudo-NaNs, pseudo-infinities and unnormals: the integer bit is missing. */
export function isUnsupported(bits: bigint): boolean {
  return (bits & INTEGER_BIT) === 0n && (bits & F80.magnitude) > SIGNIFICAND;
}

/** Neither a number nor an infinity. */
export function isSpecial(bits: bigint): boolean {
  return isUnsupported(bits) || isNan(F80, bits);
}

/** Denormals and pseudo-denormals. */
export function isDenormal(bits: bigint): boolean {
  const magnitude = bits & F80.magnitude;
  return magnitude !== 0n && magnitude <= SIGNIFICAND;
}

/** Zero of either sign. */
export function isZero(bits: bigint): boolean {
  return (bits & F80.magnitude) === 0n;
}

/** Infinity of either sign. */
export function isInfinite(bits: bigint): boolean {
  return (bits & F80.magnitude) === F80.infinity;
}

/** The result of an operation on one special operand. */
export function special(bits: bigint): bigint {
  if (isUnsupported(bits)) return soft.invalid(F80);
  if (isSignaling(F80, bits)) soft.flags |= Exception.Invalid;
  return bits | F80.quiet;
}

/**
 * The result of an operation on two operands, at least one of them special: the NaN that is there, of two the
 * quiet one, of two of a kind the one with the larger significand, of two alike the positive one.
 */
export function specials(a: bigint, b: bigint): bigint {
  if (isUnsupported(a) || isUnsupported(b)) return soft.invalid(F80);
  const aSignals = isSignaling(F80, a), bSignals = isSignaling(F80, b);
  if (aSignals || bSignals) soft.flags |= Exception.Invalid;
  if (!isNan(F80, b)) return a | F80.quiet;
  if (!isNan(F80, a)) return b | F80.quiet;
  if (aSignals !== bSignals) return aSignals ? b : a;
  const x = a & SIGNIFICAND, y = b & SIGNIFICAND;
  const first = x === y ? (a & F80.sign) === 0n : x > y;
  return (first ? a : b) | F80.quiet;
}

/** An operand from memory. Its exceptions are those of whatever is done with it. */
export interface Widened {
  value: bigint;
  /** It was denormal before; in F80 it need not be. */
  denormal: boolean;
}

const EXACT: Widened = { value: 0n, denormal: false };

/** A single or double in F80. NaNs stay signaling. The result is valid until the next call. */
export function widen(f: Format, bits: bigint): Widened {
  EXACT.denormal = false;
  if (isNan(f, bits)) {
    const quiet = convertNan(f, F80, bits);
    EXACT.value = isSignaling(f, bits) ? quiet ^ F80.quiet : quiet;
  } else {
    EXACT.value = soft.convert(f, F80, bits, false);
    const magnitude = bits & f.magnitude;
    EXACT.denormal = magnitude !== 0n && magnitude <= f.fraction;
  }
  return EXACT;
}

/** An integer in F80, exactly. */
export function widenInteger(value: bigint): Widened {
  EXACT.value = soft.fromInteger(F80, value);
  EXACT.denormal = false;
  return EXACT;
}

const PRECISIONS = [24, 64, 53, 64] as const;

/** The numbers of operations, as ModRM.reg has them; 2 and 3 are comparisons. */
const Operation = { Add: 0, Mul: 1, Sub: 4, SubR: 5, Div: 6, DivR: 7 } as const;

/** One of the basic operations on ST(0) and a source, under precision control. */
export function operate(
  cpu: Cpu,
  operation: number,
  a: bigint,
  b: bigint,
  denormal: boolean,
): bigint {
  if (isSpecial(a) || isSpecial(b)) return specials(a, b);
  soft.precision = PRECISIONS[(cpu.i32[FCW]! >>> 8) & 3]!;
  const result = basic(operation, a, b);
  soft.precision = 64;
  if (denormal) noteDenormal();
  return result;
}

function basic(operation: number, a: bigint, b: bigint): bigint {
  switch (operation) {
    case Operation.Add:
      return soft.add(F80, a, b);
    case Operation.Mul:
      return soft.mul(F80, a, b);
    case Operation.Sub:
      return soft.sub(F80, a, b);
    case Operation.SubR:
      return soft.sub(F80, b, a);
    case Operation.Div:
      return soft.div(F80, a, b);
    default:
      return soft.div(F80, b, a);
  }
}

/** Denormal, for an operand that soft float did not see as one. */
export function noteDenormal(): void {
  if ((soft.flags & (Exception.Invalid | Exception.DivideByZero)) !== 0) return;
  if ((soft.unmasked & Exception.Denormal) !== 0) {
    soft.flags = 0;
    soft.roundedUp = false;
  }
  soft.flags |= Exception.Denormal;
}

/** The square root, under precision control. */
export function squareRoot(cpu: Cpu, a: bigint): bigint {
  if (isSpecial(a)) return special(a);
  soft.precision = PRECISIONS[(cpu.i32[FCW]! >>> 8) & 3]!;
  const result = soft.sqrt(F80, a);
  soft.precision = 64;
  return result;
}

/** Condition codes for "unordered". */
export const UNORDERED: number = Status.C3 | Status.C2 | Status.C0;

/**
 * Compares: the condition codes.
 *
 * @param quiet Whether quiet NaNs are no exception.
 */
export function relate(
  a: bigint,
  b: bigint,
  denormal: boolean,
  quiet: boolean,
): number {
  if (isSpecial(a) || isSpecial(b)) {
    if (
      !quiet || isUnsupported(a) || isUnsupported(b) ||
      isSignaling(F80, a) || isSignaling(F80, b)
    ) soft.flags |= Exception.Invalid;
    return UNORDERED;
  }
  const order = soft.compare(F80, a, b);
  if (denormal) noteDenormal();
  return order < 0 ? Status.C0 : order > 0 ? 0 : Status.C3;
}

/** The bits to store for a number in a smaller format. */
export function narrow(f: Format, value: bigint): bigint {
  if (isUnsupported(value)) return soft.invalid(f);
  if (isNan(F80, value)) {
    if (isSignaling(F80, value)) soft.flags |= Exception.Invalid;
    return convertNan(F80, f, value);
  }
  return soft.convert(F80, f, value, false);
}

/** The integer to store, of `size` bits. */
export function toInteger(
  value: bigint,
  size: number,
  truncate: boolean,
): bigint {
  if (isSpecial(value)) {
    soft.flags |= Exception.Invalid;
    return 1n << BigInt(size - 1);
  }
  if (truncate) soft.rounding = Rounding.Zero;
  return soft.toInteger(F80, value, size);
}

/** What FBSTP stores for invalid operands. */
export const PACKED_INDEFINITE = 0xffff_c000_0000_0000_0000n;

/** The packed decimal to store: 18 digits and a sign. */
export function toPacked(value: bigint): bigint {
  const integer = BigInt.asIntN(64, toInteger(value, 64, false));
  const magnitude = integer < 0n ? -integer : integer;
  if (magnitude >= 10n ** 18n) {
    soft.flags = Exception.Invalid;
    soft.roundedUp = false;
    return PACKED_INDEFINITE;
  }
  const sign = (value & F80.sign) !== 0n ? 1n << 79n : 0n;
  return sign | BigInt(`0x${magnitude}`);
}

/** The number that a packed decimal is. Digits above 9 count as what they are. */
export function fromPacked(bits: bigint): bigint {
  let value = 0n;
  for (let n = 68n; n >= 0n; n -= 4n) value = value * 10n + ((bits >> n) & 15n);
  const sign = (bits >> 79n) << 79n;
  return soft.fromInteger(F80, value) | sign;
}

/** Integer value in the number's own format. */
export function roundToInteger(value: bigint): bigint {
  if (isSpecial(value)) return special(value);
  if (isDenormal(value)) {
    soft.flags |= Exception.Denormal;
    if ((soft.unmasked & Exception.Denormal) !== 0) return 0n;
  }
  return soft.integral(F80, value);
}

/** C1 and C3, C2, C0 for FXAM; `value` is what the register holds even if it is empty. */
export function examine(value: bigint, empty: boolean): number {
  let kind: number = Status.C2;
  if (empty) kind = Status.C3 | Status.C0;
  else if (isUnsupported(value)) kind = 0;
  else if (isNan(F80, value)) kind = Status.C0;
  else if (isInfinite(value)) kind = Status.C2 | Status.C0;
  else if (isZero(value)) kind = Status.C3;
  else if (isDenormal(value)) kind = Status.C3 | Status.C2;
  return kind | ((value & F80.sign) !== 0n ? Status.C1 : 0);
}

/** A constant's bits below the last one that counts decide how it is rounded. */
interface Constant {
  /** Rounded towards 0. */
  readonly value: bigint;
  /** Whether to nearest means up. */
  readonly up: boolean;
}

const CONSTANTS: readonly (Constant | bigint)[] = [
  0x3fff_8000_0000_0000_0000n, // 1
  { value: 0x4000_d49a_784b_cd1b_8afen, up: false }, // log2(10)
  { value: 0x3fff_b8aa_3b29_5c17_f0bbn, up: true }, // log2(e)
  { value: 0x4000_c90f_daa2_2168_c234n, up: true }, // pi
  { value: 0x3ffd_9a20_9a84_fbcf_f798n, up: true }, // log10(2)
  { value: 0x3ffe_b172_17f7_d1cf_79abn, up: true }, // ln(2)
  0n,
];

/** The constants of FLD1 to FLDZ, in the order of their opcodes, rounded as the control word says. */
export function constant(number: number): bigint {
  const entry = CONSTANTS[number]!;
  if (typeof entry === "bigint") return entry;
  const up = soft.rounding === Rounding.Up ||
    (soft.rounding === Rounding.Nearest && entry.up);
  return up ? entry.value + 1n : entry.value;
}
