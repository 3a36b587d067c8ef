/**
 * A bare interpreter for system tests: descriptor tables, a TSS and page tables
 * in RAM, and handlers that halt, so that a test sees which vector was taken and what was pushed.
 *
 * @module
 */
import type {
  HypercallFrame,
  Segment,
  SystemRegisters,
  Vcpu,
  VcpuExit,
  VmHost,
} from "../../../../core/backend.ts";
import { GuestMemory } from "../../../../core/guest_memory.ts";
import { interpreter } from "../../../../core/x86/backend.ts";
import { interpreterCpuid } from "../../../../core/x86/features.ts";

/** Where things are in guest-physical memory. */
export const At = {
  gdt: 0x1000,
  idt: 0x2000,
  tss: 0x3000,
  /** Second TSS, for task switches. */
  task: 0x3400,
  ldt: 0x3800,
  /** One HLT per vector, 8 bytes apart. */
  handlers: 0x4000,
  code: 0x8000,
  /** Top of the stack that a test starts with. */
  stack: 0x9000,
  /** Top of the stack that the TSS gives for CPL 0. */
  kernelStack: 0xa000,
  /** Top of IST1's stack. */
  ist: 0xb000,
  userStack: 0xc000,
  data: 0x10000,
  pageTables: 0x20000,
} as const;

/** Selectors of {@linkcode Machine}'s GDT, RPL included. */
export const Sel = {
  code32: 0x08,
  data: 0x10,
  code64: 0x18,
  userCode32: 0x23,
  userData: 0x2b,
  userCode64: 0x33,
  code16: 0x38,
  data16: 0x40,
  tss: 0x48,
  conforming: 0x58,
  gate: 0x60,
  task: 0x70,
  ldt: 0x78,
  notPresent: 0x80,
  readOnly: 0x88,
  free: 0x90,
} as const;

/** Access bytes of descriptors. */
export const Access = {
  code: 0x9b,
  data: 0x93,
  userCode: 0xfb,
  userData: 0xf3,
  tss32: 0x89,
  tss16: 0x81,
  ldt: 0x82,
  callGate: 0x8c,
  interruptGate: 0x8e,
  trapGate: 0x8f,
  taskGate: 0x85,
} as const;

function segment(selector: number, type: number, dpl: number): Segment {
  return {
    selector,
    base: 0n,
    limit: 0xffff_ffff,
    type,
    s: true,
    dpl,
    present: true,
    avl: false,
    l: false,
    db: true,
    g: true,
    unusable: false,
  };
}

/** Reads `AA BB ; comment` lines. */
export function bytes(text: string): Uint8Array<ArrayBuffer> {
  const hex = text.replaceAll(/;.*$/gm, "").replaceAll(/\s/g, "");
  return Uint8Array.fromHex(hex);
}

/** A machine with one vCPU. */
export class Machine {
  readonly memory = new GuestMemory(0x20_0000);
  readonly vcpu: Vcpu;
  /** Ports written: port, size, value. */
  readonly written: number[][] = [];
  /** What IN gives, by port. */
  readonly ports = new Map<number, number>();
  /** MSRs of the host. */
  readonly msrs = new Map<number, number>();
  /** Vectors that wait to be acknowledged. */
  readonly vectors: number[] = [];
  /** Reads outside RAM so far. */
  mmioReads = 0;
  /** Answers VMCALL. */
  onHypercall: (frame: HypercallFrame) => 0 | 1 | 2 | 3 = () => 1;

  /** @param clock Nanoseconds, as {@linkcode interpreter} takes it. */
  constructor(clock?: () => number) {
    const host: VmHost = {
      readMsr: (_vcpu, index, value) => {
        const found = this.msrs.get(index);
        if (found === undefined) return 1;
        value[0] = found;
        return 0;
      },
      writeMsr: (_vcpu, index, low) => {
        if (!this.msrs.has(index)) return 1;
        this.msrs.set(index, low);
        return 0;
      },
      readPort: (_vcpu, port) => this.ports.get(port) ?? 0xffff_ffff,
      writePort: (_vcpu, ...args) => {
        this.written.push(args);
      },
      readMmio: (_vcpu, _gpa, data) => {
        this.mmioReads++;
        data.fill(0xff);
      },
      writeMmio: () => {},
      hypercall: (frame) => this.onHypercall(frame),
      acknowledgeInterrupt: () => {
        const vector = this.vectors.shift() ?? -1;
        if (this.vectors.length === 0) this.vcpu.setInterruptRequest(false);
        return vector;
      },
    };
    this.vcpu = interpreter(clock).createVm(this.memory, host).createVcpu();
    this.vcpu.setCpuid(interpreterCpuid());
    this.memory.fill(At.handlers, 0x800, 0xf4);
  }

  /** Puts code at {@linkcode At.code} (or elsewhere) and RIP there. */
  code(text: string, at: number = At.code): this {
    this.memory.write(at, bytes(text));
    if (at === At.code) this.vcpu.setRegisters({ rip: BigInt(at) });
    return this;
  }

