import { assert, assertEquals, assertThrows } from "@std/assert";
import { GuestMemory } from "../../../core/guest_memory.ts";
import {
  type LinuxOptions,
  type LoadedLinux,
  loadLinux,
} from "../../../core/loaders/linux.ts";
import { Machine, type MachineOutcome } from "../../../core/machine.ts";
import { interpreter } from "../../../core/x86/backend.ts";
import { type FakeVcpu, loneVcpu } from "../_fake_backend.ts";
import { bzImage, elf, note, type Part } from "./_images.ts";

const RAM = 0x80_0000;
const PREFERRED = 0x20_0000;

function load(
  image: Uint8Array,
  options: LinuxOptions = {},
): { memory: GuestMemory; vcpu: FakeVcpu; loaded: LoadedLinux } {
  const memory = new GuestMemory(RAM, 0);
  memory.fill(0, memory.size, 0xcc);
  const vcpu = loneVcpu();
  return { memory, vcpu, loaded: loadLinux(memory, vcpu, image, options) };
}

/** The image is refused, and neither memory nor vCPU were touched. */
function refused(
  image: Uint8Array,
  options: LinuxOptions,
  type: typeof RangeError | typeof SyntaxError,
  message: string,
): void {
  const memory = new GuestMemory(RAM, 0);
  memory.fill(0, memory.size, 0xcc);
  const vcpu = loneVcpu();
  assertThrows(
    () => loadLinux(memory, vcpu, image, options),
    type,
    message,
  );
  assert(memory.bytes.every((byte) => byte === 0xcc), "memory was written");
  assertEquals(vcpu.resets, 0);
}

function text(memory: GuestMemory, gpa: number): string {
  const end = memory.bytes.indexOf(0, gpa);
  return new TextDecoder().decode(memory.read(gpa, end - gpa));
}

const REGIONS = [
  [0, 0xa_0000, 1],
  [0xa_0000, 0x6_0000, 2],
  [0x10_0000, RAM - 0x10_0000, 1],
];

function regions(
  { view }: GuestMemory,
  at: number,
  size: number,
  count: number,
): number[][] {
  return Array.from({ length: count }, (_, n) => [
    Number(view.getBigUint64(at + n * size, true)),
    Number(view.getBigUint64(at + n * size + 8, true)),
    view.getUint32(at + n * size + 16, true),
  ]);
}

Deno.test("loadLinux enters a bzImage in long mode with its zero page", () => {
  const { memory, vcpu, loaded } = load(bzImage({ code: [1, 2, 3] }), {
    commandLine: "console=ttyS0",
    initrd: new Uint8Array([7, 8, 9]),
  });
  assertEquals(loaded, { protocol: "64-bit", entry: PREFERRED + 0x200 });
  assertEquals([...memory.read(PREFERRED + 0x200, 3)], [1, 2, 3]);
  const { cs, ds, es, ss, cr0, efer } = vcpu.system;
  assertEquals([cs.selector, ds.selector, es.selector, ss.selector], [
    ...[0x10, 0x18, 0x18, 0x18],
  ]);
  assertEquals([cs.l, cr0, efer], [true, 0x8000_0011n, 0x500n]);
  assertEquals(vcpu.registers.rflags, 2n);
  const { view, bytes } = memory;
  const page = Number(vcpu.registers.rsi);
  assertEquals(view.getUint32(page + 0x202, true), 0x5372_6448);
  assertEquals(bytes[page + 0x210], 0xff);
  assertEquals(view.getUint32(page + 0x214, true), PREFERRED);
  const initrd = view.getUint32(page + 0x218, true);
  assertEquals([initrd, view.getUint32(page + 0x21c, true)], [RAM - 4096, 3]);
  assertEquals([...memory.read(initrd, 3)], [7, 8, 9]);
  assertEquals(
    text(memory, view.getUint32(page + 0x228, true)),
    "console=ttyS0",
  );
  assertEquals(bytes[page + 0x1e8], 3);
  assertEquals(regions(memory, page + 0x2d0, 20, 3), REGIONS);
  // What is neither header nor the loader's is 0.
  assertEquals([bytes[page], bytes[page + 0xfff]], [0, 0]);
});

