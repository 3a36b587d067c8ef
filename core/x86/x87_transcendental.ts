/**
 * FSIN, FCOS, FSINCOS, FPTAN, FPATAN, F2XM1, FYL2X and FYL2XP1, computed with some 180 bits and then
 * rounded: but for cases that would take still more bits to decide, correctly.
 *
 * Angles are reduced as processors do it, by a pi of 66 bits (SDM volume 1, 8.3.8); near multiples of pi the
 * results are exact for that pi, not for the real one.
 *
 * @module
 */
import { bitLength, Exception, F80, integerSqrt } from "./soft_float.ts";
import { soft } from "./x87.ts";
import {
  isInfinite,
  isSpecial,
  isZero,
  special,
  specials,
} from "./x87_arithmetic.ts";
import { denormal, lastBit } from "./x87_scaling.ts";

/** Bits behind the point of fixed-point numbers. */
const W = 192;
const BITS = BigInt(W);
const ONE = 1n << BITS;
const PI = 0x3_243f_6a88_85a3_08d3_1319_8a2e_0370_7344_a409_3822_299f_31d0n;
const LN2 = 0xb172_17f7_d1cf_79ab_c9e3_b398_03f2_f6af_40f3_4326_7298_b62dn;
const LOG2E = (ONE << BITS) / LN2;
/** Half of the pi that angles are reduced by, with this many bits behind the point. */
const HALF_PI = 0x3_243f_6a88_85a3_08d3n;
const HALF_PI_BITS = 65;

const MINUS_HALF = 0xbffe_8000_0000_0000_0000n;
const PLUS_ONE = 0x3fff_8000_0000_0000_0000n;

/** A positive number that is not 0: `significand` times 2 to the `exponent`. */
interface Real {
  readonly significand: bigint;
  readonly exponent: number;
}

const UNIT: Real = { significand: 1n, exponent: 0 };

function magnitude(bits: bigint): Real {
  return { significand: bits & F80.fraction, exponent: lastBit(bits) };
}

function isNegative(bits: bigint): boolean {
  return (bits & F80.sign) !== 0n;
}

/** A number in fixed point. */
function fixed({ significand, exponent }: Real): bigint {
  const shift = exponent + W;
  return shift >= 0
    ? significand << BigInt(shift)
    : significand >> BigInt(-shift);
}

function product(x: Real, y: Real): Real {
  return {
    significand: x.significand * y.significand,
    exponent: x.exponent + y.exponent,
  };
}

/** A number times one in fixed point. */
function times(x: Real, factor: bigint): Real {
  return { significand: x.significand * factor, exponent: x.exponent - W };
}

/** x / y to {@linkcode W} bits. */
function quotient(x: Real, y: Real): Real {
  const shift = Math.max(
    0,
    W + bitLength(y.significand) - bitLength(x.significand),
  );
  return {
    significand: (x.significand << BigInt(shift)) / y.significand,
    exponent: x.exponent - y.exponent - shift,
  };
}

/** x squared in fixed point. */
function square(x: Real): bigint {
  return fixed(product(x, x));
}

/** Rounds a result that is known not to be exact. */
function inexact(negative: boolean, { significand, exponent }: Real): bigint {
  return soft.round(F80, negative, exponent - 1, (significand << 1n) | 1n);
}

/**
 * The sum of a power series in fixed point: 1 + t / divisor(1) + t^2 / (divisor(1) divisor(2)) and so on.
 *
 * @param up Whether it is above 1, however small t is.
 */
function series(
  t: bigint,
  up: boolean,
  divisor: (n: number) => number,
): bigint {
  let term = ONE, sum = ONE;
  for (let n = 1; term !== 0n; n++) {
    term = ((term * t) >> BITS) / BigInt(divisor(n));
    sum += term;
  }
  return sum === ONE ? aside(up) : sum;
}

