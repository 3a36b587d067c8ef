import type { HypercallFrame, VmHost } from "../backend.ts";
import type { GuestMemory } from "../guest_memory.ts";
import { CpuidTable } from "./cpuid_table.ts";
import { HEADROOM, MAX_RAM, VEC_B } from "./layout.ts";

/**
 * What instruction handlers share: the linear memory under three views, the
 * host that answers for the rest of the machine, and the clock. All state of
 * the running vCPU is in that memory; see layout.ts.
 */
export class Cpu {
  /** Linear memory as 32-bit words: state, tables and RAM. */
  readonly i32: Int32Array<ArrayBuffer>;
  /** Linear memory for unaligned access. */
  readonly dv: DataView<ArrayBuffer>;
  /** Linear memory as bytes. */
  readonly u8: Uint8Array<ArrayBuffer>;
  /** Byte offset of guest-physical address 0. */
  readonly ramBase: number = HEADROOM;
  /** Bytes of RAM. */
  readonly ramSize: number;
  /** Answers for MSRs, ports, MMIO, hypercalls and interrupt vectors. */
  readonly host: VmHost;
  /** Nanoseconds since some start; the TSC ticks once in each. */
  readonly clock: () => number;
  /** The frame that hypercalls hand to the host; its registers are the vCPU's own. */
  readonly frame: {
    -readonly [K in keyof HypercallFrame]: HypercallFrame[K];
  };
  /** Number of the vCPU whose state is in memory. */
  vcpu = 0;
  /** CPUID leaves of the running vCPU. */
  cpuid: CpuidTable = new CpuidTable([]);
  /** Whether the host wants INT3 for itself. */
  hostBreakpoints = false;
  /**
   * Time that went into something slow, counted in instructions and taken off the budget of the
   * loop: a guest that does nothing else must not stretch its slice.
   */
  spent = 0;
  /** What PAUSE takes off that budget: something where vCPUs share the thread. */
  pauseCost = 0;
  /**
   * Set by what clears TF and enters other code: INT n, SYSCALL. No single-step trap follows it.
   */
  trapDone = false;
  /** A task switch is past the point of no return: faults happen in the new task. */
  newTask = false;
  /** Whether the host single-steps. */
  hostStep = false;
  /** Whether the host lets external interrupts wait while the vCPU is not halted. */
  hostBlocksInterrupts = false;
  /** DR0-3 and DR7 of the host while it debugs with hardware breakpoints. */
  hostDebugRegisters: { addresses: readonly bigint[]; dr7: number } | undefined;

  /**
   * @throws {RangeError} If RAM was not made with the interpreter's headroom or is too large.
   */
  constructor(memory: GuestMemory, host: VmHost, clock: () => number) {
    if (memory.base !== HEADROOM) {
      throw new RangeError(
        `Cannot interpret: guest memory needs ${HEADROOM} bytes of headroom: ${memory.base}`,
      );
    }
    if (memory.size > MAX_RAM) {
      throw new RangeError(
        `Cannot interpret: more than ${MAX_RAM} bytes of guest memory: ${memory.size}`,
      );
    }
    const buffer = memory.memory.buffer as ArrayBuffer;
    this.i32 = new Int32Array(buffer);
    this.dv = new DataView(buffer);
    this.u8 = new Uint8Array(buffer);
    this.ramSize = memory.size;
    this.host = host;
    this.clock = clock;
    this.frame = {
      vcpu: 0,
      longMode: false,
      protectedMode: false,
      cpl: 0,
      gpr: new Uint32Array(buffer, 0, 32),
      xmm: new Uint8Array(buffer, VEC_B, 6 * 16),
    };
  }
}
