import { assertEquals } from "@std/assert";
import {
  bitLength,
  convertNan,
  Exception,
  F16,
  F32,
  F64,
  F80,
  type Format,
  integerSqrt,
  isNan,
  isSignaling,
  Rounding,
  SoftFloat,
} from "../../../core/x86/soft_float.ts";
import { buildProgram, runNative } from "./oracle/native.ts";
import { Random } from "./oracle/random.ts";

const VIEW = new DataView(new ArrayBuffer(8));

/** The bits of a double. */
function bits64(value: number): bigint {
  VIEW.setFloat64(0, value);
  return VIEW.getBigUint64(0);
}

function double(bits: bigint): number {
  VIEW.setBigUint64(0, bits);
  return VIEW.getFloat64(0);
}

function bits32(value: number): bigint {
  VIEW.setFloat32(0, value);
  return BigInt(VIEW.getUint32(0));
}

function single(bits: bigint): number {
  VIEW.setUint32(0, Number(bits));
  return VIEW.getFloat32(0);
}

/** Any number of a format but a NaN, often one that arithmetic finds hard. */
function number(random: Random, f: Format): bigint {
  const sign = random.once(2) ? f.sign : 0n;
  const fraction = (1n << BigInt(f.precision - 1)) - 1n;
  let low = random.wide() & fraction;
  switch (random.below(4)) {
    case 0:
      low = random.pick([0n, 1n, fraction, fraction - 1n, fraction >> 1n]);
      break;
    case 1: {
      const zeros = BigInt(random.below(f.precision));
      low = (low >> zeros) << zeros;
    }
  }
  const field = random.pick([
    0,
    random.below(3),
    f.special - 1 - random.below(3),
    random.below(f.special),
    f.bias + random.below(2 * f.precision) - f.precision,
    f.bias + random.below(5) - 2,
  ]);
  if (random.once(24)) return sign | f.infinity;
  const exponent = Math.max(0, Math.min(field, f.special - 1));
  return sign | (BigInt(exponent) << BigInt(f.precision - 1)) | low;
}

/** A result with all NaNs alike: JavaScript does not say which one it has. */
function plain(f: Format, bits: bigint): bigint {
  return isNan(f, bits) ? f.defaultNan : bits;
}

Deno.test("operations on doubles give what JavaScript's do", () => {
  const random = new Random("doubles");
  const soft = new SoftFloat();
  for (let n = 0; n < 20_000; n++) {
    const a = number(random, F64), b = number(random, F64);
    const x = double(a), y = double(b);
    const check = (got: bigint, wanted: number, what: string): void => {
      const text = `${what} of ${x} and ${y}`;
      assertEquals(plain(F64, got), plain(F64, bits64(wanted)), text);
    };
    check(soft.add(F64, a, b), x + y, "sum");
    check(soft.sub(F64, a, b), x - y, "difference");
    check(soft.mul(F64, a, b), x * y, "product");
    check(soft.div(F64, a, b), x / y, "quotient");
    check(soft.sqrt(F64, a), Math.sqrt(x), "root");
    assertEquals(
      soft.compare(F64, a, b),
      Math.sign(x < y ? -1 : Number(x > y)),
    );
    assertEquals(soft.convert(F64, F32, a), bits32(x));
    // A detour over a wider format is exact.
    assertEquals(soft.convert(F80, F64, soft.convert(F64, F80, a)), a);
    soft.rounding = Rounding.Down;
    check(soft.integral(F64, a), Math.floor(x), "floor");
    soft.rounding = Rounding.Up;
    check(soft.integral(F64, a), Math.ceil(x), "ceiling");
    soft.rounding = Rounding.Zero;
    check(soft.integral(F64, a), Math.trunc(x), "integral part");
    soft.rounding = Rounding.Nearest;
  }
});

Deno.test("operations on singles give what JavaScript's do", () => {
  const random = new Random("singles");
  const soft = new SoftFloat();
  for (let n = 0; n < 20_000; n++) {
    const a = number(random, F32), b = number(random, F32);
    const x = single(a), y = single(b);
    // Doubles have more than twice the bits, so rounding twice does no harm.
    const wanted = [x + y, x - y, x * y, x / y, Math.sqrt(x)];
    const got = [
      soft.add(F32, a, b),
      soft.sub(F32, a, b),
      soft.mul(F32, a, b),
      soft.div(F32, a, b),
      soft.sqrt(F32, a),
    ];
    assertEquals(
      got.map((bits) => plain(F32, bits)),
      wanted.map((value) => plain(F32, bits32(value))),
      `${x} and ${y}`,
    );
    assertEquals(soft.convert(F32, F64, a), bits64(x));
    // In between, where no double of the sum is exact, only the sum rounded once will do.
    assertEquals(soft.fma(F32, a, F32_ONE, b), soft.add(F32, a, b));
  }
});

