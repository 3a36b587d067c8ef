import {
  type CpuidEntry,
  type GuestDebug,
  HypercallResult,
  MsrResult,
  type Registers,
  type SystemRegisters,
  type Vcpu,
  type VcpuExit,
  type VcpuState,
  type VmHost,
} from "../core/backend.ts";
import {
  encodeCpuid,
  isHypervisorLeaf,
  mergeHypervisorLeaves,
} from "./cpuid_codec.ts";
import {
  HYPERCALL_CODE,
  HYPERCALL_LENGTH,
  HYPERCALL_PORT,
  TrapFrame,
} from "./hypercall_trap.ts";
import {
  Cap,
  Exit,
  GuestDebugBit,
  GuestDebugField,
  HypervExit,
  Ioctl,
  IoDirection,
  Regs,
  Run,
  RunDebug,
  RunFailEntry,
  RunHcall,
  RunHyperv,
  RunInternal,
  RunIo,
  RunMmio,
  RunMsr,
  RunSyndbg,
  RunSystemEvent,
  Size,
  SystemEvent,
  Translation,
  VcpuEvents,
} from "./kvm_layout.ts";
import { readMsrs, writeMsrs } from "./kvm_msrs.ts";
import { enableCap, type KvmVirtualMachine, SYNTHETIC_MSRS } from "./kvm_vm.ts";
import {
  decodeRegisters,
  decodeSystemRegisters,
  encodeRegisters,
  encodeSystemRegisters,
} from "./register_codec.ts";
import { Struct } from "./struct.ts";
import { Errno, errnoName, type RunThread } from "./system_calls.ts";
import { VcpuFile } from "./vcpu_file.ts";
import {
  copyImage,
  isImage,
  readImage,
  type VcpuImage,
  writeImage,
} from "./vcpu_image.ts";

const FORMAT = "syndbg-kvm-1";
/** Exits between looks at the clock; the timer ends slices in which the guest does not exit. */
const CLOCK_EVERY = 16;
const FLAG_IF = 0x200;
/** Milliseconds of a turn among vCPUs that share a thread. */
const TURN = 1;
/** CD and NW. */
const CR0_CACHE = 0x6000_0000n;
const CR4_PGE = 0x80n;
const VECTOR_DB = 1;
const VECTOR_BP = 3;
const VECTOR_UD = 6;
/** HV_STATUS_INVALID_HYPERCALL_CODE (TLFS appendix B). */
const NO_SUCH_CALL = 2n;
/** The page's first instruction, as a word. */
const HYPERCALL_INSTRUCTION = HYPERCALL_CODE[0]! | HYPERCALL_CODE[1]! << 8;
const MSR_TSC = 0x10;
const MSR_TSC_ADJUST = 0x3b;
const MSR_DEBUG_CONTROL = 0x4000_00f1;
const MSR_DEBUG_STATUS = 0x4000_00f2;
/** CRASH_P0 to P4. */
const CRASH_PARAMETERS = [0, 1, 2, 3, 4].map((n) => 0x4000_0100 + n);

function isSynthetic(msr: number): boolean {
  return msr >= SYNTHETIC_MSRS.first &&
    msr < SYNTHETIC_MSRS.first + SYNTHETIC_MSRS.count;
}

