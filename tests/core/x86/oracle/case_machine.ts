/**
 * A machine that executes cases, on any backend: 64-bit paging that maps what the cases see, a handler
 * for each exception that stops at once, so that the registers are read as the exception left them.
 *
 * @module
 */
import {
  type Backend,
  HypercallResult,
  MsrResult,
  type Registers,
  type Segment,
  type SystemRegisters,
  type Vcpu,
  type Vm,
  type VmHost,
} from "../../../../core/backend.ts";
import { interpreter } from "../../../../core/x86/backend.ts";
import { GuestMemory } from "../../../../core/guest_memory.ts";
import {
  type Case,
  CODE_PAGE,
  FLAGS,
  hasError,
  type Outcome,
  visible,
  WINDOW_END,
  WINDOW_PAGES,
} from "./cases.ts";

const RAM = 0x4_0000;
const PAGE = 4096;

// Guest-physical and linear addresses. The first 64 KiB are the cases' own.
const TABLES = 0x1_0000;
const GDT = 0x1_8000;
const IDT = 0x1_9000;
const TSS = 0x1_a000;
const HANDLERS = 0x1_b000;
const STACK_TOP = 0x1_e000;

const PRESENT = 1n, WRITABLE = 2n, USER = 4n, NO_EXECUTE = 1n << 63n;
const INT3 = 0xcc;
/** Bytes of a handler: `out VECTOR, al`, and a jump back to it. */
const HANDLER_SIZE = 4;

/** As Linux numbers them for user code, whose recorded outcomes have them in error codes alone. */
const Selector = { Code32: 0x23, Data: 0x2b, Code64: 0x33, Tss: 0x40 } as const;
/** For code of the kernel. */
const KernelSelector = { Code32: 0x08, Data: 0x18, Code64: 0x10 } as const;

/** Takes what handlers say; instructions that reach the host get what a free machine gives. */
class CaseHost implements VmHost {
  /** Vector of the exception that ended the case, or -1. */
  vector = -1;
  vcpu: Vcpu | undefined;

  writePort(_vcpu: number, port: number): void {
    this.vector = port;
    this.vcpu!.kick();
  }
  readPort(_vcpu: number, _port: number, size: number): number {
    return 2 ** (8 * size) - 1;
  }
  readMsr(): MsrResult {
    return MsrResult.Unknown;
  }
  writeMsr(): MsrResult {
    return MsrResult.Unknown;
  }
  readMmio(_vcpu: number, _gpa: number, data: Uint8Array): void {
    data.fill(0xff);
  }
  writeMmio(): void {}
  hypercall(): HypercallResult {
    return HypercallResult.Unknown;
  }
  acknowledgeInterrupt(): number {
    return -1;
  }
}

const NAMES = [
  ...["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"],
  ...["r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"],
] as (keyof Registers)[];

function segment(selector: number, type: number, long = false): Segment {
  return {
    selector,
    base: 0n,
    limit: 0xffff_ffff,
    type,
    s: true,
    dpl: selector & 3,
    present: true,
    avl: false,
    l: long,
    db: !long,
    g: true,
    unusable: false,
  };
}

/** Why a case has no outcome: it does not end in an exception. */
export class CaseLost extends Error {
  override name = "CaseLost";
}

/** Executes cases on a backend, one after the other. */
export class CaseMachine {
  readonly #memory = new GuestMemory(RAM);
  readonly #host = new CaseHost();
  readonly #vm: Vm;
  readonly #vcpu: Vcpu;
  readonly #system: Partial<SystemRegisters>;

