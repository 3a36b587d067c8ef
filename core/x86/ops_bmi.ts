/**
 * BMI1, BMI2, ADX, CRC32 and MOVBE. Undefined flags are AMD's: AF and PF are cleared.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import {
  arithmeticFlags,
  parity,
  resultFlags32,
  resultFlags64,
  setArithmeticFlags,
} from "./flags.ts";
import { Flag, HIGH, R_IMM } from "./layout.ts";
import type { Handler, OpDef } from "./opcode.ts";
import { put32, put64 } from "./operand.ts";

/** SF and ZF of a result, the other flags 0. */
function flags32(r: number): number {
  return resultFlags32(r) & (Flag.SF | Flag.ZF);
}

function flags64(r: number, rh: number): number {
  return resultFlags64(r, rh) & (Flag.SF | Flag.ZF);
}

/** Two-word operations on sources x (Ey) and y (the other), result low, HIGH; 32-bit ones pass 0. */
type Op = (
  cpu: Cpu,
  x: number,
  xh: number,
  y: number,
  yh: number,
  bits: number,
) => number;

function high(cpu: Cpu, a: number, bits: number): number {
  return bits === 64 ? cpu.dv.getInt32(a + 4, true) : 0;
}

function store(cpu: Cpu, a: number, low: number, bits: number): number {
  const rh = bits === 64 ? cpu.i32[HIGH]! : 0;
  if (bits === 64) put64(cpu, a, low, rh);
  else put32(cpu, a, low);
  return rh;
}

function resultOf(low: number, rh: number, bits: number): number {
  return bits === 64 ? flags64(low, rh) : flags32(low);
}

/** ANDN: Gy = ~By & Ey. */
function andn(bits: number): Handler {
  return (cpu, a, e, pc) => {
    const y = cpu.i32[pc + R_IMM]!;
    const low = ~cpu.dv.getInt32(y, true) & cpu.dv.getInt32(e, true);
    cpu.i32[HIGH] = ~high(cpu, y, bits) & high(cpu, e, bits);
    const rh = store(cpu, a, low, bits);
    setArithmeticFlags(cpu, resultOf(low, rh, bits));
  };
}

const blsr: Op = (cpu, x, xh) => {
  cpu.i32[HIGH] = x === 0 ? xh & (xh - 1) : xh;
  return x === 0 ? 0 : x & (x - 1);
};
const blsmsk: Op = (cpu, x, xh) => {
  cpu.i32[HIGH] = x === 0 ? xh ^ (xh - 1) : 0;
  return x ^ (x - 1);
};
const blsi: Op = (cpu, x, xh) => {
  cpu.i32[HIGH] = x === 0 ? xh & -xh : 0;
  return x & -x;
};

/** BLSR, BLSMSK (CF: source is 0), BLSI (CF: source is not 0): operand A is By, in R_IMM. */
function lowestBit(op: Op, carryIfZero: boolean, bits: number): Handler {
  return (cpu, _a, b, pc) => {
    const x = cpu.dv.getInt32(b, true), xh = high(cpu, b, bits);
    const low = op(cpu, x, xh, 0, 0, bits);
    const rh = store(cpu, cpu.i32[pc + R_IMM]!, low, bits);
    const none = (x | xh) === 0;
    setArithmeticFlags(
      cpu,
      resultOf(low, rh, bits) | (none === carryIfZero ? Flag.CF : 0),
    );
  };
}

/** The words of a value with all bits from `n` on cleared. */
function keepLow(cpu: Cpu, x: number, xh: number, n: number): number {
  if (n >= 64) {
    cpu.i32[HIGH] = xh;
    return x;
  }
  if (n >= 32) {
    cpu.i32[HIGH] = n === 32 ? 0 : xh & (-1 >>> (64 - n));
    return x;
  }
  cpu.i32[HIGH] = 0;
  return n === 0 ? 0 : x & (-1 >>> (32 - n));
}

/** Logical right shift of two words by 0 to 63. */
function shiftRight(cpu: Cpu, x: number, xh: number, n: number): number {
  if (n === 0) {
    cpu.i32[HIGH] = xh;
    return x;
  }
  if (n >= 32) {
    cpu.i32[HIGH] = 0;
    return (xh >>> (n - 32)) | 0;
  }
  cpu.i32[HIGH] = xh >>> n;
  return (x >>> n) | (xh << (32 - n));
}