Deno.test("loadLinux enters a bzImage in protected mode if told to, or if it has no 64-bit entry", () => {
  for (
    const [image, options] of [
      [bzImage(), { protocol: "32-bit" }],
      [bzImage({ can64: false }), {}],
      [bzImage({ version: 0x20b }), {}],
    ] as const
  ) {
    const { vcpu, loaded } = load(image, options);
    assertEquals(loaded, { protocol: "32-bit", entry: PREFERRED });
    const { cs, ds, cr0, efer } = vcpu.system;
    assertEquals([cs.selector, cs.db, ds.selector], [0x10, true, 0x18]);
    assertEquals([cr0, efer], [0x11n, 0n]);
    const { rsi, rbp, rdi, rbx } = vcpu.registers;
    assertEquals([rsi, rbp, rdi, rbx], [0x1000n, 0n, 0n, 0n]);
  }
});

Deno.test("loadLinux puts a bzImage that cannot be moved at 1 MiB", () => {
  for (const how of [{ relocatable: false }, { version: 0x209 }]) {
    assertEquals(load(bzImage(how)).loaded.entry & ~0x200, 0x10_0000);
  }
});

Deno.test("loadLinux keeps the RAM disk below the kernel's limit", () => {
  const { memory } = load(bzImage({ initrdMax: 0x4f_ffff }), {
    initrd: new Uint8Array(4097),
  });
  assertEquals(memory.view.getUint32(0x1218, true), 0x50_0000 - 8192);
});

Deno.test("loadLinux refuses damaged bzImages", () => {
  for (
    const [image, message] of [
      [new Uint8Array(600), "cut off: 600 bytes"],
      [new Uint8Array(5000), "neither a bzImage nor an ELF file"],
      [bzImage({ version: 0x202 }), "boot protocol is too old: 0x202"],
      [bzImage({ high: false }), "a zImage, which loads low"],
      [bzImage({ headerLength: 0x8f }), "header is too long: 0x291"],
      [bzImage().subarray(0, 0x600), "no code after the setup sectors"],
      [bzImage({ preferred: 0xf_ffffn }), "preferred address is out of range"],
      [bzImage({ preferred: 1n << 63n }), "preferred address is out of range"],
    ] as const
  ) {
    refused(image, {}, SyntaxError, `Cannot load Linux image: ${message}`);
  }
  refused(
    bzImage({ can64: false }),
    { protocol: "64-bit" },
    SyntaxError,
    "Cannot load Linux image: no 64-bit entry point",
  );
});

Deno.test("loadLinux refuses what does not fit", () => {
  for (
    const [image, options, message] of [
      [bzImage({ initSize: RAM }), {}, "guest memory is too small"],
      [bzImage({ preferred: 0xffff_f000n }), {}, "are outside guest memory"],
      [bzImage(), { initrd: new Uint8Array(RAM) }, "RAM disk does not fit"],
      [
        bzImage({ initrdMax: 0xffff }),
        { initrd: new Uint8Array(1) },
        "RAM disk does not fit",
      ],
      [
        bzImage({ commandLineSize: 3 }),
        { commandLine: "four" },
        "command line is too long: 4 bytes",
      ],
      [bzImage(), { commandLine: "x".repeat(0x3000) }, "too long: 12288 bytes"],
    ] as const
  ) refused(image, options, RangeError, message);
  assertThrows(
    () => loadLinux(new GuestMemory(0x10_0000, 0), loneVcpu(), bzImage()),
    RangeError,
    "Cannot load image: guest memory is below 2 MiB",
  );
});

const CODE: Part = { address: PREFERRED, data: new Uint8Array([1, 2, 3]) };

function notes(...bytes: readonly Uint8Array[]): Part {
  const data = new Uint8Array(bytes.flatMap((part) => [...part]));
  return { address: 0, data, size: 0, type: 4 };
}

