import type { Cpu } from "./cpu.ts";
import { markCode } from "./code_map.ts";
import { Decoder } from "./decode.ts";
import { faultCode, Vector } from "./fault.ts";
import { Fetch } from "./fetch.ts";
import {
  ARENA,
  ARENA_END,
  BLOCK_TABLE,
  BLOCKS,
  CODE_GEN,
  H_LENGTH,
  H_SECOND,
  H_SECOND_GEN,
  HEADER_WORDS,
  MODE,
  Mode,
  PAGE_GEN,
  REC_WORDS,
  RIP,
  SEG,
  Seg,
  SEG_BASE,
  SEG_LIMIT,
  SEG_WORDS,
  TLB_ENTRIES,
  TLB_GEN,
  TLB_X,
} from "./layout.ts";
import type { OpcodeTable } from "./opcode_table.ts";
import { Access, canonical, translate } from "./paging.ts";

const CS = SEG + Seg.CS * SEG_WORDS;
/** Room for the longest block with its header and end. */
const RESERVE = HEADER_WORDS + 64 * REC_WORDS;
/** Blocks that are not kept are decoded here, at the start of the arena. */
const TRANSIENT = ARENA + HEADER_WORDS;
const FIRST = ARENA + RESERVE;
/** What decoding a block takes, in instructions. */
const DECODE_COST = 16;

/** Finds the decoded block at RIP, or decodes it. */
export class Blocks {
  readonly #cpu: Cpu;
  readonly #fetch: Fetch;
  readonly #decoder: Decoder;
  #next: number = FIRST;
  /** Whether the block last found may be linked to. */
  linkable = false;

  constructor(cpu: Cpu, table: OpcodeTable) {
    this.#cpu = cpu;
    this.#fetch = new Fetch(cpu);
    this.#decoder = new Decoder(cpu, table, this.#fetch);
  }

  /**
   * The first record of the block at RIP in the current mode. Raises what the fetch raises.
   */
  find(): number {
    const cpu = this.#cpu;
    const i = cpu.i32;
    const mode = i[MODE]!;
    let low = i[RIP]!;
    let high = i[RIP + 1]!;
    let room = 0x7fff_ffff;
    if ((mode & Mode.Long) === 0) {
      if ((mode & Mode.FlatCode) === 0) {
        room = (i[CS + SEG_LIMIT]! >>> 0) - (low >>> 0) + 1;
        if (room <= 0) faultCode(cpu, Vector.GP, 0);
      }
      low = (low + i[CS + SEG_BASE]!) | 0;
      high = 0;
    } else if (!canonical(high)) faultCode(cpu, Vector.GP, 0);

    const at = i[TLB_X]! + (((low >>> 12) & (TLB_ENTRIES - 1)) << 2);
    const gpa = i[at] === ((low & -4096) | i[TLB_GEN]!) && i[at + 1] === high
      ? low + i[at + 2]! - cpu.ramBase | 0
      : translate(cpu, low, high, Access.Fetch);
    if (gpa >= cpu.ramSize || (mode & Mode.Single) !== 0) {
      return this.#transient(low, high, gpa, mode, room);
    }

    const entry = BLOCK_TABLE +
      (((gpa ^ (gpa >>> 14) ^ (mode << 5)) & (BLOCKS - 1)) << 2);
    if (
      i[entry] === gpa && i[entry + 1] === (mode | VALID) &&
      i[entry + 3] === i[PAGE_GEN + (gpa >>> 12)]
    ) {
      const pc = i[entry + 2]!;
      const second = i[pc + H_SECOND]!;
      if (i[pc + H_LENGTH]! <= room) {
        if (second < 0) {
          this.linkable = true;
          return pc;
        }
        if (this.#secondHolds(pc, second, low, high)) {
          this.linkable = false;
          return pc;
        }
      }
    }
    return this.#decode(entry, low, high, gpa, mode, room);
  }

  /** Forgets all blocks. */
  clear(): void {
    const i = this.#cpu.i32;
    i.fill(0, BLOCK_TABLE, BLOCK_TABLE + 4 * BLOCKS);
    i[CODE_GEN] = (i[CODE_GEN]! + 1) | 0;
    this.#next = FIRST;
  }

  #secondHolds(pc: number, second: number, low: number, high: number): boolean {
    const cpu = this.#cpu;
    const i = cpu.i32;
    const next = ((low & -4096) + 4096) | 0;
    const nextHigh = next === 0 && high !== 0 ? (high + 1) | 0 : high;
    const gpa = translate(cpu, next, nextHigh, Access.Fetch);
    return gpa === second &&
      i[pc + H_SECOND_GEN] === i[PAGE_GEN + (gpa >>> 12)];
  }

  #transient(
    low: number,
    high: number,
    gpa: number,
    mode: number,
    room: number,
  ): number {
    const cpu = this.#cpu;
    this.linkable = false;
    cpu.spent += DECODE_COST;
    this.#fetch.start(low, high, gpa, room);
    // Beyond RAM nothing tells us when code changes: one instruction at a time.
    this.#decoder.block(TRANSIENT, mode | Mode.Single, -1);
    return TRANSIENT;
  }

  #decode(
    entry: number,
    low: number,
    high: number,
    gpa: number,
    mode: number,
    room: number,
  ): number {
    const cpu = this.#cpu;
    const i = cpu.i32;
    const fetch = this.#fetch;
    cpu.spent += DECODE_COST;
    if (this.#next + RESERVE > ARENA_END) this.clear();
    const pc = this.#next + HEADER_WORDS;
    fetch.start(low, high, gpa, room);
    const length = this.#decoder.block(pc, mode, gpa & 4095);
    const second = fetch.second;
    const inPage = 4096 - (gpa & 4095);
    if (second >= cpu.ramSize) {
      return this.#transient(low, high, gpa, mode, room);
    }
    this.linkable = second < 0;
    markCode(cpu, gpa, Math.min(length, inPage));
    if (second >= 0) {
      markCode(cpu, second, length - inPage);
      i[pc + H_SECOND_GEN] = i[PAGE_GEN + (second >>> 12)]!;
    }
    i[pc + H_LENGTH] = length;
    i[pc + H_SECOND] = second;
    i[entry] = gpa;
    i[entry + 1] = mode | VALID;
    i[entry + 2] = pc;
    i[entry + 3] = i[PAGE_GEN + (gpa >>> 12)]!;
    this.#next = this.#decoder.end;
    return pc;
  }
}

/** Distinguishes an entry in use from a cleared one. */
const VALID = 1 << 30;
