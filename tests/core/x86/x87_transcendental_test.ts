import { assertEquals } from "@std/assert";
import { Exception, F80, Rounding } from "../../../core/x86/soft_float.ts";
import { soft } from "../../../core/x86/x87.ts";
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
} from "../../../core/x86/x87_transcendental.ts";

const NEGATIVE = F80.sign;

function integer(value: bigint): bigint {
  return soft.fromInteger(F80, value);
}

/** 2 to a power. */
function power(exponent: number): bigint {
  return (BigInt(F80.bias + exponent) << 64n) | F80.integer;
}

function prepare(rounding: number = Rounding.Nearest): void {
  soft.rounding = rounding;
  soft.precision = 64;
  soft.unmasked = 0;
  soft.flags = 0;
}

const ONE = integer(1n), ZERO = 0n;

// The values come from an arbitrary-precision library and are rounded to nearest.

Deno.test("results are the nearest ones", () => {
  prepare();
  assertEquals(sin(ONE), 0x3ffe_d76a_a478_4867_7021n);
  assertEquals(cos(ONE), 0x3ffe_8a51_407d_a834_5c92n);
  assertEquals(tangent(ONE), [0x3fff_c759_22e5_f71d_2dc5n, ONE]);
  assertEquals(sineAndCosine(ONE), [sin(ONE), cos(ONE)]);
  assertEquals(
    arctangent(ONE, integer(3n)),
    0x3ffd_a4bc_7d19_34f7_0924n,
  );
  assertEquals(
    arctangent(integer(3n), integer(-1n)),
    0x3fff_f23e_f9e8_6ea6_847en,
  );
  assertEquals(powerOf2Less1(power(-1)), 0x3ffd_d413_cccf_e779_9211n);
  assertEquals(
    powerOf2Less1(power(-2) | NEGATIVE),
    0xbffc_a2ec_0cd4_a58a_542fn,
  );
  assertEquals(yLog2(integer(10n), ONE), 0x4000_d49a_784b_cd1b_8afen);
  assertEquals(yLog2Plus1(power(-1), ONE), 0x3ffe_95c0_1a39_fbd6_87a0n);
  assertEquals(yLog2Plus1(power(-70), ONE), 0x3fb9_b8aa_3b29_5c17_f0bcn);
  assertEquals(soft.flags, Exception.Precision);
});

Deno.test("angles are reduced by a pi of 66 bits, up to 2^63", () => {
  prepare();
  // Pi itself, rounded to 64 bits, is 2^-64 off that.
  assertEquals(sin(0x4000_c90f_daa2_2168_c235n), power(-64) | NEGATIVE);
  assertEquals(sin(integer(1000n)), 0x3ffe_d3ae_60a8_5103_5ad7n);
  assertEquals(sin(power(62)), 0xbffe_b506_a9dd_559c_f157n);
  assertEquals(isOutOfRange(power(62)), false);
  assertEquals(isOutOfRange(power(63) | NEGATIVE), true);
  assertEquals(tangent(power(63)), undefined);
});

Deno.test("what hardly differs from its argument is rounded as the mode says", () => {
  const tiny = power(-100),
    next = tiny + 1n,
    before = power(-101) | F80.fraction;
  const all = (x: bigint): bigint[] => [
    sin(x),
    tangent(x)![0],
    arctangent(x, ONE),
  ];
  prepare(Rounding.Nearest);
  assertEquals(all(tiny), [tiny, tiny, tiny]);
  prepare(Rounding.Up);
  assertEquals(all(tiny), [tiny, next, tiny]);
  prepare(Rounding.Down);
  assertEquals(all(tiny), [before, tiny, before]);
  assertEquals(cos(tiny), 0x3ffe_ffff_ffff_ffff_ffffn);
  assertEquals(soft.flags, Exception.Precision);
});

Deno.test("zeros and infinities give what limits are", () => {
  prepare();
  const infinity = F80.infinity, half = power(-1);
  assertEquals(sin(ZERO | NEGATIVE), ZERO | NEGATIVE);
  assertEquals(cos(ZERO), ONE);
  assertEquals(arctangent(ZERO | NEGATIVE, ONE), ZERO | NEGATIVE);
  assertEquals(powerOf2Less1(infinity | NEGATIVE), ONE | NEGATIVE);
  assertEquals(yLog2(half, infinity), infinity | NEGATIVE);
  assertEquals(yLog2(infinity, half | NEGATIVE), infinity | NEGATIVE);
  assertEquals(yLog2(ONE, half | NEGATIVE), ZERO | NEGATIVE);
  assertEquals(yLog2Plus1(infinity, half), infinity);
  assertEquals(soft.flags, 0);
  assertEquals(yLog2(ZERO, half), infinity | NEGATIVE);
  assertEquals(soft.flags, Exception.DivideByZero);
  // Pi, to which nothing is exact.
  assertEquals(arctangent(ZERO, ONE | NEGATIVE), 0x4000_c90f_daa2_2168_c235n);
  assertEquals(arctangent(infinity, infinity), 0x3ffe_c90f_daa2_2168_c235n);
});

Deno.test("what has no limit is invalid", () => {
  const infinity = F80.infinity;
  for (
    const compute of [
      () => sin(infinity),
      () => cos(infinity),
      () => tangent(infinity)![0],
      () => yLog2(ONE | NEGATIVE, ONE),
      () => yLog2(ZERO, ZERO),
      () => yLog2(ONE, infinity),
      () => yLog2(infinity, ZERO),
      () => yLog2Plus1(ZERO, infinity),
      () => yLog2Plus1(infinity | NEGATIVE, ONE),
    ]
  ) {
    prepare();
    assertEquals(compute(), F80.defaultNan, `${compute}`);
    assertEquals(soft.flags, Exception.Invalid, `${compute}`);
  }
});