/** 1 + t/3 + t^2/5 and so on: of t = z^2 atanh(z) / z, of t = -z^2 atan(z) / z. */
function oddSeries(t: bigint, up: boolean): bigint {
  let power = ONE, sum = ONE;
  for (let n = 3n; power !== 0n && power !== -1n; n += 2n) {
    power = (power * t) >> BITS;
    sum += power / n;
  }
  return sum === ONE ? aside(up) : sum;
}

/** The number next to 1. */
function aside(up: boolean): bigint {
  return up ? ONE + 1n : ONE - 1n;
}

// Angles. ------------------------------------------------------------------------

/** An angle as a multiple of a right one and the rest, at most half a right one. */
interface Angle {
  readonly quadrant: number;
  readonly negative: boolean;
  readonly rest: Real;
}

/** Reduces an angle of 1 and more. */
function reduce(x: Real): Angle {
  const scaled = x.significand << BigInt(x.exponent + HALF_PI_BITS);
  const count = (2n * scaled + HALF_PI) / (2n * HALF_PI);
  const rest = scaled - count * HALF_PI;
  const negative = rest < 0n;
  return {
    quadrant: Number(count & 3n),
    negative,
    rest: { significand: negative ? -rest : rest, exponent: -HALF_PI_BITS },
  };
}

/** Sine and cosine of a positive angle below 2^63, each with its sign. */
interface SineCosine {
  readonly sine: Real;
  readonly cosine: Real;
  readonly sineNegative: boolean;
  readonly cosineNegative: boolean;
}

function sineCosine(x: Real): SineCosine {
  const small = x.exponent + bitLength(x.significand) <= 0;
  const { quadrant, negative, rest } = small
    ? { quadrant: 0, negative: false, rest: x }
    : reduce(x);
  const t = -square(rest);
  const s = times(rest, series(t, false, (n) => 2 * n * (2 * n + 1)));
  const c = times(UNIT, series(t, false, (n) => 2 * n * (2 * n - 1)));
  const odd = (quadrant & 1) !== 0;
  return {
    sine: odd ? c : s,
    cosine: odd ? s : c,
    sineNegative: quadrant >= 2 !== (!odd && negative),
    cosineNegative: (quadrant === 1 || quadrant === 2) !== (odd && negative),
  };
}

/** Whether an angle is too large to be reduced: 2^63 and more. */
export function isOutOfRange(x: bigint): boolean {
  const exponent = Number((x & F80.magnitude) >> 64n);
  return !isSpecial(x) && exponent >= F80.bias + 63 &&
    exponent < F80.special;
}

/** What the angle functions have in common: undefined for an angle to work with, else the result. */
function angleless(x: bigint): bigint | undefined {
  if (isSpecial(x)) return special(x);
  if (isInfinite(x)) return soft.invalid(F80);
  return denormal(x) ? x : undefined;
}

/** The sine of an angle in range. */
export function sin(x: bigint): bigint {
  const other = angleless(x);
  if (other !== undefined) return other;
  if (isZero(x)) return x;
  const result = sineCosine(magnitude(x));
  return inexact(result.sineNegative !== isNegative(x), result.sine);
}

/** The cosine of an angle in range. */
export function cos(x: bigint): bigint {
  const other = angleless(x);
  if (other !== undefined) return other;
  if (isZero(x)) return PLUS_ONE;
  const result = sineCosine(magnitude(x));
  return inexact(result.cosineNegative, result.cosine);
}

/** FSINCOS: sine and cosine of an angle; undefined out of range. */
export function sineAndCosine(
  x: bigint,
): readonly [bigint, bigint] | undefined {
  return isOutOfRange(x) ? undefined : [sin(x), cos(x)];
}

/** FPTAN: the tangent of an angle, and 1; undefined out of range. */
export function tangent(x: bigint): readonly [bigint, bigint] | undefined {
  if (isOutOfRange(x)) return undefined;
  const other = angleless(x);
  if (other !== undefined) return [other, other];
  if (isZero(x)) return [x, PLUS_ONE];
  const { sine, cosine, sineNegative, cosineNegative } = sineCosine(
    magnitude(x),
  );
  const negative = (sineNegative !== cosineNegative) !== isNegative(x);
  return [inexact(negative, quotient(sine, cosine)), PLUS_ONE];
}