Deno.test("loadLinux enters an ELF file by its PVH note", () => {
  const image = elf(64, 0xffff_ffff_8100_0000n, [
    CODE,
    notes(note("GNU\0", 1, [1, 2, 3, 4]), note("Xen\0", 18, [2, 0, 0x20, 0])),
  ]);
  const { memory, vcpu, loaded } = load(image, {
    commandLine: "quiet",
    initrd: new Uint8Array([5]),
  });
  assertEquals(loaded, { protocol: "pvh", entry: PREFERRED + 2 });
  assertEquals([vcpu.system.cr0, vcpu.system.efer], [0x11n, 0n]);
  const { view } = memory;
  const info = Number(vcpu.registers.rbx);
  assertEquals(view.getUint32(info, true), 0x336e_c578);
  assertEquals(view.getUint32(info + 12, true), 1);
  const modules = Number(view.getBigUint64(info + 16, true));
  assertEquals(view.getBigUint64(modules, true), BigInt(RAM - 4096));
  assertEquals(view.getBigUint64(modules + 8, true), 1n);
  assertEquals(
    text(memory, Number(view.getBigUint64(info + 24, true))),
    "quiet",
  );
  const map = Number(view.getBigUint64(info + 40, true));
  assertEquals(view.getUint32(info + 48, true), 3);
  assertEquals(regions(memory, map, 24, 3), REGIONS);
});

Deno.test("loadLinux refuses ELF files without a sound PVH note", () => {
  const none = "Cannot load PVH image: no PVH entry point";
  for (
    const [part, message] of [
      [CODE, none],
      [notes(note("Xen\0", 17, [0, 0, 0, 0])), none],
      [notes(note("Nex\0", 18, [0, 0, 0, 0])), none],
      [notes(note("Xen\0", 18, [1, 2, 3, 4], 3)), "size of the entry note: 3"],
      [notes(note("Xen\0", 18, [], 0xffff_ffff)), "a note is cut off"],
    ] as const
  ) refused(elf(64, 0, [CODE, part]), {}, SyntaxError, message);
  refused(
    elf(64, 0, [CODE, notes(note("Xen\0", 18, [0, 0, 0, 0xf0]))]),
    {},
    RangeError,
    "entry point 0xf0000000 is outside guest memory",
  );
});

Deno.test("loadLinux takes 20,000 damaged images as loaded or refused, never more", () => {
  const pvh = elf(64, 0, [
    CODE,
    notes(note("Xen\0", 18, [0, 0, 0x20, 0])),
  ]);
  const memory = new GuestMemory(RAM, 0);
  let seed = 1;
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return Math.floor(seed / 2 ** 32 * below);
  };
  for (let n = 0; n < 20_000; n++) {
    const image = (n % 2 === 0 ? bzImage() : pvh).slice();
    const span = n % 2 === 0 ? 0x290 : image.length;
    for (let k = random(4); k >= 0; k--) image[random(span)] = random(256);
    try {
      loadLinux(memory, loneVcpu(), image.subarray(0, span + random(4096)), {
        initrd: new Uint8Array(random(64)),
      });
    } catch (error) {
      assert(
        error instanceof SyntaxError || error instanceof RangeError,
        String(error),
      );
    }
  }
});

async function run(
  image: Uint8Array,
  options: LinuxOptions,
): Promise<MachineOutcome> {
  const memory = new GuestMemory(RAM);
  const machine = new Machine({ backend: interpreter(), memory });
  loadLinux(memory, machine.vcpus[0]!, image, options);
  const outcome = await machine.run({ timeout: 5000 });
  machine.close();
  return outcome;
}

Deno.test("A kernel finds its zero page and its segments in both modes", async () => {
  const code = [
    // mov ax, 0x18; mov ds, ax; mov ss, ax
    ...[0x66, 0xb8, 0x18, 0, 0x8e, 0xd8, 0x8e, 0xd0],
    // mov eax, [rsi + 0x228]; mov al, [rax]; out 0xf4, al; jmp $
    ...[0x8b, 0x86, 0x28, 2, 0, 0, 0x8a, 0, 0xe6, 0xf4, 0xeb, 0xfe],
  ];
  for (const protocol of ["64-bit", "32-bit"] as const) {
    const image = bzImage({ code, at: protocol === "64-bit" ? 0x200 : 0 });
    assertEquals(
      await run(image, { protocol, commandLine: "\x21" }),
      { kind: "exit", code: 0x43 },
    );
  }
});
