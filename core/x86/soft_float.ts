/**
 * IEEE 754 arithmetic in software, exact for every format, rounding mode and exception. This is the
 * slow path of the x87 and SSE families: values are bit patterns in bigints, significands may grow to any
 * length, and each operation rounds once, at its end.
 *
 * NaNs are the caller's business, because x87 and SSE choose among them by different rules:
 * operands are numbers (in F80: no unsupported encodings either). Only what an operation on
 * numbers makes of them is done here: {@linkcode Exception.Invalid} and the default NaN.
 *
 * @module
 */

/** A binary interchange format, or the x87's extended one. */
export interface Format {
  /** Bits of the significand, the integer bit included. */
  readonly precision: number;
  /** All ones in the exponent field: infinities and NaNs. */
  readonly special: number;
  /** What is added to exponents. */
  readonly bias: number;
  /** Bits of the stored significand: one less than `precision` if the integer bit is implied. */
  readonly stored: number;
  /** Bits in all. */
  readonly width: number;
  /** Mask of the stored significand. */
  readonly fraction: bigint;
  /** The most significant bit of the fraction proper: set in quiet NaNs. */
  readonly quiet: bigint;
  /** +infinity. */
  readonly infinity: bigint;
  /** The sign bit. */
  readonly sign: bigint;
  /** All bits but the sign. */
  readonly magnitude: bigint;
  /** The integer bit, stored or not. */
  readonly integer: bigint;
  /** `stored`, for shifting by it. */
  readonly shift: bigint;
  /** What invalid operations give: the negative quiet NaN with an empty payload. */
  readonly defaultNan: bigint;
}

function format(precision: number, exponent: number, implied: number): Format {
  const stored = precision - implied;
  const special = 2 ** exponent - 1;
  const width = 1 + exponent + stored;
  const quiet = 1n << BigInt(precision - 2);
  const sign = 1n << BigInt(width - 1);
  const infinity = (BigInt(special) << BigInt(stored)) |
    (implied === 0 ? 1n << BigInt(stored - 1) : 0n);
  return {
    precision,
    special,
    bias: special >> 1,
    stored,
    width,
    fraction: (1n << BigInt(stored)) - 1n,
    quiet,
    infinity,
    sign,
    magnitude: sign - 1n,
    integer: 1n << BigInt(precision - 1),
    shift: BigInt(stored),
    defaultNan: sign | infinity | quiet,
  };
}

/** Half precision. */
export const F16: Format = format(11, 5, 1);
/** Single precision. */
export const F32: Format = format(24, 8, 1);
/** Double precision. */
export const F64: Format = format(53, 11, 1);
/** Double extended precision: the integer bit is explicit. */
export const F80: Format = format(64, 15, 0);

/** Rounding modes as MXCSR.RC and FCW.RC encode them. */
export const Rounding = { Nearest: 0, Down: 1, Up: 2, Zero: 3 } as const;

/** Exceptions, in the bit positions of MXCSR and of the x87's status word. */
export const Exception = {
  Invalid: 1,
  Denormal: 2,
  DivideByZero: 4,
  Overflow: 8,
  Underflow: 16,
  Precision: 32,
} as const;

const LENGTH = new DataView(new ArrayBuffer(8));

/** How many bits a positive number has. */
export function bitLength(value: bigint): number {
  let length = 0;
  let rest = value;
  while (rest >= 1n << 1000n) {
    rest >>= 960n;
    length += 960;
  }
  LENGTH.setFloat64(0, Number(rest));
  const n = (LENGTH.getUint16(0) >>> 4) - 1022;
  // Number() may have rounded up to the next power of two.
  return length + (n > 53 && rest >> BigInt(n - 1) === 0n ? n - 1 : n);
}

/** The largest integer whose square is not above a positive number. */
export function integerSqrt(value: bigint): bigint {
  const length = bitLength(value);
  // Newton's steps come down from a first guess that is above the root.
  let root = length > 1000
    ? 1n << BigInt((length + 1) >> 1)
    : BigInt(Math.ceil(Math.sqrt(Number(value)) * (1 + 2 ** -50)));
  for (;;) {
    const next = (root + value / root) >> 1n;
    if (next >= root) return root;
    root = next;
  }
}