  /** Raises an external interrupt. */
  interrupt(vector: number): void {
    this.vectors.push(vector);
    this.vcpu.setInterruptRequest(true);
  }

  /** Runs until the guest halts, shuts down or stops for the host. */
  run(): VcpuExit["reason"] {
    for (let n = 0; n < 20; n++) {
      const { reason } = this.vcpu.run(50);
      if (reason !== "interrupted") return reason;
    }
    throw new Error(
      `Test guest does not stop: RIP 0x${
        this.vcpu.getRegisters().rip.toString(16)
      }`,
    );
  }

  /** Runs into a handler: its vector. */
  trap(): number {
    const reason = this.run();
    const { rip } = this.vcpu.getRegisters();
    const offset = Number(rip) - At.handlers - 1;
    if (reason !== "hlt" || offset < 0 || offset >= 0x800) {
      throw new Error(`No handler: ${reason} at 0x${rip.toString(16)}`);
    }
    return offset >> 3;
  }

  /** The words on the stack, of 2, 4 or 8 bytes. */
  pushed(count: number, size: 2 | 4 | 8): number[] {
    const { rsp } = this.vcpu.getRegisters();
    const { ss } = this.vcpu.getSystemRegisters();
    const base = Number(ss.base) + Number(rsp);
    return Array.from({ length: count }, (_, n) => {
      const at = base + n * size;
      return size === 2
        ? this.memory.view.getUint16(at, true)
        : this.memory.view.getUint32(at, true);
    });
  }

  /** Error code, RIP, CS of a handler's frame. */
  frame(size: 4 | 8 = 4): number[] {
    return this.pushed(3, size);
  }

  /** Writes a descriptor of the GDT (or a table elsewhere). `flags`: G, D, L as in bits 55 to 52. */
  descriptor(
    selector: number,
    base: number,
    limit: number,
    access: number,
    flags = 0,
    table: number = At.gdt,
  ): void {
    const at = table + (selector & 0xfff8);
    this.memory.writeU32(at, ((base & 0xffff) << 16 | limit & 0xffff) >>> 0);
    this.memory.writeU32(
      at + 4,
      ((base & 0xff00_0000) | (flags << 20) | (limit & 0xf_0000) |
        (access << 8) | ((base >>> 16) & 0xff)) >>> 0,
    );
  }

  /** Writes an IDT gate or, with a selector of the GDT as `at`, a call or task gate. */
  gate(
    at: number,
    selector: number,
    offset: number,
    access: number,
    low = 0,
    long = false,
  ): void {
    this.memory.writeU32(at, ((selector << 16) | (offset & 0xffff)) >>> 0);
    this.memory.writeU32(
      at + 4,
      ((offset & 0xffff_0000) | (access << 8) | low) >>> 0,
    );
    if (long) {
      this.memory.writeU32(at + 8, 0);
      this.memory.writeU32(at + 12, 0);
    }
  }

