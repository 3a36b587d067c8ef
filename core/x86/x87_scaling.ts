/**
 * FPREM, FPREM1, FSCALE and FXTRACT: exact operations on exponents and remainders (SDM volume 2A).
 *
 * @module
 */
import { bitLength, Exception, F80 } from "./soft_float.ts";
import { soft, Status } from "./x87.ts";
import {
  isDenormal,
  isInfinite,
  isSpecial,
  isZero,
  special,
  specials,
} from "./x87_arithmetic.ts";

const BIAS = F80.bias;

/** Exponent of the last bit of the significand. */
export function lastBit(bits: bigint): number {
  const field = Number((bits & F80.magnitude) >> 64n);
  return (field === 0 ? 1 : field) - BIAS - 63;
}

/** Raises Denormal if an operand is one. True: that ends the operation. */
export function denormal(a: bigint, b: bigint = a): boolean {
  if (!isDenormal(a) && !isDenormal(b)) return false;
  soft.flags |= Exception.Denormal;
  return (soft.unmasked & Exception.Denormal) !== 0;
}

/** A remainder and the condition codes that go with it. */
export interface Remainder {
  value: bigint;
  /** Bits of the quotient, or undefined if there is none: C2 is clear then, the others stay. */
  codes: number | undefined;
}

const REMAINDER: Remainder = { value: 0n, codes: undefined };

/**
 * The remainder of a by b; what is left of it is of the sign of a. If the exponents differ by 64 or more only a
 * part of the way is gone and C2 set. The result is valid until the next call.
 *
 * @param nearest FPREM1: of the quotient rounded to nearest; FPREM: rounded towards 0.
 */
export function remainder(a: bigint, b: bigint, nearest: boolean): Remainder {
  REMAINDER.codes = undefined;
  REMAINDER.value = remainderOf(a, b, nearest);
  return REMAINDER;
}

function remainderOf(a: bigint, b: bigint, nearest: boolean): bigint {
  if (isSpecial(a) || isSpecial(b)) return specials(a, b);
  if (isInfinite(a) || isZero(b)) return soft.invalid(F80);
  if (denormal(a, b)) return a;
  const x = a & F80.fraction, y = b & F80.fraction;
  const xLast = lastBit(a), yLast = lastBit(b);
  const distance = x === 0n
    ? 0
    : (xLast + bitLength(x)) - (yLast + bitLength(y));
  // With the exponents this far apart all that is left is a.
  if (x === 0n || isInfinite(b) || distance < -1) {
    REMAINDER.codes = 0;
    return soft.round(F80, (a & F80.sign) !== 0n, xLast, x);
  }
  const partial = distance >= 64;
  // As many steps as leave a multiple of 32 (APM volume 5, FPREM: from 32 to 63).
  const skipped = partial ? distance - (32 + distance % 32) : 0;
  const shift = xLast - yLast - skipped;
  const dividend = shift > 0 ? x << BigInt(shift) : x;
  const divisor = shift < 0 ? y << BigInt(-shift) : y;
  let quotient = dividend / divisor;
  let rest = dividend - quotient * divisor;
  let negative = (a & F80.sign) !== 0n;
  if (nearest && !partial) {
    const twice = 2n * rest;
    if (twice > divisor || (twice === divisor && (quotient & 1n) !== 0n)) {
      quotient++;
      rest = divisor - rest;
      negative = !negative;
    }
  }
  if (partial) REMAINDER.codes = Status.C2;
  else {
    const low = Number(quotient & 7n);
    REMAINDER.codes = ((low & 1) !== 0 ? Status.C1 : 0) |
      ((low & 2) !== 0 ? Status.C3 : 0) | ((low & 4) !== 0 ? Status.C0 : 0);
  }
  if (rest === 0n) return a & F80.sign;
  return soft.round(F80, negative, Math.min(xLast, yLast + skipped), rest);
}

/** a times 2 to the power of b rounded towards 0. */
export function scale(a: bigint, b: bigint): bigint {
  if (isSpecial(a) || isSpecial(b)) return specials(a, b);
  const sign = a & F80.sign;
  if (isInfinite(b)) {
    const down = (b & F80.sign) !== 0n;
    if (down ? isInfinite(a) : isZero(a)) return soft.invalid(F80);
    if (denormal(a)) return a;
    return sign | (down ? 0n : F80.infinity);
  }
  if (denormal(a, b)) return a;
  if (isZero(a) || isInfinite(a)) return a;
  const last = lastBit(b);
  const magnitude = b & F80.fraction;
  let power = 0;
  // From 2^16 on it makes no difference how far beyond all exponents that is.
  if (last > -48) power = 0x1_0000;
  else if (last >= -63) power = Number(magnitude >> BigInt(-last));
  if ((b & F80.sign) !== 0n) power = -power;
  return soft.round(F80, sign !== 0n, lastBit(a) + power, a & F80.fraction);
}

/** Exponent and significand of a number, both as numbers. */
export function extract(a: bigint): readonly [bigint, bigint] {
  if (isSpecial(a)) {
    const nan = special(a);
    return [nan, nan];
  }
  if (isInfinite(a)) return [F80.infinity, a];
  if (isZero(a)) {
    soft.flags |= Exception.DivideByZero;
    return [F80.sign | F80.infinity, a];
  }
  denormal(a);
  const fraction = a & F80.fraction;
  const length = bitLength(fraction);
  return [
    soft.fromInteger(F80, BigInt(lastBit(a) + length - 1)),
    (a & F80.sign) | (BigInt(BIAS) << 64n) | (fraction << BigInt(64 - length)),
  ];
}
