/**
 * Guests of the interpreter that use the platform: local APICs, IOAPIC, several vCPUs.
 */
import { assert, assertEquals } from "@std/assert";
import type { CpuidEntry } from "../../core/backend.ts";
import { GuestMemory } from "../../core/guest_memory.ts";
import { loadImage } from "../../core/loaders/load_image.ts";
import {
  Machine,
  type MachineOptions,
  type MachineOutcome,
} from "../../core/machine.ts";
import { interpreter } from "../../core/x86/backend.ts";

const CODE = 0x7c00;
/** Where an application processor starts: vector 0x9A. */
const AP_CODE = 0x9_a000;
/** A word that guests count in. */
const COUNT = 0x5000;
const IDT = 0x6000;
const HLT = 0xf4, STI = 0xfb, IRETD = 0xcf;
const APIC = 0xfee0_0000, IOAPIC = 0xfec0_0000;

function little(value: number): number[] {
  return [0, 8, 16, 24].map((shift) => (value >>> shift) & 255);
}

/** mov dword [address], value; 32- and 64-bit code */
function store(address: number, value: number, long = false): number[] {
  return long
    // mov edi, address; mov dword [rdi], value
    ? [0xbf, ...little(address), 0xc7, 0x07, ...little(value)]
    : [0xc7, 0x05, ...little(address), ...little(value)];
}

/** WRMSR in 16-bit code. */
function wrmsr(index: number, low: number, high = 0): number[] {
  return [
    ...[0x66, 0xb9, ...little(index)],
    ...[0x66, 0xb8, ...little(low)],
    ...[0x66, 0xba, ...little(high)],
    ...[0x0f, 0x30],
  ];
}

/** In 16-bit code: switches x2APIC mode on, and the APIC by software. */
function x2apic(id: number): number[] {
  return [
    ...wrmsr(0x1b, (APIC | 0xc00 | (id === 0 ? 0x100 : 0)) >>> 0),
    ...wrmsr(0x80f, 0x1ff),
  ];
}

/** mov word [at], value; 16-bit code */
function store16(at: number, value: number): number[] {
  return [0xc7, 0x06, at & 255, at >> 8, value & 255, value >> 8];
}

/** out 0xf4, code: the machine's exit code is 2 * code + 1 */
function exit(code: number): number[] {
  return [0xb0, code, 0xe6, 0xf4];
}

/** In 16-bit code: spins until the word at `at` is `value`. */
function wait(at: number, value: number): number[] {
  return [
    0x83,
    0x3e,
    at & 255,
    at >> 8,
    value,
    0x75,
    0xf9,
  ];
}

interface Guest {
  machine: Machine;
  memory: GuestMemory;
  word: (at: number) => number;
}

/** A machine with 16-bit code for the bootstrap processor and for the others. */
function real(
  code: readonly number[],
  other: readonly number[] = [HLT],
  options: Partial<MachineOptions> = {},
): Guest {
  const memory = new GuestMemory(0x20_0000);
  const machine = new Machine({
    backend: interpreter(),
    memory,
    cpus: 2,
    ...options,
  });
  loadImage(memory, machine.vcpus[0]!, new Uint8Array(code));
  memory.write(AP_CODE, new Uint8Array(other));
  return { machine, memory, word: (at) => memory.view.getUint16(at, true) };
}

/** A machine with flat code, and handlers for vectors. */
function flat(
  mode: "protected" | "long",
  code: readonly number[],
  handlers: Record<number, readonly number[]>,
): Guest {
  const memory = new GuestMemory(0x20_0000);
  const machine = new Machine({ backend: interpreter(), memory });
  const [vcpu] = machine.vcpus;
  loadImage(memory, vcpu!, new Uint8Array(code), { mode });
  Object.entries(handlers).forEach(([vector, handler], n) => {
    const at = 0x4000 + 0x100 * n;
    memory.write(at, new Uint8Array(handler));
    const size = mode === "long" ? 16 : 8;
    const gate = IDT + Number(vector) * size;
    memory.writeU32(gate, 0x8_0000 | at);
    memory.writeU32(gate + 4, 0x8e00);
  });
  vcpu!.setSystemRegisters({ idt: { base: BigInt(IDT), limit: 0xfff } });
  return { machine, memory, word: (at) => memory.view.getUint16(at, true) };
}

