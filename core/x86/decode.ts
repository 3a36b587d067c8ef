/**
 * From bytes to records: one call decodes a straight run of instructions that lies in one
 * page (SDM volume 2A, chapter 2, and appendix A).
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { FAULT } from "./fault.ts";
import {
  BLOCK_RIP,
  Mem,
  MemKind,
  Meta,
  Mode,
  R_A,
  R_B,
  R_DISP,
  R_IMM,
  R_MEM,
  R_META,
  R_OP,
  REC_WORDS,
  Seg,
  VEC_B,
  X87_B,
  ZERO,
} from "./layout.ts";
import type { Fetch } from "./fetch.ts";
import {
  type Form,
  Mandatory,
  type OpcodeTable,
  type Operand,
  type OperandKind,
  OpMap,
} from "./opcode_table.ts";
import { Hot } from "./hot.ts";
import { checkedBranch, invalid } from "./ops_near.ts";
import { unavailable } from "./simd.ts";

/** Most instructions in a block; bounds the work between looks at events. */
const BLOCK_LIMIT = 48;

/** What the run of bytes in front of the opcode said. */
interface Prefixes {
  operand: boolean;
  address: boolean;
  lock: boolean;
  /** 0, or {@linkcode Mandatory.F3} or F2. */
  rep: number;
  segment: number;
  rex: number;
  /** VEX.vvvv, or -1 without VEX. */
  vvvv: number;
  vexL: number;
}

