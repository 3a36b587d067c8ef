/**
 * Executes cases with x87 state on the interpreter, at CPL 3 as on the processor.
 *
 * @module
 */
import {
  Cc,
  CC_OP,
  CR2,
  EFLAGS,
  FCS,
  FCW,
  FDP,
  FDS,
  FIP,
  FOP,
  FSW,
  FTW,
  GPR,
  RIP,
  STATE_BYTES,
  X87_B,
} from "../../../../core/x86/layout.ts";
import { Access, At, Machine, Sel } from "../system/_machine.ts";
import {
  type Case,
  CODE_PAGE,
  FLAGS,
  hasError,
  type Outcome,
  RSP,
  STATE_X87,
  visible,
  WINDOW_END,
  WINDOW_PAGES,
} from "./cases.ts";

/** An interpreter that executes cases, one after the other. */
export class X87Interpreter {
  readonly #machine = new Machine().longUser();
  readonly #i32: Int32Array;
  readonly #u8: Uint8Array;
  readonly #view: DataView;
  /** The state to begin with, in 32- and 64-bit code. */
  readonly #states: Readonly<Record<32 | 64, Uint8Array>>;

  constructor() {
    const { memory, vcpu } = this.#machine;
    const { buffer } = memory.memory;
    this.#i32 = new Int32Array(buffer);
    this.#u8 = new Uint8Array(buffer);
    this.#view = new DataView(buffer);
    const { cr0 } = vcpu.getSystemRegisters();
    vcpu.setSystemRegisters({ cr0: cr0 | 0x20n });
    this.#machine.gate(
      At.idt + 16 * 3,
      Sel.code64,
      At.handlers + 8 * 3,
      Access.interruptGate | 0x60,
      0,
      true,
    );
    for (const page of [WINDOW_PAGES - 0x1000, WINDOW_END]) {
      memory.writeU32(this.#machine.pageEntry(page), 0);
    }
    memory.fill(CODE_PAGE, 0x1000, 0xcc);
    const { cs, ss } = vcpu.getSystemRegisters();
    vcpu.setSystemRegisters({ ds: ss, es: ss });
    const long = this.#u8.slice(0, STATE_BYTES);
    vcpu.setSystemRegisters({
      cs: { ...cs, selector: Sel.userCode32, l: false, db: true },
    });
    this.#states = { 32: this.#u8.slice(0, STATE_BYTES), 64: long };
  }

  /** Executes a case. */
  run(test: Case): Outcome {
    const { memory, vcpu } = this.#machine;
    const i = this.#i32;
    this.#u8.set(this.#states[test.bits]);
    test.registers.forEach((value, n) =>
      this.#view.setBigUint64(4 * GPR + 8 * n, value, true)
    );
    i[RIP] = test.at;
    i[EFLAGS] = test.flags;
    i[CC_OP] = Cc.Explicit;
    this.#setState(test.state!);
    memory.write(test.at, test.code);
    memory.fill(WINDOW_PAGES, WINDOW_END - WINDOW_PAGES);
    memory.write(test.window, test.bytes);
    vcpu.setSystemRegisters({});
    const vector = this.#machine.trap();
    const frame = this.#machine.get("rsp");
    const at = hasError(vector) ? frame + 8 : frame;
    const word = (address: number): bigint =>
      memory.view.getBigUint64(address, true);
    const registers = test.registers.map((_, n) =>
      this.#view.getBigUint64(4 * GPR + 8 * n, true)
    );
    registers[RSP] = word(at + 24);
    memory.fill(test.at, test.code.length, 0xcc);
    return {
      vector,
      error: hasError(vector) ? Number(word(frame)) : 0,
      cr2: vector === 14 ? BigInt(i[CR2]! >>> 0) : 0n,
      rip: word(at),
      flags: Number(word(at + 16)) & FLAGS,
      registers: visible(test, registers),
      bytes: memory.read(test.window, test.bytes.length),
      state: this.#getState(),
    };
  }

  /** As FXRSTOR of the 64-bit kind. */
  #setState(state: Uint8Array): void {
    const i = this.#i32;
    const from = new DataView(state.buffer, state.byteOffset);
    const status = from.getUint16(2, true);
    i[FCW] = from.getUint16(0, true);
    const unmasked = (status & ~i[FCW]! & 0x3f) !== 0;
    i[FSW] = (status & 0x7f7f) | (unmasked ? 0x8080 : 0);
    i[FTW] = state[4]!;
    i[FOP] = from.getUint16(6, true);
    i[FIP] = from.getInt32(8, true);
    i[FIP + 1] = from.getInt32(12, true);
    i[FDP] = from.getInt32(16, true);
    i[FDP + 1] = from.getInt32(20, true);
    i[FCS] = 0;
    i[FDS] = 0;
    for (let n = 0; n < 8; n++) {
      const physical = ((status >> 11) + n) & 7;
      this.#u8.set(
        state.subarray(32 + 16 * n, 42 + 16 * n),
        X87_B + 16 * physical,
      );
    }
  }

  /** As FXSAVE of the 64-bit kind. */
  #getState(): Uint8Array {
    const i = this.#i32;
    const state = new Uint8Array(STATE_X87);
    const to = new DataView(state.buffer);
    const status = i[FSW]!;
    to.setUint16(0, i[FCW]!, true);
    to.setUint16(2, status, true);
    state[4] = i[FTW]!;
    if ((status & 0x80) !== 0) {
      to.setUint16(6, i[FOP]!, true);
      to.setInt32(8, i[FIP]!, true);
      to.setInt32(12, i[FIP + 1]!, true);
      to.setInt32(16, i[FDP]!, true);
      to.setInt32(20, i[FDP + 1]!, true);
    }
    for (let n = 0; n < 8; n++) {
      const at = X87_B + 16 * (((status >> 11) + n) & 7);
      state.set(this.#u8.subarray(at, at + 10), 32 + 16 * n);
    }
    return state;
  }
}
