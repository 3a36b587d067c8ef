/**
 * Moving lanes about within MMX and XMM registers: shuffles, interleaving, packing, blending, widening.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { R_IMM, VEC_B } from "./layout.ts";
import type { Handler, OpDef } from "./opcode.ts";
import { apart, both, forBoth, xmm } from "./simd.ts";

type Both = { mm: Handler; xmm: Handler };

/** Copies a lane of 1, 2, 4 or 8 bytes. */
export function lane(cpu: Cpu, to: number, from: number, size: number): void {
  const dv = cpu.dv;
  if (size === 1) cpu.u8[to] = cpu.u8[from]!;
  else if (size === 2) dv.setInt16(to, dv.getInt16(from, true), true);
  else {
    const low = dv.getInt32(from, true);
    if (size === 8) dv.setInt32(to + 4, dv.getInt32(from + 4, true), true);
    dv.setInt32(to, low, true);
  }
}

/** PUNPCKL and PUNPCKH: lanes of a and b in turn, from the lower or upper halves. */
function interleave(size: number, upper: boolean): Both {
  return forBoth(apart((cpu, to, a, b, bytes) => {
    const half = bytes >> 1;
    const skip = upper ? half : 0;
    for (let at = 0; at < half; at += size) {
      lane(cpu, to + 2 * at, a + skip + at, size);
      lane(cpu, to + 2 * at + size, b + skip + at, size);
    }
  }));
}

/** Signed halves to bytes, first those of a; `least` and `most` bound the result. */
function pack16(least: number, most: number): Both {
  return forBoth(apart((cpu, to, a, b, bytes) => {
    const half = bytes >> 1;
    for (let n = 0; n < bytes; n++) {
      const from = n < half ? a + 2 * n : b + 2 * (n - half);
      const x = cpu.dv.getInt16(from, true);
      cpu.u8[to + n] = x < least ? least : x > most ? most : x;
    }
  }));
}

/** As {@linkcode pack16} of signed words to halves. */
function pack32(least: number, most: number): Both {
  return forBoth(apart((cpu, to, a, b, bytes) => {
    const half = bytes >> 1;
    for (let at = 0; at < bytes; at += 2) {
      const from = at < half ? a + 2 * at : b + 2 * (at - half);
      const x = cpu.dv.getInt32(from, true);
      cpu.dv.setInt16(to + at, x < least ? least : x > most ? most : x, true);
    }
  }));
}

/** PSHUFB: b says which byte of a goes to each place. */
const shuffleBytes = apart((cpu, to, a, b, bytes) => {
  const u8 = cpu.u8;
  for (let n = 0; n < bytes; n++) {
    const from = u8[b + n]!;
    u8[to + n] = from > 127 ? 0 : u8[a + (from & (bytes - 1))]!;
  }
});

/** PALIGNR: b and above it a, shifted right by bytes. */
const alignRight = apart((cpu, to, a, b, bytes, count) => {
  const u8 = cpu.u8;
  for (let n = 0; n < bytes; n++) {
    const from = n + count;
    u8[to + n] = from < bytes
      ? u8[b + from]!
      : from < 2 * bytes
      ? u8[a + from - bytes]!
      : 0;
  }
});

/** Two bits of the immediate for each of four lanes of b; the rest of b is copied. */
function shuffle(size: number, offset: number): Both {
  return forBoth(apart((cpu, to, _a, b, bytes, imm) => {
    for (let at = 0; at < bytes; at += 4) lane(cpu, to + at, b + at, 4);
    for (let n = 0; n < 4; n++) {
      const from = (imm >>> (2 * n)) & 3;
      lane(cpu, to + offset + n * size, b + offset + from * size, size);
    }
  }));
}

/** SHUFPS: two lanes of a, then two of b. */
const shuffleSingles = apart((cpu, to, a, b, _bytes, imm) => {
  for (let n = 0; n < 4; n++) {
    const from = (n < 2 ? a : b) + 4 * ((imm >>> (2 * n)) & 3);
    lane(cpu, to + 4 * n, from, 4);
  }
});

/** SHUFPD. */
const shuffleDoubles = apart((cpu, to, a, b, _bytes, imm) => {
  lane(cpu, to, a + 8 * (imm & 1), 8);
  lane(cpu, to + 8, b + 8 * ((imm >>> 1) & 1), 8);
});

/** A bit of the immediate for each lane, 1 to take that of b. */
function blend(size: number): Handler {
  return (cpu, a, b, pc) => {
    const imm = cpu.i32[pc + R_IMM]!;
    for (let at = 0, n = 0; at < 16; at += size, n++) {
      if (((imm >>> n) & 1) !== 0) lane(cpu, a + at, b + at, size);
    }
  };
}

/** The top bit of each lane of XMM0, 1 to take that of b. */
function blendByMask(size: number): Handler {
  return apart16((cpu, to, a, b) => {
    for (let at = 0; at < 16; at += size) {
      const mask = cpu.u8[VEC_B + at + size - 1]!;
      lane(cpu, to + at, (mask > 127 ? b : a) + at, size);
    }
  });
}

function apart16(
  op: (cpu: Cpu, to: number, a: number, b: number, imm: number) => void,
): Handler {
  return forBoth(
    apart((cpu, to, a, b, _bytes, imm) => op(cpu, to, a, b, imm)),
  ).xmm;
}

