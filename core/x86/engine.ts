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

/** What the vCPUs of a VM share: linear memory, decoded code, and the loop. */
export class Engine {
  readonly #cpu: Cpu;
  readonly #blocks: Blocks;
  readonly #memory: GuestMemory;
  readonly #onWrite: (gpa: number, length: number) => void;
  #active: InterpreterVcpu | undefined;

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

  /** Brings a vCPU's state into linear memory. */
  activate(vcpu: InterpreterVcpu): Cpu {
    const cpu = this.#cpu;
    if (this.#active === vcpu) return cpu;
    this.#active?.state.set(cpu.u8.subarray(0, STATE_BYTES));
    cpu.u8.set(vcpu.state);
    this.#active = vcpu;
    cpu.vcpu = vcpu.id;
    cpu.cpuid = vcpu.cpuid;
    this.applyDebug(vcpu);
    updateMode(cpu);
    flushTlb(cpu);
    return cpu;
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
    return execute(this.#cpu, this.#blocks, opcodeTable().handlers, budget);
  }

  /** Lets go of guest RAM. */
  close(): void {
    this.#memory.removeWriteListener(this.#onWrite);
  }
}