async function run({ machine }: Guest): Promise<MachineOutcome> {
  const outcome = await machine.run({ timeout: 10_000 });
  machine.close();
  return outcome;
}

/** inc dword [COUNT]; end of interrupt; iretd */
const COUNTING = [
  0xff,
  0x05,
  ...little(COUNT),
  ...store(APIC + 0xb0, 0),
  IRETD,
];

/** sti; again: hlt; cmp dword [COUNT], n; jb again; exit */
function haltUntil(n: number): number[] {
  return [
    ...[STI, HLT, 0x83, 0x3d, ...little(COUNT), n, 0x72, 0xf6],
    ...exit(0x10),
    HLT,
  ];
}

Deno.test("a guest's local APIC timer interrupts it in HLT, periodically", async () => {
  const guest = flat("protected", [
    ...store(APIC + 0xf0, 0x1ff),
    ...store(APIC + 0x3e0, 0b1011),
    ...store(APIC + 0x320, 0x2_0040),
    ...store(APIC + 0x380, 1_000_000),
    ...haltUntil(5),
  ], { 0x40: COUNTING });
  assertEquals(await run(guest), { kind: "exit", code: 0x21 });
});

Deno.test("a guest's TSC deadline interrupts it", async () => {
  const guest = flat("protected", [
    ...store(APIC + 0xf0, 0x1ff),
    ...store(APIC + 0x320, 0x4_0040),
    // rdtsc; add eax, 1000000; adc edx, 0; mov ecx, 0x6e0; wrmsr
    ...[0x0f, 0x31, 0x05, ...little(1_000_000), 0x83, 0xd2, 0],
    ...[0xb9, ...little(0x6e0), 0x0f, 0x30],
    ...haltUntil(1),
  ], { 0x40: COUNTING });
  assertEquals(await run(guest), { kind: "exit", code: 0x21 });
});

Deno.test("CR8 holds interrupts back, and is the local APIC's task priority", async () => {
  const guest = flat("long", [
    ...store(APIC + 0xf0, 0x1ff, true),
    // mov eax, 4; mov cr8, rax
    ...[0xb8, 4, 0, 0, 0, 0x44, 0x0f, 0x22, 0xc0],
    // mov eax, [APIC + 0x80]; mov [COUNT], eax
    ...[0xbf, ...little(APIC + 0x80), 0x8b, 0x07],
    ...[0xbe, ...little(COUNT), 0x89, 0x06],
    // A self IPI of 0x40 waits, one of 0x51 comes.
    STI,
    ...store(APIC + 0x300, 0x4_0040, true),
    ...store(APIC + 0x300, 0x4_0051, true),
    0x90,
    // mov eax, [COUNT + 4]; shl eax, 16; add [COUNT], eax
    ...[0x8b, 0x46, 4, 0xc1, 0xe0, 16, 0x01, 0x06],
    // TPR written: mov rax, cr8; mov [COUNT + 8], eax
    ...store(APIC + 0x80, 0x3f, true),
    ...[0x90, 0x44, 0x0f, 0x20, 0xc0, 0x89, 0x46, 8],
    ...exit(0x10),
    HLT,
  ], {
    // add dword [rsi + 4], n; end of interrupt; iretq
    0x40: [0x83, 0x46, 4, 16, ...store(APIC + 0xb0, 0, true), 0x48, IRETD],
    0x51: [0x83, 0x46, 4, 1, ...store(APIC + 0xb0, 0, true), 0x48, IRETD],
  });
  assertEquals(await run(guest), { kind: "exit", code: 0x21 });
  assertEquals(guest.memory.view.getUint32(COUNT, true), 0x1_0040);
  assertEquals(guest.word(COUNT + 4), 17);
  assertEquals(guest.word(COUNT + 8), 3);
});