function bextr(bits: number): Handler {
  return (cpu, a, b, pc) => {
    const control = cpu.dv.getUint16(cpu.i32[pc + R_IMM]!, true);
    const start = control & 255, length = control >>> 8;
    let low = 0;
    cpu.i32[HIGH] = 0;
    if (start < bits) {
      low = shiftRight(
        cpu,
        cpu.dv.getInt32(b, true),
        high(cpu, b, bits),
        start,
      );
      low = keepLow(cpu, low, cpu.i32[HIGH]!, length);
    }
    const rh = store(cpu, a, low, bits);
    // AF and PF as on Zen.
    setArithmeticFlags(
      cpu,
      Flag.AF | parity(low) | (resultOf(low, rh, bits) & Flag.ZF),
    );
  };
}

function bzhi(bits: number): Handler {
  return (cpu, a, b, pc) => {
    const n = cpu.u8[cpu.i32[pc + R_IMM]!]!;
    const low = keepLow(
      cpu,
      cpu.dv.getInt32(b, true),
      high(cpu, b, bits),
      n >= bits ? 64 : n,
    );
    const rh = store(cpu, a, low, bits);
    setArithmeticFlags(
      cpu,
      parity(low) | resultOf(low, rh, bits) | (n > bits - 1 ? Flag.CF : 0),
    );
  };
}

function shiftX(kind: "l" | "r" | "a", bits: number): Handler {
  return (cpu, a, b, pc) => {
    const n = cpu.u8[cpu.i32[pc + R_IMM]!]! & (bits - 1);
    const x = cpu.dv.getInt32(b, true), xh = high(cpu, b, bits);
    let low: number;
    if (bits === 32) {
      low = kind === "l" ? x << n : kind === "r" ? (x >>> n) | 0 : x >> n;
    } else if (kind === "r") low = shiftRight(cpu, x, xh, n);
    else if (kind === "a") {
      low = n === 0
        ? x
        : n >= 32
        ? xh >> (n - 32)
        : (x >>> n) | (xh << (32 - n));
      cpu.i32[HIGH] = xh >> Math.min(31, n);
    } else {
      low = n >= 32 ? 0 : x << n;
      cpu.i32[HIGH] = n === 0
        ? xh
        : n >= 32
        ? x << (n - 32)
        : (xh << n) | (x >>> (32 - n));
    }
    store(cpu, a, low, bits);
  };
}

function rorx(bits: number): Handler {
  return (cpu, a, b, pc) => {
    const n = cpu.i32[pc + R_IMM]! & (bits - 1);
    const x = cpu.dv.getInt32(b, true), xh = high(cpu, b, bits);
    let low = x;
    if (bits === 32) low = n === 0 ? x : (x >>> n) | (x << (32 - n));
    else {
      // Rotating by 32 swaps the words.
      const l = n >= 32 ? xh : x, h = n >= 32 ? x : xh;
      const m = n & 31;
      low = m === 0 ? l : (l >>> m) | (h << (32 - m));
      cpu.i32[HIGH] = m === 0 ? h : (h >>> m) | (l << (32 - m));
    }
    store(cpu, a, low, bits);
  };
}

function bitOf(low: number, rh: number, n: number): number {
  return n < 32 ? (low >>> n) & 1 : (rh >>> (n - 32)) & 1;
}

/** PDEP (`deposit`) and PEXT: source By, mask Ey. */
function parallel(deposit: boolean, bits: number): Handler {
  return (cpu, a, b, pc) => {
    const source = cpu.i32[pc + R_IMM]!;
    const x = cpu.dv.getInt32(source, true), xh = high(cpu, source, bits);
    const m = cpu.dv.getInt32(b, true), mh = high(cpu, b, bits);
    let low = 0, rh = 0, k = 0;
    for (let n = 0; n < bits; n++) {
      if (bitOf(m, mh, n) === 0) continue;
      const bit = deposit ? bitOf(x, xh, k) : bitOf(x, xh, n);
      const at = deposit ? n : k;
      k++;
      if (at < 32) low |= bit << at;
      else rh |= bit << (at - 32);
    }
    cpu.i32[HIGH] = rh;
    store(cpu, a, low, bits);
  };
}

/** ADCX (CF) and ADOX (OF): the other flags stay. */
function addWith(flag: number, bits: number): Handler {
  return (cpu, a, b) => {
    const flags = arithmeticFlags(cpu);
    const sum = (cpu.dv.getUint32(a, true)) + cpu.dv.getUint32(b, true) +
      ((flags & flag) !== 0 ? 1 : 0);
    let out = sum > 0xffff_ffff ? 1 : 0;
    if (bits === 64) {
      const sumHigh = cpu.dv.getUint32(a + 4, true) +
        cpu.dv.getUint32(b + 4, true) + out;
      out = sumHigh > 0xffff_ffff ? 1 : 0;
      put64(cpu, a, sum | 0, sumHigh | 0);
    } else put32(cpu, a, sum | 0);
    setArithmeticFlags(cpu, out === 1 ? flags | flag : flags & ~flag);
  };
}

