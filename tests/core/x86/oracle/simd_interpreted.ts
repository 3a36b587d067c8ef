/**
 * Runs cases on the interpreter, at CPL 3 as on the processor.
 *
 * @module
 */
import {
  Cc,
  CC_OP,
  CR2,
  EFLAGS,
  FCW,
  FSW,
  FTW,
  GPR,
  MXCSR,
  RIP,
  STATE_BYTES,
  VEC_B,
  X87_B,
  XCR0,
} from "../../../../core/x86/layout.ts";
import { Access, At, Machine, Sel } from "../system/_machine.ts";
import { hasError } from "./cases.ts";
import {
  CODE,
  normalize,
  REQUEST,
  Request,
  RESPONSE,
  Response,
  WINDOW,
  WINDOW_LENGTH,
} from "./simd_cases.ts";

/** An interpreter that executes cases, one after the other. */
export class SimdInterpreter {
  readonly #machine = new Machine().longUser();
  readonly #i32: Int32Array;
  readonly #u8: Uint8Array;
  /** The state to begin with, in 32- and 64-bit code. */
  readonly #states: Readonly<Record<number, Uint8Array>>;

  constructor() {
    const { memory, vcpu } = this.#machine;
    const buffer = memory.memory.buffer;
    this.#i32 = new Int32Array(buffer);
    this.#u8 = new Uint8Array(buffer);
    const { cr4 } = vcpu.getSystemRegisters();
    // OSFXSR, OSXMMEXCPT and OSXSAVE.
    vcpu.setSystemRegisters({ cr4: cr4 | 0x4_0600n });
    this.#i32[XCR0] = 7;
    const breakpoint = 3;
    this.#machine.gate(
      At.idt + 16 * breakpoint,
      Sel.code64,
      At.handlers + 8 * breakpoint,
      Access.interruptGate | 0x60,
      0,
      true,
    );
    // No pages around the window, as on the processor.
    memory.writeU32(this.#machine.pageEntry(0xc000), 0);
    for (let page = 0xf000; page < 0x20_0000; page += 0x1000) {
      memory.writeU32(this.#machine.pageEntry(page), 0);
    }
    memory.fill(CODE, 64, 0xcc);
    const state = (): Uint8Array => this.#u8.slice(0, STATE_BYTES);
    const long = state();
    const { cs } = vcpu.getSystemRegisters();
    const user = vcpu.getSystemRegisters().ss;
    vcpu.setSystemRegisters({
      cs: { ...cs, selector: Sel.userCode32, l: false, db: true },
      ds: user,
      es: user,
    });
    this.#states = { 32: state(), 64: long };
  }

  /** Executes a case. */
  run(request: Uint8Array, response: Uint8Array): void {
    const from = new DataView(request.buffer, request.byteOffset, REQUEST);
    const to = new DataView(response.buffer, response.byteOffset, RESPONSE);
    const { memory, vcpu } = this.#machine;
    const i = this.#i32, u8 = this.#u8;
    const bits = request[Request.bits]!;
    u8.set(this.#states[bits]!);
    const words = (at: number, word: number, count: number): void => {
      for (let n = 0; n < count; n++) {
        i[word + n] = from.getInt32(at + 4 * n, true);
      }
    };
    words(Request.registers, GPR, 32);
    words(Request.xmm, VEC_B >> 2, 128);
    for (let n = 0; n < 8; n++) {
      words(Request.mmx + 8 * n, (X87_B + 16 * n) >> 2, 2);
    }
    i[RIP] = CODE;
    i[EFLAGS] = from.getInt32(Request.flags, true);
    i[CC_OP] = Cc.Explicit;
    i[MXCSR] = from.getInt32(Request.mxcsr, true);
    i[FCW] = 0x37f;
    i[FSW] = 0;
    i[FTW] = 0;
    memory.fill(CODE, 16, 0xcc);
    memory.write(
      CODE,
      request.slice(Request.code, Request.code + request[Request.length]!),
    );
    memory.fill(0xd000, 0x2000);
    memory.write(WINDOW, request.slice(Request.window, REQUEST));
    vcpu.setSystemRegisters({});

    const vector = this.#machine.trap();
    const frame = this.#machine.get("rsp");
    const at = hasError(vector) ? frame + 8 : frame;
    const view = memory.view;
    to.setUint32(Response.vector, vector, true);
    to.setUint32(Response.error, view.getUint32(frame, true), true);
    to.setInt32(Response.cr2, i[CR2]!, true);
    to.setInt32(Response.cr2 + 4, i[CR2 + 1]!, true);
    to.setBigUint64(Response.rip, view.getBigUint64(at, true), true);
    to.setUint32(Response.flags, view.getUint32(at + 16, true), true);
    to.setInt32(Response.mxcsr, i[MXCSR]!, true);
    to.setUint16(Response.top, (i[FSW]! >> 11) & 7, true);
    to.setUint16(Response.tags, i[FTW]!, true);
    const copy = (offset: number, byte: number, length: number): void =>
      response.set(u8.subarray(byte, byte + length), offset);
    copy(Response.registers, 4 * GPR, 128);
    to.setBigUint64(
      Response.registers + 8 * 4,
      view.getBigUint64(at + 24, true),
      true,
    );
    copy(Response.xmm, VEC_B, 512);
    for (let n = 0; n < 8; n++) {
      copy(Response.mmx + 10 * n, X87_B + 16 * n, 10);
    }
    response.set(
      memory.read(WINDOW, WINDOW_LENGTH),
      Response.window,
    );
    normalize(bits, to);
  }
}
