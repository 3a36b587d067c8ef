import type {
  Backend,
  CpuidEntry,
  Registers,
  Segment,
  SystemRegisters,
  Vcpu,
  VcpuExit,
  VcpuState,
  Vm,
  VmHost,
} from "../../core/backend.ts";
import type { GuestMemory } from "../../core/guest_memory.ts";

/** What a fake vCPU does in one run. */
export type Script = (vcpu: FakeVcpu, slice: number) => VcpuExit;

const SEGMENT: Segment = {
  selector: 0,
  base: 0n,
  limit: 0xffff,
  type: 3,
  s: true,
  dpl: 0,
  present: true,
  avl: false,
  l: false,
  db: false,
  g: false,
  unusable: false,
};

function registers(): Registers {
  return {
    rax: 0n,
    rcx: 0n,
    rdx: 0n,
    rbx: 0n,
    rsp: 0n,
    rbp: 0n,
    rsi: 0n,
    rdi: 0n,
    r8: 0n,
    r9: 0n,
    r10: 0n,
    r11: 0n,
    r12: 0n,
    r13: 0n,
    r14: 0n,
    r15: 0n,
    rip: 0xfff0n,
    rflags: 2n,
  };
}

function systemRegisters(): SystemRegisters {
  return {
    cs: SEGMENT,
    ds: SEGMENT,
    es: SEGMENT,
    fs: SEGMENT,
    gs: SEGMENT,
    ss: SEGMENT,
    tr: SEGMENT,
    ldt: SEGMENT,
    gdt: { base: 0n, limit: 0xffff },
    idt: { base: 0n, limit: 0xffff },
    cr0: 0x6000_0010n,
    cr2: 0n,
    cr3: 0n,
    cr4: 0n,
    cr8: 0n,
    efer: 0n,
    apicBase: 0xfee0_0900n,
  };
}

/** A vCPU that runs a function instead of code. */
export class FakeVcpu implements Vcpu {
  readonly id: number;
  readonly host: VmHost;
  readonly #script: Script;
  registers: Registers = registers();
  system: SystemRegisters = systemRegisters();
  /** State of the INTR line. */
  interrupt = false;
  kicks = 0;
  resets = 0;
  /** Vectors of its startup IPIs. */
  readonly started: number[] = [];

  constructor(host: VmHost, script: Script, id = 0) {
    this.id = id;
    this.host = host;
    this.#script = script;
  }

  run(slice = Infinity): VcpuExit {
    return this.#script(this, slice);
  }
  kick(): void {
    this.kicks++;
  }
  setInterruptRequest(asserted: boolean): void {
    this.interrupt = asserted;
  }
  injectNmi(): void {}
  setTaskPriority(): void {}
  flushTlb(): void {}
  init(): void {}
  startup(vector: number): void {
    this.started.push(vector);
  }
  reset(): void {
    this.resets++;
    this.registers = registers();
    this.system = systemRegisters();
  }
  setCpuid(_entries: readonly CpuidEntry[]): void {}
  getRegisters(): Registers {
    return { ...this.registers };
  }
  setRegisters(values: Partial<Registers>): void {
    Object.assign(this.registers, values);
  }
  getSystemRegisters(): SystemRegisters {
    return { ...this.system };
  }
  setSystemRegisters(values: Partial<SystemRegisters>): void {
    Object.assign(this.system, values);
  }
  getMsr(_index: number): bigint | undefined {
    return undefined;
  }
  setMsr(_index: number, _value: bigint): boolean {
    return false;
  }
  setGuestDebug(): void {}
  passBreakpoint(): void {}
  translate(linear: bigint): bigint | undefined {
    return linear;
  }
  save(): VcpuState {
    return { format: "fake", data: {} };
  }
  restore(_state: VcpuState): void {}
}

/** A backend whose vCPU runs `script`. */
export function fakeBackend(script: Script): Backend {
  return {
    name: "fake",
    tscFrequency: 1_000_000_000,
    apicMsrs: true,
    supportedCpuid: () => [],
    createVm: (memory: GuestMemory, host: VmHost): Vm => {
      let vcpus = 0;
      return {
        memory,
        createVcpu: () => new FakeVcpu(host, script, vcpus++),
        close: () => {},
      };
    },
  };
}

/** A vCPU of no machine, for loaders. */
export function loneVcpu(): FakeVcpu {
  return new FakeVcpu({} as VmHost, () => ({ reason: "hlt" }));
}