/** Whether a bit pattern is a NaN. */
export function isNan(f: Format, bits: bigint): boolean {
  const magnitude = bits & f.magnitude;
  return magnitude > f.infinity && (magnitude & f.infinity) === f.infinity;
}

/** Whether a NaN is a signaling one. */
export function isSignaling(f: Format, bits: bigint): boolean {
  return isNan(f, bits) && (bits & f.quiet) === 0n;
}

/** A NaN made quiet and fitted into another format: the payload's upper bits are kept. */
export function convertNan(from: Format, to: Format, bits: bigint): bigint {
  const shift = BigInt(Math.abs(to.precision - from.precision));
  const payload = bits & (from.quiet - 1n);
  return to.infinity | to.quiet | ((bits & from.sign) !== 0n ? to.sign : 0n) |
    (to.precision > from.precision ? payload << shift : payload >> shift);
}

/** A number taken apart: `significand` times 2 to the `exponent`. */
class Operand {
  negative = false;
  infinite = false;
  denormal = false;
  exponent = 0;
  significand = 0n;

  set(f: Format, bits: bigint): void {
    const magnitude = bits & f.magnitude;
    const fraction = bits & f.fraction;
    const field = Number(magnitude >> f.shift);
    this.negative = magnitude !== bits;
    this.infinite = field === f.special;
    this.denormal = field === 0 && fraction !== 0n;
    this.exponent = (field === 0 ? 1 : field) - f.bias - f.precision + 1;
    this.significand = field === 0 ? fraction : fraction | f.integer;
  }

  get zero(): boolean {
    return this.significand === 0n;
  }
}

/**
 * Operations under a rounding mode, with exceptions collected. One object serves all operations;
 * whoever uses it sets the fields that count first.
 *
 * An unmasked Invalid, Denormal or DivideByZero ends an operation: no other flag is raised after it
 * and the result means nothing. With Overflow or Underflow unmasked the result's exponent is wrapped
 * around by 3 * 2^(n - 2), n bits being that of the exponent, as the x87 delivers it to its registers.
 */
export class SoftFloat {
  /** A {@linkcode Rounding}. */
  rounding = 0;
  /** Bits of the significand to which F80 results are rounded: 24, 53 or 64. */
  precision = 64;
  /** {@linkcode Exception} bits that are not masked. */
  unmasked = 0;
  /** Exceptions so far; only the caller clears them. */
  flags = 0;
  /** MXCSR.FZ: tiny results become 0 if Underflow is masked. */
  flushToZero = false;
  /** MXCSR.DAZ: denormal operands count as 0. */
  denormalsAreZero = false;
  /** Whether the last rounding went away from 0: the x87's C1. */
  roundedUp = false;

  readonly #x = new Operand();
  readonly #y = new Operand();
  readonly #z = new Operand();

