/** Sums of products made of doubles, against arithmetic in software: near cancellation and near ties. */
import { assertEquals, assertLess } from "@std/assert";
import { Cpu } from "../../../core/x86/cpu.ts";
import { fma32, fma64 } from "../../../core/x86/fma.ts";
import { MXCSR } from "../../../core/x86/layout.ts";
import { GuestMemory } from "../../../core/guest_memory.ts";
import {
  F32,
  F64,
  type Format,
  SoftFloat,
} from "../../../core/x86/soft_float.ts";
import { Random } from "./oracle/random.ts";

const CASES = 20_000;

/** Up to `precision` significant bits, often few. */
function number(random: Random, precision: number): number {
  const bits = 1 + random.below(precision);
  let significand = 1;
  for (let n = 1; n < bits; n++) {
    significand = 2 * significand + random.below(2);
  }
  const size = significand * 2 ** (random.below(precision) - precision);
  return random.once(2) ? -size : size;
}

/** A third operand that makes it hard. */
function third(random: Random, product: number, precision: number): number {
  const sign = random.once(2) ? 1 : -1;
  switch (random.below(4)) {
    case 0:
      return sign * product;
    case 1:
      return sign * product * (1 + 2 ** -random.below(60));
    case 2:
      return sign * product * 2 ** (random.below(120) - 60);
    default:
      return number(random, precision) * 2 ** (random.below(200) - 100);
  }
}

const view = new DataView(new ArrayBuffer(8));

function bitsOf(f: Format, x: number): bigint {
  if (f === F64) view.setFloat64(0, x);
  else view.setFloat32(0, x);
  return f === F64 ? view.getBigUint64(0) : BigInt(view.getUint32(0));
}

for (const f of [F32, F64]) {
  Deno.test(`x * y + z of ${f.width} bits is rounded once, and PE right`, () => {
    const cpu = new Cpu(new GuestMemory(0x1_0000), undefined!, () => 0);
    const soft = new SoftFloat();
    const random = new Random(`fma ${f.width}`);
    const fit = f === F64 ? (x: number): number => x : Math.fround;
    let left = 0;
    for (let n = 0; n < CASES; n++) {
      const x = number(random, f.precision), y = number(random, f.precision);
      const z = fit(third(random, x * y, f.precision));
      cpu.i32[MXCSR] = 0x1f80;
      const r = (f === F64 ? fma64 : fma32)(cpu, x, y, z);
      if (Number.isNaN(r)) {
        left++;
        continue;
      }
      soft.flags = 0;
      const bits = soft.fma(f, bitsOf(f, x), bitsOf(f, y), bitsOf(f, z));
      const got = [bitsOf(f, r), cpu.i32[MXCSR]! & 0x3f];
      assertEquals(got, [bits, soft.flags], `${x} * ${y} + ${z}`);
    }
    assertLess(left, CASES / 50, "nearly all are done");
  });
}