/** Decodes blocks for one CPU; the tables are shared. */
export class Decoder {
  /** First word after the block last decoded. */
  end = 0;
  readonly #cpu: Cpu;
  readonly #table: OpcodeTable;
  readonly #fetch: Fetch;
  readonly #checkedBranch: number;
  readonly #invalid: number;
  readonly #unavailable: number;
  readonly #p: Prefixes = {
    operand: false,
    address: false,
    lock: false,
    rep: 0,
    segment: -1,
    rex: 0,
    vvvv: -1,
    vexL: 0,
  };

  constructor(cpu: Cpu, table: OpcodeTable, fetch: Fetch) {
    this.#cpu = cpu;
    this.#table = table;
    this.#fetch = fetch;
    this.#checkedBranch = table.number(checkedBranch);
    this.#invalid = table.number(invalid);
    this.#unavailable = table.number(unavailable);
  }

  /**
   * Decodes from the position of the fetcher into records from `pc` on.
   *
   * @param mode The mode key.
   * @param pageOffset Offset of the block in its page, or -1 where blocks must not be linked.
   * @returns The bytes decoded; the fetcher says whether a second page was used.
   */
  block(pc: number, mode: number, pageOffset: number): number {
    const fetch = this.#fetch;
    const limit = (mode & Mode.Single) !== 0 ? 1 : BLOCK_LIMIT;
    let offset = 0;
    for (let n = 0; n < limit; n++) {
      let ends: boolean;
      try {
        fetch.begin(offset);
        ends = this.#instruction(pc, mode, offset, pageOffset);
      } catch (error) {
        if (error !== FAULT) throw error;
        // The fault belongs to this instruction, and it may never be reached.
        if (n > 0) break;
        throw error;
      }
      // An instruction in two pages is a block of its own.
      if (fetch.straddles && n > 0) break;
      offset = fetch.position;
      pc += REC_WORDS;
      if (ends || fetch.atPageEnd || fetch.straddles) break;
    }
    this.#end(pc, offset);
    return offset;
  }

  #end(pc: number, offset: number): void {
    const i = this.#cpu.i32;
    i[pc + R_OP] = Hot.END;
    // A length of 0: RIP after it is the instruction that follows the block.
    i[pc + R_META] = offset | Meta.Ends;
    this.end = pc + REC_WORDS;
  }

  /** Decodes one instruction. True: it ends the block. */
  #instruction(
    pc: number,
    mode: number,
    offset: number,
    pageOffset: number,
  ): boolean {
    const fetch = this.#fetch;
    const i = this.#cpu.i32;
    const p = this.#p;
    const long = (mode & Mode.Long) !== 0;
    p.operand = p.address = p.lock = false;
    p.rep = p.rex = p.vexL = 0;
    p.segment = p.vvvv = -1;

    let opcode = fetch.byte();
    for (;;) {
      if (opcode === 0x66) p.operand = true;
      else if (opcode === 0x67) p.address = true;
      else if (opcode === 0xf0) p.lock = true;
      else if (opcode === 0xf3) p.rep = Mandatory.F3;
      else if (opcode === 0xf2) p.rep = Mandatory.F2;
      else if ((opcode & 0xe7) === 0x26) {
        // In 64-bit mode ES, CS, SS and DS overrides do nothing at all.
        if (!long) p.segment = (opcode >>> 3) & 3;
      } else if ((opcode & 0xfe) === 0x64) p.segment = opcode - 0x60;
      else if (long && (opcode & 0xf0) === 0x40) {
        p.rex = opcode;
        opcode = fetch.byte();
        // Only directly in front of the opcode does REX count.
        if (isPrefix(opcode) || (opcode & 0xf0) === 0x40) {
          p.rex = 0;
          continue;
        }
        break;
      } else break;
      opcode = fetch.byte();
    }

    let map: number = OpMap.OneByte;
    if (
      (opcode === 0xc4 || opcode === 0xc5) &&
      (long || ((mode & (Mode.Protected | Mode.V86)) === Mode.Protected &&
        (fetch.peek() & 0xc0) === 0xc0))
    ) {
      map = this.#vex(opcode, long);
      if (map < 0) return this.#undefined(pc, offset);
      opcode = fetch.byte();
    } else if (opcode === 0x0f) {
      opcode = fetch.byte();
      map = OpMap.Of;
      if (opcode === 0x38 || opcode === 0x3a) {
        map = opcode === 0x38 ? OpMap.Of38 : OpMap.Of3a;
        opcode = fetch.byte();
      }
    }

    const forms = this.#table.forms(map, opcode);
    if (forms === undefined) return this.#undefined(pc, offset);
    let modrm = -1;
    let form: Form | undefined;
    for (const candidate of forms) {
      if (candidate.hasModrm && modrm < 0) modrm = fetch.peek();
      if (matches(candidate, modrm, p, long)) {
        form = candidate;
        break;
      }
    }
    if (form === undefined) return this.#undefined(pc, offset);
    if (form.hasModrm) fetch.byte();
    if (
      (form.protectedOnly &&
        (mode & (Mode.Protected | Mode.V86)) !== Mode.Protected)
    ) return this.#undefined(pc, offset);
    if ((form.needs & ~mode) !== 0) {
      i[pc + R_IMM] = form.needs;
      return this.#raising(pc, offset, this.#unavailable);
    }

    const wide = (p.rex & 8) !== 0;
    let size: number;
    if (long) {
      if (form.f64) size = 8;
      else if (wide) size = 8;
      else if (p.operand && form.prefix !== Mandatory.P66) size = 2;
      else if (form.prefix === Mandatory.P66 && p.operand && sized16(form)) {
        size = 2;
      } else size = form.d64 ? 8 : 4;
    } else {
      const flip = p.operand &&
        (form.prefix !== Mandatory.P66 || sized16(form));
      size = ((mode & Mode.Code32) !== 0) !== flip ? 4 : 2;
    }
    const addressSize = long
      ? p.address ? 1 : 2
      : ((mode & Mode.Code32) !== 0) !== p.address
      ? 1
      : 0;

    let meta = offset;
    i[pc + R_A] = 0;
    i[pc + R_B] = 0;
    i[pc + R_IMM] = 0;
    i[pc + R_IMM + 1] = 0;
    i[pc + R_MEM] = 0;
    i[pc + R_DISP] = 0;
    let ripRelative = false;
    const memory = form.hasModrm && modrm < 0xc0 &&
      form.operands.some((operand) => "EMRWQ".includes(operand.kind));
    if (memory) ripRelative = this.#memory(pc, modrm, mode, addressSize);
    else {
      // String instructions and the like ask for segment and address size.
      i[pc + R_MEM] = ((p.segment < 0 ? Seg.DS : p.segment) << Mem.SegShift) |
        (addressSize << Mem.SizeShift) | (MemKind.General << Mem.KindShift) |
        ZERO | (ZERO << Mem.IndexShift);
    }
    if (
      p.lock && !(form.lock && memory)
    ) return this.#undefined(pc, offset);

    let branch = false;
    for (let n = 0; n < form.operands.length; n++) {
      const operand = form.operands[n]!;
      let bytes = operand.size;
      if (bytes === 0) bytes = size;
      else if (bytes === -1) bytes = size === 8 ? 8 : 4;
      let address = 0;
      switch (operand.kind) {
        case "E":
        case "M":
        case "R":
        case "W":
        case "Q":
          if (!memory) {
            if (operand.kind === "M") return this.#undefined(pc, offset);
            address = this.#register(
              operand.kind,
              (modrm & 7) | ((p.rex & 1) << 3),
              bytes,
            );
          } else if (operand.size !== -2) {
            meta |= Meta.Memory | ((bytes - 1) << Meta.SizeShift) |
              (n === 0 ? Meta.MemoryIsA : 0) |
              (operand.write ? Meta.Write : 0) |
              (operand.write && operand.read ? Meta.Modify : 0) |
              (operand.aligned ? Meta.Aligned : 0);
          }
          break;
        case "U":
        case "N":
          if (modrm < 0xc0) return this.#undefined(pc, offset);
          // falls through
        case "F":
          address = this.#register(
            operand.kind,
            (modrm & 7) | ((p.rex & 1) << 3),
            bytes,
          );
          break;
        case "G":
        case "V":
        case "P":
          address = this.#register(
            operand.kind,
            ((modrm >>> 3) & 7) | ((p.rex & 4) << 1),
            bytes,
          );
          break;
        case "Z":
          address = this.#register(
            "Z",
            (opcode & 7) | ((p.rex & 1) << 3),
            bytes,
          );
          break;
        case "B":
          i[pc + R_IMM] = (p.vvvv & (long ? 15 : 7)) * 8;
          break;
        case "H":
          i[pc + R_IMM + 1] = VEC_B + 16 * (p.vvvv & (long ? 15 : 7));
          break;
        case "S":
          if (((modrm >>> 3) & 7) > Seg.GS) return this.#undefined(pc, offset);
          i[pc + R_IMM + 1] = (modrm >>> 3) & 7;
          break;
        case "C":
        case "D":
          i[pc + R_IMM + 1] = ((modrm >>> 3) & 7) | ((p.rex & 4) << 1);
          break;
        case "X":
          i[pc + R_IMM] = ((opcode & 7) << 8) | modrm;
          break;
        case "cc":
          i[pc + R_IMM + 1] = opcode & 15;
          break;
        case "I":
          address = (pc + R_IMM) * 4;
          this.#immediate(pc, operand, bytes, size);
          break;
        case "1":
          address = (pc + R_IMM) * 4;
          i[pc + R_IMM] = 1;
          break;
        case "A":
          i[pc + R_IMM] = size === 2 ? fetch.word() : fetch.dword();
          i[pc + R_IMM + 1] = fetch.word();
          break;
        case "J":
          branch = true;
          i[pc + R_IMM] = operand.size === 1
            ? (fetch.byte() << 24) >> 24
            : size === 2
            ? (fetch.word() << 16) >> 16
            : fetch.dword();
          break;
        case "O": {
          i[pc + R_IMM] = addressSize === 0 ? fetch.word() : fetch.dword();
          i[pc + R_IMM + 1] = addressSize === 2 ? fetch.dword() : 0;
          i[pc + R_MEM] = (i[pc + R_MEM]! &
            ~(Mem.KindMask << Mem.KindShift)) |
            (MemKind.Direct << Mem.KindShift);
          meta |= Meta.Memory | ((bytes - 1) << Meta.SizeShift) |
            (n === 0 ? Meta.MemoryIsA : 0) | (operand.write ? Meta.Write : 0);
          break;
        }
        case "fixed":
          address = operand.detail;
          break;
      }
      if (n === 0) i[pc + R_A] = address;
      else if (n === 1) i[pc + R_B] = address;
    }

    const end = fetch.position;
    const length = end - offset;
    if (ripRelative) i[pc + R_DISP] = (i[pc + R_DISP]! + end) | 0;
    if (p.rep === Mandatory.F3) meta |= Meta.Rep;
    else if (p.rep === Mandatory.F2) meta |= Meta.Repne;
    let op = form.run[size === 8 ? 2 : size === 4 ? 1 : 0];
    if (branch) {
      const target = (i[pc + R_IMM]! + end) | 0;
      i[pc + R_IMM] = target;
      // Only 32-bit flat and 64-bit code may skip the checks of the target.
      i[pc + R_A] = size;
      if (
        op < Hot.COUNT &&
        (size === 2 || (mode & (Mode.FlatCode | Mode.Long)) === 0)
      ) {
        i[pc + R_IMM + 1] = op;
        op = this.#checkedBranch;
        meta |= Meta.Ends;
      } else if (pageOffset >= 0) {
        const at = pageOffset + target;
        if (at >= 0 && at < 4096) meta |= Meta.Linkable;
      }
      if (!form.ends) {
        // The link; counted branches need the address size that is in R_MEM.
        i[pc + R_MEM] = 0;
        i[pc + R_DISP] = 0;
      }
    }
    if (form.ends) meta |= Meta.Ends;
    i[pc + R_OP] = op;
    i[pc + R_META] = meta | (length << Meta.LengthShift);
    return form.ends || (meta & Meta.Ends) !== 0;
  }

  /** An undefined opcode is an instruction too: one that raises #UD when it is reached. */
  #undefined(pc: number, offset: number): boolean {
    return this.#raising(pc, offset, this.#invalid);
  }

  #raising(pc: number, offset: number, op: number): boolean {
    const i = this.#cpu.i32;
    const length = this.#fetch.position - offset;
    i[pc + R_OP] = op;
    i[pc + R_META] = offset | (length << Meta.LengthShift) | Meta.Ends;
    return true;
  }

  /** Reads the rest of a VEX prefix: the opcode map, or -1 for #UD. */
  #vex(first: number, long: boolean): number {
    const p = this.#p;
    // SDM volume 2A, 2.3.2: no other SIMD, LOCK or REX prefix in front.
    if (p.operand || p.rep !== 0 || p.lock || p.rex !== 0) return -1;
    let map = 1;
    let byte = this.#fetch.byte();
    let rex = (~byte >>> 5) & 4;
    if (first === 0xc4) {
      rex = (~byte >>> 5) & 7;
      map = byte & 31;
      byte = this.#fetch.byte();
      if ((byte & 0x80) !== 0) rex |= 8;
    }
    p.rex = long ? rex : rex & 8;
    p.vvvv = (~byte >>> 3) & 15;
    p.vexL = (byte >>> 2) & 1;
    const pp = byte & 3;
    p.operand = pp === 1;
    p.rep = pp === 2 ? Mandatory.F3 : pp === 3 ? Mandatory.F2 : 0;
    return map >= 1 && map <= 3 ? map + 3 : -1;
  }

  #register(kind: OperandKind, number: number, bytes: number): number {
    if (kind === "V" || kind === "W" || kind === "U") {
      return VEC_B + 16 * number;
    }
    // REX does not count.
    if (kind === "P" || kind === "Q" || kind === "N") {
      return X87_B + 16 * (number & 7);
    }
    if (bytes === 1 && this.#p.rex === 0 && number >= 4 && number < 8) {
      return (number - 4) * 8 + 1;
    }
    return number * 8;
  }

  #immediate(pc: number, operand: Operand, bytes: number, size: number): void {
    const fetch = this.#fetch;
    const i = this.#cpu.i32;
    const at = pc + R_IMM;
    if (operand.size === 3) {
      i[at] = fetch.word();
      i[at + 1] = fetch.byte();
      return;
    }
    let low: number;
    let high: number | undefined;
    if (operand.size === 1) {
      low = fetch.byte();
      if (operand.detail === 1) low = (low << 24) >> 24;
    } else if (operand.size === -4) {
      low = size === 2 ? (fetch.word() << 16) >> 16 : fetch.dword();
    } else if (bytes === 2) low = fetch.word();
    else {
      low = fetch.dword();
      if (bytes === 8) high = fetch.dword();
    }
    i[at] = low;
    i[at + 1] = high ?? low >> 31;
  }

  /** Decodes ModRM's memory forms into R_MEM and R_DISP. True: relative to RIP. */
  #memory(
    pc: number,
    modrm: number,
    mode: number,
    addressSize: number,
  ): boolean {
    const fetch = this.#fetch;
    const p = this.#p;
    const mod = modrm >>> 6;
    const rm = modrm & 7;
    let base: number = ZERO, index: number = ZERO, scale = 0, disp = 0;
    let segment: number = Seg.DS;
    let ripRelative = false;
    if (addressSize === 0) {
      base = BASE16[rm]!;
      index = INDEX16[rm]!;
      if (mod === 0 && rm === 6) {
        base = ZERO;
        disp = (fetch.word() << 16) >> 16;
      } else {
        if (rm === 2 || rm === 3 || rm === 6) segment = Seg.SS;
        if (mod === 1) disp = (fetch.byte() << 24) >> 24;
        else if (mod === 2) disp = (fetch.word() << 16) >> 16;
      }
    } else {
      let low = rm;
      if (rm === 4) {
        const sib = fetch.byte();
        low = sib & 7;
        const x = ((sib >>> 3) & 7) | ((p.rex & 2) << 2);
        if (x !== 4) index = 2 * x;
        scale = sib >>> 6;
      }
      if (mod === 0 && low === 5) {
        disp = fetch.dword();
        if (rm === 5 && (mode & Mode.Long) !== 0) {
          base = BLOCK_RIP;
          ripRelative = true;
        }
      } else {
        base = 2 * (low | ((p.rex & 1) << 3));
        if (low === 4 || low === 5) {
          if ((p.rex & 1) === 0) segment = Seg.SS;
        }
        if (mod === 1) disp = (fetch.byte() << 24) >> 24;
        else if (mod === 2) disp = fetch.dword();
      }
    }
    if (p.segment >= 0) segment = p.segment;
    let kind: number = MemKind.General;
    if ((mode & Mode.Long) !== 0) {
      if (segment < Seg.FS && addressSize === 2) {
        kind = index === ZERO ? MemKind.Base64 : MemKind.Index64;
      }
    } else if (
      (mode & Mode.FlatData) !== 0 && addressSize === 1 && segment < Seg.FS &&
      segment !== Seg.CS
    ) kind = MemKind.Flat32;
    const i = this.#cpu.i32;
    i[pc + R_MEM] = base | (index << Mem.IndexShift) |
      (scale << Mem.ScaleShift) | (kind << Mem.KindShift) |
      (segment << Mem.SegShift) | (addressSize << Mem.SizeShift);
    i[pc + R_DISP] = disp;
    return ripRelative;
  }
}