/** Reads a lane of 1, 2 or 4 bytes, sign-extended or not. */
function extended(cpu: Cpu, at: number, size: number, signed: boolean): number {
  const dv = cpu.dv;
  if (size === 1) return signed ? dv.getInt8(at) : dv.getUint8(at);
  if (size === 2) {
    return signed ? dv.getInt16(at, true) : dv.getUint16(at, true);
  }
  return dv.getInt32(at, true);
}

/** PMOVSX and PMOVZX: lanes of b from `from` to `size` bytes, as many as fit into 16. */
function widen(from: number, size: number, signed: boolean): Handler {
  return apart16((cpu, to, _a, b) => {
    const dv = cpu.dv;
    for (let at = 0, source = b; at < 16; at += size, source += from) {
      const x = extended(cpu, source, from, signed);
      if (size === 2) dv.setInt16(to + at, x, true);
      else dv.setInt32(to + at, x, true);
      if (size === 8) dv.setInt32(to + at + 4, signed ? x >> 31 : 0, true);
    }
  });
}

/** The lines of PMOVSX and PMOVZX. */
function widenings(): OpDef[] {
  const kinds = [
    [1, 2, "q"],
    [1, 4, "d"],
    [1, 8, "w"],
    [2, 4, "q"],
    [2, 8, "d"],
    [4, 8, "q"],
  ] as const;
  return kinds.flatMap(([from, size, memory], n) =>
    [true, false].map((signed) =>
      xmm(
        `0F 38 ${signed ? 2 : 3}${n}`,
        widen(from, size, signed),
        `=Vx W${memory}`,
      )
    )
  );
}

/** INSERTPS: a lane of b (the only one, in memory) into one of a; a mask of lanes then becomes 0. */
function insertSingle(picks: boolean): Handler {
  return (cpu, a, b, pc) => {
    const imm = cpu.i32[pc + R_IMM]!;
    const from = picks ? 4 * (imm >>> 6) : 0;
    lane(cpu, a + 4 * ((imm >>> 4) & 3), b + from, 4);
    for (let n = 0; n < 4; n++) {
      if (((imm >>> n) & 1) !== 0) cpu.dv.setInt32(a + 4 * n, 0, true);
    }
  };
}

/** The lines of PUNPCKL, whose MMX form reads only 32 bits. */
function interleaveLow(code: string, size: number): OpDef[] {
  const { mm, xmm: run } = interleave(size, false);
  return [
    { code: `NP ${code}`, operands: "+Pq Qd", run: mm },
    xmm(code, run),
  ];
}

/** The family's lines of the opcode tables. */
export const simdShuffleOps: readonly OpDef[] = [
  ...interleaveLow("0F 60", 1),
  ...interleaveLow("0F 61", 2),
  ...interleaveLow("0F 62", 4),
  ...both("0F 68", interleave(1, true)),
  ...both("0F 69", interleave(2, true)),
  ...both("0F 6A", interleave(4, true)),
  xmm("0F 6C", interleave(8, false).xmm),
  xmm("0F 6D", interleave(8, true).xmm),
  { code: "NP 0F 14", operands: "+Vx Wx", run: interleave(4, false).xmm },
  { code: "NP 0F 15", operands: "+Vx Wx", run: interleave(4, true).xmm },
  xmm("0F 14", interleave(8, false).xmm),
  xmm("0F 15", interleave(8, true).xmm),

  ...both("0F 63", pack16(-128, 127)),
  ...both("0F 67", pack16(0, 255)),
  ...both("0F 6B", pack32(-0x8000, 0x7fff)),
  xmm("0F 38 2B", pack32(0, 0xffff).xmm),

  ...both("0F 38 00", forBoth(shuffleBytes)),
  ...both("0F 3A 0F", forBoth(alignRight), "Ib"),
  { code: "NP 0F 70", operands: "=Pq Qq Ib", run: shuffle(2, 0).mm },
  { code: "66 0F 70", operands: "=Vx Wx Ib", run: shuffle(4, 0).xmm },
  { code: "F2 0F 70", operands: "=Vx Wx Ib", run: shuffle(2, 0).xmm },
  { code: "F3 0F 70", operands: "=Vx Wx Ib", run: shuffle(2, 8).xmm },
  {
    code: "NP 0F C6",
    operands: "+Vx Wx Ib",
    run: forBoth(shuffleSingles).xmm,
  },
  {
    code: "66 0F C6",
    operands: "+Vx Wx Ib",
    run: forBoth(shuffleDoubles).xmm,
  },
  xmm("0F 3A 0C", blend(4), "+Vx Wx Ib"),
  xmm("0F 3A 0D", blend(8), "+Vx Wx Ib"),
  xmm("0F 3A 0E", blend(2), "+Vx Wx Ib"),
  xmm("0F 38 10", blendByMask(1)),
  xmm("0F 38 14", blendByMask(4)),
  xmm("0F 38 15", blendByMask(8)),
  ...widenings(),
  { code: "66 0F 3A 21 m", operands: "+Vx Wd Ib", run: insertSingle(false) },
  { code: "66 0F 3A 21 r", operands: "+Vx Wd Ib", run: insertSingle(true) },
];