  #tables(long: boolean): void {
    const flat = (selector: number, access: number, flags: number): void =>
      this.descriptor(selector, 0, 0xf_ffff, access, flags);
    flat(Sel.code32, Access.code, 0xc);
    flat(Sel.data, Access.data, 0xc);
    flat(Sel.code64, Access.code, 0xa);
    flat(Sel.userCode32, Access.userCode, 0xc);
    flat(Sel.userData, Access.userData, 0xc);
    flat(Sel.userCode64, Access.userCode, 0xa);
    this.descriptor(Sel.code16, 0, 0xffff, Access.code);
    this.descriptor(Sel.data16, 0, 0xffff, Access.data);
    this.descriptor(Sel.tss, At.tss, 0x2067, 0x8b);
    flat(Sel.conforming, 0x9f, 0xc);
    this.descriptor(Sel.task, At.task, 103, Access.tss32);
    this.descriptor(Sel.ldt, At.ldt, 0xff, Access.ldt);
    this.descriptor(Sel.notPresent, 0, 0xffff, 0x13);
    this.descriptor(Sel.readOnly, 0, 0xffff, 0x91);
    for (let vector = 0; vector < 256; vector++) {
      this.gate(
        At.idt + vector * (long ? 16 : 8),
        long ? Sel.code64 : Sel.code32,
        At.handlers + 8 * vector,
        Access.interruptGate,
        0,
        long,
      );
    }
    if (long) {
      this.memory.writeU32(At.tss + 4, At.kernelStack);
      this.memory.writeU32(At.tss + 0x24, At.ist);
    } else {
      this.memory.writeU32(At.tss + 4, At.kernelStack);
      this.memory.writeU32(At.tss + 8, Sel.data);
    }
    this.memory.writeU32(At.tss + 100, 104 << 16);
    this.memory.fill(At.tss + 104, 0x300 - 104, 0xff);
  }

  #enter(extra: Partial<SystemRegisters>): this {
    const data = segment(Sel.data, 3, 0);
    this.vcpu.setSystemRegisters({
      ds: data,
      es: data,
      fs: data,
      gs: data,
      ss: data,
      tr: {
        ...segment(Sel.tss, 11, 0),
        base: BigInt(At.tss),
        limit: 0x2067,
        s: false,
        db: false,
        g: false,
      },
      gdt: { base: BigInt(At.gdt), limit: 0x3ff },
      idt: { base: BigInt(At.idt), limit: 0xfff },
      ...extra,
    });
    this.vcpu.setRegisters({ rsp: BigInt(At.stack), rflags: 2n });
    return this;
  }

  /** 32-bit protected mode, flat, CPL 0. */
  protected(): this {
    this.#tables(false);
    return this.#enter({
      cs: segment(Sel.code32, 11, 0),
      cr0: 0x11n,
      idt: { base: BigInt(At.idt), limit: 0x7ff },
    });
  }

  /** 32-bit protected mode at CPL 3 with `iopl`. */
  user(iopl = 0): this {
    this.protected();
    const data = segment(Sel.userData, 3, 3);
    this.vcpu.setSystemRegisters({
      cs: segment(Sel.userCode32, 11, 3),
      ds: data,
      es: data,
      ss: data,
    });
    this.vcpu.setRegisters({
      rsp: BigInt(At.userStack),
      rflags: BigInt(2 | (iopl << 12)),
    });
    return this;
  }

  /** Fills the second TSS: a 32-bit task at `eip` with flat segments. */
  task(eip: number, esp: number, flags = 2): this {
    this.memory.fill(At.task, 104);
    const words = [[0x20, eip], [0x24, flags], [0x38, esp], [
      0x4c,
      Sel.code32,
    ]] as const;
    for (const [at, value] of words) this.memory.writeU32(At.task + at, value);
    for (const at of [0x48, 0x50, 0x54, 0x58, 0x5c]) {
      this.memory.writeU32(At.task + at, Sel.data);
    }
    return this;
  }

  /** 64-bit mode, CPL 0, the first 2 MiB mapped to themselves in user pages of 4 KiB. */
  long(): this {
    this.#tables(true);
    const tables = At.pageTables;
    this.memory.writeU32(tables, tables + 0x1007);
    this.memory.writeU32(tables + 0x1000, tables + 0x2007);
    this.memory.writeU32(tables + 0x2000, tables + 0x3007);
    for (let n = 0; n < 512; n++) {
      this.memory.writeU32(tables + 0x3000 + 8 * n, (n << 12) | 7);
    }
    return this.#enter({
      cs: { ...segment(Sel.code64, 11, 0), db: false, l: true },
      cr0: 0x8001_0011n,
      cr3: BigInt(tables),
      cr4: 0x20n,
      efer: 0xd01n,
    });
  }

  /** 64-bit mode at CPL 3. */
  longUser(): this {
    this.long();
    const data = segment(Sel.userData, 3, 3);
    this.vcpu.setSystemRegisters({
      cs: { ...segment(Sel.userCode64, 11, 3), db: false, l: true },
      ss: data,
    });
    this.vcpu.setRegisters({ rsp: BigInt(At.userStack) });
    return this;
  }

  /** Address of the entry that maps a page of long mode's first 2 MiB. */
  pageEntry(linear: number): number {
    return At.pageTables + 0x3000 + 8 * (linear >>> 12);
  }

  /** Real mode with CS and the other segments at 0. */
  real(): this {
    const base = { ...segment(0, 3, 0), limit: 0xffff, db: false, g: false };
    for (let vector = 0; vector < 256; vector++) {
      this.memory.writeU32(4 * vector, At.handlers + 8 * vector);
    }
    this.vcpu.setSystemRegisters({
      cs: base,
      ds: base,
      es: base,
      ss: base,
      idt: { base: 0n, limit: 0x3ff },
      gdt: { base: BigInt(At.gdt), limit: 0x3ff },
    });
    this.vcpu.setRegisters({ rsp: BigInt(At.stack), rflags: 2n });
    return this;
  }

  /** Puts the GDT, IDT and page tables of another mode in place; the CPU stays as it is. */
  prepareLong(): this {
    const { vcpu } = this;
    const system = vcpu.getSystemRegisters();
    const registers = vcpu.getRegisters();
    this.long();
    vcpu.setSystemRegisters(system);
    vcpu.setRegisters(registers);
    return this;
  }

  /** A 32-bit word of memory. */
  word(at: number): number {
    return this.memory.view.getUint32(at, true);
  }

  /** A general register, 64 bits. */
  get(
    name: "rax" | "rbx" | "rcx" | "rdx" | "rsi" | "rdi" | "rsp" | "rip",
  ): number {
    return Number(this.vcpu.getRegisters()[name]);
  }

  /** RFLAGS. */
  get flags(): number {
    return Number(this.vcpu.getRegisters().rflags);
  }
}