  /** Makes the machine; {@linkcode CaseMachine.close} frees it. */
  constructor(backend: Backend) {
    this.#vm = backend.createVm(this.#memory, this.#host);
    this.#vcpu = this.#vm.createVcpu();
    this.#host.vcpu = this.#vcpu;
    this.#vcpu.setCpuid(interpreter().supportedCpuid());
    this.#makeTables();
    const none = segment(0, 0);
    this.#system = {
      gdt: { base: BigInt(GDT), limit: 0x4f },
      idt: { base: BigInt(IDT), limit: 0x1ff },
      tr: {
        ...none,
        selector: Selector.Tss,
        base: BigInt(TSS),
        limit: 103,
        type: 11,
        s: false,
        g: false,
        db: false,
      },
      ldt: { ...none, limit: 0, unusable: true, present: false },
      // PE, MP, ET, NE, WP, AM, PG.
      cr0: 0x8005_0033n,
      cr3: BigInt(TABLES),
      // PAE, PGE, OSFXSR, OSXMMEXCPT.
      cr4: 0x6a0n,
      // SCE, LME, LMA, NXE.
      efer: 0xd01n,
    };
  }

  #makeTables(): void {
    const memory = this.#memory;
    const put = (at: number, value: bigint): void => memory.writeU64(at, value);
    const table = (n: number): bigint => BigInt(TABLES + n * PAGE);
    put(TABLES, table(1) | PRESENT | WRITABLE | USER);
    put(TABLES + PAGE, table(2) | PRESENT | WRITABLE | USER);
    put(TABLES + 2 * PAGE, table(3) | PRESENT | WRITABLE | USER);
    const map = (address: number, bits: bigint): void =>
      put(
        TABLES + 3 * PAGE + address / PAGE * 8,
        BigInt(address) | PRESENT | WRITABLE | bits,
      );
    map(CODE_PAGE, USER);
    for (let at = WINDOW_PAGES; at < WINDOW_END; at += PAGE) {
      map(at, USER | NO_EXECUTE);
    }
    for (let at = TABLES; at < RAM; at += PAGE) map(at, 0n);
    put(GDT + KernelSelector.Code32, 0x00cf_9b00_0000_ffffn);
    put(GDT + KernelSelector.Code64, 0x00af_9b00_0000_ffffn);
    put(GDT + KernelSelector.Data, 0x00cf_9300_0000_ffffn);
    put(GDT + (Selector.Code32 & ~3), 0x00cf_fb00_0000_ffffn);
    put(GDT + (Selector.Data & ~3), 0x00cf_f300_0000_ffffn);
    put(GDT + (Selector.Code64 & ~3), 0x00af_fb00_0000_ffffn);
    put(GDT + Selector.Tss, 0x0000_8b00_0000_0067n | BigInt(TSS) << 16n);
    // IST1 for every exception, whatever the stack pointer of the case.
    put(TSS + 36, BigInt(STACK_TOP));
    for (let vector = 0; vector < 32; vector++) {
      // User code may raise #BP and #OF itself.
      const dpl = vector === 3 || vector === 4 ? 3n : 0n;
      const handler = HANDLERS + HANDLER_SIZE * vector;
      memory.write(handler, new Uint8Array([0xe6, vector, 0xeb, 0xfc]));
      const at = BigInt(handler);
      put(
        IDT + vector * 16,
        (at & 0xffffn) | BigInt(KernelSelector.Code64) << 16n | 1n << 32n |
          (0x8en | dpl << 5n) << 40n | at >> 16n << 48n,
      );
    }
  }

  /**
   * Executes a case.
   *
   * @param kernel With CPL 0 instead of 3.
   * @throws {CaseLost} If it ends in no exception.
   */
  run(test: Case, kernel = false): Outcome {
    const memory = this.#memory;
    const vcpu = this.#vcpu;
    memory.fill(CODE_PAGE, PAGE, INT3);
    memory.write(test.at, test.code);
    memory.fill(WINDOW_PAGES, WINDOW_END - WINDOW_PAGES);
    memory.write(test.window, test.bytes);
    const long = test.bits === 64;
    const selectors = kernel ? KernelSelector : Selector;
    const data = segment(selectors.Data, 3);
    vcpu.setSystemRegisters({
      ...this.#system,
      cs: segment(long ? selectors.Code64 : selectors.Code32, 11, long),
      ds: data,
      es: data,
      fs: data,
      gs: data,
      ss: data,
      cr2: 0n,
    });
    const registers: Partial<Registers> = {
      rip: BigInt(test.at),
      rflags: BigInt(test.flags),
    };
    NAMES.forEach((name, n) => registers[name] = test.registers[n]!);
    vcpu.setRegisters(registers);
    const host = this.#host;
    host.vector = -1;
    for (let turns = 0; host.vector < 0; turns++) {
      const { reason } = vcpu.run(100);
      if (reason !== "interrupted") throw new CaseLost(`ended with ${reason}`);
      if (turns > 20) throw new CaseLost("has no end");
    }
    return this.#outcome(test, host.vector);
  }

  #outcome(test: Case, vector: number): Outcome {
    const memory = this.#memory;
    const now = this.#vcpu.getRegisters();
    const frame = Number(now.rsp);
    const error = hasError(vector);
    const at = frame + (error ? 8 : 0);
    const word = (n: number): bigint =>
      memory.view.getBigUint64(at + 8 * n, true);
    const registers = NAMES.map((name) => now[name]);
    registers[4] = word(3);
    return {
      vector,
      error: error ? memory.view.getUint16(frame, true) : 0,
      cr2: vector === 14 ? this.#vcpu.getSystemRegisters().cr2 : 0n,
      rip: word(0),
      flags: Number(word(2)) & FLAGS,
      registers: visible(test, registers),
      bytes: memory.read(test.window, test.bytes.length),
    };
  }

  /** System registers as the last case left them. */
  system(): SystemRegisters {
    return this.#vcpu.getSystemRegisters();
  }

  /** Frees the machine. */
  close(): void {
    this.#vm.close();
  }
}