Deno.test("a level on the IOAPIC comes again until the guest lowers it", async () => {
  const guest = flat("protected", [
    ...store(APIC + 0xf0, 0x1ff),
    ...store(IOAPIC, 0x10 + 2 * 17),
    ...store(IOAPIC + 0x10, 0x8040),
    ...haltUntil(3),
  ], {
    // The device is done at the third time: out 0x99, al before the end.
    0x40: [
      ...[0xff, 0x05, ...little(COUNT)],
      ...[0x83, 0x3d, ...little(COUNT), 3, 0x72, 2, 0xe6, 0x99],
      ...store(APIC + 0xb0, 0),
      IRETD,
    ],
  });
  const { machine } = guest;
  machine.ports.add(0x99, 1, {
    readPort: () => 0,
    writePort: () => machine.setLine(17, false),
  });
  machine.setLine(17, true);
  assertEquals(await run(guest), { kind: "exit", code: 0x21 });
  assertEquals(guest.word(COUNT), 3);
});

Deno.test("x2APIC: a guest interrupts itself through its MSR", async () => {
  const handler = CODE + 0x80;
  const main = [
    ...store16(0x40 * 4, handler),
    ...store16(0x40 * 4 + 2, 0),
    ...x2apic(0),
    STI,
    ...wrmsr(0x83f, 0x40),
    0x90,
    HLT,
  ];
  assert(main.length <= 0x80);
  const code = [...main, ...new Array(0x80 - main.length).fill(0x90)];
  code.push(...wrmsr(0x80b, 0), ...exit(0x10));
  assertEquals(await run(real(code)), { kind: "exit", code: 0x21 });
});

Deno.test("x2APIC registers and IA32_APIC_BASE raise #GP where they must", async () => {
  for (
    const bad of [
      wrmsr(0x808, 0),
      wrmsr(0x1b, (APIC | 0x400) >>> 0),
      [...x2apic(0), ...wrmsr(0x1b, (APIC | 0x800) >>> 0)],
      [...x2apic(0), ...wrmsr(0x80b, 1)],
      [...x2apic(0), ...wrmsr(0x840, 0)],
    ]
  ) {
    const guest = real([
      ...store16(13 * 4, CODE + 0x80),
      ...store16(13 * 4 + 2, 0),
      ...bad,
      ...exit(1),
    ]);
    guest.memory.write(CODE + 0x80, new Uint8Array(exit(0x10)));
    assertEquals(await run(guest), { kind: "exit", code: 0x21 });
  }
});

/** Sends INIT and startup to vCPU 1, in 16-bit code with x2APIC. */
const START_OTHER = [
  ...wrmsr(0x830, 0x4500, 1),
  ...wrmsr(0x830, 0x469a, 1),
];

Deno.test("INIT and startup IPI start a second vCPU where they say", async () => {
  const guest = real([
    ...x2apic(0),
    ...START_OTHER,
    ...wait(COUNT, 7),
    ...exit(0x10),
  ], [
    // mov [COUNT + 2], cs; mov word [COUNT], 7; hlt
    ...[0x8c, 0x0e, (COUNT + 2) & 255, (COUNT + 2) >> 8],
    ...store16(COUNT, 7),
    HLT,
  ]);
  assertEquals(await run(guest), { kind: "exit", code: 0x21 });
  assertEquals(guest.word(COUNT + 2), 0x9a00);
});

Deno.test("a vCPU that was never started does not run, nor does a second startup IPI matter", async () => {
  const guest = real(
    [
      ...x2apic(0),
      ...START_OTHER,
      ...wrmsr(0x830, 0x4608, 1),
      ...wait(COUNT, 7),
      ...exit(0x10),
    ],
    [...store16(COUNT, 7), HLT],
    { cpus: 3 },
  );
  assertEquals(await run(guest), { kind: "exit", code: 0x21 });
  assertEquals(
    guest.machine.vcpus[2]!.getRegisters().rip,
    0xfff0n,
  );
});

