/**
 * The interpreter's speed: a loop in registers and one that copies words, in 32-bit code, and what a trap costs: INT
 * with its IRET, a page fault, an MSR access, a port write. Each line is a thousand, or a million instructions.
 */
import {
  HypercallResult,
  MsrResult,
  type Vcpu,
  type VmHost,
} from "../core/backend.ts";
import { GuestMemory } from "../core/guest_memory.ts";
import { enter } from "../core/loaders/entry_state.ts";
import { interpreter } from "../core/x86/backend.ts";

const CODE = 0x7c00;
const HANDLER = 0x9000;
const IDT = 0xa000;
const TABLES = 0x10_0000;
/** Linear addresses from here on are not mapped. */
const UNMAPPED = 0x80_0000;
const END_PORT = 0xf4;
const MSR = 0x4000_00f2;

const dword = (value: number): number[] =>
  [0, 8, 16, 24].map((shift) => (value >>> shift) & 255);

/** Ends a run at a port write. */
class Host implements VmHost {
  vcpu: Vcpu | undefined;
  writePort(_vcpu: number, port: number): void {
    if (port === END_PORT) this.vcpu!.kick();
  }
  readMsr(_vcpu: number, _index: number, value: Uint32Array): MsrResult {
    value[0] = value[1] = 0;
    return MsrResult.Handled;
  }
  writeMsr(): MsrResult {
    return MsrResult.Handled;
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

/** A guest that executes some code `count` times; `body` ends where the count is taken off ECX. */
class Loop {
  readonly #vcpu: Vcpu;

  constructor(count: number, setUp: number[], body: number[]) {
    const memory = new GuestMemory(0x100_0000);
    const host = new Host();
    this.#vcpu = interpreter().createVm(memory, host).createVcpu();
    host.vcpu = this.#vcpu;
    // The first 8 MiB are mapped, by pages of 4 MiB.
    memory.writeU32(TABLES, 0x83);
    memory.writeU32(TABLES + 4, 0x40_0083);
    for (const vector of [14, 0x40]) {
      memory.writeU32(IDT + 8 * vector, 0x8_0000 | HANDLER + 16 * (vector & 1));
      memory.writeU32(IDT + 8 * vector + 4, 0x8e00);
    }
    // #PF: drop the error code and skip the instruction's two bytes. INT: just back.
    memory.write(
      HANDLER,
      new Uint8Array([0x58, 0x83, 0x04, 0x24, 2, 0xcf]),
    );
    memory.writeU32(IDT + 8 * 0x40, 0x8_0000 | HANDLER + 16);
    memory.write(HANDLER + 16, new Uint8Array([0xcf]));
    const head = [0xb9, ...dword(count), ...setUp];
    const back = [0x49, 0x0f, 0x85, ...dword(-(body.length + 7))];
    memory.write(
      CODE,
      new Uint8Array([...head, ...body, ...back, 0xe6, END_PORT, 0xeb, 0xfe]),
    );
    enter(memory, this.#vcpu, CODE, "protected");
    this.#vcpu.setSystemRegisters({
      idt: { base: BigInt(IDT), limit: 0x3ff },
      cr3: BigInt(TABLES),
      cr4: 0x10n,
      cr0: 0x8000_0011n,
    });
  }

  run(): void {
    this.#vcpu.setRegisters({ rip: BigInt(CODE) });
    if (this.#vcpu.run(60_000).reason !== "interrupted") throw new Error("end");
  }
}

function bench(
  name: string,
  count: number,
  setUp: number[],
  body: number[],
): void {
  const loop = new Loop(count, setUp, body);
  Deno.bench(name, () => loop.run());
}

// add eax, ecx; xor eax, 0x5a; rol eax, 3: five instructions a turn with the loop's own.
bench("1,000,000 instructions in registers", 200_000, [], [
  ...[0x01, 0xc8, 0x83, 0xf0, 0x5a, 0xc1, 0xc0, 3],
]);
// mov eax, [esi]; mov [edi], eax; add esi, 4; and esi, mask; add edi, 4; and edi, mask
bench("1,000,000 instructions that copy words", 125_000, [
  ...[0xbe, ...dword(0x20_0000), 0xbf, ...dword(0x60_0000)],
], [
  ...[0x8b, 0x06, 0x89, 0x07],
  ...[0x83, 0xc6, 4, 0x81, 0xe6, ...dword(0x2f_ffff)],
  ...[0x83, 0xc7, 4, 0x81, 0xe7, ...dword(0x6f_ffff)],
]);
bench("INT and IRET, 1000 times", 1000, [], [0xcd, 0x40]);
bench("page fault and IRET, 1000 times", 1000, [
  ...[0xbb, ...dword(UNMAPPED)],
], [0x89, 0x03]);
bench("RDMSR, 1000 times", 1000, [], [
  ...[0x89, 0xcf, 0xb9, ...dword(MSR), 0x0f, 0x32, 0x89, 0xf9],
]);
bench("OUT, 1000 times", 1000, [], [0xe6, 0x80]);