/** The angle of the point (x, y). */
export function arctangent(y: bigint, x: bigint): bigint {
  if (isSpecial(y) || isSpecial(x)) return specials(y, x);
  if (denormal(y, x)) return y;
  const sign = y & F80.sign;
  const right = !isNegative(x);
  // In eighths of a full turn, where no quotient is needed.
  let eighths = -1;
  if (isInfinite(y)) eighths = isInfinite(x) ? right ? 1 : 3 : 2;
  else if (isZero(y) || isInfinite(x)) eighths = right ? 0 : 4;
  else if (isZero(x)) eighths = 2;
  if (eighths === 0) return sign;
  let angle: Real;
  if (eighths > 0) {
    angle = { significand: PI * BigInt(eighths), exponent: -W - 2 };
  } else {
    angle = arctangentOf(magnitude(y), magnitude(x), right);
  }
  return inexact(sign !== 0n, angle);
}

function arctangentOf(y: Real, x: Real, right: boolean): Real {
  const top = (r: Real): number => r.exponent + bitLength(r.significand);
  const steep = top(y) > top(x) ||
    (top(y) === top(x) &&
      y.significand << BigInt(64 - bitLength(y.significand)) >
        x.significand << BigInt(64 - bitLength(x.significand)));
  const angle = shallow(steep ? quotient(x, y) : quotient(y, x));
  if (right && !steep) return angle;
  const a = fixed(angle);
  const turned = steep ? right ? PI / 2n - a : PI / 2n + a : PI - a;
  return { significand: turned, exponent: -W };
}

/** The arctangent of a number up to 1. */
function shallow(z: Real): Real {
  let half = z;
  let doublings = 0;
  // tan(a / 2) = tan(a) / (1 + sqrt(1 + tan(a)^2)), as long as that helps.
  while (half.exponent + bitLength(half.significand) > -3) {
    const tangent = fixed(half);
    const root = integerSqrt((ONE << BITS) + tangent * tangent);
    half = {
      significand: (tangent << BITS) / (ONE + root),
      exponent: -W,
    };
    doublings++;
  }
  const { significand, exponent } = times(
    half,
    oddSeries(-square(half), false),
  );
  return { significand, exponent: exponent + doublings };
}

// Powers and logarithms. ---------------------------------------------------------

/** 2^x - 1. Beyond -1 and 1 it is undefined; AMD gives x back. */
export function powerOf2Less1(x: bigint): bigint {
  if (isSpecial(x)) return special(x);
  if (isInfinite(x)) return isNegative(x) ? PLUS_ONE | F80.sign : x;
  if (denormal(x) || isZero(x)) return x;
  const size = x & F80.magnitude;
  const negative = isNegative(x);
  if (size >= PLUS_ONE) {
    soft.flags |= Exception.Precision;
    return size === PLUS_ONE && negative ? MINUS_HALF : x;
  }
  const y = times(magnitude(x), LN2);
  const t = fixed(y);
  const factor = series(negative ? -t : t, !negative, (n) => n + 1);
  return inexact(negative, times(y, factor));
}

/** A binary logarithm: its sign, and undefined for 0. */
interface Logarithm {
  readonly negative: boolean;
  readonly size: Real | undefined;
  readonly exact: boolean;
}

/** The binary logarithm of a positive number. */
function log2(x: Real): Logarithm {
  const length = bitLength(x.significand);
  let power = x.exponent + length - 1;
  if (x.significand === 1n << BigInt(length - 1)) {
    const size = power === 0
      ? undefined
      : { significand: BigInt(Math.abs(power)), exponent: 0 };
    return { negative: power < 0, size, exact: true };
  }
  // x = 2^power * f, f from 2/3 to 4/3; f - 1 is exact.
  let unit = 1n << BigInt(length - 1);
  if (3n * x.significand > 4n * unit) {
    power++;
    unit *= 2n;
  }
  const difference = x.significand - unit;
  const small = difference < 0n;
  const near = near1(
    { significand: small ? -difference : difference, exponent: 0 },
    { significand: x.significand + unit, exponent: 0 },
  );
  if (power === 0) return { negative: small, size: near, exact: false };
  const sum = BigInt(power) * ONE + (small ? -fixed(near) : fixed(near));
  return {
    negative: sum < 0n,
    size: { significand: sum < 0n ? -sum : sum, exponent: -W },
    exact: false,
  };
}