/** Two vCPUs that send each other an IPI a hundred times, both halting in between. */
function pingPong(options: Partial<MachineOptions> = {}): Guest {
  const side = (id: number): number[] => [
    // inc word [COUNT + 2 * id]; cmp word [COUNT + 2 * id], 100; ja done
    ...[0xff, 0x06, (COUNT + 2 * id) & 255, COUNT >> 8],
    ...[0x83, 0x3e, (COUNT + 2 * id) & 255, COUNT >> 8, 100, 0x77, 20],
    // vCPU 1 takes 0x40, vCPU 0 takes 0x41.
    ...wrmsr(0x830, 0x40 + id, 1 - id),
    // done: end of interrupt; iret
    ...wrmsr(0x80b, 0),
    IRETD,
  ];
  // sti; again: hlt; cmp word [COUNT], 100; jb again
  const loop = [STI, HLT, 0x83, 0x3e, COUNT & 255, COUNT >> 8, 100, 0x72, 0xf8];
  const guest = real([
    ...store16(0x40 * 4, 0x8000),
    ...store16(0x40 * 4 + 2, 0),
    ...store16(0x41 * 4, 0x8100),
    ...store16(0x41 * 4 + 2, 0),
    ...x2apic(0),
    ...START_OTHER,
    ...wait(COUNT + 4, 1),
    ...wrmsr(0x830, 0x40, 1),
    ...loop,
    ...exit(0x10),
  ], [
    // xor ax, ax; mov ds, ax; mov ss, ax; mov sp, 0x6000
    ...[0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0, 0xbc, 0x00, 0x60],
    ...x2apic(1),
    ...store16(COUNT + 4, 1),
    // sti; again: hlt; jmp again
    ...[STI, HLT, 0xeb, 0xfd],
  ], options);
  guest.memory.write(0x8000, new Uint8Array(side(1)));
  guest.memory.write(0x8100, new Uint8Array(side(0)));
  return guest;
}

Deno.test("two vCPUs interrupt and wake each other", async () => {
  const guest = pingPong();
  assertEquals(await run(guest), { kind: "exit", code: 0x21 });
  assertEquals(guest.word(COUNT), 100);
  // The last one may not have been taken yet.
  assert(guest.word(COUNT + 2) >= 100);
});

Deno.test("two vCPUs that share memory lose no locked increment", async () => {
  // mov cx, n; again: lock inc word [COUNT]; loop again; lock inc word [COUNT + 2]
  const count = [
    ...[0xb9, 0x50, 0xc3],
    ...[0xf0, 0xff, 0x06, COUNT & 255, COUNT >> 8, 0xe2, 0xf9],
    ...[0xf0, 0xff, 0x06, (COUNT + 2) & 255, COUNT >> 8],
  ];
  const guest = real([
    ...x2apic(0),
    ...START_OTHER,
    ...count,
    ...wait(COUNT + 2, 2),
    ...exit(0x10),
  ], [...count, HLT]);
  assertEquals(await run(guest), { kind: "exit", code: 0x21 });
  assertEquals(guest.word(COUNT), 100_000 & 0xffff);
});

