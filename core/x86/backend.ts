import type { Backend, CpuidEntry, Vcpu, Vm, VmHost } from "../backend.ts";
import type { GuestMemory } from "../guest_memory.ts";
import { Engine } from "./engine.ts";
import { interpreterCpuid } from "./features.ts";
import { InterpreterVcpu } from "./vcpu.ts";

/** The interpreter's TSC counts nanoseconds. */
const TSC_FREQUENCY = 1_000_000_000;

class InterpreterVm implements Vm {
  readonly memory: GuestMemory;
  readonly #engine: Engine;
  #vcpus = 0;

  constructor(memory: GuestMemory, host: VmHost, clock: () => number) {
    this.memory = memory;
    this.#engine = new Engine(memory, host, clock);
  }

  createVcpu(): Vcpu {
    const vcpu = new InterpreterVcpu(this.#engine, this.#vcpus++);
    if (this.#vcpus > 1) this.#engine.share();
    vcpu.reset();
    return vcpu;
  }

  close(): void {
    this.#engine.close();
  }
}

/**
 * The backend that executes guests in TypeScript alone: 16, 32 and 64-bit x86.
 *
 * @param clock Nanoseconds since some start, monotonic; tests may give their own.
 */
export function interpreter(
  clock: () => number = () => performance.now() * 1e6,
): Backend {
  return {
    name: "interp",
    tscFrequency: TSC_FREQUENCY,
    apicMsrs: true,
    supportedCpuid: (): CpuidEntry[] => interpreterCpuid(),
    createVm: (memory: GuestMemory, host: VmHost): Vm =>
      new InterpreterVm(memory, host, clock),
  };
}