/** A vCPU of KVM. All calls are to be made on the thread that made its VM. */
export class KvmVcpu implements Vcpu {
  readonly id: number;
  readonly #vm: KvmVirtualMachine;
  readonly #host: VmHost;
  /** The kernel's vCPU; another one after CPUID changed late. */
  #file: VcpuFile;
  /** State after RESET. */
  readonly #atReset: VcpuImage;
  /** The kernel takes CPUID until the first run only. */
  #hasRun = false;
  #running = false;
  #cpuid: readonly CpuidEntry[] = [];
  #cpuidBytes: Uint8Array<ArrayBuffer> = encodeCpuid([]);
  /** CPUID that the next entry is to have. */
  #nextCpuid: Uint8Array<ArrayBuffer> | undefined;
  #interrupt = false;
  /** CR8 as the host knows it. */
  #taskPriority = 0;
  #halted = false;
  #shutdown = false;
  /** The run is to end: a kick, or the slice is over. */
  #stop = false;
  /** Runs the vCPU where it does not run on this thread, and whether it does so now. */
  #thread: RunThread | undefined;
  #flying = false;
  /** A TSC that was read, and when, for looks at it in flight. */
  #tsc = { value: 0n, time: 0 };
  /** The kernel's last run ended with no exit. */
  #interrupted = false;
  readonly #regs = new Struct(Size.regs);
  readonly #sregs = new Struct(Size.sregs);
  readonly #translation = new Struct(Size.translation);
  readonly #vector = new Struct(Size.interrupt);
  readonly #debug = new Struct(Size.guestDebug);
  /** External interrupts wait while the guest is not halted. */
  #blocksInterrupts = false;
  readonly #frame: TrapFrame;
  /** Views of the exit's data: the MSR's value, and MMIO data of each length. */
  #msrValue!: Uint32Array<ArrayBuffer>;
  #mmioData!: Uint8Array<ArrayBuffer>[];
  readonly #exit: {
    reason: VcpuExit["reason"];
    rip: bigint;
    dr6: bigint;
    breakpoint: boolean;
    message: string;
  } = {
    reason: "interrupted",
    rip: 0n,
    dr6: 0n,
    breakpoint: false,
    message: "",
  };

  /** Made by {@linkcode KvmVirtualMachine.createVcpu} only. */
  constructor(vm: KvmVirtualMachine, id: number) {
    this.id = id;
    this.#vm = vm;
    this.#host = vm.host;
    this.#frame = new TrapFrame(id, () => {
      const xsave = new Uint8Array(Size.xsave);
      this.#file.pass("read vector registers", "GetXsave", xsave);
      return xsave;
    });
    this.#file = this.#open();
    try {
      this.#atReset = readImage(this.#file, vm.facts.msrs);
    } catch (error) {
      this.close();
      throw error;
    }
    this.#look();
  }

  /** Makes a vCPU in the kernel. */
  #open(): VcpuFile {
    const { facts, file, options, mode } = this.#vm;
    const vcpu = new VcpuFile(file, this.#vm.nextKernelId(), facts.runSize);
    try {
      if (facts.enforcesPvCpuid) {
        enableCap(vcpu, "create vCPU", Cap.EnforcePvFeatureCpuid, 1);
      }
      if (mode === "kernel" && options.enforceCpuid) {
        enableCap(vcpu, "enforce CPUID", Cap.HypervEnforceCpuid, 1);
      }
    } catch (error) {
      vcpu.close();
      throw error;
    }
    return vcpu;
  }

  #look(): void {
    const { run8 } = this.#file;
    const { buffer, byteOffset } = run8;
    this.#msrValue = new Uint32Array(buffer, byteOffset + RunMsr.data, 2);
    this.#mmioData = Array.from(
      { length: 9 },
      (_, n) => run8.subarray(RunMmio.data, RunMmio.data + n),
    );
  }

  // Running. ---------------------------------------------------------------------

  run(slice = 10): VcpuExit {
    const { system, timer } = this.#vm;
    if (this.#shutdown) return this.#end("shutdown");
    const timed = slice < Infinity;
    const limit = slice === 0 ? TURN : Math.max(slice, 0.001);
    if (timed) system.setTimer(timer, limit);
    this.#running = true;
    try {
      return this.#loop(timed ? performance.now() + limit : Infinity);
    } finally {
      this.#running = false;
      if (timed) system.setTimer(timer, 0);
    }
  }

  #loop(deadline: number): VcpuExit {
    const { system } = this.#vm;
    for (let exits = 1;; exits++) {
      const early = this.#before();
      if (early !== undefined) return early;
      const result = system.ioctl(this.#file.fd, Ioctl.Run, 0);
      const exit = result < 0 ? this.#failed() : this.#after();
      if (exit !== undefined) return exit;
      if (exits % CLOCK_EVERY === 0 && performance.now() >= deadline) {
        // The kernel finishes the instruction of this exit, and comes back.
        this.kick();
      }
    }
  }

  /** As {@linkcode KvmVcpu.run}, on a thread of its own; where there is one vCPU only it does not pay. */
  get runAsync(): ((slice?: number) => Promise<VcpuExit>) | undefined {
    return this.#vm.count > 1 ? (slice) => this.#fly(slice ?? 10) : undefined;
  }

  async #fly(slice: number): Promise<VcpuExit> {
    if (this.#shutdown) return this.#end("shutdown");
    const thread = this.#thread ??= this.#vm.system.createRunThread();
    const timer = setTimeout(() => this.kick(), slice);
    this.#running = true;
    try {
      for (;;) {
        const early = this.#before();
        if (early !== undefined) return early;
        this.#tsc = { value: this.#readTsc(), time: performance.now() };
        this.#flying = true;
        const result = await thread.run(this.#file.fd);
        this.#flying = false;
        const { run8, run32 } = this.#file;
        const { exitReason } = Run;
        const again = result < 0 && !this.#stop &&
          run32[exitReason >> 2] === Exit.Intr;
        // Somebody wanted something of this vCPU, not its end.
        run8[Run.immediateExit] = this.#stop ? 1 : 0;
        this.#told();
        if (again) {
          run32[exitReason >> 2] = Exit.Unknown;
          this.#interrupted = true;
          continue;
        }
        const exit = result < 0 ? this.#failed() : this.#after();
        if (exit !== undefined) return exit;
      }
    } finally {
      clearTimeout(timer);
      this.#running = false;
      this.#flying = false;
    }
  }

  /** Has a run in flight come back to look at what is new. */
  #nudge(): void {
    if (!this.#flying) return;
    this.#file.run8[Run.immediateExit] = 1;
    this.#thread!.interrupt();
  }

  /** Has a run in flight come back now, so that the kernel answers for the vCPU. */
  #settle(): void {
    if (!this.#flying) return;
    this.#file.run8[Run.immediateExit] = 1;
    this.#thread!.settle();
  }

  /** What an entry needs; an exit if there is none. */
  #before(): VcpuExit | undefined {
    if (this.#nextCpuid !== undefined) {
      try {
        this.#replace();
      } catch (error) {
        return this.#fail(error instanceof Error ? error.message : "");
      }
    }
    const blocked = this.#blocksInterrupts && !this.#halted;
    if (this.#interrupt && !blocked) this.#offerInterrupt();
    else this.#file.run8[Run.requestInterruptWindow] = 0;
    if (this.#halted) return this.#end(this.#stop ? "interrupted" : "hlt");
    this.#hasRun = true;
    return undefined;
  }

  /** Tells the host what a run has changed of CR8. */
  #told(): void {
    const priority = this.#file.run32[Run.cr8 >> 2]!;
    if (priority === this.#taskPriority) return;
    this.#taskPriority = priority;
    this.#host.setTaskPriority?.(this.id, priority);
  }

  /** KVM_RUN failed: a signal, as a rule. */
  #failed(): VcpuExit {
    const { run32, fd } = this.#file;
    const { system } = this.#vm;
    this.#told();
    if (
      this.#stop || run32[Run.exitReason >> 2] === Exit.Intr ||
      system.errno() === Errno.Interrupted
    ) {
      run32[Run.exitReason >> 2] = Exit.Unknown;
      return this.#end("interrupted");
    }
    return this.#fail(
      fd < 0 ? "the VM is closed" : `KVM_RUN: ${errnoName(system.errno())}`,
    );
  }

  /** Does what the guest asks for; an exit if the run ends with it. */
  #after(): VcpuExit | undefined {
    const file = this.#file;
    const { run32 } = file;
    this.#told();
    switch (run32[Run.exitReason >> 2]) {
      case Exit.Io:
        this.#io();
        break;
      case Exit.X86Wrmsr: {
        const done = this.#host.writeMsr(
          this.id,
          run32[RunMsr.index >> 2]!,
          run32[RunMsr.data >> 2]!,
          run32[(RunMsr.data >> 2) + 1]!,
        );
        file.run8[RunMsr.error] = done === MsrResult.Handled ? 0 : 1;
        break;
      }
      case Exit.X86Rdmsr: {
        const done = this.#host.readMsr(
          this.id,
          run32[RunMsr.index >> 2]!,
          this.#msrValue,
        );
        file.run8[RunMsr.error] = done === MsrResult.Handled ? 0 : 1;
        break;
      }
      case Exit.Mmio:
        this.#mmio();
        break;
      case Exit.Hyperv:
        this.#hyperv();
        break;
      case Exit.Hlt:
        this.#halted = true;
        break;
      case Exit.Shutdown:
        this.#shutdown = true;
        return this.#end("shutdown");
      case Exit.Intr:
        return this.#end("interrupted");
      case Exit.IrqWindowOpen:
      case Exit.SetTpr:
      case Exit.Nmi:
        break;
      case Exit.Debug:
        return this.#debugExit();
      case Exit.SystemEvent:
        if (this.#systemEvent(run32[RunSystemEvent.type >> 2]!)) break;
        this.#shutdown = true;
        return this.#end("shutdown");
      default:
        return this.#fail(this.#failure());
    }
    this.#interrupted = false;
    return undefined;
  }

  #end(reason: VcpuExit["reason"]): VcpuExit {
    this.#stop = false;
    this.#interrupted = reason === "interrupted";
    this.#file.run8[Run.immediateExit] = 0;
    this.#exit.reason = reason;
    return this.#exit as VcpuExit;
  }

  #fail(message: string): VcpuExit {
    this.#exit.message = message;
    return this.#end("internal-error");
  }

  /** What KVM says of an exit that nobody can go on from. */
  #failure(): string {
    const { run32 } = this.#file;
    const reason = run32[Run.exitReason >> 2]!;
    const rip = (): string => `0x${this.getRegisters().rip.toString(16)}`;
    switch (reason) {
      case Exit.InternalError: {
        const suberror = run32[RunInternal.suberror >> 2]!;
        const what = suberror === 1
          ? "an instruction that it cannot emulate"
          : `suberror ${suberror}`;
        return `KVM internal error: ${what} at RIP ${rip()}`;
      }
      case Exit.FailEntry: {
        const code = run32[RunFailEntry.hardwareEntryFailureReason >> 2]!;
        return `KVM cannot enter the guest: hardware reason 0x${
          code.toString(16)
        } at RIP ${rip()}`;
      }
      default:
        return `KVM exit ${reason} is not known at RIP ${rip()}`;
    }
  }

  // Exits. -----------------------------------------------------------------------

  #io(): void {
    const { run8, run16, run32 } = this.#file;
    const size = run8[RunIo.size]!;
    const port = run16[RunIo.port >> 1]!;
    const count = run32[RunIo.count >> 2]!;
    let at = run32[RunIo.dataOffset >> 2]!;
    const host = this.#host;
    const { id } = this;
    if (run8[RunIo.direction] === IoDirection.Out) {
      if (
        port === HYPERCALL_PORT && size > 1 && count === 1 &&
        this.#vm.mode === "user" && this.#hypercall()
      ) return;
      for (let n = 0; n < count; n++, at += size) {
        const value = size === 1
          ? run8[at]!
          : size === 2
          ? run16[at >> 1]!
          : run32[at >> 2]!;
        host.writePort(id, port, size, value);
      }
      return;
    }
    for (let n = 0; n < count; n++, at += size) {
      const value = host.readPort(id, port, size);
      if (size === 1) run8[at] = value;
      else if (size === 2) run16[at >> 1] = value;
      else run32[at >> 2] = value;
    }
  }

  #mmio(): void {
    const { run8, run32 } = this.#file;
    const gpa = run32[(RunMmio.physAddr >> 2) + 1]! * 0x1_0000_0000 +
      run32[RunMmio.physAddr >> 2]!;
    const data = this.#mmioData[run32[RunMmio.len >> 2]! & 15]!;
    if (run8[RunMmio.isWrite] !== 0) this.#host.writeMmio(this.id, gpa, data);
    else this.#host.readMmio(this.id, gpa, data);
  }

  /** KVM's own Hyper-V hands something on. */
  #hyperv(): void {
    const file = this.#file;
    const { run32, view } = file;
    const handler = this.#vm.hypervHandler;
    const word = (at: number): bigint => view.getBigUint64(at, true);
    switch (run32[RunHyperv.type >> 2]) {
      case HypervExit.Syndbg: {
        // STATUS as it comes is left over from some earlier exit: it is always written.
        const status = handler?.syndbg(
          this.id,
          run32[RunSyndbg.msr >> 2]!,
          word(RunSyndbg.control),
          word(RunSyndbg.sendPage),
          word(RunSyndbg.recvPage),
          word(RunSyndbg.pendingPage),
        );
        view.setBigUint64(RunSyndbg.status, status ?? 0n, true);
        // A signal between the guest's WRMSR and this exit has used up the kernel's step that takes STATUS over
        // (Linux arch/x86/kvm/hyperv.c, kvm_hv_syndbg_complete_userspace), so it is written from outside.
        if (
          this.#interrupted && run32[RunSyndbg.msr >> 2] === MSR_DEBUG_CONTROL
        ) writeMsrs(file, [[MSR_DEBUG_STATUS, status ?? 0n]]);
        break;
      }
      case HypervExit.Hcall: {
        const result = handler?.hypercall(
          this.id,
          word(RunHcall.input),
          word(RunHcall.params),
          word(RunHcall.params + 8),
        );
        view.setBigUint64(RunHcall.result, result ?? NO_SUCH_CALL, true);
        break;
      }
    }
  }

  /** KVM's own Hyper-V tells of a reset or a crash: false if nobody hears. */
  #systemEvent(type: number): boolean {
    const handler = this.#vm.hypervHandler;
    if (type === SystemEvent.Crash) {
      const [p0, p1, p2, p3, p4] = CRASH_PARAMETERS.map((msr) =>
        this.getMsr(msr) ?? 0n
      );
      handler?.crash([p0!, p1!, p2!, p3!, p4!]);
      return true;
    }
    if (type !== SystemEvent.Reset) return false;
    handler?.reset();
    return handler !== undefined;
  }

  /** A write to the hypercall port: false if it is no hypercall page's. */
  #hypercall(): boolean {
    this.#complete();
    const file = this.#file;
    const frame = this.#frame;
    file.pass("read registers", "GetRegs", this.#regs.bytes);
    file.pass("read system registers", "GetSregs", this.#sregs.bytes);
    frame.load(this.#regs, this.#sregs);
    const { memory } = this.#vm;
    const at = this.translate(frame.instruction(this.#regs, this.#sregs));
    if (
      at === undefined || !memory.contains(Number(at), HYPERCALL_LENGTH) ||
      memory.view.getUint16(Number(at), true) !== HYPERCALL_INSTRUCTION
    ) return false;
    const result = this.#host.hypercall(frame);
    frame.store(this.#regs);
    if (result !== HypercallResult.Handled) {
      const { view } = this.#regs;
      const next = view.getBigUint64(Regs.rip, true);
      view.setBigUint64(Regs.rip, next - BigInt(HYPERCALL_LENGTH), true);
    }
    file.pass("write registers", "SetRegs", this.#regs.bytes);
    if (
      result === HypercallResult.Unknown ||
      result === HypercallResult.InvalidOpcode
    ) this.#raise(VECTOR_UD);
    return true;
  }

  /** Has the kernel finish the instruction of an exit, without running on. */
  #complete(): void {
    const { run8, fd } = this.#file;
    run8[Run.immediateExit] = 1;
    this.#vm.system.ioctl(fd, Ioctl.Run, 0);
    run8[Run.immediateExit] = this.#stop ? 1 : 0;
  }

  /** The guest gets an exception without error code at the current instruction. */
  #raise(vector: number): void {
    const { bytes, view } = new Struct(Size.vcpuEvents);
    this.#file.pass("raise exception", "GetVcpuEvents", bytes);
    view.setUint8(VcpuEvents["exception.injected"], 1);
    view.setUint8(VcpuEvents["exception.nr"], vector);
    view.setUint8(VcpuEvents["exception.hasErrorCode"], 0);
    this.#file.pass("raise exception", "SetVcpuEvents", bytes);
  }

  #debugExit(): VcpuExit {
    const { run32, view } = this.#file;
    const exit = this.#exit;
    exit.rip = this.getRegisters().rip;
    exit.breakpoint = run32[RunDebug.exception >> 2] === VECTOR_BP;
    exit.dr6 = run32[RunDebug.exception >> 2] === VECTOR_DB
      ? view.getBigUint64(RunDebug.dr6, true)
      : 0n;
    return this.#end("debug");
  }

  // Events. ----------------------------------------------------------------------

  kick(): void {
    this.#stop = true;
    this.#file.run8[Run.immediateExit] = 1;
    this.#nudge();
  }

  setInterruptRequest(asserted: boolean): void {
    this.#interrupt = asserted;
    if (asserted) this.#nudge();
  }

  /** INTR is asserted: hands the vector over if the guest takes it, else has the kernel tell when it does. */
  #offerInterrupt(): void {
    const file = this.#file;
    const { run8 } = file;
    if (run8[Run.readyForInterruptInjection] === 0 && this.#halted) {
      // Nothing masks interrupts in HLT but IF; the kernel's word is of before registers were set.
      file.pass("read registers", "GetRegs", this.#regs.bytes);
      const flags = this.#regs.view.getUint32(Regs.rflags, true);
      run8[Run.readyForInterruptInjection] = (flags & FLAG_IF) !== 0 ? 1 : 0;
    }
    if (run8[Run.readyForInterruptInjection] !== 0) {
      const vector = this.#host.acknowledgeInterrupt(this.id);
      if (vector >= 0) {
        this.#vector.view.setUint32(0, vector, true);
        file.try("Interrupt", this.#vector.bytes);
        run8[Run.readyForInterruptInjection] = 0;
        this.#halted = false;
      }
    }
    run8[Run.requestInterruptWindow] = this.#interrupt ? 1 : 0;
  }

  injectNmi(): void {
    this.#settle();
    this.#file.call("inject NMI", "Nmi");
    this.#halted = false;
  }

  setTaskPriority(priority: number): void {
    this.#changed(BigInt(priority));
  }

  flushTlb(): void {
    this.#settle();
    // The kernel does so when a register of paging changes.
    const { cr4 } = this.getSystemRegisters();
    this.setSystemRegisters({ cr4: cr4 ^ CR4_PGE });
    this.setSystemRegisters({ cr4 });
  }

  // State. -----------------------------------------------------------------------

  reset(): void {
    const image = copyImage(this.#atReset);
    image.regs = this.#resetRegisters();
    // Time goes on, and the partition's registers are its own affair.
    image.msrs = image.msrs.filter(([index]) =>
      index !== MSR_TSC && index !== MSR_TSC_ADJUST && !isSynthetic(index)
    );
    this.#restoreImage(image);
    this.#halted = false;
    this.#shutdown = false;
  }

  /** General registers after RESET and INIT: EDX is the processor's signature. */
  #resetRegisters(): Uint8Array<ArrayBuffer> {
    const regs = new Uint8Array(this.#atReset.regs);
    const signature = this.#cpuid.find(({ leaf }) => leaf === 1)?.eax;
    if (signature !== undefined) {
      encodeRegisters(new DataView(regs.buffer), {
        rdx: BigInt(signature >>> 0),
      });
    }
    return regs;
  }

  #restoreImage(image: VcpuImage): void {
    writeImage(this.#file, image);
    const cr8 = decodeSystemRegisters(new DataView(image.sregs.buffer)).cr8;
    this.#changed(cr8);
  }

  /** The kernel's word on what it takes is out of date, and CR8 goes in at each entry. */
  #changed(cr8?: bigint): void {
    const { run8, view } = this.#file;
    run8[Run.readyForInterruptInjection] = 0;
    if (cr8 !== undefined) {
      view.setBigUint64(Run.cr8, cr8, true);
      this.#taskPriority = Number(cr8);
    }
  }

  init(): void {
    const image = copyImage(this.#atReset);
    const old = readImage(this.#file, this.#vm.facts.msrs);
    const before = decodeSystemRegisters(new DataView(old.sregs.buffer));
    const sregs = new DataView(image.sregs.buffer);
    const { cr0 } = decodeSystemRegisters(sregs);
    encodeSystemRegisters(sregs, {
      cr0: (cr0 & ~CR0_CACHE) | (before.cr0 & CR0_CACHE),
      apicBase: before.apicBase,
    });
    image.regs = this.#resetRegisters();
    // EFER goes with the system registers; the other MSRs stay, as does what XSAVE saves.
    this.#restoreImage({
      ...image,
      xcrs: old.xcrs,
      xsave: old.xsave,
      msrs: [],
    });
    this.#halted = false;
    this.#shutdown = false;
  }

  startup(vector: number): void {
    const { cs } = this.getSystemRegisters();
    const base = BigInt(vector & 255) << 12n;
    this.setSystemRegisters({
      cs: { ...cs, selector: (vector & 255) << 8, base },
    });
    this.setRegisters({ rip: 0n });
  }

  setCpuid(entries: readonly CpuidEntry[]): void {
    const { hypervCpuid } = this.#vm.facts;
    this.#cpuid = entries.map((entry) => ({ ...entry }));
    const merged = this.#vm.mode === "kernel"
      ? [
        ...entries.filter(({ leaf }) => !isHypervisorLeaf(leaf)),
        ...mergeHypervisorLeaves(
          entries.filter(({ leaf }) => isHypervisorLeaf(leaf)),
          hypervCpuid ?? [],
        ),
      ]
      : entries;
    const bytes = encodeCpuid(merged);
    const same = bytes.length === this.#cpuidBytes.length &&
      bytes.every((byte, n) => byte === this.#cpuidBytes[n]);
    this.#nextCpuid = same ? undefined : bytes;
    if (same) return;
    if (!this.#hasRun) {
      this.#file.pass("set CPUID", "SetCpuid2", bytes);
      this.#cpuidBytes = bytes;
      this.#nextCpuid = undefined;
    } else if (!this.#running) this.#replace();
    // Else the guest is in the middle of an instruction; the run goes on with the new leaves.
  }

  /**
   * Gives the guest another of the kernel's vCPUs with the same state, for the leaves of one that has run cannot change
   * (Linux arch/x86/kvm/cpuid.c, kvm_set_cpuid).
   */
  #replace(): void {
    const bytes = this.#nextCpuid!;
    this.#nextCpuid = undefined;
    if (this.#running) this.#complete();
    const old = this.#file;
    const image = readImage(old, this.#vm.facts.msrs);
    const file = this.#open();
    try {
      file.pass("set CPUID", "SetCpuid2", bytes);
      writeImage(file, image);
      file.pass("set guest debugging", "SetGuestDebug", this.#debug.bytes);
    } catch (error) {
      file.close();
      throw error;
    }
    file.run8[Run.immediateExit] = this.#stop ? 1 : 0;
    file.view.setBigUint64(Run.cr8, old.view.getBigUint64(Run.cr8, true), true);
    this.#file = file;
    this.#cpuidBytes = bytes;
    this.#hasRun = false;
    old.close();
    this.#look();
  }

  getRegisters(): Registers {
    this.#file.pass("read registers", "GetRegs", this.#regs.bytes);
    return decodeRegisters(this.#regs.view);
  }

  setRegisters(values: Partial<Registers>): void {
    this.#file.pass("read registers", "GetRegs", this.#regs.bytes);
    encodeRegisters(this.#regs.view, values);
    this.#file.pass("set registers", "SetRegs", this.#regs.bytes);
    this.#changed();
  }

  getSystemRegisters(): SystemRegisters {
    this.#file.pass("read system registers", "GetSregs", this.#sregs.bytes);
    return decodeSystemRegisters(this.#sregs.view);
  }

  setSystemRegisters(values: Partial<SystemRegisters>): void {
    this.#file.pass("read system registers", "GetSregs", this.#sregs.bytes);
    encodeSystemRegisters(this.#sregs.view, values);
    this.#file.pass("set system registers", "SetSregs", this.#sregs.bytes);
    this.#changed(values.cr8);
  }

  #readTsc(): bigint {
    return readMsrs(this.#file, [MSR_TSC])[0]?.[1] ?? 0n;
  }

  getMsr(index: number): bigint | undefined {
    if (index === MSR_TSC && this.#flying) {
      const { value, time } = this.#tsc;
      const passed = (performance.now() - time) / 1000;
      return value +
        BigInt(Math.round(passed * this.#vm.facts.tscFrequency));
    }
    return this.#isOwn(index)
      ? readMsrs(this.#file, [index])[0]?.[1]
      : undefined;
  }

  setMsr(index: number, value: bigint): boolean {
    return this.#isOwn(index) && writeMsrs(this.#file, [[index, value]]) === 1;
  }

  /** Without KVM's own Hyper-V the synthetic MSRs are the host's. */
  #isOwn(index: number): boolean {
    return this.#vm.mode === "kernel" || !isSynthetic(index);
  }

  setGuestDebug(debug: GuestDebug | undefined): void {
    const { bytes, view } = this.#debug;
    this.#blocksInterrupts = debug?.blockInterrupts ?? false;
    bytes.fill(0);
    if (debug !== undefined) {
      const { hardwareBreakpoints: hardware } = debug;
      view.setUint32(
        GuestDebugField.control,
        GuestDebugBit.Enable |
          (debug.singleStep ? GuestDebugBit.Singlestep : 0) |
          (debug.softwareBreakpoints ? GuestDebugBit.UseSwBp : 0) |
          (hardware !== undefined ? GuestDebugBit.UseHwBp : 0),
        true,
      );
      if (hardware !== undefined) {
        const at = GuestDebugField["arch.debugreg"];
        hardware.addresses.forEach((address, n) =>
          view.setBigUint64(at + 8 * n, address, true)
        );
        view.setBigUint64(at + 8 * 7, hardware.dr7, true);
      }
    }
    this.#file.pass("set guest debugging", "SetGuestDebug", bytes);
  }

  passBreakpoint(): void {
    // The kernel queues the exception and knows the length of the instruction from the exit.
    const { bytes, view } = new Struct(Size.guestDebug);
    bytes.set(this.#debug.bytes);
    const at = GuestDebugField.control;
    view.setUint32(at, view.getUint32(at, true) | GuestDebugBit.InjectBp, true);
    this.#file.pass("pass breakpoint", "SetGuestDebug", bytes);
  }

  translate(linear: bigint): bigint | undefined {
    const { bytes, view } = this.#translation;
    view.setBigUint64(Translation.linearAddress, linear, true);
    this.#file.pass("translate", "Translate", bytes);
    return view.getUint8(Translation.valid) !== 0
      ? view.getBigUint64(Translation.physicalAddress, true)
      : undefined;
  }

  save(): VcpuState {
    return {
      format: FORMAT,
      data: {
        ...readImage(this.#file, this.#vm.facts.msrs),
        cpuid: this.#cpuid.map((entry) => ({ ...entry })),
        halted: this.#halted,
        shutdown: this.#shutdown,
      },
    };
  }

  restore(state: VcpuState): void {
    const { data } = state;
    const { cpuid, halted, shutdown } = data;
    if (
      state.format !== FORMAT || !isImage(data) || !Array.isArray(cpuid) ||
      typeof halted !== "boolean" || typeof shutdown !== "boolean"
    ) throw new TypeError(`Cannot restore vCPU: not of format ${FORMAT}`);
    this.setCpuid(cpuid as CpuidEntry[]);
    this.#restoreImage(data);
    this.#halted = halted;
    this.#shutdown = shutdown;
  }

  /** Frees the kernel's vCPU and the thread, once. */
  close(): void {
    this.#settle();
    this.#thread?.close();
    this.#thread = undefined;
    this.#file.close();
  }
}
