/**
 * The families of instructions on vector registers, and the values that they are tried with. Outcomes are
 * recorded for these very cases: who changes a line records its family anew (simd_record.ts).
 *
 * @module
 */
import type { Random } from "./random.ts";
import type { SimdFamily } from "./simd_cases.ts";

function integers(random: Random): bigint {
  return random.value();
}

/** A few different characters, and now and then a 0. */
function characters(random: Random): bigint {
  if (random.once(8)) return random.value();
  let value = 0n;
  const wide = random.once(3);
  for (let n = 0; n < (wide ? 4 : 8); n++) {
    const character = random.pick([1n, 2n, 3n, 0x7fn, 0x80n, 0xffn, 0x41n]);
    const zero = random.once(12);
    value = (value << (wide ? 16n : 8n)) | (zero ? 0n : character);
  }
  return value;
}

/** Small offsets, of 32 or 64 bits, of which many reach beyond the window. */
function offsets(random: Random): bigint {
  if (random.once(24)) return random.value();
  const small = (): bigint => BigInt(random.below(64) - 32);
  return random.once(2)
    ? BigInt.asUintN(64, small())
    : BigInt.asUintN(32, small()) | (BigInt.asUintN(32, small()) << 32n);
}

function quiet(random: Random): number {
  return 0x1f80 | (random.word() & 0x3f);
}

/** Exponent and fraction fields that floats go wrong with; `bits` and `stored` bits wide. */
function float(random: Random, width: bigint, stored: bigint): bigint {
  const top = (1n << (width - stored - 1n)) - 1n;
  const all = (1n << stored) - 1n;
  const bias = top >> 1n;
  const exponent = random.pick([
    0n,
    top,
    1n,
    top - 1n,
    bias,
    bias + BigInt(random.below(Number(stored) + 12)),
    bias - BigInt(random.below(Number(stored) + 4)),
    bias + random.pick([30n, 31n, 32n, 62n, 63n, 64n]),
    random.wide() & top,
  ]);
  const fraction = random.pick([
    0n,
    1n,
    all,
    1n << (stored - 1n),
    random.wide() & all,
    random.wide() & all & ~((1n << BigInt(random.below(Number(stored)))) - 1n),
    1n << BigInt(random.below(Number(stored))),
  ]);
  const sign = BigInt(random.below(2)) << (width - 1n);
  return sign | (exponent << stored) | fraction;
}

/** Doubles, or pairs of singles. */
function floats(random: Random): bigint {
  if (random.once(12)) return random.value();
  return random.once(2)
    ? float(random, 64n, 52n)
    : (float(random, 32n, 23n) << 32n) | float(random, 32n, 23n);
}

/** Everything in MXCSR, the usual mode often. */
function anyMode(random: Random): number {
  const flags = random.word() & random.pick([0, 0x3f, 0x20]);
  switch (random.below(4)) {
    case 0:
      return 0x1f80 | flags;
    case 1:
      return 0x1f80 | flags | (random.word() & 0xe040);
    case 2:
      return 0x1f80 | flags | (random.below(4) << 13);
    default:
      return (random.word() & 0xffc0) | flags;
  }
}