Deno.test("vCPUs of the interpreter take the same turns every time", async () => {
  // Each notes how far the other is, as long as there is room.
  const note = (id: number): number[] => [
    // mov di, list; again: inc word [COUNT + 2 * id]; mov ax, [COUNT + 2 - 2 * id]
    ...[0xbf, 0x00, id === 0 ? 0x90 : 0x98],
    ...[0xff, 0x06, (COUNT + 2 * id) & 255, COUNT >> 8],
    ...[0xa1, (COUNT + 2 - 2 * id) & 255, COUNT >> 8],
    // cmp ax, [di - 2]; je again; mov [di], ax; inc di; inc di; cmp di, end; jb again
    ...[0x3b, 0x45, 0xfe, 0x74, 0xf4, 0x89, 0x05, 0x47, 0x47],
    ...[0x81, 0xff, 0x40, id === 0 ? 0x90 : 0x98, 0x72, 0xea],
  ];
  const lists: string[] = [];
  for (let n = 0; n < 2; n++) {
    let time = 0;
    const guest = real(
      [
        ...x2apic(0),
        ...START_OTHER,
        ...note(0),
        ...exit(0x10),
      ],
      [...note(1), 0xeb, 0xfe],
      {
        backend: interpreter(() => time += 1000),
        now: () => time += 1000,
      },
    );
    assertEquals(await run(guest), { kind: "exit", code: 0x21 });
    lists.push(guest.memory.read(0x9000, 0x40).join());
  }
  assert(new Set(lists[0]!.split(",")).size > 8, lists[0]);
  assertEquals(lists[0], lists[1]);
});

Deno.test("a machine has halted when no vCPU can wake up", async () => {
  const guest = real([...x2apic(0), ...START_OTHER, HLT], [HLT]);
  assertEquals(await run(guest), { kind: "halted" });
});

Deno.test("a triple fault of any vCPU ends the run", async () => {
  // lidt of a table with limit 0, int3
  const guest = real(
    [...x2apic(0), ...START_OTHER, 0xeb, 0xfe],
    [0x0f, 0x01, 0x1e, 0x06, 0x70, 0xcc],
  );
  assertEquals(await run(guest), { kind: "shutdown" });
});

Deno.test("power-off and reset registers end the run", async () => {
  // mov dx, 0x604; mov ax, 5 << 10 | 1 << 13; out dx, ax
  const off = real([0xba, 0x04, 0x06, 0xb8, 0x00, 0x34, 0xef, HLT]);
  assertEquals(await run(off), { kind: "poweroff" });
  // mov dx, 0xcf9; mov al, 6; out dx, al
  const reset = real([0xba, 0xf9, 0x0c, 0xb0, 6, 0xee, HLT]);
  assertEquals(await run(reset), { kind: "reset" });
});

Deno.test("CPUID of each vCPU tells its APIC ID and how many there are", () => {
  const shown: CpuidEntry[][] = [];
  const backend = interpreter();
  const machine = new Machine({
    backend: {
      ...backend,
      createVm: (memory, host) => {
        const vm = backend.createVm(memory, host);
        const create = vm.createVcpu.bind(vm);
        vm.createVcpu = () => {
          const vcpu = create();
          const set = vcpu.setCpuid.bind(vcpu);
          vcpu.setCpuid = (entries) => {
            shown[vcpu.id] = [...entries];
            set(entries);
          };
          return vcpu;
        };
        return vm;
      },
    },
    memory: new GuestMemory(0x10_0000),
    cpus: 3,
  });
  for (const id of [0, 1, 2]) {
    const find = (leaf: number, subleaf = 0): CpuidEntry =>
      shown[id]!.find((entry) =>
        entry.leaf === leaf && (entry.subleaf ?? subleaf) === subleaf
      )!;
    const { ebx, ecx, edx } = find(1);
    assertEquals([ebx >>> 24, (ebx >> 16) & 255], [id, 4]);
    assertEquals([ecx >>> 21 & 1, ecx >>> 24 & 1], [1, 1]);
    assertEquals([edx >>> 9 & 1, edx >>> 28 & 1], [1, 1]);
    assertEquals(find(0xb, 0), {
      leaf: 0xb,
      subleaf: 0,
      eax: 0,
      ebx: 1,
      ecx: 0x100,
      edx: id,
    });
    assertEquals(find(0xb, 1), {
      leaf: 0xb,
      subleaf: 1,
      eax: 2,
      ebx: 3,
      ecx: 0x201,
      edx: id,
    });
    assertEquals(find(0x8000_0008).ecx, 0x2002);
  }
  machine.close();
});