/** Word indices of BX, BX, BP, BP, SI, DI, BP, BX. */
const BASE16 = [6, 6, 10, 10, 12, 14, 10, 6] as const;
/** Word indices of SI, DI, SI, DI and none. */
const INDEX16 = [12, 14, 12, 14, ZERO, ZERO, ZERO, ZERO] as const;

function isPrefix(byte: number): boolean {
  return byte === 0x66 || byte === 0x67 || byte === 0xf0 || byte === 0xf2 ||
    byte === 0xf3 || (byte & 0xe7) === 0x26 || (byte & 0xfe) === 0x64;
}

/** Whether a form with mandatory prefix 66 has an operand that follows the operand size. */
function sized16(form: Form): boolean {
  return form.operands.some((operand) => operand.size === 0);
}

function matches(
  form: Form,
  modrm: number,
  p: Prefixes,
  long: boolean,
): boolean {
  if (form.modrm >= 0 && form.modrm !== modrm) return false;
  if (form.reg >= 0 && form.reg !== ((modrm >>> 3) & 7)) return false;
  if (form.mod !== "" && (form.mod === "r") !== (modrm >= 0xc0)) return false;
  if (long ? form.no64 : form.only64) return false;
  if (form.w >= 0 && form.w !== ((p.rex >>> 3) & 1)) return false;
  if (form.l >= 0 && form.l !== p.vexL) return false;
  if (form.vsib && (modrm >= 0xc0 || (modrm & 7) !== 4)) return false;
  // VEX.vvvv must be 1111 where it names no operand.
  if (
    p.vvvv > 0 && !form.operands.some((x) => x.kind === "B" || x.kind === "H")
  ) return false;
  switch (form.prefix) {
    case Mandatory.None:
      return p.rep === 0 && !p.operand;
    case Mandatory.P66:
      return p.rep === 0 && p.operand;
    case Mandatory.F3:
    case Mandatory.F2:
      return p.rep === form.prefix;
    default:
      return true;
  }
}