/** The families. */
export const SIMD_FAMILIES: readonly SimdFamily[] = [
  {
    name: "simd_integers",
    opcodes: [
      "0F 54-57",
      "0F 60-6D",
      "0F 70-73 ib",
      "0F 74-76",
      "0F D1-D5",
      "0F D8-E5",
      "0F E8-EF",
      "0F F1-F6",
      "0F F8-FE",
      "0F 14-15",
      "0F C6 ib",
      "0F38 00-0B",
      "0F38 10-11",
      "0F38 14-17",
      "0F38 1C-1F",
      "0F38 20-29",
      "0F38 2B",
      "0F38 30-41",
      "0F3A 0C-0F ib",
      "0F3A 21 ib",
      "0F3A 42 ib",
    ],
    times: 24,
    values: integers,
    mxcsr: quiet,
  },
  {
    name: "simd_moves",
    opcodes: [
      "0F 10-13",
      "0F 16-17",
      "0F 28-29",
      "0F 2B NP,66",
      "0F 50",
      "0F 6E-6F",
      "0F 7E-7F",
      "0F C4-C5 ib",
      "0F D6-D7",
      "0F E7",
      "0F F0",
      "0F F7",
      "0F38 2A",
      "0F3A 14-17 ib",
      "0F3A 20 ib",
      "0F3A 22 ib",
    ],
    times: 32,
    values: integers,
    mxcsr: quiet,
  },
  {
    name: "simd_mxcsr",
    opcodes: ["0F AE /2", "0F AE /3", "V0F AE /2"],
    times: 40,
    // The processor has MXCSR.MM, bit 17.
    values: (random) => random.value() & 0xfffd_ffff_fffd_ffffn,
    mxcsr: anyMode,
  },
  {
    name: "simd_floats",
    opcodes: [
      "0F 2E-2F",
      "0F 51",
      "0F 58-59",
      "0F 5C-5F",
      "0F 7C-7D",
      "0F C2 ib",
      "0F D0",
    ],
    times: 200,
    values: floats,
    mxcsr: anyMode,
  },
  {
    name: "simd_conversions",
    opcodes: ["0F 2A", "0F 2C-2D", "0F 5A-5B", "0F E6"],
    times: 400,
    values: floats,
    mxcsr: anyMode,
  },
  {
    name: "simd_rounding",
    opcodes: ["0F3A 08-0B ib", "0F3A 40-41 ib"],
    times: 400,
    values: floats,
    mxcsr: anyMode,
  },
  {
    name: "simd_strings",
    opcodes: ["0F3A 60-63 ib"],
    times: 500,
    values: characters,
    mxcsr: quiet,
  },
  {
    name: "simd_ciphers",
    opcodes: [
      "0F38 C8-CD",
      "0F38 DB-DF",
      "0F3A 44 ib",
      "0F3A CC ib",
      "0F3A DF ib",
    ],
    times: 60,
    values: (random) => random.wide(),
    mxcsr: quiet,
  },
  {
    name: "avx_integers",
    opcodes: [
      "V0F 14-15",
      "V0F 54-57",
      "V0F 60-6D",
      "V0F 70-73 ib",
      "V0F 74-76",
      "V0F C6 ib",
      "V0F D1-D5",
      "V0F D8-E5",
      "V0F E8-EF",
      "V0F F1-F6",
      "V0F F8-FE",
      "V0F38 00-12",
      "V0F38 14-29",
      "V0F38 2B",
      "V0F38 30-41",
      "V0F38 45-47",
      "V0F38 58-5A",
      "V0F38 78-79",
      "V0F3A 00-06 ib",
      "V0F3A 0C-0F ib",
      "V0F3A 18-19 ib",
      "V0F3A 21 ib",
      "V0F3A 38-39 ib",
      "V0F3A 42 ib",
      "V0F3A 46 ib",
      "V0F3A 4A-4C ib",
    ],
    times: 24,
    values: integers,
    mxcsr: quiet,
  },
  {
    name: "avx_moves",
    opcodes: [
      "V0F 10-13",
      "V0F 16-17",
      "V0F 28-29",
      "V0F 2B",
      "V0F 50",
      "V0F 6E-6F",
      "V0F 77 bare",
      "V0F 7E-7F",
      "V0F AE /3",
      "V0F C4-C5 ib",
      "V0F D6-D7",
      "V0F E7",
      "V0F F0",
      "V0F F7",
      "V0F38 2A",
      "V0F38 2C-2F",
      "V0F38 8C-8F",
      "V0F3A 14-17 ib",
      "V0F3A 20 ib",
      "V0F3A 22 ib",
    ],
    times: 32,
    values: integers,
    mxcsr: quiet,
  },
  {
    name: "avx_floats",
    opcodes: [
      "V0F 2A",
      "V0F 2C-2F",
      "V0F 51",
      "V0F 58-5F",
      "V0F 7C-7D",
      "V0F C2 ib",
      "V0F D0",
      "V0F E6",
      "V0F38 13",
      "V0F3A 08-0B ib",
      "V0F3A 1D ib",
      "V0F3A 40-41 ib",
    ],
    times: 100,
    values: floats,
    mxcsr: anyMode,
  },
  {
    name: "avx_others",
    opcodes: [
      "V0F38 DB-DF L0",
      "V0F3A 44 L0 ib",
      "V0F3A 60-63 ib",
      "V0F3A DF ib",
    ],
    times: 60,
    values: characters,
    mxcsr: quiet,
  },
  {
    name: "fma",
    opcodes: ["V0F38 96-9F", "V0F38 A6-AF", "V0F38 B6-BF"],
    times: 100,
    values: floats,
    mxcsr: anyMode,
  },
  {
    name: "avx_gathers",
    opcodes: ["V0F38 90-93 vsib"],
    times: 400,
    values: offsets,
    mxcsr: quiet,
  },
];
