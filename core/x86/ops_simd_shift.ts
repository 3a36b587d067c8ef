/**
 * Shifts of packed integers, by a count for all lanes.
 *
 * @module
 */
import type { OpDef } from "./opcode.ts";
import { R_IMM } from "./layout.ts";
import { apart, both, forBoth, type Lanes, mmx, xmm } from "./simd.ts";

type Direction = "left" | "right" | "arithmetic";

function shift16(direction: Direction): Lanes {
  return (cpu, a, _b, bytes, count) => {
    const dv = cpu.dv;
    for (let at = 0; at < bytes; at += 2) {
      const x = dv.getUint16(a + at, true);
      const r = direction === "arithmetic"
        ? ((x << 16) >> 16) >> Math.min(count, 15)
        : count > 15
        ? 0
        : direction === "left"
        ? x << count
        : x >>> count;
      dv.setInt16(a + at, r, true);
    }
  };
}

function shift32(direction: Direction): Lanes {
  return (cpu, a, _b, bytes, count) => {
    const dv = cpu.dv;
    for (let at = 0; at < bytes; at += 4) {
      const x = dv.getInt32(a + at, true);
      const r = direction === "arithmetic"
        ? x >> Math.min(count, 31)
        : count > 31
        ? 0
        : direction === "left"
        ? x << count
        : x >>> count;
      dv.setInt32(a + at, r, true);
    }
  };
}

const left64: Lanes = (cpu, a, _b, bytes, count) => {
  const dv = cpu.dv;
  for (let at = a; at < a + bytes; at += 8) {
    const low = dv.getInt32(at, true), high = dv.getInt32(at + 4, true);
    const part = count & 31;
    const carried = part === 0 ? 0 : low >>> (32 - part);
    const lowToo = count < 32, any = count < 64;
    dv.setInt32(at, lowToo ? low << part : 0, true);
    dv.setInt32(
      at + 4,
      lowToo ? (high << part) | carried : any ? low << part : 0,
      true,
    );
  }
};

const right64: Lanes = (cpu, a, _b, bytes, count) => {
  const dv = cpu.dv;
  for (let at = a; at < a + bytes; at += 8) {
    const low = dv.getInt32(at, true), high = dv.getInt32(at + 4, true);
    const part = count & 31;
    const carried = part === 0 ? 0 : high << (32 - part);
    const highToo = count < 32, any = count < 64;
    dv.setInt32(at + 4, highToo ? high >>> part : 0, true);
    dv.setInt32(
      at,
      highToo ? (low >>> part) | carried : any ? high >>> part : 0,
      true,
    );
  }
};

/** PSLLDQ and PSRLDQ: by bytes. */
const bytesLeft = apart((cpu, to, a, _b, bytes, count) => {
  for (let n = 0; n < bytes; n++) {
    cpu.u8[to + n] = n < count ? 0 : cpu.u8[a + n - count]!;
  }
});
const bytesRight = apart((cpu, to, a, _b, bytes, count) => {
  for (let n = 0; n < bytes; n++) {
    cpu.u8[to + n] = n + count < bytes ? cpu.u8[a + n + count]! : 0;
  }
});

/** The lines of a shift: by the low 64 bits of an operand, by an immediate. */
function shifts(
  byOperand: string,
  group: string,
  reg: number,
  lanes: Lanes,
): OpDef[] {
  const counted: Lanes = (cpu, a, b, bytes) => {
    const low = cpu.dv.getUint32(b, true), high = cpu.dv.getInt32(b + 4, true);
    // All counts above 63 do the same.
    lanes(cpu, a, b, bytes, high !== 0 || low > 64 ? 64 : low);
  };
  return [
    ...both(byOperand, forBoth(counted)),
    {
      code: `NP ${group} /${reg}`,
      operands: "+Nq Ib",
      run: mmx((cpu, a, b, pc) => lanes(cpu, a, b, 8, cpu.i32[pc + R_IMM]!)),
    },
    xmm(`${group} /${reg}`, forBoth(lanes).xmm, "+Ux Ib"),
  ];
}

/** The family's lines of the opcode tables. */
export const simdShiftOps: readonly OpDef[] = [
  ...shifts("0F D1", "0F 71", 2, shift16("right")),
  ...shifts("0F E1", "0F 71", 4, shift16("arithmetic")),
  ...shifts("0F F1", "0F 71", 6, shift16("left")),
  ...shifts("0F D2", "0F 72", 2, shift32("right")),
  ...shifts("0F E2", "0F 72", 4, shift32("arithmetic")),
  ...shifts("0F F2", "0F 72", 6, shift32("left")),
  ...shifts("0F D3", "0F 73", 2, right64),
  ...shifts("0F F3", "0F 73", 6, left64),
  xmm("0F 73 /3", forBoth(bytesRight).xmm, "+Ux Ib"),
  xmm("0F 73 /7", forBoth(bytesLeft).xmm, "+Ux Ib"),
];