/** CRC-32C, bit by bit reflected polynomial 0x11EDC6F41. */
const CRC_TABLE = new Int32Array(256);

function crcTable(): Int32Array {
  if (CRC_TABLE[1] === 0) {
    for (let n = 0; n < 256; n++) {
      let c = n;
      for (let k = 0; k < 8; k++) {
        c = (c >>> 1) ^ ((c & 1) !== 0 ? 0x82f6_3b78 : 0);
      }
      CRC_TABLE[n] = c;
    }
  }
  return CRC_TABLE;
}

function crc32(bytes: number, wide: boolean): Handler {
  return (cpu, a, b) => {
    const table = crcTable();
    let crc = cpu.i32[a >> 2]!;
    for (let n = 0; n < bytes; n++) {
      crc = (crc >>> 8) ^ table[(crc ^ cpu.u8[b + n]!) & 255]!;
    }
    if (wide) put64(cpu, a, crc, 0);
    else put32(cpu, a, crc);
  };
}

function movbe16(cpu: Cpu, a: number, b: number): void {
  cpu.dv.setInt16(a, cpu.dv.getInt16(b, false), true);
}

function movbe32(cpu: Cpu, a: number, b: number): void {
  put32(cpu, a, cpu.dv.getInt32(b, false));
}

function movbe64(cpu: Cpu, a: number, b: number): void {
  put64(cpu, a, cpu.dv.getInt32(b + 4, false), cpu.dv.getInt32(b, false));
}

function y(
  make: (bits: number) => Handler,
): { 16: Handler; 32: Handler; 64: Handler } {
  const narrow = make(32);
  return { 16: narrow, 32: narrow, 64: make(64) };
}

const movbe = { 16: movbe16, 32: movbe32, 64: movbe64 };
const crcWide = {
  16: crc32(2, false),
  32: crc32(4, false),
  64: crc32(8, true),
};
const crcByte = {
  16: crc32(1, false),
  32: crc32(1, false),
  64: crc32(1, true),
};

/** The family's lines of the opcode tables. */
export const bmiOps: readonly OpDef[] = [
  { code: "VEX.L0 0F38 F2", operands: "=Gy Ey By", run: y(andn) },
  {
    code: "VEX.L0 0F38 F3 /1",
    operands: "=By Ey",
    run: y((bits) => lowestBit(blsr, true, bits)),
  },
  {
    code: "VEX.L0 0F38 F3 /2",
    operands: "=By Ey",
    run: y((bits) => lowestBit(blsmsk, true, bits)),
  },
  {
    code: "VEX.L0 0F38 F3 /3",
    operands: "=By Ey",
    run: y((bits) => lowestBit(blsi, false, bits)),
  },
  { code: "VEX.L0 0F38 F7", operands: "=Gy Ey By", run: y(bextr) },
  { code: "VEX.L0 0F38 F5", operands: "=Gy Ey By", run: y(bzhi) },
  {
    code: "VEX.66.L0 0F38 F7",
    operands: "=Gy Ey By",
    run: y((bits) => shiftX("l", bits)),
  },
  {
    code: "VEX.F2.L0 0F38 F7",
    operands: "=Gy Ey By",
    run: y((bits) => shiftX("r", bits)),
  },
  {
    code: "VEX.F3.L0 0F38 F7",
    operands: "=Gy Ey By",
    run: y((bits) => shiftX("a", bits)),
  },
  { code: "VEX.F2.L0 0F3A F0", operands: "=Gy Ey Ib", run: y(rorx) },
  {
    code: "VEX.F2.L0 0F38 F5",
    operands: "=Gy Ey By",
    run: y((bits) => parallel(true, bits)),
  },
  {
    code: "VEX.F3.L0 0F38 F5",
    operands: "=Gy Ey By",
    run: y((bits) => parallel(false, bits)),
  },
  {
    code: "66 0F 38 F6",
    operands: "+Gy Ey",
    run: y((bits) => addWith(Flag.CF, bits)),
  },
  {
    code: "F3 0F 38 F6",
    operands: "+Gy Ey",
    run: y((bits) => addWith(Flag.OF, bits)),
  },
  { code: "F2 0F 38 F0", operands: "+Gd Eb", run: crcByte },
  { code: "F2 0F 38 F1", operands: "+Gd Ev", run: crcWide },
  { code: "NP 0F 38 F0 m", operands: "=Gv Ev", run: movbe },
  { code: "66 0F 38 F0 m", operands: "=Gv Ev", run: movbe },
  { code: "NP 0F 38 F1 m", operands: "=Ev Gv", run: movbe },
  { code: "66 0F 38 F1 m", operands: "=Ev Gv", run: movbe },
];