const F32_ONE = 0x3f80_0000n;

Deno.test("all halves convert to singles and back", () => {
  const soft = new SoftFloat();
  for (let bits = 0n; bits < 0x1_0000n; bits++) {
    if (isNan(F16, bits)) continue;
    const wide = soft.convert(F16, F32, bits);
    assertEquals(soft.convert(F32, F16, wide), bits);
  }
});

Deno.test("integers convert by rounding, or to the most negative one", () => {
  const soft = new SoftFloat();
  const convert = (value: number, size: number): [bigint, number] => {
    soft.flags = 0;
    const got = BigInt.asIntN(size, soft.toInteger(F64, bits64(value), size));
    return [got, soft.flags];
  };
  const { Invalid, Precision } = Exception;
  assertEquals(convert(2.5, 32), [2n, Precision]);
  assertEquals(convert(3.5, 32), [4n, Precision]);
  assertEquals(convert(-2147483648, 32), [-2147483648n, 0]);
  assertEquals(convert(-2147483648.5, 32), [-2147483648n, Precision]);
  assertEquals(convert(-2147483649, 32), [-2147483648n, Invalid]);
  assertEquals(convert(2147483647.5, 32), [-2147483648n, Invalid]);
  assertEquals(convert(2 ** 63, 64), [-(2n ** 63n), Invalid]);
  assertEquals(convert(-(2 ** 63), 64), [-(2n ** 63n), 0]);
  assertEquals(convert(Infinity, 16), [-32768n, Invalid]);
  assertEquals(convert(5e-324, 16), [0n, Precision]);
  for (const value of [0n, 1n, -1n, 2n ** 53n + 1n, -(2n ** 63n)]) {
    assertEquals(soft.fromInteger(F64, value), bits64(Number(value)));
    const exact = soft.fromInteger(F80, value);
    assertEquals(BigInt.asIntN(64, soft.toInteger(F80, exact, 64)), value);
  }
});

Deno.test("precision control rounds extended results to 24 or 53 bits", () => {
  const soft = new SoftFloat();
  const one = soft.fromInteger(F80, 1n), three = soft.fromInteger(F80, 3n);
  const third = (precision: number): bigint => {
    soft.precision = precision;
    return soft.div(F80, one, three);
  };
  assertEquals(third(64), 0x3ffd_aaaa_aaaa_aaaa_aaabn);
  assertEquals(third(53), 0x3ffd_aaaa_aaaa_aaaa_a800n);
  assertEquals(third(24), 0x3ffd_aaaa_ab00_0000_0000n);
});

Deno.test("unmasked exceptions end an operation or wrap its exponent", () => {
  const soft = new SoftFloat();
  const largest = 0x7ffe_ffff_ffff_ffff_ffffn;
  const denormal = 1n;
  soft.unmasked = Exception.Overflow | Exception.Denormal;
  // 2^16384 * 2^16384 is 2^32768, less 24576.
  assertEquals(soft.mul(F80, largest, largest), 0x5ffe_ffff_ffff_ffff_fffen);
  assertEquals(soft.flags, Exception.Overflow | Exception.Precision);
  soft.flags = 0;
  soft.mul(F80, denormal, denormal);
  assertEquals(soft.flags, Exception.Denormal);
});

Deno.test("NaNs are told apart and converted with what fits of their payload", () => {
  assertEquals([isNan(F32, 0x7f80_0001n), isNan(F32, 0x7f80_0000n)], [
    true,
    false,
  ]);
  assertEquals(isSignaling(F32, 0x7f80_0001n), true);
  assertEquals(isSignaling(F32, 0xffc0_0001n), false);
  assertEquals(convertNan(F32, F64, 0xff80_0001n), 0xfff8_0000_2000_0000n);
  assertEquals(convertNan(F64, F32, 0x7ff8_0000_2000_0001n), 0x7fc0_0001n);
  assertEquals(convertNan(F32, F80, 0x7f80_0001n), 0x7fff_c000_0100_0000_0000n);
});

Deno.test("bit lengths and square roots of long integers are exact", () => {
  const random = new Random("roots");
  for (let n = 0; n < 2000; n++) {
    const value = (random.wide() + 1n) << BigInt(random.below(1200));
    const root = integerSqrt(value);
    assertEquals(root * root <= value && (root + 1n) ** 2n > value, true);
    assertEquals(bitLength(value), value.toString(2).length);
    assertEquals(
      bitLength(2n ** BigInt(n) - 1n + BigInt(n === 0 ? 1 : 0)),
      n || 1,
    );
  }
});

