import type { VmHost } from "../backend.ts";
import type { GuestMemory } from "../guest_memory.ts";
import { Blocks } from "./blocks.ts";
import { dropCodeRange } from "./code_map.ts";
import { Cpu } from "./cpu.ts";
import { execute } from "./execute.ts";
import {
  ARENA_END,
  CODE_GEN,
  PAGE_GEN,
  STATE_BYTES,
  TLB_GEN,
} from "./layout.ts";
import { updateMode } from "./mode.ts";
import { flushTlb } from "./paging.ts";
import { opcodeTable } from "./tables.ts";
import type { InterpreterVcpu } from "./vcpu.ts";

/** What PAUSE costs among vCPUs that share the thread, in instructions: some of them are a turn. */
const PAUSE_COST = 5000;

/** What the vCPUs of a VM share: linear memory, decoded code, and the loop. */
export class Engine {
  readonly #cpu: Cpu;
  readonly #blocks: Blocks;
  readonly #memory: GuestMemory;
  readonly #onWrite: (gpa: number, length: number) => void;
  #active: InterpreterVcpu | undefined;
  #executing = false;

  constructor(memory: GuestMemory, host: VmHost, clock: () => number) {
    this.#memory = memory;
    this.#cpu = new Cpu(memory, host, clock);
    const i = this.#cpu.i32;
    // Another VM may have used the same RAM.
    i.fill(0, STATE_BYTES >> 2, ARENA_END);
    i.fill(0, ARENA_END, PAGE_GEN + (memory.size >>> 12));
    i[TLB_GEN] = 1;
    i[CODE_GEN] = 1;
    this.#blocks = new Blocks(this.#cpu, opcodeTable());
    this.#onWrite = (gpa, length) => dropCodeRange(this.#cpu, gpa, length);
    memory.addWriteListener(this.#onWrite);
  }

  /**
   * Brings a vCPU's state into linear memory.
   *
   * @throws {Error} If another one is executing.
   */
  activate(vcpu: InterpreterVcpu): Cpu {
    const cpu = this.#cpu;
    if (this.#active === vcpu) return cpu;
    if (this.#executing) {
      throw new Error(
        `Cannot use vCPU ${vcpu.id}: vCPU ${cpu.vcpu} is running`,
      );
    }
    this.#active?.state.set(cpu.i32.subarray(0, STATE_BYTES >> 2));
    cpu.i32.set(vcpu.state);
    this.#active = vcpu;
    cpu.vcpu = vcpu.id;
    cpu.cpuid = vcpu.cpuid;
    this.applyDebug(vcpu);
    updateMode(cpu);
    flushTlb(cpu);
    return cpu;
  }

  /** There are several vCPUs. */
  share(): void {
    this.#cpu.pauseCost = PAUSE_COST;
  }

  /** The words of a vCPU's state where they are now. */
  words(vcpu: InterpreterVcpu): Int32Array<ArrayBuffer> {
    return this.#active === vcpu ? this.#cpu.i32 : vcpu.state;
  }

  /** The CPU if a vCPU's state is in linear memory. */
  ifActive(vcpu: InterpreterVcpu): Cpu | undefined {
    return this.#active === vcpu ? this.#cpu : undefined;
  }

  /** The clock that the TSC follows. */
  get clock(): () => number {
    return this.#cpu.clock;
  }

  /** Puts the host's debugging of the active vCPU in force. */
  applyDebug(vcpu: InterpreterVcpu): void {
    const cpu = this.#cpu;
    const debug = vcpu.debug;
    cpu.hostStep = debug?.singleStep ?? false;
    cpu.hostBlocksInterrupts = debug?.blockInterrupts ?? false;
    cpu.hostBreakpoints = debug?.softwareBreakpoints ?? false;
    const hardware = debug?.hardwareBreakpoints;
    cpu.hostDebugRegisters = hardware === undefined ? undefined : {
      addresses: hardware.addresses,
      dr7: Number(BigInt.asIntN(32, hardware.dr7)),
    };
  }

  /** Executes about `budget` instructions of the active vCPU; returns how many. */
  execute(budget: number): number {
    this.#executing = true;
    try {
      return execute(this.#cpu, this.#blocks, opcodeTable().handlers, budget);
    } finally {
      this.#executing = false;
    }
  }

  /** Lets go of guest RAM. */
  close(): void {
    this.#memory.removeWriteListener(this.#onWrite);
  }
}
