/**
 * What an exit of KVM costs through `Vcpu.run`, beside a loop in C (`kvm_exits.c`) with the same guest. Both take turns in one run, and the
 * ratio of their best rounds is what counts.
 *
 * @module
 */
import {
  HypercallResult,
  MsrResult,
  type Vcpu,
  type VmHost,
} from "../core/backend.ts";
import { GuestMemory } from "../core/guest_memory.ts";
import { enter } from "../core/loaders/entry_state.ts";
import { type KvmVm, openKvm, probeKvm } from "../ffi/kvm_backend_unsafe.ts";

const MEMORY = 0x7_0000;
const CODE = 0x7c00;
const MSR = 0x4000_00f1n;
const EXITS = 50_000;
const ROUNDS = 7;
const KINDS = { port: [0xe6, 0x40], msr: [0x0f, 0x30] } as const;
type Kind = keyof typeof KINDS;

/** Counts exits and ends the run at the last one. */
class CountingHost implements VmHost {
  left = 0;
  sum = 0;
  vcpu: Vcpu | undefined;

  #count(value: number): void {
    this.sum = (this.sum + value) >>> 0;
    if (--this.left === 0) this.vcpu!.kick();
  }
  writePort(_vcpu: number, _port: number, _size: number, value: number): void {
    this.#count(value);
  }
  writeMsr(_vcpu: number, _index: number, low: number): MsrResult {
    this.#count(low);
    return MsrResult.Handled;
  }
  readMsr(): MsrResult {
    return MsrResult.Unknown;
  }
  readPort(): number {
    return 0xffff_ffff;
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

/** A guest that makes exits of one kind. */
class ExitGuest {
  readonly #host = new CountingHost();
  readonly #vm: KvmVm;
  readonly #vcpu: Vcpu;

  constructor(kind: Kind) {
    const memory = new GuestMemory(MEMORY, 0);
    this.#vm = openKvm({ hyperv: { mode: "user" } })
      .createVm(memory, this.#host);
    this.#vcpu = this.#vm.createVcpu();
    this.#host.vcpu = this.#vcpu;
    memory.write(CODE, new Uint8Array([...KINDS[kind], 0xeb, 0xfc]));
    enter(memory, this.#vcpu, CODE, "real", { rcx: MSR });
  }

  /** Runs for a number of exits. */
  run(count: number): void {
    const host = this.#host;
    host.left = count;
    while (host.left > 0) {
      const exit = this.#vcpu.run(10);
      if (exit.reason !== "interrupted") throw new Error(exit.reason);
    }
  }

  close(): void {
    this.#vm.close();
  }
}

/** Compiles the yardstick: its path. */
function compile(): string {
  const program = Deno.makeTempFileSync();
  const source = new URL("kvm_exits.c", import.meta.url).pathname;
  const { success, stderr } = new Deno.Command("gcc", {
    args: ["-O2", "-o", program, source],
  }).outputSync();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
  return program;
}

/** Nanoseconds of an exit in C. */
function inC(program: string, kind: Kind): number {
  const { success, stdout, stderr } = new Deno.Command(program, {
    args: [kind, `${EXITS}`],
  }).outputSync();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
  return Number(new TextDecoder().decode(stdout)) / EXITS;
}

function compare(): void {
  const program = compile();
  try {
    for (const kind of Object.keys(KINDS) as Kind[]) {
      const guest = new ExitGuest(kind);
      try {
        guest.run(EXITS);
        let ours = Infinity, c = Infinity;
        for (let round = 0; round < ROUNDS; round++) {
          const start = performance.now();
          guest.run(EXITS);
          ours = Math.min(ours, (performance.now() - start) * 1e6 / EXITS);
          c = Math.min(c, inC(program, kind));
        }
        console.log(
          `${kind} exits: ${Math.round(1e9 / ours)} a second (${
            Math.round(ours)
          } ns), in C ${Math.round(1e9 / c)} (${Math.round(c)} ns): ${
            (ours / c).toFixed(2)
          } times C`,
        );
      } finally {
        guest.close();
      }
    }
  } finally {
    Deno.removeSync(program);
  }
}

const { available, reason } = probeKvm();
if (!available) console.log(`Skipped: KVM exits: ${reason}`);
else {
  try {
    compare();
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    console.log("Skipped: KVM exits beside C: gcc is missing");
  }
}

for (const kind of Object.keys(KINDS) as Kind[]) {
  let guest: ExitGuest | undefined;
  Deno.bench({
    name: `KVM ${kind} exit, 1000 times`,
    ignore: !available,
    fn() {
      guest ??= new ExitGuest(kind);
      guest.run(1000);
    },
  });
}