/** |log2(f)|, given |f - 1| and f + 1: twice the inverse hyperbolic tangent of their quotient. */
function near1(difference: Real, sum: Real): Real {
  const z = quotient(difference, sum);
  const { significand, exponent } = times(
    times(z, oddSeries(square(z), true)),
    LOG2E,
  );
  return { significand, exponent: exponent + 1 };
}

/** y times a logarithm; y is a number that is not 0. */
function scaled(y: bigint, { negative, size, exact }: Logarithm): bigint {
  const sign = negative !== isNegative(y);
  if (size === undefined) return sign ? F80.sign : 0n;
  const result = product(magnitude(y), size);
  if (!exact) return inexact(sign, result);
  // AMD says so of exact results too.
  soft.flags |= Exception.Precision;
  return soft.round(F80, sign, result.exponent, result.significand);
}

/** y * log2(x). */
export function yLog2(x: bigint, y: bigint): bigint {
  if (isSpecial(x) || isSpecial(y)) return specials(x, y);
  const sign = (x ^ y) & F80.sign;
  const ySign = y & F80.sign;
  if (isZero(x)) {
    if (isZero(y)) return soft.invalid(F80);
    if (!isInfinite(y)) soft.flags |= Exception.DivideByZero;
    return F80.infinity | (ySign ^ F80.sign);
  }
  if (isNegative(x)) return soft.invalid(F80);
  if (isInfinite(x)) {
    if (isZero(y)) return soft.invalid(F80);
    return denormal(y) ? y : F80.infinity | sign;
  }
  const below1 = x < PLUS_ONE;
  if (isInfinite(y)) {
    if (x === PLUS_ONE) return soft.invalid(F80);
    return denormal(x) ? x : below1 ? y ^ F80.sign : y;
  }
  if (denormal(x, y)) return x;
  if (isZero(y)) return below1 ? y ^ F80.sign : y;
  return scaled(y, log2(magnitude(x)));
}

/** y * log2(x + 1). For -1 and less it is undefined; AMD gives x back. */
export function yLog2Plus1(x: bigint, y: bigint): bigint {
  if (isSpecial(x) || isSpecial(y)) return specials(x, y);
  const sign = (x ^ y) & F80.sign;
  if (isZero(x) ? isInfinite(y) : isInfinite(x) && isZero(y)) {
    return soft.invalid(F80);
  }
  if (isInfinite(x) && isNegative(x)) return soft.invalid(F80);
  if (denormal(x, y)) return x;
  if (isInfinite(x) || isInfinite(y)) return F80.infinity | sign;
  if (isZero(x) || isZero(y)) return sign;
  if (isNegative(x) && (x & F80.magnitude) >= PLUS_ONE) {
    soft.flags |= Exception.Precision;
    return x;
  }
  return scaled(y, log2Plus1(magnitude(x), isNegative(x)));
}

/** The binary logarithm of 1 plus or minus a positive number. */
function log2Plus1(x: Real, negative: boolean): Logarithm {
  const top = x.exponent + bitLength(x.significand);
  if (top <= -2) {
    // The sum of 2 and what hardly counts beside it need not be exact.
    const sum = 2n * ONE + (negative ? -fixed(x) : fixed(x));
    const size = near1(x, { significand: sum, exponent: -W });
    return { negative, size, exact: false };
  }
  // Nor need the sum of 1 and what is far above it.
  if (top > W) return { ...log2(x), exact: false };
  const sum = negative ? ONE - fixed(x) : ONE + fixed(x);
  return log2({ significand: sum, exponent: -W });
}