Deno.test("CPUID hides a local APIC that is switched off", async () => {
  const guest = real([
    ...wrmsr(0x1b, APIC),
    // mov eax, 1; cpuid; mov [COUNT], dx
    ...[0x66, 0xb8, 1, 0, 0, 0, 0x0f, 0xa2],
    ...[0x89, 0x16, COUNT & 255, COUNT >> 8],
    ...exit(0x10),
  ]);
  assertEquals(await run(guest), { kind: "exit", code: 0x21 });
  assertEquals(guest.word(COUNT) & 0x200, 0);
});

Deno.test("Machine refuses a number of vCPUs that it cannot have", () => {
  for (const cpus of [0, 256, 1.5, NaN]) {
    let message = "";
    try {
      new Machine({
        backend: interpreter(),
        memory: new GuestMemory(0x10_0000),
        cpus,
      });
    } catch (error) {
      message = (error as Error).message;
    }
    assertEquals(
      message,
      `Cannot create machine: vCPUs must be 1 to 255: ${cpus}`,
    );
  }
});

Deno.test("Machine gives interrupts and NMIs to a vCPU, and hands out its local APIC", async () => {
  const ended: string[] = [];
  const guest = real(
    [
      ...store16(2 * 4, CODE + 0x80),
      ...store16(2 * 4 + 2, 0),
      ...store16(0x40 * 4, CODE + 0x90),
      ...store16(0x40 * 4 + 2, 0),
      ...[STI, HLT, 0xeb, 0xfd],
    ],
    [],
    {
      guestInterface: {
        readMsr: () => 1,
        // End of interrupt by a synthetic MSR.
        writeMsr: (vcpu, index) => {
          if (index !== 0x4000_0070) return 1;
          guest.machine.apic(vcpu).endOfInterrupt();
          return 0;
        },
        hypercall: () => 1,
        endOfInterrupt: (vcpu, vector) => ended.push(`${vcpu} ${vector}`),
      },
    },
  );
  // NMI: inc word [COUNT]; iret. 0x40: WRMSR; exit
  guest.memory.write(
    CODE + 0x80,
    new Uint8Array([0xff, 0x06, COUNT & 255, COUNT >> 8, IRETD]),
  );
  guest.memory.write(
    CODE + 0x90,
    new Uint8Array([...wrmsr(0x4000_0070, 0), ...exit(0x10)]),
  );
  const { machine } = guest;
  const timer = setTimeout(() => {
    machine.nmi(0);
    machine.interrupt(0, 0x40);
  }, 20);
  assertEquals(machine.apic(0).readRegister(0xf0), 0x1ff);
  assertEquals(await run(guest), { kind: "exit", code: 0x21 });
  clearTimeout(timer);
  assertEquals(guest.word(COUNT), 1);
  assertEquals(ended, ["0 64"]);
});

Deno.test("Machine does what becomes due for its guest interface, and waits no longer", async () => {
  let due = Infinity;
  let updates = 0;
  const guest = real([...store16(0x40 * 4, CODE + 0x80), STI, HLT], [], {
    guestInterface: {
      readMsr: () => 1,
      writeMsr: () => 1,
      hypercall: () => 1,
      update: () => {
        if (updates++ === 0) due = performance.now() + 3;
        if (performance.now() < due) return;
        due = Infinity;
        guest.machine.interrupt(0, 0x40, true);
      },
      untilNext: () => Math.max(0, due - performance.now()) * 1e6,
    },
  });
  guest.memory.write(CODE + 0x80, new Uint8Array(exit(0x10)));
  assertEquals(await run(guest), { kind: "exit", code: 0x21 });
});

Deno.test("INIT sent to the bootstrap processor by itself resets it at once", async () => {
  const guest = real([
    ...x2apic(0),
    ...wrmsr(0x830, 0x4500, 0),
    ...[0xeb, 0xfe],
  ]);
  // At the reset vector are all ones, which are #UD.
  guest.memory.writeU32(6 * 4, 0x8000);
  guest.memory.write(0x8000, new Uint8Array(exit(0x10)));
  assertEquals(await run(guest), { kind: "exit", code: 0x21 });
});