/** Operations by their numbers in soft_float.c; those on doubles are 16 higher. */
function operate(
  soft: SoftFloat,
  operation: number,
  a: bigint,
  b: bigint,
  c: bigint,
): bigint {
  const wide = operation >= 16;
  const f = wide ? F64 : F32;
  switch (operation & 15) {
    case 0:
      return soft.add(f, a, b);
    case 1:
      return soft.sub(f, a, b);
    case 2:
      return soft.mul(f, a, b);
    case 3:
      return soft.div(f, a, b);
    case 4:
      return soft.sqrt(f, a);
    case 5:
      return soft.fma(f, a, b, c);
    case 6:
      return soft.convert(f, wide ? F32 : F64, a);
    case 7:
      return soft.integral(f, a);
    case 8:
      return soft.toInteger(f, a, 32);
    case 9:
      return soft.toInteger(f, a, 64);
    default:
      return soft.convert(F32, F16, a);
  }
}

function hasFma(): boolean {
  const missing = (what: string): boolean => {
    if (Deno.env.has("SYNDBG_REQUIRE_ALL")) return true;
    console.log(`Skipped: comparing soft float with a processor needs ${what}`);
    return false;
  };
  if (Deno.build.os !== "linux" || Deno.build.arch !== "x86_64") {
    return missing("Linux on x86-64");
  }
  const cpu = Deno.readTextFileSync("/proc/cpuinfo");
  if (!/\bfma\b/.test(cpu) || !/\bf16c\b/.test(cpu)) {
    return missing("FMA and F16C");
  }
  try {
    const quiet = { stdout: "null", stderr: "null" } as const;
    new Deno.Command("gcc", { args: ["--version"], ...quiet }).outputSync();
    return true;
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    return missing("gcc");
  }
}

Deno.test({
  name: "operations give a processor's results and flags in every mode",
  ignore: !hasFma(),
  async fn() {
    const random = new Random("modes");
    const operations = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9].flatMap((
      n,
    ) => [n, n + 16]);
    operations.push(10);
    const count = 50_000;
    const size = 32;
    const requests = new Uint8Array(size * count);
    const to = new DataView(requests.buffer);
    for (let n = 0; n < count; n++) {
      const operation = random.pick(operations);
      const f = operation >= 16 ? F64 : F32;
      // All masked; rounding, flush to zero and denormals are zero as they come.
      const mode = (random.below(8) << 13) | (random.once(4) ? 0x40 : 0);
      to.setUint32(size * n, operation, true);
      to.setUint32(size * n + 4, 0x1f80 | mode, true);
      const a = number(random, f);
      const close = a ^ BigInt(random.below(4));
      const near = random.once(4) && !isNan(f, close);
      const b = near ? close : number(random, f);
      // The third operand of some sums cancels.
      const c = random.once(4) ? a ^ f.sign : number(random, f);
      to.setBigUint64(size * n + 8, a, true);
      to.setBigUint64(size * n + 16, b, true);
      to.setBigUint64(size * n + 24, c, true);
    }
    const program = await buildProgram(
      new URL("soft_float.c", import.meta.url),
      ["-mavx2", "-mfma", "-mf16c"],
    );
    let responses: Uint8Array;
    try {
      responses = await runNative(program, requests);
    } finally {
      await Deno.remove(program);
    }
    const from = new DataView(responses.buffer);
    const soft = new SoftFloat();
    for (let n = 0; n < count; n++) {
      const operation = to.getUint32(size * n, true);
      const mxcsr = to.getUint32(size * n + 4, true);
      const operands = [8, 16, 24].map((at) =>
        to.getBigUint64(size * n + at, true)
      ) as [bigint, bigint, bigint];
      soft.rounding = (mxcsr >>> 13) & 3;
      soft.flushToZero = (mxcsr & 0x8000) !== 0;
      soft.denormalsAreZero = (mxcsr & 0x40) !== 0;
      soft.flags = 0;
      const kind = operation & 15;
      const single = kind === 6 || kind === 8
        ? operation >= 16
        : operation < 16;
      const width = kind === 10 ? 16 : kind === 9 || !single ? 64 : 32;
      // Halves take no notice of MXCSR's modes for denormals.
      if (kind === 10) soft.flushToZero = false;
      const bits = kind === 8 ? 32 : width;
      const got = [operate(soft, operation, ...operands), soft.flags];
      const wanted = [
        BigInt.asUintN(bits, from.getBigUint64(16 * n, true)),
        from.getUint32(16 * n + 8, true) & 63,
      ];
      assertEquals(
        got,
        wanted,
        `${operation} of ${operands.map((x) => x.toString(16))}, MXCSR ${
          mxcsr.toString(16)
        }`,
      );
    }
  },
});