  /** a + b. */
  add(f: Format, a: bigint, b: bigint): bigint {
    const x = this.#x, y = this.#y;
    x.set(f, a);
    y.set(f, b);
    this.roundedUp = false;
    if (x.infinite || y.infinite) {
      if (x.infinite && y.infinite && x.negative !== y.negative) {
        return this.invalid(f);
      }
      this.#denormal(x, y);
      return x.infinite ? a : b;
    }
    if (this.#denormal(x, y)) return 0n;
    return this.#sum(f, x, y);
  }

  /** a - b. */
  sub(f: Format, a: bigint, b: bigint): bigint {
    return this.add(f, a, b ^ f.sign);
  }

  /** a * b. */
  mul(f: Format, a: bigint, b: bigint): bigint {
    const x = this.#x, y = this.#y;
    x.set(f, a);
    y.set(f, b);
    this.roundedUp = false;
    const negative = x.negative !== y.negative;
    if (x.infinite || y.infinite) {
      if (this.#counts0(x) || this.#counts0(y)) return this.invalid(f);
      this.#denormal(x, y);
      return negative ? f.infinity | f.sign : f.infinity;
    }
    if (this.#denormal(x, y)) return 0n;
    return this.round(
      f,
      negative,
      x.exponent + y.exponent,
      x.significand * y.significand,
    );
  }

  /** a / b. */
  div(f: Format, a: bigint, b: bigint): bigint {
    const x = this.#x, y = this.#y;
    x.set(f, a);
    y.set(f, b);
    this.roundedUp = false;
    const negative = x.negative !== y.negative;
    const sign = negative ? f.sign : 0n;
    if (x.infinite && y.infinite) return this.invalid(f);
    if (this.#counts0(y) && !x.infinite) {
      if (this.#counts0(x)) return this.invalid(f);
      this.flags |= Exception.DivideByZero;
      return sign | f.infinity;
    }
    if (this.#denormal(x, y)) return 0n;
    if (x.infinite) return sign | f.infinity;
    if (y.infinite || x.zero) return sign;
    // Two more bits than the result has, whatever the operands' lengths.
    const shift = f.precision + 2 + bitLength(y.significand) -
      bitLength(x.significand);
    const dividend = x.significand << BigInt(Math.max(shift, 0));
    const divisor = y.significand << BigInt(Math.max(-shift, 0));
    const quotient = dividend / divisor;
    return this.round(
      f,
      negative,
      x.exponent - y.exponent - shift - 1,
      (quotient << 1n) | (quotient * divisor === dividend ? 0n : 1n),
    );
  }

  /** The square root. */
  sqrt(f: Format, a: bigint): bigint {
    const x = this.#x;
    x.set(f, a);
    this.roundedUp = false;
    if (this.#counts0(x)) return a & f.sign;
    if (x.negative) return this.invalid(f);
    if (x.infinite || this.#denormal(x)) return a;
    let shift = 2 * f.precision + 4 - bitLength(x.significand);
    // The exponent has to be even.
    shift += (x.exponent - shift) & 1;
    const square = x.significand << BigInt(shift);
    const root = integerSqrt(square);
    return this.round(
      f,
      false,
      ((x.exponent - shift) >> 1) - 1,
      (root << 1n) | (root * root === square ? 0n : 1n),
    );
  }

  /** a * b + c, rounded once. */
  fma(f: Format, a: bigint, b: bigint, c: bigint): bigint {
    const x = this.#x, y = this.#y, z = this.#z;
    x.set(f, a);
    y.set(f, b);
    z.set(f, c);
    this.roundedUp = false;
    const negative = x.negative !== y.negative;
    const infinite = x.infinite || y.infinite;
    if (
      infinite && (this.#counts0(x) || this.#counts0(y) ||
        z.infinite && z.negative !== negative)
    ) return this.invalid(f);
    if (this.#denormal(x, y, z)) return 0n;
    if (infinite) return negative ? f.infinity | f.sign : f.infinity;
    if (z.infinite) return c;
    x.negative = negative;
    x.exponent += y.exponent;
    x.significand *= y.significand;
    return this.#sum(f, x, z);
  }

  /** -1, 0 or 1 as a is below, equal to or above b, whatever exceptions there are. */
  compare(f: Format, a: bigint, b: bigint): number {
    const x = this.#x, y = this.#y;
    x.set(f, a);
    y.set(f, b);
    this.#denormal(x, y);
    if (x.zero && y.zero) return 0;
    if (x.negative !== y.negative) return x.negative ? -1 : 1;
    // Pseudo-denormals have an exponent like others.
    const less = x.exponent === y.exponent
      ? x.significand < y.significand
      : x.exponent < y.exponent;
    const equal = x.exponent === y.exponent && x.significand === y.significand;
    return equal ? 0 : less !== x.negative ? -1 : 1;
  }

  /**
   * A number in another format.
   *
   * @param denormals Whether a denormal operand is an exception; it is none for the x87's stores.
   */
  convert(from: Format, to: Format, bits: bigint, denormals = true): bigint {
    const x = this.#x;
    x.set(from, bits);
    this.roundedUp = false;
    if (x.infinite) return x.negative ? to.infinity | to.sign : to.infinity;
    if (denormals && this.#denormal(x)) return 0n;
    if (to.precision >= from.precision && x.significand >= from.integer) {
      // Wider formats hold every normal number exactly.
      const top = x.exponent + from.precision - 1;
      const fraction = x.significand <<
        BigInt(to.precision - from.precision);
      return (x.negative ? to.sign : 0n) |
        (BigInt(top + to.bias) << to.shift) | (fraction & to.fraction);
    }
    return this.round(to, x.negative, x.exponent, x.significand);
  }

  /** The integer that a number rounds to, in its own format. No exception for denormals. */
  integral(f: Format, bits: bigint): bigint {
    const x = this.#x;
    x.set(f, bits);
    this.roundedUp = false;
    if (x.infinite || x.exponent >= 0) return bits;
    if (this.#counts0(x)) return bits & f.sign;
    const magnitude = this.#integer(x);
    if (magnitude === 0n) return bits & f.sign;
    const { roundedUp, precision } = this;
    // Exact whatever the precision control says.
    this.precision = f.precision;
    const result = this.round(f, x.negative, 0, magnitude);
    this.precision = precision;
    this.roundedUp = roundedUp;
    return result;
  }

  /**
   * The integer that a number rounds to, in two's complement; if `size` bits cannot hold it,
   * Invalid and the most negative one. No exception for denormals.
   *
   * @returns From 0 to 2^size - 1.
   */
  toInteger(f: Format, bits: bigint, size: number): bigint {
    const x = this.#x;
    x.set(f, bits);
    this.roundedUp = false;
    const limit = 1n << BigInt(size - 1);
    if (this.#counts0(x)) return 0n;
    // What has more bits than fit need not be shifted into place.
    if (x.infinite || x.exponent > 64) {
      this.flags |= Exception.Invalid;
      return limit;
    }
    const before = this.flags;
    const magnitude = this.#integer(x);
    if (magnitude > limit || (magnitude === limit && !x.negative)) {
      this.flags = before | Exception.Invalid;
      this.roundedUp = false;
      return limit;
    }
    return BigInt.asUintN(size, x.negative ? -magnitude : magnitude);
  }

  /** The number nearest to an integer. */
  fromInteger(f: Format, value: bigint): bigint {
    return this.round(f, value < 0n, 0, value < 0n ? -value : value);
  }

  /**
   * Rounds a number to a format and packs it.
   *
   * @param significand Not negative. Lower bits that are only known not to be 0 may be stood in for by
   *   a 1 if there are two more than the format's precision in front of it.
   */
  round(
    f: Format,
    negative: boolean,
    exponent: number,
    significand: bigint,
  ): bigint {
    const sign = negative ? f.sign : 0n;
    this.roundedUp = false;
    if (significand === 0n) return sign;
    const precision = f === F80 ? this.precision : f.precision;
    const lowest = 1 - f.bias;
    const length = bitLength(significand);
    let top = exponent + length - 1;
    let rounded = this.#shift(negative, significand, length - precision);
    let inexact = this.#inexact;
    if (this.roundedUp && rounded >> BigInt(precision) !== 0n) {
      rounded >>= 1n;
      top++;
    }
    if (top < lowest) {
      if ((this.unmasked & Exception.Underflow) !== 0) {
        this.flags |= Exception.Underflow;
        top += wrap(f);
      } else if (this.flushToZero) {
        this.roundedUp = false;
        this.flags |= Exception.Underflow | Exception.Precision;
        return sign;
      } else {
        // Once more, at the place where the format ends.
        const shift = lowest - precision + 1 - exponent;
        rounded = this.#shift(negative, significand, shift);
        inexact = this.#inexact;
        if (inexact) this.flags |= Exception.Underflow | Exception.Precision;
        // A carry into the integer bit is a carry into the exponent where that bit is implied.
        rounded <<= BigInt(f.precision - precision);
        const carried = f === F80 && rounded >> 63n !== 0n ? 1n << 64n : 0n;
        return sign | carried | rounded;
      }
    } else if (top > f.bias) {
      this.flags |= Exception.Overflow;
      if ((this.unmasked & Exception.Overflow) !== 0) top -= wrap(f);
      else {
        this.flags |= Exception.Precision;
        this.roundedUp = this.rounding === Rounding.Nearest ||
          this.rounding === (negative ? Rounding.Down : Rounding.Up);
        if (this.roundedUp) return sign | f.infinity;
        rounded = (1n << BigInt(precision)) - 1n;
        top = f.bias;
        inexact = false;
      }
    }
    if (top < lowest || top > f.bias) {
      // Wrapped, and still out of reach.
      this.roundedUp = top > f.bias;
      this.flags |= Exception.Precision;
      return this.roundedUp ? sign | f.infinity : sign;
    }
    if (inexact) this.flags |= Exception.Precision;
    if (precision < f.precision) {
      rounded <<= BigInt(f.precision - precision);
    }
    const field = BigInt(top + f.bias) << f.shift;
    return sign | field | (rounded & f.fraction);
  }

  /** Invalid, and what it gives. */
  invalid(f: Format): bigint {
    this.flags |= Exception.Invalid;
    return f.defaultNan;
  }

  /** Whether the last {@linkcode #shift} lost something. */
  #inexact = false;

  /** The significand divided by 2^count (multiplied if it is negative) and rounded. */
  #shift(negative: boolean, significand: bigint, count: number): bigint {
    this.#inexact = false;
    this.roundedUp = false;
    if (count <= 0) return significand << BigInt(-count);
    const n = BigInt(count);
    const quotient = significand >> n;
    const rest = BigInt.asUintN(count, significand);
    if (rest === 0n) return quotient;
    this.#inexact = true;
    let up: boolean;
    if (this.rounding === Rounding.Nearest) {
      const half = 1n << (n - 1n);
      up = rest > half || (rest === half && (quotient & 1n) !== 0n);
    } else {
      up = this.rounding === (negative ? Rounding.Down : Rounding.Up);
    }
    this.roundedUp = up;
    return up ? quotient + 1n : quotient;
  }

  /** The magnitude of a number rounded to an integer; Precision if it was none. */
  #integer(x: Operand): bigint {
    // All bits of smaller numbers are far below the point: one stands for them.
    const far = x.exponent < -1000;
    const significand = far ? 1n : x.significand;
    const magnitude = this.#shift(
      x.negative,
      significand,
      far ? 2 : -x.exponent,
    );
    if (this.#inexact) this.flags |= Exception.Precision;
    return magnitude;
  }

  /** x + y; neither is infinite. */
  #sum(f: Format, x: Operand, y: Operand): bigint {
    if (x.zero && y.zero) {
      const negative = x.negative === y.negative
        ? x.negative
        : this.rounding === Rounding.Down;
      return negative ? f.sign : 0n;
    }
    if (x.zero || y.zero) {
      const z = x.zero ? y : x;
      return this.round(f, z.negative, z.exponent, z.significand);
    }
    const high = x.exponent >= y.exponent ? x : y;
    const low = high === x ? y : x;
    const reach = 3 * f.precision;
    // Far below the last bit that counts, any number is as good as another.
    if (high.exponent - low.exponent > 2 * reach) {
      low.exponent = high.exponent - reach;
      low.significand = 1n;
    }
    const aligned = high.significand <<
      BigInt(high.exponent - low.exponent);
    const sum = (high.negative ? -aligned : aligned) +
      (low.negative ? -low.significand : low.significand);
    if (sum === 0n) return this.rounding === Rounding.Down ? f.sign : 0n;
    const negative = sum < 0n;
    return this.round(f, negative, low.exponent, negative ? -sum : sum);
  }

  #counts0(x: Operand): boolean {
    return x.zero || (x.denormal && this.denormalsAreZero);
  }

  /** Deals with denormal operands. True: that ends the operation. */
  #denormal(x: Operand, y: Operand = x, z: Operand = x): boolean {
    if (!x.denormal && !y.denormal && !z.denormal) return false;
    if (this.denormalsAreZero) {
      if (x.denormal) x.significand = 0n;
      if (y.denormal) y.significand = 0n;
      if (z.denormal) z.significand = 0n;
      return false;
    }
    this.flags |= Exception.Denormal;
    return (this.unmasked & Exception.Denormal) !== 0;
  }
}

/** By how much an exponent that cannot be represented is changed. */
function wrap(f: Format): number {
  return 3 * ((f.special + 1) >> 2);
}
